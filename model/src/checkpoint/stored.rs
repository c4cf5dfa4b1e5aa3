//! Where a checkpoint folder stores each parameter. The configuration, the index and the headers of the weights' files
//! say this of one another: where they differ, what `transformers` reads is read, or the folder is refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use half::{bf16, f16};
use safetensors::{
    Dtype, SafeTensorError, SafeTensors,
    tensor::{Metadata, TensorInfo},
};
use serde::Deserialize;

use super::{CheckpointError, io};
use crate::{
    base::HostWeights,
    config::ModelConfig,
    params::{Parameter, ParameterLayout},
};

/// Bytes before the header, which hold its length.
const LENGTH_BYTES: u64 = 8;
/// No header is longer.
const MOST_HEADER_BYTES: u64 = 100_000_000;
/// What a folder of a whole model calls its inner part; folders of that part alone leave it out.
const PREFIX: &str = "model.";
const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";
/// Values of a tensor that are read at a time.
const PIECE: usize = 1 << 16;

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The weights of a folder, as its headers tell of them.
pub(super) struct Stored {
    /// What is named where a tensor is in none of the files: the index, or the one file.
    named_by: PathBuf,
    tensors: BTreeMap<String, Tensor>,
    /// An index that is there and not read.
    pub(super) unread_index: Option<PathBuf>,
}

struct Tensor {
    file: PathBuf,
    info: TensorInfo,
    /// Where its bytes begin in the file.
    at: u64,
}

/// A parameter and the tensor that it is read from.
pub(super) struct Place<'a> {
    pub(super) parameter: &'a Parameter,
    pub(super) name: String,
    pub(super) file: PathBuf,
    pub(super) dtype: Dtype,
}

impl Stored {
    /// Reads the headers of `dir`'s weights; fails with every file that is wrong.
    pub(super) fn open(dir: &Path) -> Result<Self, Vec<CheckpointError>> {
        let adapter = dir.join("adapter_config.json");
        if adapter.exists() {
            return Err(vec![CheckpointError::Adapter { path: adapter }]);
        }
        let (single, index) = (dir.join("model.safetensors"), dir.join("model.safetensors.index.json"));
        // As `transformers`: an index beside the one file is what an earlier save has left.
        let (named_by, files, unread_index) = match (single.exists(), index.exists()) {
            (true, indexed) => (single.clone(), BTreeSet::from([single]), indexed.then_some(index)),
            (false, true) => {
                let files = files_in(dir, &index).map_err(|error| vec![error])?;
                (index, files, None)
            }
            (false, false) => return Err(vec![CheckpointError::NoWeights { dir: dir.into() }]),
        };
        let mut stored = Self { named_by, tensors: BTreeMap::new(), unread_index };
        let mut wrong = Vec::new();
        for file in &files {
            match header(file) {
                Ok(header) => stored.add(file, &header).unwrap_or_else(|error| wrong.push(error)),
                Err(error) => wrong.push(error),
            }
        }
        if wrong.is_empty() { Ok(stored) } else { Err(wrong) }
    }

    fn add(&mut self, file: &Path, header: &Header) -> Result<(), CheckpointError> {
        for (name, info) in header.metadata.tensors() {
            let at = header.data_at + info.data_offsets.0 as u64;
            let tensor = Tensor { file: file.into(), info: info.clone(), at };
            if let Some(first) = self.tensors.insert(name.clone(), tensor) {
                return Err(twice(&name, (&name, &first.file), (&name, file)));
            }
        }
        Ok(())
    }

    /// Whether a model of this folder has its head in its embedding; `stated` where the configuration says so.
    pub(super) fn is_tied(&self, stated: Option<bool>) -> bool {
        stated.unwrap_or(!self.tensors.contains_key(HEAD))
    }

