//! Checkpoints: safetensors files that are whole or named as damaged.
//!
//! Promises: a file appears under its name only when it is complete and flushed; the same tensors and metadata give the same bytes; a
//! file that is cut off or has a flipped bit anywhere is refused with its name (a blake3 sum over the whole file is in its
//! metadata); while one is written or old ones are removed there is always at least one complete file.

mod store;

use crate::error::{Error, Result};
use safetensors::SafeTensors;
use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub use safetensors::Dtype;
pub use store::CheckpointStore;

/// The file starts with this behind the eight bytes of the header's length; 64 hexadecimal digits follow.
const SUM_PREFIX: &[u8] = br#"{"__metadata__":{"blake3":""#;
const SUM_LENGTH: usize = 64;
/// Larger headers are not written (safetensors itself allows 100 MB, which takes seconds to read).
const MAX_HEADER: u64 = 8 << 20;

/// A tensor as it lies in a file: little-endian, row-major.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorRef<'a> {
    /// Number type; checkpoints use F32, F64, I64 and U8.
    pub dtype: Dtype,
    /// Extents.
    pub shape: &'a [usize],
    /// The numbers.
    pub bytes: &'a [u8],
}

impl<'a> TensorRef<'a> {
    /// A float tensor. The program runs on little-endian machines only, as wgpu's buffers do.
    pub fn f32(shape: &'a [usize], bytes: &'a [u8]) -> Self {
        Self { dtype: Dtype::F32, shape, bytes }
    }
}

/// A checkpoint in memory, verified.
#[derive(Debug)]
pub struct Checkpoint {
    /// Its file.
    pub path: PathBuf,
    /// Steps done, so the step to go on with.
    pub step: u64,
    /// What was saved beside the tensors.
    pub metadata: BTreeMap<String, String>,
    file: Vec<u8>,
    tensors: BTreeMap<String, (Dtype, Vec<usize>, Range<usize>)>,
}

impl Checkpoint {
    /// Reads and verifies a file that [`CheckpointStore::save`] wrote.
    pub fn load(path: &Path) -> Result<Self> {
        let damaged = |what: String| Error::weights(path, format!("damaged checkpoint: {what}"));
        // Reading what is no file, a FIFO say, might never end.
        if std::fs::metadata(path).is_ok_and(|about| !about.is_file()) {
            return Err(damaged("is no regular file".into()));
        }
        let file = std::fs::read(path).map_err(|e| Error::weights(path, format!("cannot be read: {e}")))?;
        let sum_at = 8 + SUM_PREFIX.len();
        let sum = file.get(sum_at..sum_at + SUM_LENGTH).filter(|_| file[8..].starts_with(SUM_PREFIX));
        let Some(sum) = sum else {
            return Err(damaged("does not begin as a checkpoint of a run".into()));
        };
        if sum != sum_of(&file[..sum_at], &[&file[sum_at + SUM_LENGTH..]]).as_bytes() {
            let length = u64::from_le_bytes(file[..8].try_into().unwrap_or_default());
            return Err(damaged(format!("its blake3 sum does not match its {} bytes (header {length})", file.len())));
        }
        let (header, parsed) = SafeTensors::read_metadata(&file).map_err(|e| damaged(e.to_string()))?;
        let data = 8 + header;
        let tensors = parsed.tensors().into_iter().map(|(name, info)| {
            let (from, to) = info.data_offsets;
            (name, (info.dtype, info.shape.clone(), data + from..data + to))
        });
        let tensors = tensors.collect();
        let mut metadata: BTreeMap<String, String> = parsed.metadata().clone().unwrap_or_default().into_iter().collect();
        metadata.remove("blake3");
        let step = metadata.remove("step").and_then(|s| s.parse().ok()).ok_or_else(|| damaged("has no step".into()))?;
        Ok(Self { path: path.to_owned(), step, metadata, file, tensors })
    }

