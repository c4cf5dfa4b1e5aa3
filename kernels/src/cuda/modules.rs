//! Kernel sources, their specialisations, and what was compiled before, on disk.

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use sha2::{Digest, Sha256};

use crate::error::{KernelError, Result};

/// Comes before every source.
pub(super) const PRELUDE: &str = include_str!("../../cuda/prelude.cuh");

/// A `.cu` file of this crate.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// Its name, `swiglu.cu`.
    pub file: &'static str,
    /// Its text.
    pub text: &'static str,
}

/// A source with its macros chosen: what is compiled at once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Module {
    /// The file.
    pub source: &'static Source,
    /// `-D` options, `NAME=value`.
    pub defines: Vec<String>,
}

impl Module {
    /// A source with no macros.
    pub fn new(source: &'static Source) -> Self {
        Self { source, defines: Vec::new() }
    }

    /// With `name` defined as `value`.
    pub fn define(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.defines.push(format!("{name}={value}"));
        self
    }

    /// What a compiler reads; its messages name the file and its own lines.
    pub(super) fn text(&self) -> String {
        format!("#line 1 \"prelude.cuh\"\n{PRELUDE}\n#line 1 \"{}\"\n{}", self.source.file, self.source.text)
    }

    /// Its name in messages.
    pub fn label(&self) -> String {
        [self.source.file]
            .into_iter()
            .chain(self.defines.iter().map(String::as_str))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// The folder of compiled kernels: `OPENCLAW_KERNEL_CACHE`, or `openclaw-rl/kernels` in the user's cache folder.
pub fn cache_folder() -> PathBuf {
    cache_folder_from(|name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
}

fn cache_folder_from(folder: impl Fn(&str) -> Option<PathBuf>) -> PathBuf {
    let own = folder("OPENCLAW_KERNEL_CACHE");
    let shared = || folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    own.unwrap_or_else(|| shared().unwrap_or_else(env::temp_dir).join("openclaw-rl").join("kernels"))
}

/// Compiled modules in files. A file ends with the digest of the rest, so a half or damaged one is noticed and
/// made again; object files may have anything at their end.
pub(super) struct Cache {
    folder: PathBuf,
}

const DIGEST: usize = 32;

/// Compilations of this process, one at a time for each: a test run asks for the same module from many threads.
static UNDER_WAY: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
static ENDED: std::sync::Condvar = std::sync::Condvar::new();

/// The right to compile what goes into a file.
struct Turn(PathBuf);

impl Turn {
    fn wait_for(path: &Path) -> Self {
        let mut busy = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
        while busy.iter().any(|other| other == path) {
            busy = ENDED.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
        busy.push(path.to_owned());
        Self(path.to_owned())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner).retain(|path| *path != self.0);
        ENDED.notify_all();
    }
}

impl Cache {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The object code of `module`, and the file that has it unless the folder cannot be written. `compiler` says
    /// everything but the source that the result depends on; `compile` makes it.
    pub(super) fn get(
        &self,
        module: &Module,
        compiler: &str,
        extension: &str,
        compile: impl FnOnce() -> Result<Vec<u8>>,
    ) -> Result<(Vec<u8>, Option<PathBuf>)> {
        let mut hash = Sha256::new();
        for part in [compiler, &module.defines.join("\n"), &module.text()] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let key: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let stem = module.source.file.trim_end_matches(".cu");
        let path = self.folder.join(format!("{stem}-{key}.{extension}"));
        let _turn = Turn::wait_for(&path);
        if let Some(code) = read(&path) {
            return Ok((code, Some(path)));
        }
        let code = compile()?;
        let kept = write(&path, &code).is_ok();
        Ok((code, kept.then_some(path)))
    }

    /// Why a file could not be kept.
    pub(super) fn unwritable(&self, device: &str) -> KernelError {
        let what = format!("cannot write kernels to {} (OPENCLAW_KERNEL_CACHE)", self.folder.display());
        KernelError::Device { device: device.to_owned(), what }
    }
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut code = fs::read(path).ok()?;
    let digest = code.split_off(code.len().checked_sub(DIGEST)?);
    (Sha256::digest(&code)[..] == digest[..]).then_some(code)
}

fn write(path: &Path, code: &[u8]) -> std::io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let folder = path.parent().expect("a file in the cache folder");
    fs::create_dir_all(folder)?;
    let unique = format!("{}-{}.new", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let new = folder.join(unique);
    let mut file = fs::File::create(&new)?;
    file.write_all(code)?;
    file.write_all(&Sha256::digest(code))?;
    drop(file);
    // Another process may read or write the same entry now: it finds the old file or all of the new one.
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: Source = Source { file: "some.cu", text: "// some text" };

    fn folder(name: &str) -> PathBuf {
        let folder = env::temp_dir().join(format!("openclaw-modules-{}-{name}", process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    #[test]
    fn a_module_is_compiled_once_for_each_compiler_and_macro() {
        let cache = Cache::new(folder("once"));
        let count = std::cell::Cell::new(0);
        let get = |module: &Module, compiler: &str| {
            let compile = || {
                count.set(count.get() + 1);
                Ok(vec![count.get(); 100])
            };
            cache.get(module, compiler, "bin", compile).expect("the folder can be written").0[0]
        };
        let plain = Module::new(&SOURCE);
        let (a, b) = (plain.clone().define("V", 12), plain.clone().define("V", 1).define("2", 3));
        let first = [get(&plain, "x"), get(&plain, "y"), get(&a, "x"), get(&b, "x")];
        assert_eq!(first, [1, 2, 3, 4]);
        assert_eq!([get(&plain, "x"), get(&plain, "y"), get(&a, "x"), get(&b, "x")], first);
        fs::remove_dir_all(&cache.folder).expect("it is there");
    }

    #[test]
    fn a_damaged_or_half_written_file_is_made_again() {
        let cache = Cache::new(folder("damaged"));
        let module = Module::new(&SOURCE);
        let (_, path) = cache.get(&module, "x", "bin", || Ok(vec![7; 1000])).expect("it compiles");
        let path = path.expect("the folder can be written");
        let whole = fs::read(&path).expect("it was written");
        let mut flipped = whole.clone();
        flipped[500] ^= 1;
        for damaged in [&flipped[..], &whole[..999], &whole[..10], &[]] {
            fs::write(&path, damaged).expect("the folder can be written");
            let (code, _) = cache.get(&module, "x", "bin", || Ok(vec![7; 1000])).expect("it compiles");
            assert_eq!(code, [7; 1000]);
            assert_eq!(fs::read(&path).expect("it was written"), whole);
        }
        assert_eq!(fs::read_dir(&cache.folder).expect("it is there").count(), 1, "new files stay behind");
        fs::remove_dir_all(&cache.folder).expect("it is there");
    }

    #[test]
    fn a_folder_that_cannot_be_written_only_costs_time() {
        let file = folder("file");
        fs::write(&file, "not a folder").expect("the temporary folder can be written");
        let cache = Cache::new(file.clone());
        let (code, path) = cache.get(&Module::new(&SOURCE), "x", "bin", || Ok(vec![1])).expect("it compiles");
        assert_eq!((code, path), (vec![1], None));
        fs::remove_file(file).expect("it is there");
    }

    #[test]
    fn the_folder_follows_the_environment() {
        let with = |variables: &[(&str, &str)]| {
            cache_folder_from(|name| {
                variables.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value))
            })
        };
        let all = [("OPENCLAW_KERNEL_CACHE", "/own"), ("XDG_CACHE_HOME", "/xdg"), ("HOME", "/home/me")];
        assert_eq!(with(&all), Path::new("/own"));
        assert_eq!(with(&all[1..]), Path::new("/xdg/openclaw-rl/kernels"));
        assert_eq!(with(&all[2..]), Path::new("/home/me/.cache/openclaw-rl/kernels"));
        assert!(with(&[]).ends_with("openclaw-rl/kernels"));
    }
}
