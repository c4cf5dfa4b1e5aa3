//! The emulation: device memory is host memory, and a module is a shared object that the C++ compiler makes of
//! `emulation.h`, the prelude and the source.
#![allow(unsafe_code)]

use std::{
    alloc::{Layout, alloc, dealloc},
    collections::{BTreeMap, HashMap},
    env,
    ffi::{CStr, c_char, c_void},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    ptr, slice,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use libloading::os::unix::{Library, RTLD_NOW};

use super::{Address, Driver, Function, Mark, Properties};
use crate::cpu::matmul;
use crate::cuda::{
    gemm::{Dtype, Gemm},
    launch::{Arguments, Launch},
    libraries::open_file,
    modules::{Cache, Module},
};
use crate::error::{KernelError, Result};
use crate::ops::{Matmul, MatrixLayout};

const EMULATION: &str =
    concat!(include_str!("../../../cuda/emulation.h"), include_str!("../../../cuda/emulated_cuda.h"));
/// As `cudaMalloc` aligns.
const ALIGNMENT: usize = 256;
/// Bytes behind each allocation that nobody may write.
const GUARD: usize = 64;
/// What memory holds before it is written: NaN in every type.
const POISON: u8 = 0xff;

#[repr(C)]
struct CLaunch {
    grid: u32,
    block: u32,
    cluster: u32,
    shared_bytes: u32,
    seed: u64,
}

#[repr(C)]
struct CArgument {
    value: *const c_void,
    kind: u32,
    bytes: u32,
}

type Entry = unsafe extern "C" fn(*mut c_char, *const CLaunch, *const CArgument, usize);
/// Room for a message, as in the header.
const MESSAGE_BYTES: usize = 512;

struct Allocation {
    capacity: usize,
    /// Bytes of the buffer in it.
    claimed: usize,
}

/// What this process has loaded, by file. It stays loaded: a library keeps stacks for its next launch.
static LIBRARIES: Mutex<BTreeMap<PathBuf, &'static Library>> = Mutex::new(BTreeMap::new());

#[derive(Default)]
struct State {
    memory: BTreeMap<Address, Allocation>,
    modules: HashMap<String, &'static Library>,
    names: HashMap<usize, String>,
    lost: Option<String>,
}

/// An emulated device.
pub(crate) struct Emulated {
    properties: Properties,
    cache: Cache,
    compiler: String,
    seed: AtomicU64,
    state: Mutex<State>,
}

fn layout(capacity: usize) -> Layout {
    Layout::from_size_align(capacity + GUARD, ALIGNMENT)
        .expect("an allocation is smaller than the address space")
}

/// The C++ compiler's name.
pub(super) fn compiler() -> String {
    env::var("CXX").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "g++".into())
}

/// Whether there is a C++ compiler.
pub(in crate::cuda) fn can_compile() -> Result<()> {
    static FOUND: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let asked = Command::new(compiler()).arg("--version").output();
        asked.map(drop).map_err(|error| format!("the C++ compiler {} does not run: {error}", compiler()))
    });
    let error = |what| KernelError::Device { device: "emulated".into(), what };
    found.clone().map_err(error)
}

impl Emulated {
    /// A device with `memory_bytes` of memory that calls itself `arch`; every launch shuffles its threads by `seed`
    /// and its number.
    pub(crate) fn new(arch: u32, memory_bytes: u64, seed: u64, cache: Cache) -> Self {
        let properties = Properties {
            device: "emulated".into(),
            name: format!("emulation of sm_{arch}"),
            arch,
            multiprocessors: 4,
            memory_bytes,
            shared_bytes: if arch >= 90 { 227 << 10 } else { 163 << 10 },
        };
        Self { properties, cache, compiler: compiler(), seed: AtomicU64::new(seed), state: Mutex::default() }
    }

    fn state(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &state.lost {
            Some(what) => Err(KernelError::DeviceLost { device: "emulated".into(), what: what.clone() }),
            None => Ok(state),
        }
    }

    fn error(&self, what: String) -> KernelError {
        KernelError::Device { device: self.properties.device.clone(), what }
    }

