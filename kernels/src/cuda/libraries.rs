//! Finds the driver, NVRTC and cuBLAS, and opens them before `cudarc` looks for their names. `cudarc` panics where a
//! library is missing, so nothing calls it before [`Libraries`] has found what it needs.
//!
//! `cudarc` asks for `libnvrtc.so` before `libnvrtc.so.13`. The dynamic linker gives what is open for the second name,
//! which is the library's own, but for the first it may open another copy from its path. So the file that really
//! answers is looked up and told; of the driver, of which a process must have one, a second copy is refused.
#![allow(unsafe_code)]

use std::{
    env,
    error::Error,
    ffi::{OsString, c_void},
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    ptr,
    sync::OnceLock,
};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

/// Folders to look in first, separated by `:`.
pub const VARIABLE: &str = "OPENCLAW_CUDA_LIBRARIES";

/// Versions we were written for, best first.
const VERSIONS: [&str; 2] = ["13", "12"];

/// A library that was found and opened.
#[derive(Clone, Debug)]
pub struct Found {
    /// The file whose functions are called.
    pub path: PathBuf,
    /// The file that was found first, where the dynamic linker has another copy, which it prefers.
    pub instead_of: Option<PathBuf>,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path.display())?;
        match &self.instead_of {
            Some(other) => write!(f, ", which the dynamic linker prefers to {}", other.display()),
            None => Ok(()),
        }
    }
}

/// What this machine has.
#[derive(Clone, Debug)]
pub struct Libraries {
    /// `libcuda`, which comes with the driver.
    pub driver: Result<Found, String>,
    /// `libnvrtc`, the compiler.
    pub nvrtc: Result<Found, String>,
    /// `libcublasLt`, matrix products.
    pub cublas_lt: Result<Found, String>,
}

impl Libraries {
    /// Looks once in a process.
    pub fn get() -> &'static Self {
        static LIBRARIES: OnceLock<Libraries> = OnceLock::new();
        LIBRARIES.get_or_init(|| {
            let folders = folders(|name| env::var_os(name), Path::new("/"));
            // SAFETY, of the three: cudarc opens libraries, which run nothing of ours, and one function's address is
            // looked up where `is_culib_present` has seen that there is a library.
            let driver = open("cuda", Some("cuInit"), Order::LinkerFirst, &folders).and_then(|found| {
                let there = unsafe { cudarc::driver::sys::is_culib_present() };
                let file = there.then(|| unsafe { file_with(cudarc::driver::sys::culib(), "cuInit") });
                only(found.answered_by("cuda", file.flatten())?)
            });
            let name = Some("nvrtcVersion");
            let nvrtc = open("nvrtc", name, Order::FoldersFirst, &folders).and_then(|found| {
                let there = unsafe { cudarc::nvrtc::sys::is_culib_present() };
                let file = there.then(|| unsafe { file_with(cudarc::nvrtc::sys::culib(), "nvrtcVersion") });
                found.answered_by("nvrtc", file.flatten())
            });
            let name = Some("cublasLtGetVersion");
            let cublas_lt = open("cublasLt", name, Order::FoldersFirst, &folders).and_then(|found| {
                let there = unsafe { cudarc::cublaslt::sys::is_culib_present() };
                let file =
                    there.then(|| unsafe { file_with(cudarc::cublaslt::sys::culib(), "cublasLtGetVersion") });
                found.answered_by("cublasLt", file.flatten())
            });
            // NVRTC opens its builtins by name when it compiles: those beside it.
            let beside = nvrtc.as_ref().ok().and_then(|found| found.path.parent()).map(Path::to_owned);
            let places: Vec<PathBuf> = beside.into_iter().chain(folders).collect();
            let _ = open("nvrtc-builtins", None, Order::FoldersFirst, &places);
            Self { driver, nvrtc, cublas_lt }
        })
    }
}

