//! Safetensors files: read with limits, written deterministically.
//!
//! Promises: a header over [`MAX_HEADER`] bytes or with more than [`MAX_TENSORS`] tensors is refused before it is parsed in full, as are
//! duplicate names, offsets that overlap, leave holes or do not end with the file, and all of that before anything but the header is read.
//! The same tensors and metadata always give the same bytes, and the file appears whole or not at all.

use super::tensor::{AnyTensor, DType, HostTensor};
use super::{MAX_TENSORS, one_line};
use crate::atomic::write_with;
use crate::error::{Error, Result};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Largest header accepted, in bytes.
pub const MAX_HEADER: u64 = 8 << 20;

/// The index of a safetensors file: what is where, checked against the file's length.
#[derive(Debug)]
pub(crate) struct Index {
    pub tensors: BTreeMap<String, (DType, Vec<usize>, Range<u64>)>,
    /// Tensors of element types that are of no use here, and these types.
    pub unusable: BTreeMap<String, String>,
    pub metadata: BTreeMap<String, String>,
}

/// A safetensors file in memory.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    /// What follows the header.
    data: Vec<u8>,
    index: Index,
}

/// Reads a whole safetensors file.
pub fn read_safetensors(path: impl AsRef<Path>) -> Result<TensorFile> {
    let path = path.as_ref();
    parse(path).map_err(|message| Error::weights(path, one_line(&message)))
}

fn parse(path: &Path) -> Result<TensorFile, String> {
    let cannot = |error: std::io::Error| format!("cannot read: {error}");
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err("not a file".to_owned());
    }
    let mut file = File::open(path).map_err(cannot)?;
    let (index, start) = read_index(&mut file)?;
    let length = usize::try_from(file.metadata().map_err(cannot)?.len() - start).map_err(|_| "too large for this machine")?;
    let mut data = Vec::new();
    data.try_reserve_exact(length).map_err(|_| format!("too large for the memory: {length} bytes"))?;
    file.read_to_end(&mut data).map_err(cannot)?;
    if data.len() != length {
        return Err("changed while it was read".to_owned());
    }
    Ok(TensorFile { path: path.to_owned(), data, index })
}

/// Reads the header only, and gives the place where the data starts, at which the file is left. The offsets in the index are absolute
/// less that place.
pub(crate) fn read_index(file: &mut File) -> Result<(Index, u64), String> {
    let length = file.metadata().map_err(|error| format!("cannot read: {error}"))?.len();
    let mut prefix = [0; 8];
    file.read_exact(&mut prefix).map_err(|_| "too short for a safetensors file".to_owned())?;
    let header = u64::from_le_bytes(prefix);
    if header > MAX_HEADER {
        return Err(format!("no safetensors file, or a header of {header} bytes; at most {MAX_HEADER} are accepted"));
    }
    if header > length.saturating_sub(8) {
        return Err(format!("cut short, or no safetensors file: a header of {header} bytes in a file of {length}"));
    }
    let mut buffer = Vec::new();
    Read::by_ref(file).take(header).read_to_end(&mut buffer).map_err(|error| format!("cannot read: {error}"))?;
    check_names(&buffer)?;
    let parsed: Metadata = serde_json::from_slice(&buffer).map_err(|error| format!("not a valid safetensors file: {error}"))?;
    let start = 8 + header;
    if parsed.data_len() as u64 != length - start {
        return Err(format!("not a whole safetensors file: its tensors have {} bytes, {} follow the header", parsed.data_len(), length - start));
    }
    let mut tensors = BTreeMap::new();
    let mut unusable = BTreeMap::new();
    for (name, info) in parsed.tensors() {
        let dtype = match info.dtype {
            Dtype::BOOL => DType::Bool,
            Dtype::U8 => DType::U8,
            Dtype::I8 => DType::I8,
            Dtype::U16 => DType::U16,
            Dtype::I16 => DType::I16,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::U32 => DType::U32,
            Dtype::I32 => DType::I32,
            Dtype::F32 => DType::F32,
            Dtype::U64 => DType::U64,
            Dtype::I64 => DType::I64,
            Dtype::F64 => DType::F64,
            other => {
                unusable.insert(name, format!("of type {other}"));
                continue;
            }
        };
        let (from, to) = info.data_offsets;
        tensors.insert(name, (dtype, info.shape.clone(), from as u64..to as u64));
    }
    let metadata = parsed.metadata().clone().unwrap_or_default().into_iter().collect();
    Ok((Index { tensors, unusable, metadata }, start))
}

