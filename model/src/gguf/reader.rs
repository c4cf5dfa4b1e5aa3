//! The container: a header of keys and values, a list of tensors, and their bytes.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use super::{GgufError, blocks::BlockType};

/// No model has more tensors, keys or dimensions.
const MOST_ENTRIES: u64 = 1 << 20;
const MOST_DIMENSIONS: u32 = 4;
const MOST_NESTING: usize = 4;
const DEFAULT_ALIGNMENT: u64 = 32;

/// A value of the header.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Integer(i128),
    Float(f64),
    Bool(bool),
    Text(String),
    List(Vec<Value>),
}

/// A tensor of the file.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub name: String,
    /// As in the file: the fastest first.
    dimensions: Vec<u64>,
    pub kind: BlockType,
    /// From the beginning of the file.
    offset: u64,
}

impl Tensor {
    /// The slowest first, as checkpoints have it.
    pub fn shape(&self) -> Vec<usize> {
        self.dimensions.iter().rev().map(|&len| len as usize).collect()
    }
}

/// An open file.
#[derive(Debug)]
pub(super) struct Gguf {
    file: BufReader<File>,
    values: BTreeMap<String, Value>,
    pub tensors: Vec<Tensor>,
}

/// Reads little-endian numbers, and knows how much is left.
struct Header<'a> {
    file: &'a mut BufReader<File>,
    left: u64,
}