    fn options(&self) -> Vec<String> {
        let mut options = vec![
            "-std=c++20",
            "-O2",
            "-ffp-contract=off",
            "-fPIC",
            "-shared",
            "-fvisibility=hidden",
            "-fno-gnu-unique",
            "-w",
            "-DOPENCLAW_EMULATED",
        ];
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("fma") && std::arch::is_x86_feature_detected!("avx2") {
            options.extend(["-mavx2", "-mfma"]);
        }
        let arch = format!("-D__CUDA_ARCH__={}", self.properties.arch * 10);
        options.into_iter().map(str::to_owned).chain([arch]).collect()
    }

    fn compile(&self, module: &Module) -> Result<Vec<u8>> {
        let object =
            env::temp_dir().join(format!("openclaw-emulated-{}-{:p}.so", std::process::id(), &module));
        let mut child = Command::new(&self.compiler)
            .args(self.options())
            .args(module.defines.iter().map(|define| format!("-D{define}")))
            .args(["-x", "c++", "-", "-o"])
            .arg(&object)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| self.error(format!("cannot run {}: {error}", self.compiler)))?;
        let text = format!("{EMULATION}\n{}", module.text());
        let mut input = child.stdin.take().expect("it was asked for");
        // A compiler that stops early says why on its standard error.
        let _ = input.write_all(text.as_bytes());
        drop(input);
        let output = child.wait_with_output().map_err(|error| self.error(error.to_string()))?;
        if !output.status.success() {
            let told = String::from_utf8_lossy(&output.stderr);
            let line = told.lines().find(|line| line.contains("error")).unwrap_or("it does not say why");
            return Err(self.error(format!("{} does not compile: {line}", module.label())));
        }
        let code = std::fs::read(&object).map_err(|error| self.error(error.to_string()));
        let _ = std::fs::remove_file(&object);
        code
    }

    fn load(&self, path: &Path) -> Result<&'static Library> {
        let mut libraries = LIBRARIES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = libraries.get(path) {
            return Ok(library);
        }
        let library = open_file(path, RTLD_NOW).map_err(|why| self.error(why))?;
        let library: &'static Library = Box::leak(Box::new(library));
        libraries.insert(path.to_owned(), library);
        Ok(library)
    }

    /// The allocation around an address.
    fn around(state: &State, address: Address) -> Option<(Address, &Allocation)> {
        let (start, allocation) = state.memory.range(..=address).next_back()?;
        (address < start + allocation.capacity as u64).then_some((*start, allocation))
    }

    /// What was written beside a buffer that a kernel could write.
    fn damage(state: &State, arguments: &Arguments) -> Option<String> {
        for (i, argument) in arguments.as_slice().iter().enumerate() {
            let Some((start, allocation)) = argument.address().and_then(|at| Self::around(state, at)) else {
                continue;
            };
            let spare = allocation.capacity + GUARD - allocation.claimed;
            // SAFETY: `allocate` made `capacity + GUARD` bytes at `start` and wrote them all.
            let spare = unsafe {
                slice::from_raw_parts(
                    ptr::with_exposed_provenance::<u8>(start as usize + allocation.claimed),
                    spare,
                )
            };
            if spare.iter().any(|byte| *byte != POISON) {
                return Some(format!("wrote beyond the {} bytes of argument {i}", allocation.claimed));
            }
        }
        None
    }
}

impl Driver for Emulated {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn allocate(&self, bytes: usize) -> Result<Option<Address>> {
        if self.free_bytes()? < bytes as u64 {
            return Ok(None);
        }
        let mut state = self.state()?;
        // SAFETY: the layout has a size, for the guard has.
        let memory = unsafe { alloc(layout(bytes)) };
        if memory.is_null() {
            return Ok(None);
        }
        // SAFETY: it was just allocated with this size.
        unsafe { ptr::write_bytes(memory, POISON, bytes + GUARD) };
        let address = memory.expose_provenance() as Address;
        state.memory.insert(address, Allocation { capacity: bytes, claimed: bytes });
        Ok(Some(address))
    }