impl Found {
    /// What was opened under `name`, after `cudarc` has looked for that name and got its functions from `file`.
    fn answered_by(self, name: &str, file: Option<PathBuf>) -> Result<Self, String> {
        let Some(file) = file else {
            return Err(format!(
                "{} opens, but the dynamic linker does not give it for lib{name}",
                self.path.display()
            ));
        };
        let same = self.path.canonicalize().ok() == file.canonicalize().ok();
        let instead_of = (!same).then_some(self.path);
        Ok(Self { path: file, instead_of })
    }
}

/// Of drivers two copies in a process do not know each other's memory.
fn only(found: Found) -> Result<Found, String> {
    match &found.instead_of {
        None => Ok(found),
        Some(other) => Err(format!(
            "there are two drivers, {} and {}: take the folder of one out of {VARIABLE} or of the library path",
            found.path.display(),
            other.display()
        )),
    }
}

/// The file that has a library's symbol.
///
/// # Safety
/// Only the symbol's address is used, so any name will do.
unsafe fn file_with(library: &libloading::Library, symbol: &str) -> Option<PathBuf> {
    #[repr(C)]
    struct DlInfo {
        file: *const std::ffi::c_char,
        base: *mut c_void,
        symbol: *const std::ffi::c_char,
        address: *mut c_void,
    }
    unsafe extern "C" {
        /// Of the C library, on every Unix.
        fn dladdr(address: *const c_void, info: *mut DlInfo) -> std::ffi::c_int;
    }
    // SAFETY: only the address is looked at.
    let address = *unsafe { library.get::<*const c_void>(symbol.as_bytes()) }.ok()?;
    let mut info =
        DlInfo { file: ptr::null(), base: ptr::null_mut(), symbol: ptr::null(), address: ptr::null_mut() };
    // SAFETY: a place for the answer; the file's name belongs to the library, which stays open.
    let file = unsafe {
        if dladdr(address, &mut info) == 0 || info.file.is_null() {
            return None;
        }
        std::ffi::CStr::from_ptr(info.file)
    };
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(file.to_bytes())))
}

/// The version of cuBLAS, where it was found.
pub fn cublas_version() -> Option<String> {
    Libraries::get().cublas_lt.as_ref().ok()?;
    // SAFETY: the library is open; the function takes nothing.
    let version = unsafe { cudarc::cublaslt::sys::cublasLtGetVersion() };
    Some(format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100))
}

/// Where a library is looked for first. A driver belongs to the kernel module that is running, which the dynamic
/// linker's configuration follows; other libraries may be in several versions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    LinkerFirst,
    FoldersFirst,
}

/// Opens a library for the rest of the process. `symbol` is a function of it, by which its file is known where the
/// linker chose it.
fn open(name: &str, symbol: Option<&str>, order: Order, folders: &[PathBuf]) -> Result<Found, String> {
    let mut refused = None;
    let by_path: Vec<PathBuf> = folders.iter().filter_map(|folder| library_in(folder, name)).collect();
    let by_name: Vec<PathBuf> =
        ["1"].iter().chain(&VERSIONS).map(|version| format!("lib{name}.so.{version}").into()).collect();
    let (first, then) = if order == Order::LinkerFirst { (by_name, by_path) } else { (by_path, by_name) };
    for path in first.into_iter().chain(then) {
        match open_file(&path, RTLD_NOW | RTLD_GLOBAL) {
            Ok(library) => {
                let library = libloading::Library::from(library);
                // SAFETY: the function is not called.
                let file = symbol.and_then(|symbol| unsafe { file_with(&library, symbol) });
                let path = if path.is_absolute() { path } else { file.unwrap_or(path) };
                std::mem::forget(library);
                return Ok(Found { path, instead_of: None });
            }
            Err(why) if path.is_absolute() => refused = refused.or(Some(why)),
            Err(_) => {}
        }
    }
    Err(refused.unwrap_or_else(|| {
        let told: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
        let places = if told.is_empty() { "no CUDA folder exists".into() } else { told.join(", ") };
        format!("lib{name}.so is not on the library path nor in {VARIABLE} or a known folder ({places})")
    }))
}

