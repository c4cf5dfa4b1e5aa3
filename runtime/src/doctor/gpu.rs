//! The GPU, and what is needed to compile kernels for it.

use openclaw_kernels::{
    Cuda,
    cuda::{Nvrtc, Properties, cache_folder, libraries, libraries::Libraries, manifest},
};

use super::{Line, Mark, machine};
use crate::measures::size;

/// The architecture that kernels are compiled for where there is no GPU to ask.
const USUAL_ARCH: u32 = 90;

pub(super) fn lines() -> Vec<Line> {
    let (gpu, arch) = match Cuda::gpus() {
        Err(why) => (Line::ok("gpu", format!("none, the CPU computes: {why}")), None),
        Ok((0, _)) => (Line::ok("gpu", "none, the CPU computes: the driver shows no GPU"), None),
        Ok((count, cuda)) => {
            let driver = machine::nvidia_driver().unwrap_or_else(|| "of unknown version".into());
            let driver = format!("driver {driver} for CUDA {}.{}", cuda / 1000, cuda % 1000 / 10);
            match Cuda::new(0) {
                Ok(first) => {
                    (Line::ok("gpu", told(count, first.properties(), &driver)), Some(first.properties().arch))
                }
                Err(error) => {
                    let told = format!("{count} with {driver}, but the CPU computes: {error}");
                    (Line::new(Mark::Warn, "gpu", told), None)
                }
            }
        }
    };
    [Some(gpu), kernels(arch)].into_iter().flatten().collect()
}

fn told(count: u32, first: &Properties, driver: &str) -> String {
    let (memory, arch) = (size(first.memory_bytes), first.arch);
    let more = if count > 1 { format!("{count} GPUs, the first ") } else { String::new() };
    format!("{more}{} with {memory}, compute capability {}.{}, {driver}", first.name, arch / 10, arch % 10)
}

/// Whether kernels compile, where there is a compiler.
fn kernels(arch: Option<u32>) -> Option<Line> {
    let nvrtc = Nvrtc::find().ok()?;
    let found_at = |library: &Result<libraries::Found, String>| match library {
        Ok(found) => found.to_string(),
        Err(why) => why.clone(),
    };
    let Libraries { nvrtc: nvrtc_at, cublas_lt, .. } = Libraries::get();
    let cublas = libraries::cublas_version().unwrap_or_else(|| "not found".into());
    let libraries = format!(
        "NVRTC {}.{} ({}), cuBLAS {cublas} ({})",
        nvrtc.version.0,
        nvrtc.version.1,
        found_at(nvrtc_at),
        found_at(cublas_lt)
    );
    let arch = arch.unwrap_or(USUAL_ARCH);
    Some(match manifest::compile_all(nvrtc, arch) {
        Ok(count) => {
            let folder = cache_folder();
            Line::ok(
                "kernels",
                format!("{count} compile for sm_{arch}, kept in {}; {libraries}", folder.display()),
            )
        }
        Err(error) => Line::new(Mark::Warn, "kernels", format!("{error}; {libraries}")),
    })
}