    /// A tensor by name.
    pub fn tensor(&self, name: &str) -> Option<TensorRef<'_>> {
        let (dtype, shape, range) = self.tensors.get(name)?;
        Some(TensorRef { dtype: *dtype, shape, bytes: &self.file[range.clone()] })
    }

    /// A tensor that must be there with this type and shape; errors name the file and tensor.
    pub fn expect(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<&[u8]> {
        let bad = |what: String| Error::weights(&self.path, format!("tensor {name}: {what}"));
        let tensor = self.tensor(name).ok_or_else(|| bad("is missing".into()))?;
        if tensor.dtype != dtype || tensor.shape != shape {
            return Err(bad(format!("is {:?} {:?} instead of {dtype:?} {shape:?}", tensor.dtype, tensor.shape)));
        }
        Ok(tensor.bytes)
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }
}

/// Errors when a file that begins as a checkpoint of a run is not what was written; other files are none of its business. Reads the file, a piece at a
/// time.
pub fn verify(path: &Path) -> Result<()> {
    let mut first = [0; 8 + SUM_PREFIX.len() + SUM_LENGTH];
    let Ok(mut file) = std::fs::File::open(path) else { return Ok(()) };
    if file.read_exact(&mut first).is_err() || !first[8..].starts_with(SUM_PREFIX) {
        return Ok(());
    }
    let (before, sum) = first.split_at(8 + SUM_PREFIX.len());
    let mut hasher = blake3::Hasher::new();
    hasher.update(before).update(&[b'0'; SUM_LENGTH]);
    hasher.update_reader(file).map_err(|e| Error::weights(path, format!("cannot be read: {e}")))?;
    if hasher.finalize().to_hex().as_bytes() == sum {
        return Ok(());
    }
    Err(Error::weights(path, "damaged checkpoint: its blake3 sum does not match"))
}

/// blake3 over the file with zeros for the sum itself, in hexadecimal.
fn sum_of(before: &[u8], after: &[&[u8]]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before).update(&[b'0'; SUM_LENGTH]);
    for part in after {
        hasher.update(part);
    }
    hasher.finalize().to_hex().to_string()
}

/// JSON header with zeros for the sum, padded to eight bytes, and the tensors in file order: wide types first so that all are aligned.
fn header<'a>(
    step: u64,
    tensors: &'a BTreeMap<String, TensorRef<'a>>,
    metadata: &BTreeMap<String, String>,
) -> Result<(Vec<u8>, Vec<&'a TensorRef<'a>>), String> {
    use serde_json::{Map, Value, json};
    let mut about = Map::from_iter([("blake3".to_owned(), json!("0".repeat(SUM_LENGTH))), ("step".to_owned(), json!(step.to_string()))]);
    for (key, value) in metadata {
        if about.insert(key.clone(), json!(value)).is_some() {
            return Err(format!("metadata key {key} is reserved"));
        }
    }
    let mut order: Vec<_> = tensors.iter().collect();
    order.sort_by_key(|(_, t)| std::cmp::Reverse(t.dtype.bitsize()));
    let mut root = Map::from_iter([("__metadata__".to_owned(), Value::Object(about))]);
    let mut at = 0;
    for (name, tensor) in &order {
        let wanted = tensor.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).and_then(|n| n.checked_mul(tensor.dtype.bitsize() / 8));
        if wanted != Some(tensor.bytes.len()) || name.as_str() == "__metadata__" {
            return Err(format!("tensor {name}: {:?} {:?} does not fit {} bytes", tensor.dtype, tensor.shape, tensor.bytes.len()));
        }
        let end = at + tensor.bytes.len();
        root.insert(name.to_string(), json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [at, end]}));
        at = end;
    }
    let mut text = serde_json::to_vec(&root).map_err(|e| e.to_string())?;
    text.resize(text.len().next_multiple_of(8), b' ');
    if text.len() as u64 > MAX_HEADER || !text.starts_with(SUM_PREFIX) {
        return Err(format!("header of {} bytes is too long", text.len()));
    }
    Ok((text, order.into_iter().map(|(_, t)| t).collect()))
}

#[cfg(test)]
mod tests;