    unsafe fn free(&self, address: Address) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Allocation { capacity, .. } = state.memory.remove(&address).expect("the caller allocated it");
        // SAFETY: `allocate` made it with this layout, and the map had it once.
        unsafe { dealloc(ptr::with_exposed_provenance_mut(address as usize), layout(capacity)) };
    }

    fn free_bytes(&self) -> Result<u64> {
        let used: usize = self.state()?.memory.values().map(|allocation| allocation.capacity).sum();
        Ok(self.properties.memory_bytes.saturating_sub(used as u64))
    }

    fn claim(&self, address: Address, bytes: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let allocation = state.memory.get_mut(&address).expect("the caller allocated it");
        allocation.claimed = bytes;
        // SAFETY: the allocation has that many bytes.
        unsafe {
            ptr::write_bytes(
                ptr::with_exposed_provenance_mut::<u8>(address as usize),
                POISON,
                allocation.capacity + GUARD,
            );
        }
    }

    unsafe fn upload(&self, target: Address, host: &[u8]) -> Result<()> {
        drop(self.state()?);
        // SAFETY: the caller's promise.
        unsafe {
            ptr::copy_nonoverlapping(
                host.as_ptr(),
                ptr::with_exposed_provenance_mut(target as usize),
                host.len(),
            );
        }
        Ok(())
    }

    unsafe fn download(&self, host: &mut [u8], source: Address) -> Result<()> {
        drop(self.state()?);
        // SAFETY: the caller's promise.
        unsafe {
            ptr::copy_nonoverlapping(
                ptr::with_exposed_provenance(source as usize),
                host.as_mut_ptr(),
                host.len(),
            );
        }
        Ok(())
    }

    unsafe fn copy(&self, target: Address, source: Address, bytes: usize) -> Result<()> {
        drop(self.state()?);
        // SAFETY: the caller's promise.
        unsafe {
            ptr::copy_nonoverlapping(
                ptr::with_exposed_provenance::<u8>(source as usize),
                ptr::with_exposed_provenance_mut(target as usize),
                bytes,
            );
        }
        Ok(())
    }

    unsafe fn fill(&self, target: Address, byte: u8, bytes: usize) -> Result<()> {
        drop(self.state()?);
        // SAFETY: the caller's promise.
        unsafe { ptr::write_bytes(ptr::with_exposed_provenance_mut::<u8>(target as usize), byte, bytes) };
        Ok(())
    }

    fn function(&self, module: &Module, name: &str) -> Result<Function> {
        let label = module.label();
        let mut state = self.state()?;
        if !state.modules.contains_key(&label) {
            drop(state);
            let compiler = format!("{} {}\n{EMULATION}", self.compiler, self.options().join(" "));
            let (_, path) = self.cache.get(module, &compiler, "so", || self.compile(module))?;
            let path = path.ok_or_else(|| self.cache.unwritable("emulated"))?;
            let library = self.load(&path)?;
            state = self.state()?;
            state.modules.insert(label.clone(), library);
        }
        let library = &state.modules[&label];
        // SAFETY: KERNEL in the prelude defines symbols of this name with this type.
        let entry = unsafe { library.get::<Entry>(format!("launch_{name}").as_bytes()) };
        let entry = entry.map_err(|_| self.error(format!("{label} has no kernel {name}")))?;
        let function = *entry as usize;
        state.names.insert(function, name.to_owned());
        Ok(Function(function))
    }

    unsafe fn launch(&self, function: Function, launch: Launch, arguments: &Arguments) -> Result<()> {
        drop(self.state()?);
        let Launch { grid, block, cluster, shared_bytes } = launch;
        let seed = self.seed.fetch_add(1, Ordering::Relaxed);
        let c_launch = CLaunch { grid, block, cluster, shared_bytes, seed };
        let c_arguments: Vec<CArgument> = arguments
            .as_slice()
            .iter()
            .map(|argument| CArgument {
                value: argument.value(),
                kind: argument.kind as u32,
                bytes: argument.bytes,
            })
            .collect();
        // SAFETY: `function` gave this address, of a symbol with this type in a library that stays loaded.
        let entry = unsafe { std::mem::transmute::<usize, Entry>(function.0) };
        let mut message = [0u8; MESSAGE_BYTES];
        // SAFETY: the arguments live until the return; what they point to is the caller's promise.
        unsafe { entry(message.as_mut_ptr().cast(), &c_launch, c_arguments.as_ptr(), c_arguments.len()) };
        let message = CStr::from_bytes_until_nul(&message).expect("the emulation ends its messages");
        let mut state = self.state()?;
        let what = match message.to_string_lossy() {
            told if told.is_empty() => Self::damage(&state, arguments),
            told => Some(told.into_owned()),
        };
        match what {
            None => Ok(()),
            Some(what) => {
                // As after an illegal access, nothing in memory can be relied on.
                let what = format!("kernel {}: {what}", state.names[&function.0]);
                state.lost = Some(what.clone());
                Err(KernelError::DeviceLost { device: "emulated".into(), what })
            }
        }
    }

    unsafe fn gemm(&self, gemm: &Gemm) -> Result<()> {
        drop(self.state()?);
        let Gemm { m, n, k, accumulate, .. } = *gemm;
        let (a, b) = (gemm.a.layout(), gemm.b.layout());
        let shape = Matmul { m, n, k, a, b, c_row: gemm.c_stride, accumulate };
        let reach = |rows: usize, cols: usize, l: MatrixLayout| match (rows, cols) {
            (0, _) | (_, 0) => 0,
            _ => (rows - 1) * l.row + (cols - 1) * l.col + 1,
        };
        // SAFETY: the caller promises the elements that the shape reaches.
        let (a, b, mut c) = unsafe {
            (
                load(gemm.a_address, reach(m, k, a), gemm.input),
                load(gemm.b_address, reach(k, n, b), gemm.input),
                load(gemm.c_address, reach(m, n, MatrixLayout::rows(gemm.c_stride)), gemm.output),
            )
        };
        matmul::matmul(shape, &a, &b, &mut c)?;
        // SAFETY: as above; `c` is exclusive.
        unsafe { save(gemm.c_address, &c, gemm.output) };
        Ok(())
    }

    fn mark(&self) -> Result<Mark> {
        Ok(Mark::Instant(Instant::now()))
    }

    fn millis_between(&self, start: Mark, end: Mark) -> Result<f32> {
        match (start, end) {
            (Mark::Instant(start), Mark::Instant(end)) => Ok((end - start).as_secs_f32() * 1e3),
            _ => Err(self.error("the marks are another device's".into())),
        }
    }

    fn wait_for(&self, _work: &str) -> Result<()> {
        // A launch that goes wrong says so itself.
        self.state().map(drop)
    }
}