/// Counts the names of a header and refuses too many or duplicate ones, without building anything from their values.
fn check_names(header: &[u8]) -> Result<(), String> {
    struct Names;
    impl<'de> Visitor<'de> for Names {
        type Value = ();
        fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
            formatter.write_str("an object of tensors")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            let mut seen = HashSet::new();
            while let Some((name, _)) = map.next_entry::<String, IgnoredAny>()? {
                if seen.len() > MAX_TENSORS {
                    return Err(A::Error::custom(format_args!("more than {MAX_TENSORS} tensors")));
                }
                if let Some(name) = seen.replace(name) {
                    return Err(A::Error::custom(format_args!("tensor {name} appears twice")));
                }
            }
            Ok(())
        }
    }
    serde::Deserializer::deserialize_map(&mut serde_json::Deserializer::from_slice(header), Names)
        .map_err(|error| format!("not a valid safetensors header: {error}"))
}

impl TensorFile {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the tensors in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.index.tensors.keys().map(String::as_str)
    }

    /// Text values stored beside the tensors.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.index.metadata
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.index.tensors.contains_key(name)
    }

    /// Type and shape of a tensor, if there is one of this name.
    pub fn info(&self, name: &str) -> Option<(DType, &[usize])> {
        self.index.tensors.get(name).map(|(dtype, shape, _)| (*dtype, shape.as_slice()))
    }

    /// A tensor without copying it; the error names file and tensor.
    pub fn get(&self, name: &str) -> Result<AnyTensor<'_>> {
        let absent = || match self.index.unusable.get(name) {
            Some(kind) => self.error(name, &format!("is {kind}, which is not supported")),
            None => self.error(name, "is missing"),
        };
        let (dtype, shape, range) = self.index.tensors.get(name).ok_or_else(absent)?;
        // The index was checked against the length of the data, which is in memory.
        let bytes = self.data.get(range.start as usize..range.end as usize).unwrap_or_default();
        AnyTensor::new(*dtype, shape.clone(), bytes).ok_or_else(|| self.error(name, "has fewer elements than its shape says"))
    }

    /// A tensor of any floating-point type as 32-bit floats.
    pub fn f32(&self, name: &str) -> Result<HostTensor> {
        let tensor = self.get(name)?;
        let data = tensor.to_f32().map_err(|message| self.error(name, &message))?;
        Ok(HostTensor { shape: tensor.shape().to_vec(), data })
    }

    /// A tensor of any floating-point type as 64-bit floats.
    pub fn f64(&self, name: &str) -> Result<Vec<f64>> {
        self.get(name)?.to_f64().map_err(|message| self.error(name, &message))
    }

    /// A tensor of any integer type as 64-bit integers.
    pub fn i64(&self, name: &str) -> Result<Vec<i64>> {
        self.get(name)?.to_i64().map_err(|message| self.error(name, &message))
    }

    /// A tensor of bytes or booleans.
    pub fn u8(&self, name: &str) -> Result<Vec<u8>> {
        self.get(name)?.to_u8().map_err(|message| self.error(name, &message))
    }

    fn error(&self, name: &str, message: &str) -> Error {
        Error::weights(&self.path, format!("tensor {} {message}", one_line(name)))
    }
}

/// Writes a safetensors file atomically. Tensors of wide elements come first, so that every one lies aligned, then by name.
pub fn write_safetensors(path: impl AsRef<Path>, tensors: &BTreeMap<String, AnyTensor<'_>>, metadata: &BTreeMap<String, String>) -> Result<()> {
    let mut order: Vec<_> = tensors.iter().collect();
    order.sort_by_key(|(_, tensor)| std::cmp::Reverse(tensor.dtype().size()));
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".to_owned(), json!(metadata));
    }
    let mut offset = 0;
    for (name, tensor) in &order {
        let end = offset + tensor.bytes().len();
        header.insert((*name).clone(), json!({"dtype": tensor.dtype().name(), "shape": tensor.shape(), "data_offsets": [offset, end]}));
        offset = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    write_with(path.as_ref(), |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        order.iter().try_for_each(|(_, tensor)| file.write_all(tensor.bytes()))
    })
}
