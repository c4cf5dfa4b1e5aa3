//! Compiles modules for GPUs, which need not be here.
#![allow(unsafe_code)]

use std::{ffi::CString, ptr, slice};

use cudarc::nvrtc::{result, sys};

use super::{
    libraries::Libraries,
    modules::{Cache, Module},
};
use crate::error::{KernelError, Result};

/// Sources decide where multiplications and additions are fused; see the prelude.
const OPTIONS: [&str; 2] = ["--std=c++17", "--fmad=false"];

/// NVIDIA's run-time compiler.
#[derive(Clone, Copy, Debug)]
pub struct Nvrtc {
    /// Its version.
    pub version: (i32, i32),
}

/// What the compiler made.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Machine code for one architecture.
    pub cubin: Vec<u8>,
    /// The assembly before the last step.
    pub ptx: String,
    /// Registers, shared memory and spills of every kernel, and warnings.
    pub log: String,
}

fn error(what: String) -> KernelError {
    KernelError::Device { device: "nvrtc".into(), what }
}

impl Nvrtc {
    /// Finds it.
    pub fn find() -> Result<Self> {
        if let Err(why) = &Libraries::get().nvrtc {
            return Err(error(why.clone()));
        }
        let (mut major, mut minor) = (0, 0);
        // SAFETY: the library is open; both are places for an integer.
        let told = unsafe { sys::nvrtcVersion(&mut major, &mut minor) };
        told.result().map_err(|status| error(format!("does not tell its version: {status}")))?;
        Ok(Self { version: (major, minor) })
    }

    /// What compiled code depends on beside the source.
    fn key(&self, arch: u32) -> String {
        format!("nvrtc {}.{} sm_{arch} {}", self.version.0, self.version.1, OPTIONS.join(" "))
    }

    /// Machine code, compiled or from the folder of what was.
    pub(super) fn cubin(&self, cache: &Cache, module: &Module, arch: u32) -> Result<Vec<u8>> {
        let compile = || Ok(self.compile(module, arch)?.cubin);
        Ok(cache.get(module, &self.key(arch), "cubin", compile)?.0)
    }

    /// Compiles for a compute capability (times ten).
    pub fn compile(&self, module: &Module, arch: u32) -> Result<Compiled> {
        let text = CString::new(module.text()).expect("sources have no zero bytes");
        let name = CString::new(module.source.file).expect("a file name has no zero bytes");
        let program = result::create_program(&text, Some(&name))
            .map_err(|status| error(format!("cannot begin {}: {status}", module.label())))?;
        let compiled = Self::build(program, module, arch);
        // SAFETY: made above, and not used later.
        let _ = unsafe { result::destroy_program(program) };
        compiled
    }

    fn build(program: sys::nvrtcProgram, module: &Module, arch: u32) -> Result<Compiled> {
        let mut options = vec![format!("--gpu-architecture=sm_{arch}"), "--ptxas-options=-v".into()];
        options.extend(OPTIONS.map(str::to_owned));
        options.extend(module.defines.iter().map(|define| format!("-D{define}")));
        // SAFETY: the program was made by the caller and is still there.
        let status = unsafe { result::compile_program(program, &options) };
        // SAFETY: as above.
        let log = unsafe { result::get_program_log(program) }.unwrap_or_default();
        // SAFETY: the log is an array of characters that lives as long as `log`.
        let log = unsafe { slice::from_raw_parts(log.as_ptr().cast::<u8>(), log.len()) };
        let log = String::from_utf8_lossy(log).trim_end_matches('\0').to_owned();
        if let Err(status) = status {
            let line = log.lines().find(|line| line.contains("error")).unwrap_or("it does not say why");
            let what = format!("{} does not compile for sm_{arch}: {line} ({status})", module.label());
            return Err(error(what));
        }
        // SAFETY: as above.
        let ptx =
            unsafe { result::get_ptx(program) }.map_err(|status| error(format!("has no PTX: {status}")))?;
        // SAFETY: an array of characters that lives as long as `ptx`.
        let ptx = unsafe { slice::from_raw_parts(ptx.as_ptr().cast::<u8>(), ptx.len()) };
        let ptx = String::from_utf8_lossy(ptx).trim_end_matches('\0').to_owned();
        Ok(Compiled { cubin: cubin(program)?, ptx, log })
    }
}

fn cubin(program: sys::nvrtcProgram) -> Result<Vec<u8>> {
    let failed = |status| error(format!("has no machine code: {status}"));
    let mut bytes = 0;
    // SAFETY: the caller's program was compiled; `bytes` is a place for a size.
    unsafe { sys::nvrtcGetCUBINSize(program, ptr::from_mut(&mut bytes)) }.result().map_err(failed)?;
    let mut cubin = vec![0; bytes];
    // SAFETY: as above, and the buffer has the size that was asked for.
    unsafe { sys::nvrtcGetCUBIN(program, cubin.as_mut_ptr().cast()) }.result().map_err(failed)?;
    Ok(cubin)
}
