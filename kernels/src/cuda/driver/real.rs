//! A GPU, through its driver.
#![allow(unsafe_code)]

use std::{
    collections::{BTreeMap, HashMap},
    ffi::{CString, c_void},
    ptr,
    sync::{Mutex, OnceLock, PoisonError},
};

use cudarc::driver::{
    DriverError,
    result::{self, ctx, device, event, function, module, primary_ctx, stream},
    sys,
};

use super::{Address, Driver, Function, Mark, Properties, cublas::Cublas};
use crate::cuda::{
    gemm::Gemm,
    launch::{Arguments, Launch},
    libraries::Libraries,
    modules::{Cache, Module},
    nvrtc::Nvrtc,
};
use crate::error::{KernelError, Result};

/// What `cudarc` calls on our behalf; it panics where the driver is too old to have it.
const SYMBOLS: [&str; 4] =
    ["cuLaunchKernelEx", "cuDevicePrimaryCtxRetain", "cuEventElapsedTime_v2", "cuModuleLoadData"];

/// GPUs that this process has lost, and the error that did it: CUDA repeats such an error until the process ends.
static LOST: Mutex<BTreeMap<u32, String>> = Mutex::new(BTreeMap::new());

/// Whether an error ends this process's use of the GPU.
fn is_sticky(error: DriverError) -> bool {
    use sys::CUresult::*;
    matches!(
        error.0,
        CUDA_ERROR_DEINITIALIZED
            | CUDA_ERROR_DEVICE_UNAVAILABLE
            | CUDA_ERROR_ECC_UNCORRECTABLE
            | CUDA_ERROR_NVLINK_UNCORRECTABLE
            | CUDA_ERROR_CONTAINED
            | CUDA_ERROR_ILLEGAL_ADDRESS
            | CUDA_ERROR_LAUNCH_TIMEOUT
            | CUDA_ERROR_CONTEXT_IS_DESTROYED
            | CUDA_ERROR_ASSERT
            | CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUDA_ERROR_MISALIGNED_ADDRESS
            | CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUDA_ERROR_INVALID_PC
            | CUDA_ERROR_LAUNCH_FAILED
            | CUDA_ERROR_EXTERNAL_DEVICE
            | CUDA_ERROR_MPS_CLIENT_TERMINATED
            | CUDA_ERROR_UNKNOWN
    )
}

/// A GPU of this machine.
pub(crate) struct Real {
    ordinal: u32,
    properties: Properties,
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    nvrtc: Nvrtc,
    cache: Cache,
    modules: Mutex<HashMap<Module, usize>>,
    cublas: OnceLock<Cublas>,
}

// SAFETY: the driver's functions may be called from any thread; each call makes the context current first, and the
// handles are only changed here.
unsafe impl Send for Real {}
// SAFETY: as above.
unsafe impl Sync for Real {}

fn name(ordinal: u32) -> String {
    format!("cuda:{ordinal}")
}

fn error(ordinal: u32, what: impl Into<String>) -> KernelError {
    KernelError::Device { device: name(ordinal), what: what.into() }
}

/// How many GPUs there are, and the driver's version; an error says what is missing and where it was looked for.
pub(in crate::cuda) fn gpus() -> std::result::Result<(u32, i32), String> {
    Libraries::get().driver.as_ref().map_err(|why| format!("no driver: {why}"))?;
    // SAFETY: the driver's library is there, as just checked.
    let library = unsafe { sys::culib() };
    for symbol in SYMBOLS {
        // SAFETY: only its presence is looked at.
        if unsafe { library.get::<unsafe extern "C" fn()>(symbol.as_bytes()) }.is_err() {
            return Err(format!("the driver is too old: it has no {symbol} (570 or later is needed)"));
        }
    }
    let told = |what: &str, error: DriverError| format!("{what}: {:?}", error.0);
    result::init().map_err(|error| told("the driver does not start", error))?;
    let count = device::get_count().map_err(|error| told("the driver does not count its GPUs", error))?;
    let mut version = 0;
    // SAFETY: a place for an integer.
    unsafe { sys::cuDriverGetVersion(&mut version) }
        .result()
        .map_err(|error| told("the driver does not tell its version", error))?;
    Ok((u32::try_from(count).unwrap_or(0), version))
}