/// Opens one file; the linker's own message, which names it, if that fails.
pub(super) fn open_file(path: &Path, flags: std::ffi::c_int) -> Result<Library, String> {
    // SAFETY: NVIDIA's libraries run only their own constructors, and our emulated kernels none.
    unsafe { Library::open(Some(path), flags) }
        .map_err(|error| error.source().map_or_else(|| error.to_string(), ToString::to_string))
}

/// The file of a library in a folder, of the version we like best.
fn library_in(folder: &Path, name: &str) -> Option<PathBuf> {
    let stem = format!("lib{name}.so");
    let entries = fs::read_dir(folder).ok()?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let rank = |file: &str| -> Option<usize> {
        let version = file.strip_prefix(&stem)?;
        if version.is_empty() || version == ".1" {
            return Some(VERSIONS.len());
        }
        let version = version.strip_prefix('.')?;
        VERSIONS.iter().position(|v| version == *v || version.starts_with(&format!("{v}.")))
    };
    // Equal ranks: the shortest name, which the others are links to or from.
    let best = names.filter_map(|file| Some((rank(&file)?, file.len(), file))).min()?;
    Some(folder.join(best.2))
}

/// Folders that exist and may have NVIDIA's libraries, in the order in which they are tried.
fn folders(variable: impl Fn(&str) -> Option<OsString>, root: &Path) -> Vec<PathBuf> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let under = |folder: &str| root.join(folder);
    let mut found = Vec::new();
    for folder in variable(VARIABLE).iter().flat_map(env::split_paths).filter(|p| !p.as_os_str().is_empty()) {
        found.push(folder.clone());
        found.extend(wheels_in(&folder));
    }
    let toolkits = [set("CUDA_HOME"), set("CUDA_PATH")].into_iter().flatten();
    let installed = children(&under("usr/local"), |name| name.starts_with("cuda"));
    for toolkit in toolkits.chain(installed) {
        found.extend(
            ["lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib"].map(|l| toolkit.join(l)),
        );
    }
    let mut environments: Vec<PathBuf> =
        [set("VIRTUAL_ENV"), set("CONDA_PREFIX")].into_iter().flatten().collect();
    for place in children(&under("opt"), |_| true) {
        environments.extend([place.join(".venv"), place.join("venv"), place]);
    }
    environments.extend(set("HOME").map(|home| home.join(".local")));
    environments.extend(["usr/local", "usr"].map(under));
    for environment in environments {
        for python in children(&environment.join("lib"), |name| name.starts_with("python3")) {
            for packages in ["site-packages", "dist-packages"] {
                found.extend(wheels_in(&python.join(packages)));
            }
        }
    }
    let system =
        ["usr/local/nvidia/lib64", "usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib64"];
    found.extend(system.into_iter().chain(["usr/lib/wsl/lib"]).map(under));
    let mut seen = Vec::new();
    for folder in found {
        if folder.is_dir() && !seen.contains(&folder) {
            seen.push(folder);
        }
    }
    seen
}

/// The library folders of NVIDIA's Python packages: `nvidia/cu13/lib`, or one folder for each library.
fn wheels_in(packages: &Path) -> Vec<PathBuf> {
    children(&packages.join("nvidia"), |_| true).into_iter().map(|package| package.join("lib")).collect()
}