    /// The tensor of each parameter; fails with the first that is wrong of each file.
    pub(super) fn places<'a>(
        &self,
        config: &ModelConfig,
        layout: &'a ParameterLayout,
    ) -> Result<Vec<Place<'a>>, Vec<CheckpointError>> {
        let mut places = Vec::new();
        let mut wrong = Vec::new();
        let mut told = BTreeSet::new();
        for parameter in &layout.parameters {
            let found = self.find(config, parameter);
            let file = found.as_ref().map_or(&self.named_by, |(_, tensor)| &tensor.file).clone();
            match self.place(parameter, found) {
                Ok(place) => places.push(place),
                Err(error) if told.insert(file) => wrong.push(error),
                Err(_) => {}
            }
        }
        if wrong.is_empty() && config.tied {
            wrong.extend(self.check_heads().err());
        }
        if wrong.is_empty() { Ok(places) } else { Err(wrong) }
    }

    fn place<'a>(
        &self,
        parameter: &'a Parameter,
        found: Option<(&String, &Tensor)>,
    ) -> Result<Place<'a>, CheckpointError> {
        let missing = || {
            let (path, tensor) = (self.named_by.clone(), parameter.name.clone());
            CheckpointError::Missing { path, tensor }
        };
        let (name, Tensor { file, info, .. }) = found.ok_or_else(missing)?;
        let other = self.inner_name(&parameter.name).filter(|(inner, _)| *inner != name);
        if let Some((inner, tensor)) = other {
            return Err(twice(&parameter.name, (name, file), (inner, &tensor.file)));
        }
        check_form(file, name, &parameter.shape, info.dtype, &info.shape)?;
        Ok(Place { parameter, name: name.clone(), file: file.clone(), dtype: info.dtype })
    }

    /// The tensor of a parameter, under its name or the one that it has in the inner part alone. Of a tied pair the
    /// head may be the one that is stored, as in `transformers`.
    fn find(&self, config: &ModelConfig, parameter: &Parameter) -> Option<(&String, &Tensor)> {
        let named = self.tensors.get_key_value(&parameter.name).or_else(|| self.inner_name(&parameter.name));
        let is_shared = config.tied && parameter.name == EMBEDDING;
        named.or_else(|| is_shared.then(|| self.tensors.get_key_value(HEAD)).flatten())
    }

    fn inner_name(&self, name: &str) -> Option<(&String, &Tensor)> {
        self.tensors.get_key_value(name.strip_prefix(PREFIX)?)
    }

    /// A tied model has one head. `transformers` 5 takes a second one that differs for the head, and versions before it
    /// took the embedding.
    fn check_heads(&self) -> Result<(), CheckpointError> {
        let embedding = self.tensors.get(EMBEDDING).or_else(|| Some(self.inner_name(EMBEDDING)?.1));
        let (Some(embedding), Some(head)) = (embedding, self.tensors.get(HEAD)) else { return Ok(()) };
        if embedding.info.shape == head.info.shape && same_values(embedding, head)? {
            return Ok(());
        }
        Err(CheckpointError::Heads { path: head.file.clone() })
    }

    /// Names of tensors that none of `places` is read from.
    pub(super) fn unread(&self, places: &[Place<'_>]) -> Vec<&str> {
        let read: BTreeSet<&str> = places.iter().map(|place| place.name.as_str()).collect();
        let unread = self.tensors.keys().map(String::as_str);
        unread.filter(|name| !read.contains(name) && *name != HEAD).collect()
    }
}

fn twice(tensor: &str, first: (&str, &Path), second: (&str, &Path)) -> CheckpointError {
    let place = |(name, file): (&str, &Path)| format!("`{name}` of {}", file.display());
    CheckpointError::Twice { tensor: tensor.into(), first: place(first), second: place(second) }
}

/// The files that an index names, each once. Which tensor is in which of them their headers say.
fn files_in(dir: &Path, index: &Path) -> Result<BTreeSet<PathBuf>, CheckpointError> {
    let text = fs::read(index).map_err(io(index))?;
    let Index { weight_map } = serde_json::from_slice(&text)
        .map_err(|source| CheckpointError::Index { path: index.into(), source })?;
    Ok(weight_map.into_values().map(|file| dir.join(file)).collect())
}

