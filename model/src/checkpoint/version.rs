//! Version folders: a checkpoint folder together with the optimizer's moments, and a list of its files by which a
//! torn one is found out. Training goes on from one bit for bit.
//!
//! A folder is written as `<number>.tmp` and renamed when all of it is on the disk, so that a folder with a number
//! is complete unless the disk failed it. Moments are twice the weights, and only what training goes on from needs
//! them: any other version lets go of its own, and is trained on with empty ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{
    CheckpointError, WeightDtype,
    content::{Content, Tensors, le_bytes},
    files_of, hex, io, make_parent,
    stored::{header, read, tensors},
};
use crate::{
    adapter::{self, AdapterLayout},
    base::HostWeights,
    config::ModelConfig,
    durable,
    params::ParameterLayout,
    training::{StateView, TrainerState},
};

const WEIGHTS: &str = "model.safetensors";
/// The moments.
const OPTIMIZER: &str = "optimizer.safetensors";
/// Full-precision weights, of a folder whose own are rounded. Folders of old have them in the optimizer's file.
const EXACT: &str = "exact.safetensors";
/// The one tensor of it.
const EXACT_WEIGHTS: &str = "weights";
const MANIFEST: &str = "version.json";

/// `version.json`: what a version folder is and what is in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionManifest {
    /// The version's number.
    pub number: u64,
    /// The run's step that made it.
    pub step: u64,
    /// Steps that the optimizer's moments have seen; 0 where it has none.
    pub optimizer_step: u32,
    /// [`fingerprint`] of its weights.
    pub fingerprint: String,
    /// Version of this program that wrote it.
    pub written_by: String,
    /// Its files, this one excepted.
    pub files: BTreeMap<String, FileSum>,
}

/// What a file was when it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSum {
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its content.
    pub sha256: String,
}

/// A version read back from its folder.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredVersion {
    /// What the folder says of itself.
    pub manifest: VersionManifest,
    /// What training goes on from.
    pub state: TrainerState,
    /// Whether the moments are those of the version, and not empty ones or an ancestor's because it has none.
    pub own_moments: bool,
}

/// Names weights by what they are: SHA-256 over the model's shape and every parameter, in hexadecimal.
pub fn fingerprint(config: &ModelConfig, weights: &[f32]) -> String {
    fingerprint_of(config, std::iter::once(weights))
}

/// The same of weights in any type: those that `bf16` holds exactly have one name in both types.
pub fn fingerprint_in(config: &ModelConfig, weights: &HostWeights) -> String {
    const PIECE: usize = 1 << 16;
    match weights {
        HostWeights::F32(values) => fingerprint(config, values),
        HostWeights::Bf16(values) => {
            let wide = |piece: &[half::bf16]| piece.iter().map(|value| value.to_f32()).collect::<Vec<_>>();
            fingerprint_of(config, values.chunks(PIECE).map(wide))
        }
        // Of the files that it was made of, and is compared with.
        HostWeights::Mapped(mapped) => mapped.head.fingerprint.clone(),
    }
}

fn fingerprint_of(config: &ModelConfig, pieces: impl Iterator<Item = impl AsRef<[f32]>>) -> String {
    let mut hash = Sha256::new();
    hash.update(config.to_json(&[], WeightDtype::F32.hf_name()).to_string());
    for piece in pieces {
        hash.update(le_bytes(piece.as_ref()));
    }
    hex(hash)
}

/// The folder of version folders, and what they have in common.
#[derive(Clone, Debug)]
pub struct VersionFolders {
    /// Holds a folder per version.
    pub dir: PathBuf,
    /// The model's shape.
    pub config: ModelConfig,
    /// What the parameters are stored in; where that rounds them, the exact ones are stored beside.
    pub dtype: WeightDtype,
    /// The checkpoint folder whose tokenizer and templates are taken along.
    pub template: PathBuf,
    /// Tokens that end a response.
    pub end_ids: Vec<u32>,
    /// Where what is trained is an adapter: its layout. A version is the adapter's folder then, and holds nothing of the base.
    pub adapter: Option<Arc<AdapterLayout>>,
}

/// A version folder that is written and not there yet.
#[must_use = "it becomes a version by `publish`"]
pub struct StagedVersion {
    staged: PathBuf,
    dir: PathBuf,
}

impl VersionFolders {
    /// Where version `number` is, if it is kept.
    pub fn folder(&self, number: u64) -> PathBuf {
        self.dir.join(number.to_string())
    }