/// Names what was done when the driver failed, and remembers errors that last.
fn failed(ordinal: u32, doing: &str, cause: DriverError) -> KernelError {
    let what = format!("{doing}: {:?}", cause.0);
    if !is_sticky(cause) {
        return error(ordinal, what);
    }
    let mut lost = LOST.lock().unwrap_or_else(PoisonError::into_inner);
    let what = lost.entry(ordinal).or_insert(what).clone();
    KernelError::DeviceLost { device: name(ordinal), what }
}

/// An error for a GPU that this process has lost.
pub(in crate::cuda) fn refuse_lost(ordinal: u32) -> Result<()> {
    match LOST.lock().unwrap_or_else(PoisonError::into_inner).get(&ordinal) {
        None => Ok(()),
        Some(what) => {
            let what = format!("{what} (this process must be restarted)");
            Err(KernelError::DeviceLost { device: name(ordinal), what })
        }
    }
}

/// Whether there is such a GPU, and the libraries to use it.
pub(in crate::cuda) fn can_open(ordinal: u32) -> Result<()> {
    refuse_lost(ordinal)?;
    let (count, _) = gpus().map_err(|why| error(ordinal, why))?;
    if ordinal >= count {
        return Err(error(ordinal, format!("there are {count} GPUs")));
    }
    let Libraries { nvrtc, cublas_lt, .. } = Libraries::get();
    for library in [nvrtc, cublas_lt] {
        library.as_ref().map_err(|why| error(ordinal, why.clone()))?;
    }
    Ok(())
}

impl Real {
    /// Opens a GPU by its number.
    pub(crate) fn new(ordinal: u32, cache: Cache) -> Result<Self> {
        can_open(ordinal)?;
        let nvrtc = Nvrtc::find()?;
        let (_, cuda) = gpus().map_err(|why| error(ordinal, why))?;
        if nvrtc.version.0 > cuda / 1000 {
            let ((major, minor), cuda) = (nvrtc.version, format!("{}.{}", cuda / 1000, cuda % 1000 / 10));
            let what =
                format!("NVRTC {major}.{minor} makes code that this driver, for CUDA {cuda}, cannot load");
            return Err(error(ordinal, what));
        }
        let failed = |cause: DriverError| error(ordinal, format!("cannot be opened: {:?}", cause.0));
        let device = device::get(ordinal as i32).map_err(failed)?;
        let attribute = |which| {
            // SAFETY: the driver gave this device.
            let value = unsafe { device::get_attribute(device, which) }.map_err(failed)?;
            Ok::<_, KernelError>(u32::try_from(value).unwrap_or(0))
        };
        use sys::CUdevice_attribute::*;
        let arch = attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)? * 10
            + attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        if arch < 80 {
            return Err(error(
                ordinal,
                format!("compute capability {}.{} is below 8.0", arch / 10, arch % 10),
            ));
        }
        let properties = Properties {
            device: name(ordinal),
            name: device::get_name(device).map_err(failed)?,
            arch,
            multiprocessors: attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            // SAFETY: as above.
            memory_bytes: unsafe { device::total_mem(device) }.map_err(failed)? as u64,
            shared_bytes: attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        };
        // SAFETY: as above; released when this is dropped.
        let context = unsafe { primary_ctx::retain(device) }.map_err(failed)?;
        // SAFETY: the context was just retained.
        unsafe { ctx::set_current(context) }.map_err(failed)?;
        let stream = stream::create(stream::StreamKind::NonBlocking).map_err(failed)?;
        Ok(Self {
            ordinal,
            properties,
            device,
            context,
            stream,
            nvrtc,
            cache,
            modules: Mutex::default(),
            cublas: OnceLock::new(),
        })
    }

    fn failed(&self, doing: &str, cause: DriverError) -> KernelError {
        failed(self.ordinal, doing, cause)
    }

    /// cuBLAS does not say whether it is to blame: after a kernel's fault it fails too, and the GPU is lost.
    fn cublas_failed(&self, what: String) -> KernelError {
        match self.wait_for(&format!("{what}, and work before it")) {
            Err(lost @ KernelError::DeviceLost { .. }) => lost,
            _ => error(self.ordinal, what),
        }
    }

    /// Makes the context current on this thread.
    fn enter(&self) -> Result<()> {
        // SAFETY: retained until this is dropped.
        unsafe { ctx::set_current(self.context) }.map_err(|cause| self.failed("cannot be used", cause))
    }

    fn module(&self, module: &Module) -> Result<sys::CUmodule> {
        let known = self.modules.lock().unwrap_or_else(PoisonError::into_inner).get(module).copied();
        if let Some(handle) = known {
            return Ok(handle as sys::CUmodule);
        }
        let cubin = self.nvrtc.cubin(&self.cache, module, self.properties.arch)?;
        // SAFETY: machine code that NVRTC made for this architecture; the driver copies it.
        let handle = unsafe { module::load_data(cubin.as_ptr().cast()) }
            .map_err(|cause| self.failed(&format!("cannot load {}", module.label()), cause))?;
        self.modules.lock().unwrap_or_else(PoisonError::into_inner).insert(module.clone(), handle as usize);
        Ok(handle)
    }
}