/// Folders in a folder, the highest name first: the newest version.
fn children(folder: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries
        .filter(|entry| entry.file_name().to_str().is_some_and(&wanted))
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    paths.sort_by(|a, b| b.cmp(a));
    paths
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, process::Command};

    use super::*;
    use crate::cuda::tests::emulated_or_skip;

    /// A root folder with files.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str, files: &[&str]) -> Self {
            let root = env::temp_dir().join(format!("openclaw-libraries-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&root);
            for file in files {
                let path = root.join(file);
                fs::create_dir_all(path.parent().expect("a file is in a folder"))
                    .expect("a temporary folder");
                fs::write(path, "").expect("a temporary folder can be written");
            }
            Self(root)
        }
        fn found(&self, variables: &[(&str, &str)], library: &str) -> Option<String> {
            let value = |name: &str| {
                let (_, value) = variables.iter().find(|(key, _)| *key == name)?;
                let there = value.split(':').map(|part| self.0.join(part));
                Some(env::join_paths(there).expect("no colons"))
            };
            let path = folders(value, &self.0).iter().find_map(|folder| library_in(folder, library))?;
            Some(path.strip_prefix(&self.0).expect("under the root").display().to_string())
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_variable_comes_before_toolkits_before_wheels_before_the_system() {
        let root = Root::new(
            "order",
            &[
                "mine/libnvrtc.so.12",
                "usr/local/cuda-13.0/lib64/libnvrtc.so.13",
                "env/lib/python3.11/site-packages/nvidia/cu13/lib/libnvrtc.so.13",
                "usr/lib/x86_64-linux-gnu/libnvrtc.so.12",
            ],
        );
        let all = [(VARIABLE, "nothing:mine"), ("VIRTUAL_ENV", "env")];
        assert_eq!(root.found(&all, "nvrtc").expect("it is there"), "mine/libnvrtc.so.12");
        let toolkit = "usr/local/cuda-13.0/lib64/libnvrtc.so.13";
        assert_eq!(root.found(&all[1..], "nvrtc").expect("it is there"), toolkit);
        fs::remove_dir_all(root.0.join("usr/local")).expect("it is there");
        let wheel = "env/lib/python3.11/site-packages/nvidia/cu13/lib/libnvrtc.so.13";
        assert_eq!(root.found(&all[1..], "nvrtc").expect("it is there"), wheel);
        assert_eq!(root.found(&[], "nvrtc").expect("it is there"), "usr/lib/x86_64-linux-gnu/libnvrtc.so.12");
    }

    #[test]
    fn wheels_are_found_wherever_they_were_installed() {
        let cu13 = "nvidia/cu13/lib/libcublasLt.so.13";
        let cu12 = "nvidia/cublas/lib/libcublasLt.so.12";
        for (place, variables) in [
            (format!("target/{cu13}"), vec![(VARIABLE, "target")]),
            (format!("target/{cu12}"), vec![(VARIABLE, "target")]),
            (format!("conda/lib/python3.12/site-packages/{cu12}"), vec![("CONDA_PREFIX", "conda")]),
            (format!("opt/torch/.venv/lib/python3.12/site-packages/{cu13}"), vec![]),
            (format!("home/.local/lib/python3.13/site-packages/{cu13}"), vec![("HOME", "home")]),
            (format!("usr/local/lib/python3.11/dist-packages/{cu13}"), vec![]),
            ("toolkit/targets/x86_64-linux/lib/libcublasLt.so.12".into(), vec![("CUDA_HOME", "toolkit")]),
        ] {
            let root = Root::new("wheels", &[&place]);
            assert_eq!(root.found(&variables, "cublasLt").as_deref(), Some(&place[..]));
        }
    }

    #[test]
    fn the_newest_version_that_we_know_is_taken() {
        let names =
            ["libnvrtc.so", "libnvrtc.so.11.2", "libnvrtc.so.12", "libnvrtc.so.13.0.88", "libnvrtc.so.13"];
        let more = ["libnvrtc-builtins.so.13.0", "libnvrtc.alt.so.13", "libcuda.so.1", "libcuda.so.580.65"];
        let files: Vec<String> = names.iter().chain(&more).map(|name| format!("mine/{name}")).collect();
        let root = Root::new("versions", &files.iter().map(String::as_str).collect::<Vec<_>>());
        let found = |library: &str| root.found(&[(VARIABLE, "mine")], library).expect("it is there");
        assert_eq!(found("nvrtc"), "mine/libnvrtc.so.13");
        assert_eq!(found("nvrtc-builtins"), "mine/libnvrtc-builtins.so.13.0");
        assert_eq!(found("cuda"), "mine/libcuda.so.1");
        assert_eq!(root.found(&[(VARIABLE, "mine")], "cublas"), None);
    }

    #[test]
    fn what_is_missing_is_told_in_one_line() {
        let root = Root::new("missing", &["mine/libnothing.so.13"]);
        let folders = [root.0.join("mine")];
        let told =
            open("openclaw-none", None, Order::FoldersFirst, &folders).expect_err("there is no such library");
        assert!(
            told.starts_with("libopenclaw-none.so is not on the library path nor in OPENCLAW_CUDA_LIBRARIES")
        );
        assert!(told.contains("mine") && !told.contains('\n'), "{told}");
        // A file that is no library.
        let told = open("nothing", None, Order::LinkerFirst, &folders).expect_err("it is empty");
        assert!(told.contains("libnothing.so.13") && !told.contains('\n'), "{told}");
    }

    /// Makes an empty library called `soname` that has one function.
    fn dummy(folder: &Path, file: &str, soname: &str, function: &str) {
        fs::create_dir_all(folder).expect("a temporary folder");
        let source = folder.join("dummy.cpp");
        fs::write(&source, format!("extern \"C\" int {function}() {{ return 0; }}"))
            .expect("it can be written");
        let compiler = env::var("CXX").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "g++".into());
        let built = Command::new(compiler)
            .args(["-fPIC", "-shared", &format!("-Wl,-soname,{soname}"), "-o"])
            .args([folder.join(file), source])
            .output()
            .expect("the compiler runs");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    }

    #[test]
    fn the_file_that_answers_is_told_and_the_linkers_driver_comes_first() {
        if emulated_or_skip().is_none() {
            return;
        }
        let root = Root::new("twice", &["chosen/nothing", "linker/nothing"]);
        let (chosen, linker) = (root.0.join("chosen"), root.0.join("linker"));
        for folder in [&chosen, &linker] {
            dummy(folder, "libcuda.so.1", "libcuda.so.1", "cuInit");
        }
        dummy(&chosen, "libnvrtc.so.13", "libnvrtc.so.13", "nvrtcVersion");
        dummy(&linker, "libnvrtc.so", "libnvrtc.so.13", "nvrtcVersion");
        dummy(&chosen, "libcublasLt.so.13", "libcublasLt.so.13", "cublasLtGetVersion");
        // Names that a machine with a driver and a toolkit may have too.
        symlink("libcuda.so.1", linker.join("libcuda.so")).expect("a temporary folder");
        symlink(chosen.join("libcublasLt.so.13"), linker.join("libcublasLt.so")).expect("a temporary folder");
        let child = Command::new(env::current_exe().expect("a test has a path"))
            .args(["--exact", "cuda::libraries::tests::tells_its_libraries", "--ignored", "--nocapture"])
            .env(VARIABLE, &chosen)
            .env("LD_LIBRARY_PATH", &linker)
            .output()
            .expect("the test binary starts");
        let told = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success(), "{told}");
        for expected in [
            format!("driver {}\n", linker.join("libcuda.so.1").display()),
            format!(
                "nvrtc {}, which the dynamic linker prefers to {}\n",
                linker.join("libnvrtc.so").display(),
                chosen.join("libnvrtc.so.13").display()
            ),
            format!("cublasLt {}\n", chosen.join("libcublasLt.so.13").display()),
        ] {
            assert!(told.contains(&expected), "{expected} in {told}");
        }
    }

    #[test]
    #[ignore = "runs in a process of its own, by the test above"]
    #[allow(clippy::print_stdout)]
    fn tells_its_libraries() {
        let Libraries { driver, nvrtc, cublas_lt } = Libraries::get();
        for (name, library) in [("driver", driver), ("nvrtc", nvrtc), ("cublasLt", cublas_lt)] {
            println!("{name} {}", library.as_ref().expect("a dummy is there"));
        }
    }

    #[test]
    fn two_drivers_in_one_process_are_refused() {
        let found = |instead_of: Option<&str>| Found {
            path: "/linker/libcuda.so".into(),
            instead_of: instead_of.map(PathBuf::from),
        };
        assert!(only(found(None)).is_ok());
        let told = only(found(Some("/other/libcuda.so.1"))).expect_err("there are two");
        assert!(
            told.starts_with("there are two drivers, /linker/libcuda.so and /other/libcuda.so.1: "),
            "{told}"
        );
    }
}