    /// Writes `<number>.tmp`, all of it to the disk.
    pub fn stage<'a>(
        &self,
        number: u64,
        step: u64,
        fingerprint: &str,
        state: impl Into<StateView<'a>>,
    ) -> Result<StagedVersion, CheckpointError> {
        self.stage_with(number, step, fingerprint, state.into(), true)
    }

    /// The same without the moments, which are two thirds of what there is to write: [`Self::add_moments`] writes them later.
    pub fn stage_weights<'a>(
        &self,
        number: u64,
        step: u64,
        fingerprint: &str,
        state: impl Into<StateView<'a>>,
    ) -> Result<StagedVersion, CheckpointError> {
        self.stage_with(number, step, fingerprint, state.into(), false)
    }

    fn stage_with(
        &self,
        number: u64,
        step: u64,
        fingerprint: &str,
        state: StateView<'_>,
        moments: bool,
    ) -> Result<StagedVersion, CheckpointError> {
        let staged = self.dir.join(format!("{number}.tmp"));
        remove_folder(&staged)?;
        fs::create_dir_all(&staged).map_err(io(&staged))?;
        let mut files = match &self.adapter {
            Some(layout) => adapter::files_of(layout, &state.weights, &self.template.to_string_lossy()),
            None => {
                let template = Some(self.template.as_path());
                files_of(&self.config, &state.weights, self.dtype, &self.end_ids, template)?
            }
        };
        if moments {
            files.push((OPTIMIZER.to_owned(), moments_of(&state)));
        }
        if self.adapter.is_none() && self.dtype != WeightDtype::F32 {
            files.push((EXACT.to_owned(), file_of([(EXACT_WEIGHTS, &*state.weights)])));
        }
        let files = write_all(&staged, &files)?;
        let manifest = VersionManifest {
            number,
            step,
            optimizer_step: if moments { state.step } else { 0 },
            fingerprint: fingerprint.to_owned(),
            written_by: env!("CARGO_PKG_VERSION").to_owned(),
            files,
        };
        write(&staged.join(MANIFEST), &Content::Bytes(manifest.text().into_bytes()))?;
        sync(&staged)?;
        Ok(StagedVersion { staged, dir: self.folder(number) })
    }

    /// Reads version `number` back; a file that is not as it was written is named.
    pub fn load(&self, number: u64) -> Result<StoredVersion, CheckpointError> {
        let manifest = self.manifest(number)?;
        let contents = self.contents(&manifest, |_| true)?;
        let weights = self.weights_in(&contents)?;
        let mut state = TrainerState::fresh(weights);
        let own_moments = self.moments_in(&contents, &manifest, &mut state)?;
        Ok(StoredVersion { manifest, state, own_moments })
    }

    /// Puts the moments of version `number` into `state`, of which it is an ancestor; without any it is left as it is.
    pub fn load_moments(&self, number: u64, state: &mut TrainerState) -> Result<bool, CheckpointError> {
        let manifest = self.manifest(number)?;
        self.moments_in(&self.contents(&manifest, |name| name == OPTIMIZER)?, &manifest, state)
    }

    fn moments_in(
        &self,
        contents: &Contents,
        manifest: &VersionManifest,
        state: &mut TrainerState,
    ) -> Result<bool, CheckpointError> {
        let Some((path, bytes)) = contents.find(OPTIMIZER) else { return Ok(false) };
        let moments = tensors(&path, bytes)?;
        state.first = self.whole(&path, &moments, "first")?;
        state.second = self.whole(&path, &moments, "second")?;
        state.step = manifest.optimizer_step;
        Ok(true)
    }

    /// Whether version `number` is there with its moments.
    pub fn has_moments(&self, number: u64) -> bool {
        self.manifest(number).is_ok_and(|manifest| manifest.files.contains_key(OPTIMIZER))
    }

    /// Reads the weights of version `number` alone: its moments may be let go meanwhile.
    pub fn load_weights(&self, number: u64) -> Result<Vec<f32>, CheckpointError> {
        let manifest = self.manifest(number)?;
        let of_old = self.has_exact_weights_of_old(number);
        self.weights_in(&self.contents(&manifest, |name| name != OPTIMIZER || of_old)?)
    }

    /// Lets go of the moments of version `number`, if it has them: training from it starts with empty ones then.
    pub fn drop_moments(&self, number: u64) -> Result<(), CheckpointError> {
        let dir = self.folder(number);
        let moments = dir.join(OPTIMIZER);
        if !moments.exists() || self.has_exact_weights_of_old(number) {
            return Ok(());
        }
        let mut manifest = self.manifest(number)?;
        if manifest.files.remove(OPTIMIZER).is_some() {
            manifest.optimizer_step = 0;
            // The list before the file: whoever dies in between leaves a file too many, and none too few.
            self.replace_manifest(&manifest)?;
        }
        fs::remove_file(&moments).map_err(io(&moments))
    }

    /// Writes the moments that version `number` was staged without.
    pub fn add_moments<'a>(
        &self,
        number: u64,
        state: impl Into<StateView<'a>>,
    ) -> Result<(), CheckpointError> {
        let state = state.into();
        let mut manifest = self.manifest(number)?;
        // The file before the list, as above.
        let sum = write(&self.folder(number).join(OPTIMIZER), &moments_of(&state))?;
        sync(&self.folder(number))?;
        manifest.files.insert(OPTIMIZER.to_owned(), sum);
        manifest.optimizer_step = state.step;
        self.replace_manifest(&manifest)
    }

    fn replace_manifest(&self, manifest: &VersionManifest) -> Result<(), CheckpointError> {
        let dir = self.folder(manifest.number);
        let (partial, path) = (dir.join(format!("{MANIFEST}.tmp")), dir.join(MANIFEST));
        write(&partial, &Content::Bytes(manifest.text().into_bytes()))?;
        fs::rename(&partial, &path).map_err(io(&path))?;
        sync(&dir)
    }

    fn manifest(&self, number: u64) -> Result<VersionManifest, CheckpointError> {
        let path = self.folder(number).join(MANIFEST);
        let text = fs::read(&path).map_err(io(&path))?;
        let manifest: VersionManifest =
            serde_json::from_slice(&text).map_err(|error| torn(&path, error.to_string()))?;
        if manifest.number != number {
            return Err(torn(&path, format!("it is of version {}", manifest.number)));
        }
        Ok(manifest)
    }

    /// The wanted files of a version, each as it was written.
    fn contents(
        &self,
        manifest: &VersionManifest,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Contents, CheckpointError> {
        let dir = self.folder(manifest.number);
        let mut files = BTreeMap::new();
        for (name, sum) in manifest.files.iter().filter(|(name, _)| wanted(name)) {
            let path = dir.join(name);
            let bytes = fs::read(&path).map_err(io(&path))?;
            if bytes.len() as u64 != sum.bytes {
                return Err(torn(&path, format!("{} bytes, {MANIFEST} says {}", bytes.len(), sum.bytes)));
            }
            let found = hex(Sha256::new_with_prefix(&bytes));
            if found != sum.sha256 {
                return Err(torn(&path, format!("SHA-256 {found}, {MANIFEST} says {}", sum.sha256)));
            }
            files.insert(name.clone(), bytes);
        }
        Ok(Contents { dir, files })
    }

    fn weights_in(&self, contents: &Contents) -> Result<Vec<f32>, CheckpointError> {
        for name in [EXACT, OPTIMIZER] {
            if let Some((path, bytes)) = contents.find(name) {
                let tensors = tensors(&path, bytes)?;
                if name == EXACT || tensors.tensor(EXACT_WEIGHTS).is_ok() {
                    return self.whole(&path, &tensors, EXACT_WEIGHTS);
                }
            }
        }
        let (file, parameters) = match &self.adapter {
            Some(layout) => (adapter::MATRICES, layout.parameters.clone()),
            None => (WEIGHTS, ParameterLayout::new(&self.config).parameters),
        };
        let path = contents.dir.join(file);
        let (_, bytes) = contents.find(file).ok_or_else(|| torn(&path, format!("not in {MANIFEST}")))?;
        let tensors = tensors(&path, bytes)?;
        let mut weights = vec![0.0; self.len()];
        for one in &parameters {
            read(&path, &one.name, &one.shape, &tensors, &mut weights[one.range.clone()])?;
        }
        Ok(weights)
    }

    /// Numbers that are trained.
    fn len(&self) -> usize {
        self.adapter.as_ref().map_or_else(|| ParameterLayout::new(&self.config).len(), |layout| layout.len())
    }

    /// One value per number that is trained.
    fn whole(&self, path: &Path, tensors: &SafeTensors<'_>, name: &str) -> Result<Vec<f32>, CheckpointError> {
        let len = self.len();
        let mut values = vec![0.0; len];
        read(path, name, &[len], tensors, &mut values)?;
        Ok(values)
    }

    fn has_exact_weights_of_old(&self, number: u64) -> bool {
        header(&self.folder(number).join(OPTIMIZER))
            .is_ok_and(|header| header.metadata.info(EXACT_WEIGHTS).is_some())
    }

    /// Numbers of the folders that are there, ascending; complete or not.
    pub fn numbers(&self) -> Result<Vec<u64>, CheckpointError> {
        let mut numbers: Vec<u64> = self.names()?.iter().filter_map(|name| name.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Removes what a writer that died has left: every `<number>.tmp`, and every folder of a number that is not
    /// among `named`. Returns what was removed.
    pub fn discard_unnamed(&self, named: &[u64]) -> Result<Vec<PathBuf>, CheckpointError> {
        let unnamed = |name: &&String| match name.strip_suffix(".tmp") {
            Some(number) => number.parse::<u64>().is_ok(),
            None => name.parse().is_ok_and(|number| !named.contains(&number)),
        };
        let names = self.names()?;
        let discarded: Vec<PathBuf> = names.iter().filter(unnamed).map(|name| self.dir.join(name)).collect();
        discarded.iter().try_for_each(|folder| remove_folder(folder))?;
        Ok(discarded)
    }

    /// Renames version `number` to `<number>.torn`, for a person to look at.
    pub fn set_aside(&self, number: u64) -> Result<(), CheckpointError> {
        let (dir, torn) = (self.folder(number), self.dir.join(format!("{number}.torn")));
        if !dir.exists() {
            return Ok(());
        }
        remove_folder(&torn)?;
        fs::rename(&dir, &torn).map_err(io(&dir))
    }

    /// Removes version `number`, if it is there.
    pub fn remove(&self, number: u64) -> Result<(), CheckpointError> {
        remove_folder(&self.folder(number))
    }

    fn names(&self) -> Result<Vec<String>, CheckpointError> {
        if !self.dir.exists() {
            return Ok(Vec::new());
        }
        let entries = fs::read_dir(&self.dir).map_err(io(&self.dir))?;
        Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    }
}

impl VersionManifest {
    fn text(&self) -> String {
        serde_json::to_string_pretty(self).expect("its keys are strings") + "\n"
    }
}

/// Files of a version folder that were read.
struct Contents {
    dir: PathBuf,
    files: BTreeMap<String, Vec<u8>>,
}

impl Contents {
    fn find(&self, name: &str) -> Option<(PathBuf, &[u8])> {
        self.files.get(name).map(|bytes| (self.dir.join(name), bytes.as_slice()))
    }
}

fn torn(path: &Path, what: String) -> CheckpointError {
    CheckpointError::Torn { path: path.into(), what }
}

fn moments_of<'a>(state: &'a StateView<'_>) -> Content<'a> {
    file_of([("first", &*state.first), ("second", &*state.second)])
}

/// A safetensors file of flat tensors.
fn file_of<'a, const N: usize>(tensors: [(&str, &'a [f32]); N]) -> Content<'a> {
    let tensors = tensors.map(|(name, values)| (name.to_owned(), vec![values.len()], values));
    Content::Tensors(Tensors::new(WeightDtype::F32, json!({}), tensors))
}