impl Header<'_> {
    fn bytes(&mut self, count: u64) -> Result<Vec<u8>, GgufError> {
        // Asked of the file before it is asked of the memory.
        if count > self.left {
            return Err(GgufError::Header(format!(
                "{count} bytes are announced where {} are left",
                self.left
            )));
        }
        let mut bytes = vec![0; count as usize];
        self.file.read_exact(&mut bytes)?;
        self.left -= count;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let bytes = self.bytes(N as u64)?;
        Ok(bytes.try_into().expect("as many were asked for"))
    }

    fn u32(&mut self) -> Result<u32, GgufError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, GgufError> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<String, GgufError> {
        let len = self.u64()?;
        String::from_utf8(self.bytes(len)?).map_err(|_| GgufError::Header("a text is not UTF-8".to_owned()))
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<Value, GgufError> {
        Ok(match kind {
            0 => Value::Integer(u8::from_le_bytes(self.array()?).into()),
            1 => Value::Integer(i8::from_le_bytes(self.array()?).into()),
            2 => Value::Integer(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Integer(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Integer(self.u32()?.into()),
            5 => Value::Integer(i32::from_le_bytes(self.array()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            7 => Value::Bool(self.array::<1>()?[0] != 0),
            8 => Value::Text(self.text()?),
            9 if depth < MOST_NESTING => {
                let (kind, len) = (self.u32()?, self.u64()?);
                // Each takes a byte at least.
                if len > self.left {
                    return Err(GgufError::Header(format!("a list of {len} is longer than the file")));
                }
                let list = (0..len).map(|_| self.value(kind, depth + 1));
                Value::List(list.collect::<Result<_, _>>()?)
            }
            10 => Value::Integer(self.u64()?.into()),
            11 => Value::Integer(i64::from_le_bytes(self.array()?).into()),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            _ => return Err(GgufError::Header(format!("a value has the unknown type {kind}"))),
        })
    }
}

impl Gguf {
    /// Reads the header and the list of tensors; a tensor whose bytes are not all there is an error.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        let mut file = BufReader::new(file);
        let mut header = Header { file: &mut file, left: len };
        if &header.array::<4>()? != b"GGUF" {
            return Err(GgufError::Header("it does not begin with GGUF".to_owned()));
        }
        match header.u32()? {
            2 | 3 => {}
            other => return Err(GgufError::Header(format!("version {other} is not read: 2 and 3 are"))),
        }
        let (tensor_count, value_count) = (header.u64()?, header.u64()?);
        if tensor_count.max(value_count) > MOST_ENTRIES {
            return Err(GgufError::Header(format!("{tensor_count} tensors and {value_count} keys")));
        }
        let mut values = BTreeMap::new();
        for _ in 0..value_count {
            let (key, kind) = (header.text()?, header.u32()?);
            let value = header.value(kind, 0)?;
            if values.insert(key.clone(), value).is_some() {
                return Err(GgufError::Key { key, what: "is there twice".to_owned() });
            }
        }
        let mut listed = Vec::new();
        for _ in 0..tensor_count {
            let (name, count) = (header.text()?, header.u32()?);
            if count > MOST_DIMENSIONS {
                return Err(GgufError::Tensor { name, what: format!("has {count} dimensions") });
            }
            let dimensions: Vec<u64> = (0..count).map(|_| header.u64()).collect::<Result<_, _>>()?;
            let (kind, offset) = (header.u32()?, header.u64()?);
            let Some(kind) = BlockType::of(kind) else {
                let what = format!("has {}, which is not read", BlockType::name_of(kind));
                return Err(GgufError::Tensor { name, what });
            };
            listed.push(Tensor { name, dimensions, kind, offset });
        }
        let read = len - header.left;
        let mut gguf = Self { file, values, tensors: Vec::new() };
        let alignment = gguf.count("general.alignment")?.map_or(DEFAULT_ALIGNMENT, |count| count as u64);
        let data = read.next_multiple_of(alignment.max(1));
        for mut tensor in listed {
            let bytes = tensor.bytes()?;
            let end = data.checked_add(tensor.offset).and_then(|start| start.checked_add(bytes));
            if end.is_none_or(|end| end > len) {
                let what = format!("has {bytes} bytes, which reach beyond the end of the file");
                return Err(GgufError::Tensor { name: tensor.name, what });
            }
            tensor.offset += data;
            gguf.tensors.push(tensor);
        }
        Ok(gguf)
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// A whole number.
    pub fn count(&self, key: &str) -> Result<Option<usize>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Integer(number)) if (0..1 << 40).contains(number) => Ok(Some(*number as usize)),
            Some(other) => Err(wrong(key, other, "a count")),
        }
    }

    /// A number.
    pub fn number(&self, key: &str) -> Result<Option<f64>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Float(number)) => Ok(Some(*number)),
            Some(Value::Integer(number)) => Ok(Some(*number as f64)),
            Some(other) => Err(wrong(key, other, "a number")),
        }
    }

    /// A text.
    pub fn text(&self, key: &str) -> Result<Option<&str>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(key, other, "a text")),
        }
    }

    /// A list of texts.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&str>>, GgufError> {
        let Some(list) = self.list(key)? else { return Ok(None) };
        let mut texts = Vec::with_capacity(list.len());
        for value in list {
            match value {
                Value::Text(text) => texts.push(text.as_str()),
                other => return Err(wrong(key, other, "a text")),
            }
        }
        Ok(Some(texts))
    }

    /// A list of whole numbers.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i128>>, GgufError> {
        let integer = |value: &Value| match value {
            Value::Integer(number) => Ok(*number),
            other => Err(wrong(key, other, "a whole number")),
        };
        self.list(key)?.map(|list| list.iter().map(integer).collect()).transpose()
    }

    fn list(&self, key: &str) -> Result<Option<&Vec<Value>>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::List(list)) => Ok(Some(list)),
            Some(other) => Err(wrong(key, other, "a list")),
        }
    }

    /// A tensor's values.
    pub fn read(&mut self, tensor: &Tensor) -> Result<Vec<f32>, GgufError> {
        let mut bytes = vec![0; tensor.bytes()? as usize];
        self.file.seek(SeekFrom::Start(tensor.offset))?;
        self.file.read_exact(&mut bytes)?;
        Ok(tensor.kind.values(&bytes))
    }
}

impl Tensor {
    fn bytes(&self) -> Result<u64, GgufError> {
        let wrong = |what: String| GgufError::Tensor { name: self.name.clone(), what };
        let (block, size) = (self.kind.elements() as u64, self.kind.bytes() as u64);
        let row = self.dimensions.first().copied().unwrap_or(1);
        if row % block != 0 {
            return Err(wrong(format!("has rows of {row}, no multiple of {block}")));
        }
        let elements = self.dimensions.iter().try_fold(1u64, |product, &len| product.checked_mul(len));
        let bytes = elements.and_then(|elements| (elements / block).checked_mul(size));
        bytes.ok_or_else(|| wrong("is larger than any file".to_owned()))
    }
}

fn wrong(key: &str, found: &Value, expected: &str) -> GgufError {
    let mut found = format!("{found:?}");
    if found.len() > 80 {
        found = found.chars().take(80).collect::<String>() + "..";
    }
    GgufError::Key { key: key.to_owned(), what: format!("is {found}, expected {expected}") }
}