impl Driver for Real {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn allocate(&self, bytes: usize) -> Result<Option<Address>> {
        self.enter()?;
        // SAFETY: the memory is freed by `free`.
        match unsafe { result::malloc_sync(bytes) } {
            Ok(address) => Ok(Some(address)),
            Err(cause) if cause.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => Ok(None),
            Err(cause) => Err(self.failed(&format!("cannot allocate {bytes} bytes"), cause)),
        }
    }

    unsafe fn free(&self, address: Address) {
        if self.enter().is_ok() {
            // SAFETY: the caller's promise; it waits for the work that is queued. A lost device keeps what it has.
            let _ = unsafe { result::free_sync(address) };
        }
    }

    fn free_bytes(&self) -> Result<u64> {
        self.enter()?;
        let (free, _) =
            result::mem_get_info().map_err(|cause| self.failed("does not tell its memory", cause))?;
        Ok(free as u64)
    }

    unsafe fn upload(&self, target: Address, host: &[u8]) -> Result<()> {
        self.enter()?;
        // SAFETY: the caller's promise. From pageable memory the call returns once the bytes have been taken.
        unsafe { result::memcpy_htod_async(target, host, self.stream) }
            .map_err(|cause| self.failed("cannot upload", cause))
    }

    unsafe fn download(&self, host: &mut [u8], source: Address) -> Result<()> {
        self.enter()?;
        // SAFETY: the caller's promise; `host` is not touched before the stream has been waited for.
        unsafe { result::memcpy_dtoh_async(host, source, self.stream) }
            .map_err(|cause| self.failed("cannot download", cause))?;
        self.synchronize()
    }

    unsafe fn copy(&self, target: Address, source: Address, bytes: usize) -> Result<()> {
        self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { result::memcpy_dtod_async(target, source, bytes, self.stream) }
            .map_err(|cause| self.failed("cannot copy", cause))
    }

    unsafe fn fill(&self, target: Address, byte: u8, bytes: usize) -> Result<()> {
        self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { result::memset_d8_async(target, byte, bytes, self.stream) }
            .map_err(|cause| self.failed("cannot fill", cause))
    }

    fn function(&self, module: &Module, name: &str) -> Result<Function> {
        self.enter()?;
        let handle = self.module(module)?;
        let failed = |cause| self.failed(&format!("{} has no kernel {name}", module.label()), cause);
        let c_name = CString::new(name).expect("a kernel's name has no zero bytes");
        // SAFETY: the module stays loaded.
        let function = unsafe { module::get_function(handle, c_name) }.map_err(failed)?;
        use sys::CUfunction_attribute_enum::*;
        // SAFETY: the function was just found.
        let fixed =
            unsafe { function::get_function_attribute(function, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES) };
        let most = self.properties.shared_bytes as i32 - fixed.map_err(failed)?;
        // SAFETY: as above.
        unsafe {
            function::set_function_attribute(function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, most)
        }
        .map_err(failed)?;
        if self.properties.arch >= 90 {
            // SAFETY: as above. Clusters of 16 blocks are more than every GPU promises.
            unsafe {
                function::set_function_attribute(
                    function,
                    CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED,
                    1,
                )
            }
            .map_err(failed)?;
        }
        Ok(Function(function as usize))
    }