/// Reads the tensor of each place of one file into `weights`.
pub(super) fn read_places(
    path: &Path,
    places: &[&Place<'_>],
    weights: &mut HostWeights,
) -> Result<(), CheckpointError> {
    let header = header(path)?;
    for place in places {
        let Parameter { shape, range, .. } = place.parameter;
        let missing = || CheckpointError::Missing { path: path.into(), tensor: place.name.clone() };
        let info = header.metadata.info(&place.name).ok_or_else(missing)?.clone();
        check_form(path, &place.name, shape, info.dtype, &info.shape)?;
        let at = header.data_at + info.data_offsets.0 as u64;
        let tensor = Tensor { file: path.into(), info, at };
        // Piece by piece: the file and its values together may be larger than the memory.
        let mut pieces = Pieces::open(&tensor)?;
        for at in range.clone().step_by(PIECE) {
            weights.put(at, &pieces.next(PIECE.min(range.end - at))?);
        }
    }
    Ok(())
}

pub(crate) fn tensors<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>, CheckpointError> {
    SafeTensors::deserialize(bytes).map_err(|source| CheckpointError::Format { path: path.into(), source })
}

/// Reads one tensor of a file.
pub(crate) fn read(
    path: &Path,
    name: &str,
    shape: &[usize],
    tensors: &SafeTensors<'_>,
    out: &mut [f32],
) -> Result<(), CheckpointError> {
    let missing = |_| CheckpointError::Missing { path: path.into(), tensor: name.into() };
    let tensor = tensors.tensor(name).map_err(missing)?;
    check_form(path, name, shape, tensor.dtype(), tensor.shape())?;
    widen(tensor.dtype(), tensor.data(), out);
    Ok(())
}

/// The values of a tensor's bytes; those of `F64` are rounded.
fn widen(dtype: Dtype, data: &[u8], out: &mut [f32]) {
    fn each<const N: usize>(data: &[u8], out: &mut [f32], value: impl Fn([u8; N]) -> f32) {
        let (values, _) = data.as_chunks::<N>();
        for (out, bytes) in out.iter_mut().zip(values) {
            *out = value(*bytes);
        }
    }
    match dtype {
        Dtype::F64 => each(data, out, |bytes| f64::from_le_bytes(bytes) as f32),
        Dtype::F32 => each(data, out, f32::from_le_bytes),
        Dtype::BF16 => each(data, out, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        Dtype::F16 => each(data, out, |bytes| f16::from_le_bytes(bytes).to_f32()),
        _ => unreachable!("check_form refuses every other"),
    }
}

/// Whether a tensor of this type and shape can be read as one of `expected` shape.
fn check_form(
    path: &Path,
    name: &str,
    expected: &[usize],
    dtype: Dtype,
    shape: &[usize],
) -> Result<(), CheckpointError> {
    let (path, tensor) = (path.to_owned(), name.to_owned());
    if shape != expected {
        let (found, expected) = (shape.to_vec(), expected.to_vec());
        return Err(CheckpointError::Shape { path, tensor, found, expected });
    }
    match dtype {
        Dtype::F64 | Dtype::F32 | Dtype::BF16 | Dtype::F16 => Ok(()),
        dtype => Err(CheckpointError::Dtype { path, tensor, dtype }),
    }
}

/// Compares two tensors of one shape piece by piece: an embedding may be larger than the memory that is left.
fn same_values(one: &Tensor, other: &Tensor) -> Result<bool, CheckpointError> {
    let mut left: usize = one.info.shape.iter().product();
    let (mut one, mut other) = (Pieces::open(one)?, Pieces::open(other)?);
    while left > 0 {
        let values = left.min(PIECE);
        if one.next(values)? != other.next(values)? {
            return Ok(false);
        }
        left -= values;
    }
    Ok(true)
}

/// A tensor that is read piece by piece.
struct Pieces<'a> {
    tensor: &'a Tensor,
    file: File,
}

impl<'a> Pieces<'a> {
    fn open(tensor: &'a Tensor) -> Result<Self, CheckpointError> {
        let path = &tensor.file;
        check_form(path, HEAD, &tensor.info.shape, tensor.info.dtype, &tensor.info.shape)?;
        let mut file = File::open(path).map_err(io(path))?;
        file.seek(SeekFrom::Start(tensor.at)).map_err(io(path))?;
        Ok(Self { tensor, file })
    }

    fn next(&mut self, values: usize) -> Result<Vec<f32>, CheckpointError> {
        let dtype = self.tensor.info.dtype;
        let mut bytes = vec![0; values * dtype.bitsize() / 8];
        self.file.read_exact(&mut bytes).map_err(io(&self.tensor.file))?;
        let mut out = vec![0.0; values];
        widen(dtype, &bytes, &mut out);
        Ok(out)
    }
}

/// The header of a safetensors file.
pub(super) struct Header {
    pub(super) metadata: Metadata,
    /// Where the tensors' bytes begin.
    data_at: u64,
}

/// Reads the header of a safetensors file, and whether the file is as long as it says.
pub(super) fn header(path: &Path) -> Result<Header, CheckpointError> {
    let format = |source| CheckpointError::Format { path: path.into(), source };
    let mut file = File::open(path).map_err(io(path))?;
    let bytes = file.metadata().map_err(io(path))?.len();
    if bytes < LENGTH_BYTES {
        return Err(format(SafeTensorError::HeaderTooSmall));
    }
    let mut length = [0; LENGTH_BYTES as usize];
    file.read_exact(&mut length).map_err(io(path))?;
    let length = u64::from_le_bytes(length);
    if length > MOST_HEADER_BYTES {
        return Err(format(SafeTensorError::HeaderTooLarge));
    }
    if length > bytes - LENGTH_BYTES {
        return Err(format(SafeTensorError::InvalidHeaderLength));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(io(path))?;
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|error| format(SafeTensorError::InvalidHeaderDeserialization(error)))?;
    let data_at = LENGTH_BYTES + length;
    if metadata.data_len() as u64 != bytes - data_at {
        return Err(format(SafeTensorError::MetadataIncompleteBuffer));
    }
    Ok(Header { metadata, data_at })
}
