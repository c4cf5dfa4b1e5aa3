//! A frozen base in a file of its own, in the order that the engine reads it, and mapped into memory: the processes of one
//! machine that serve it share one copy, which the system lets go of and reads again as it needs the memory.
//!
//! The file is made of the checkpoint's when it is missing or they have changed, and lies in the user's cache folder. It begins
//! with a head of one page: [`MAGIC`], the length of the rest of the head, and the [`Head`] as JSON; the parameters follow.

use std::{
    env, fmt,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use half::bf16;
use openclaw_kernels::MappedFile;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    checkpoint::{CheckpointError, WeightDtype},
    config::ModelConfig,
};

/// The first bytes; the number is that of the form.
const MAGIC: &[u8; 16] = b"openclaw base 1\n";
/// Bytes before the parameters: they begin with a page.
const HEAD: usize = 4096;

/// What a file is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) source: Source,
    parameters: usize,
    /// `fingerprint_in` of them.
    pub(crate) fingerprint: String,
}

/// What the parameters are read from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Source {
    /// The checkpoint's files: name, bytes, and when they were written, in nanoseconds since 1970.
    files: Vec<(PathBuf, u64, u128)>,
    /// The model's shape, as [`crate::checkpoint::fingerprint`] has it.
    config: String,
}

impl Source {
    /// As it is now.
    pub fn of(files: &[PathBuf], config: &ModelConfig) -> Result<Self, CheckpointError> {
        let config = config.to_json(&[], WeightDtype::F32.hf_name()).to_string();
        Ok(Self { files: stated(files)?, config })
    }
}

/// Parameters in `bf16`, in the order of [`crate::ParameterLayout`]. Clones share the mapping.
#[derive(Clone)]
pub struct Mapped {
    map: Arc<MappedFile>,
    pub(crate) head: Head,
}

impl Mapped {
    /// All of them.
    #[must_use]
    pub fn values(&self) -> &[bf16] {
        bytemuck::cast_slice(&self.map[HEAD..])
    }
}

impl fmt::Debug for Mapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head.fmt(f)
    }
}

impl PartialEq for Mapped {
    fn eq(&self, other: &Self) -> bool {
        self.values() == other.values()
    }
}

/// The folder of these files: `OPENCLAW_BASE_CACHE`, or `openclaw-rl/bases` in the user's cache folder.
#[must_use]
pub fn cache_folder() -> PathBuf {
    let folder = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let own = folder("OPENCLAW_BASE_CACHE");
    let shared = || folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    own.unwrap_or_else(|| shared().unwrap_or_else(env::temp_dir).join("openclaw-rl").join("bases"))
}

/// Maps what was kept of a checkpoint; nothing where that has changed since, or nothing whole is there.
pub(crate) fn find(
    cache: &Path,
    source: &Source,
    parameters: usize,
) -> Result<Option<Mapped>, CheckpointError> {
    let path = place(cache, source);
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(at(&path))?,
    };
    let Some(mapped) = map(&file).map_err(at(&path))? else { return Ok(None) };
    let whole = mapped.map.len() == HEAD + parameters * size_of::<bf16>();
    let same = mapped.head.parameters == parameters && mapped.head.source == *source;
    Ok((whole && same).then_some(mapped))
}

/// Keeps the parameters that were read from a checkpoint, and maps them. An error where it has changed since `source` was looked at.
pub(crate) fn keep(
    cache: &Path,
    source: Source,
    values: &[bf16],
    fingerprint: String,
) -> Result<Mapped, CheckpointError> {
    let path = place(cache, &source);
    let files: Vec<PathBuf> = source.files.iter().map(|(file, ..)| file.clone()).collect();
    if stated(&files)? != source.files {
        return Err(at(&path)(io::Error::other("the checkpoint changed while it was read")));
    }
    let head = Head { source, parameters: values.len(), fingerprint };
    let kept = || {
        fs::create_dir_all(cache)?;
        // Under a name that nobody else has, and gone where this fails: whoever comes last is found from then on, and what is
        // mapped stays.
        let mut draft = tempfile::NamedTempFile::new_in(cache)?;
        write(draft.as_file_mut(), &head, values)?;
        map(&draft.persist(&path)?)
    };
    let kept = kept().map_err(at(&path))?;
    kept.ok_or_else(|| at(&path)(io::Error::other("what was written is not what lies there")))
}

fn write(file: &mut File, head: &Head, values: &[bf16]) -> io::Result<()> {
    let json = serde_json::to_vec(head)?;
    let mut first = vec![0; HEAD];
    let text = MAGIC.len() + size_of::<u32>();
    if text + json.len() > HEAD {
        return Err(io::Error::other("the checkpoint has more files than a head can name"));
    }
    first[..MAGIC.len()].copy_from_slice(MAGIC);
    first[MAGIC.len()..text].copy_from_slice(&(json.len() as u32).to_le_bytes());
    first[text..][..json.len()].copy_from_slice(&json);
    file.write_all(&first)?;
    file.write_all(bytemuck::cast_slice(values))?;
    file.sync_all()
}

fn map(file: &File) -> io::Result<Option<Mapped>> {
    let map = MappedFile::new(file)?;
    let Some((magic, rest)) = map.split_at_checked(MAGIC.len()) else { return Ok(None) };
    let Some((length, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
    let json = rest.get(..u32::from_le_bytes(*length) as usize);
    let head = json.and_then(|json| serde_json::from_slice(json).ok());
    let is_one = magic == MAGIC && map.len() >= HEAD && (map.len() - HEAD).is_multiple_of(size_of::<bf16>());
    Ok(head.filter(|_| is_one).map(|head| Mapped { map: Arc::new(map), head }))
}

fn stated(files: &[PathBuf]) -> Result<Vec<(PathBuf, u64, u128)>, CheckpointError> {
    let of = |path: &PathBuf| {
        let found = fs::metadata(path).and_then(|found| Ok((found.len(), found.modified()?)));
        let (bytes, written) = found.map_err(at(path))?;
        let since = written.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Ok((path.clone(), bytes, since.as_nanos()))
    };
    files.iter().map(of).collect()
}

/// One for each checkpoint, wherever its files are.
fn place(cache: &Path, source: &Source) -> PathBuf {
    let mut hash = Sha256::new();
    for (file, ..) in &source.files {
        hash.update(file.as_os_str().as_encoded_bytes());
        hash.update([0]);
    }
    let name: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    cache.join(name + ".bf16")
}

fn at(path: &Path) -> impl Fn(io::Error) -> CheckpointError + use<> {
    let path = path.to_owned();
    move |source| CheckpointError::Io { path: path.clone(), source }
}