    unsafe fn launch(&self, function: Function, launch: Launch, arguments: &Arguments) -> Result<()> {
        self.enter()?;
        let mut values: Vec<*mut c_void> =
            arguments.as_slice().iter().map(|argument| argument.value().cast_mut()).collect();
        let mut cluster = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue { pad: [0; 64] },
        };
        cluster.value.clusterDim =
            sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x: launch.cluster, y: 1, z: 1 };
        let config = sys::CUlaunchConfig {
            gridDimX: launch.grid,
            gridDimY: 1,
            gridDimZ: 1,
            blockDimX: launch.block,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: launch.shared_bytes,
            hStream: self.stream,
            attrs: &mut cluster,
            numAttrs: u32::from(launch.cluster > 1),
        };
        // SAFETY: `function` gave this handle; the driver copies the arguments before it returns. What they point to
        // is the caller's promise.
        unsafe {
            sys::cuLaunchKernelEx(
                &config,
                function.0 as sys::CUfunction,
                values.as_mut_ptr(),
                ptr::null_mut(),
            )
        }
        .result()
        .map_err(|cause| self.failed(&format!("cannot launch {launch:?}"), cause))
    }

    unsafe fn gemm(&self, gemm: &Gemm) -> Result<()> {
        if gemm.m == 0 || gemm.n == 0 || (gemm.k == 0 && gemm.accumulate) {
            return Ok(());
        }
        if gemm.k == 0 {
            let bytes = gemm.output.bytes();
            for row in 0..gemm.m {
                let start = gemm.c_address + (row * gemm.c_stride * bytes) as u64;
                // SAFETY: the caller promises the rows of `c`.
                unsafe { self.fill(start, 0, gemm.n * bytes)? };
            }
            return Ok(());
        }
        self.enter()?;
        let cublas = match self.cublas.get() {
            Some(cublas) => cublas,
            None => {
                let made = Cublas::new(self).map_err(|what| self.cublas_failed(what))?;
                self.cublas.get_or_init(|| made)
            }
        };
        // SAFETY: the caller's promise; the stream is this device's.
        unsafe { cublas.run(gemm, self.stream) }.map_err(|what| self.cublas_failed(what))
    }

    fn mark(&self) -> Result<Mark> {
        self.enter()?;
        let failed = |cause| self.failed("cannot mark a time", cause);
        let event = event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).map_err(failed)?;
        // SAFETY: both were made in this context.
        unsafe { event::record(event, self.stream) }.map_err(failed)?;
        Ok(Mark::Event(event as usize))
    }

    fn millis_between(&self, start: Mark, end: Mark) -> Result<f32> {
        let (Mark::Event(start), Mark::Event(end)) = (start, end) else {
            return Err(error(self.ordinal, "the marks are another device's"));
        };
        self.enter()?;
        let (start, end) = (start as sys::CUevent, end as sys::CUevent);
        let failed = |cause| self.failed("cannot measure", cause);
        // SAFETY: `mark` made both, and a mark is used up here.
        let millis =
            unsafe { event::synchronize(end).and_then(|()| event::elapsed(start, end)) }.map_err(failed);
        for event in [start, end] {
            // SAFETY: as above.
            let _ = unsafe { event::destroy(event) };
        }
        millis
    }

    fn wait_for(&self, work: &str) -> Result<()> {
        self.enter()?;
        // SAFETY: the stream lives until this is dropped.
        unsafe { stream::synchronize(self.stream) }
            .map_err(|cause| self.failed(&format!("{work} failed"), cause))
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        if self.enter().is_err() {
            return;
        }
        // SAFETY: nothing else has these handles; memory was freed before, by the pool.
        unsafe {
            let _ = stream::synchronize(self.stream);
            drop(self.cublas.take());
            for handle in self.modules.get_mut().unwrap_or_else(PoisonError::into_inner).values() {
                let _ = module::unload(*handle as sys::CUmodule);
            }
            let _ = stream::destroy(self.stream);
            let _ = primary_ctx::release(self.device);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_cuda_repeats_ends_the_gpu_for_this_process_and_an_ordinary_one_does_not() {
        // A number that no machine has: what is lost stays lost for every test of this process.
        let ordinal = 7777;
        use sys::CUresult::*;
        for ordinary in [CUDA_ERROR_OUT_OF_MEMORY, CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_FOUND] {
            let told = failed(ordinal, "cannot copy", DriverError(ordinary)).to_string();
            assert_eq!(told, format!("cuda:7777: cannot copy: {ordinary:?}"));
            assert!(refuse_lost(ordinal).is_ok());
        }
        let lost = failed(ordinal, "a kernel failed", DriverError(CUDA_ERROR_ILLEGAL_ADDRESS));
        assert!(matches!(lost, KernelError::DeviceLost { .. }));
        // The first cause is told, whatever fails later.
        let later = failed(ordinal, "cannot copy", DriverError(CUDA_ERROR_LAUNCH_FAILED)).to_string();
        assert_eq!(later, "cuda:7777 is lost: a kernel failed: CUDA_ERROR_ILLEGAL_ADDRESS");
        let refused = crate::Cuda::new(ordinal).expect_err("it is lost").to_string();
        assert_eq!(refused, format!("{later} (this process must be restarted)"));
    }
}
