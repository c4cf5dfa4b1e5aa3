//! What goes into the files of a checkpoint: bytes, or tensors that are written as they lie in memory. No file of a model's size is put
//! together before it is written.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use half::bf16;
use serde_json::{Map, Value, json};

use super::WeightDtype;

/// Numbers that are rounded at once.
const PIECE: usize = 1 << 16;

/// A file.
pub(crate) enum Content<'a> {
    /// Bytes.
    Bytes(Vec<u8>),
    /// A safetensors file.
    Tensors(Tensors<'a>),
}

/// Tensors of a safetensors file, all in one type.
pub(crate) struct Tensors<'a> {
    dtype: WeightDtype,
    metadata: Value,
    /// Name, shape and values, by name.
    tensors: Vec<(String, Vec<usize>, &'a [f32])>,
}

impl<'a> Tensors<'a> {
    /// Of these, whose names are different and whose values have the shapes' lengths; those of `bf16` are rounded to nearest.
    pub fn new(
        dtype: WeightDtype,
        metadata: Value,
        tensors: impl IntoIterator<Item = (String, Vec<usize>, &'a [f32])>,
    ) -> Self {
        let mut tensors: Vec<_> = tensors.into_iter().collect();
        tensors.sort_by(|(one, ..), (other, ..)| one.cmp(other));
        Self { dtype, metadata, tensors }
    }

    /// The length of the rest of the head in eight bytes, the head as JSON up to a multiple of eight, and the values: the format
    /// of the crate `safetensors`, whose writer wants all of the bytes at once.
    fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        let (name, width) = match self.dtype {
            WeightDtype::F32 => ("F32", size_of::<f32>()),
            WeightDtype::Bf16 => ("BF16", size_of::<bf16>()),
        };
        let mut head = Map::from_iter([("__metadata__".to_owned(), self.metadata.clone())]);
        let mut end = 0;
        for (tensor, shape, values) in &self.tensors {
            let start = end;
            end += values.len() * width;
            let info = json!({"dtype": name, "shape": shape, "data_offsets": [start, end]});
            head.insert(tensor.clone(), info);
        }
        let mut head = serde_json::to_vec(&head)?;
        head.resize(head.len().next_multiple_of(8), b' ');
        out.write_all(&(head.len() as u64).to_le_bytes())?;
        out.write_all(&head)?;
        for (_, _, values) in &self.tensors {
            match self.dtype {
                WeightDtype::F32 => out.write_all(&le_bytes(values))?,
                WeightDtype::Bf16 => {
                    for piece in values.chunks(PIECE) {
                        let rounded = piece.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes());
                        out.write_all(&rounded.collect::<Vec<u8>>())?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Content<'_> {
    /// Writes all of it.
    pub fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Bytes(bytes) => out.write_all(bytes),
            Self::Tensors(tensors) => tensors.write_to(out),
        }
    }
}

/// The bytes of `values` as a safetensors file holds them.
pub(crate) fn le_bytes(values: &[f32]) -> Cow<'_, [u8]> {
    match cfg!(target_endian = "little") {
        true => Cow::Borrowed(bytemuck::cast_slice(values)),
        false => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use safetensors::{Dtype, SafeTensors, tensor::TensorView};

    use super::*;

    #[test]
    fn a_file_is_the_one_that_the_crate_would_write() {
        let values: Vec<f32> = (0..300_000).map(|at| at as f32 * 0.37 - 9.0).collect();
        let tensors = || [("b", vec![3, 5], &values[..15]), ("a", vec![values.len() - 15], &values[15..])];
        for (dtype, kind) in [(WeightDtype::F32, Dtype::F32), (WeightDtype::Bf16, Dtype::BF16)] {
            let named = tensors().map(|(name, shape, values)| (name.to_owned(), shape, values));
            let mut written = Vec::new();
            let file = Content::Tensors(Tensors::new(dtype, json!({"format": "pt"}), named));
            file.write_to(&mut written).expect("a vector takes everything");
            let bytes = tensors().map(|(name, shape, values)| {
                let bytes: Vec<u8> = match dtype {
                    WeightDtype::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
                    WeightDtype::Bf16 => {
                        values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect()
                    }
                };
                (name, shape, bytes)
            });
            let read = SafeTensors::deserialize(&written).expect("a file of the format");
            assert_eq!(read.len(), 2);
            for (name, shape, bytes) in &bytes {
                let expected = TensorView::new(kind, shape.clone(), bytes).expect("it fits");
                assert_eq!(read.tensor(name).expect("it is there"), expected, "{name}");
            }
            let views = bytes.iter().map(|(name, shape, bytes)| {
                (*name, TensorView::new(kind, shape.clone(), bytes).expect("it fits"))
            });
            let metadata = [("format".to_owned(), "pt".to_owned())].into();
            let expected = safetensors::serialize(views, Some(metadata)).expect("it is written");
            assert_eq!(written.len(), expected.len());
        }
    }
}