impl Drop for Emulated {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (address, allocation) in std::mem::take(&mut state.memory) {
            // SAFETY: `allocate` made it with this layout; a buffer would keep this device alive.
            unsafe {
                dealloc(ptr::with_exposed_provenance_mut(address as usize), layout(allocation.capacity))
            };
        }
    }
}

/// # Safety
/// There are `len` elements at `from`.
unsafe fn load(from: Address, len: usize, dtype: Dtype) -> Vec<f32> {
    if len == 0 {
        return Vec::new();
    }
    // SAFETY: the caller's promise; device memory is aligned for its elements.
    unsafe {
        match dtype {
            Dtype::F32 => {
                slice::from_raw_parts(ptr::with_exposed_provenance::<f32>(from as usize), len).to_vec()
            }
            Dtype::Bf16 => {
                slice::from_raw_parts(ptr::with_exposed_provenance::<half::bf16>(from as usize), len)
                    .iter()
                    .map(|x| x.to_f32())
                    .collect()
            }
        }
    }
}

/// # Safety
/// There is room for `values` at `to`, and nobody else uses it.
unsafe fn save(to: Address, values: &[f32], dtype: Dtype) {
    if values.is_empty() {
        return;
    }
    // SAFETY: the caller's promise; device memory is aligned for its elements.
    unsafe {
        match dtype {
            Dtype::F32 => {
                slice::from_raw_parts_mut(ptr::with_exposed_provenance_mut(to as usize), values.len())
                    .copy_from_slice(values)
            }
            Dtype::Bf16 => {
                let to = ptr::with_exposed_provenance_mut::<half::bf16>(to as usize);
                for (to, value) in slice::from_raw_parts_mut(to, values.len()).iter_mut().zip(values) {
                    *to = half::bf16::from_f32(*value);
                }
            }
        }
    }
}