impl StagedVersion {
    /// Gives the folder its number. What has it already is one that nobody named, and goes.
    pub fn publish(self) -> Result<PathBuf, CheckpointError> {
        remove_folder(&self.dir)?;
        fs::rename(&self.staged, &self.dir).map_err(io(&self.dir))?;
        sync(self.dir.parent().expect("a version folder lies in a folder"))?;
        Ok(self.dir)
    }
}

/// Writes all files at once: one is hashed while the disk takes another.
fn write_all(
    dir: &Path,
    files: &[(String, Content<'_>)],
) -> Result<BTreeMap<String, FileSum>, CheckpointError> {
    thread::scope(|scope| {
        let writers: Vec<_> = files
            .iter()
            .map(|(name, content)| (name, scope.spawn(move || write(&dir.join(name), content))))
            .collect();
        let sums = writers
            .into_iter()
            .map(|(name, writer)| Ok((name.clone(), writer.join().expect("a writer does not panic")?)))
            .collect::<Result<_, CheckpointError>>()?;
        let folders: BTreeSet<_> = files.iter().filter_map(|(name, _)| Path::new(name).parent()).collect();
        folders.iter().try_for_each(|folder| sync(&dir.join(folder)))?;
        Ok(sums)
    })
}

/// A file that is hashed as it is written.
struct Summed {
    file: File,
    bytes: u64,
    hash: Sha256,
}

impl Write for Summed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // What the disk takes is hashed while it is in the cache.
        let taken = self.file.write(&bytes[..bytes.len().min(1 << 20)])?;
        self.hash.update(&bytes[..taken]);
        self.bytes += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

fn write(path: &Path, content: &Content<'_>) -> Result<FileSum, CheckpointError> {
    make_parent(path)?;
    let write = || {
        let mut out = Summed { file: File::create(path)?, bytes: 0, hash: Sha256::new() };
        content.write_to(&mut out)?;
        out.file.sync_all()?;
        Ok(FileSum { bytes: out.bytes, sha256: hex(out.hash) })
    };
    write().map_err(io(path))
}

fn sync(dir: &Path) -> Result<(), CheckpointError> {
    durable::sync_folder(dir).map_err(io(dir))
}

fn remove_folder(dir: &Path) -> Result<(), CheckpointError> {
    match fs::remove_dir_all(dir) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(io(dir)(source)),
        _ => Ok(()),
    }
}
