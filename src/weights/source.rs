//! Opens a weight file of any container and gives its tensors under the names they have there.
//!
//! Promises: the container is told by content, never by extension; nothing in a pickle is ever executed, and a pickle that asks for
//! operating-system calls is refused; what a file claims is checked against its size before memory is reserved for it. Tensors of kinds
//! that no weights here can have are listed, and no reason to refuse the others.

use super::one_line;
use super::safetensors::{Index, read_index};
use super::tensor::{AnyTensor, DType};
use super::torch::{Container, TensorInfo, TorchFile};
use crate::error::{Error, Result};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Most bytes of weights accepted in a network: three times what the widest published one (a ResNet-50 of five times the width) has in float64.
const MAX_WEIGHTS: u64 = 16 << 30;

/// An opened weight file.
pub(crate) struct Source {
    pub path: PathBuf,
    length: u64,
    tensors: Tensors,
    /// Class names, where the file has them.
    pub classes: Option<Vec<String>>,
    rounded: Cell<usize>,
}

enum Tensors {
    /// Index, file, and where its data starts; each tensor is read when it is asked for.
    Safetensors(Index, File, u64),
    Torch(TorchFile),
}

impl Source {
    /// Opens a file and reads its index.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_inner(path).map_err(|message| Error::weights(path, one_line(&message)))
    }

    fn open_inner(path: &Path) -> Result<Self, String> {
        // Asked before it is opened: a pipe would wait for a writer.
        let info = std::fs::metadata(path).map_err(|error| format!("cannot read: {error}"))?;
        if !info.is_file() {
            return Err("not a file".to_owned());
        }
        let mut file = File::open(path).map_err(|error| format!("cannot read: {error}"))?;
        let mut start = Vec::new();
        Read::by_ref(&mut file).take(Container::START).read_to_end(&mut start).map_err(|error| format!("cannot read: {error}"))?;
        let (tensors, classes) = if let Some(container) = Container::of(&start) {
            file.rewind().map_err(|error| format!("cannot read: {error}"))?;
            let mut torch = TorchFile::open(file, container)?;
            let classes = torch.classes.take();
            (Tensors::Torch(torch), classes)
        } else if start.get(8) == Some(&b'{') {
            file.rewind().map_err(|error| format!("cannot read: {error}"))?;
            let (index, start) = read_index(&mut file)?;
            let classes = index.metadata.get("classes").and_then(|text| serde_json::from_str(text).ok());
            (Tensors::Safetensors(index, file, start), classes)
        } else {
            return Err(unknown(&start));
        };
        Ok(Self { path: path.to_owned(), length: info.len(), tensors, classes, rounded: Cell::new(0) })
    }

    /// An entry of a safetensors file's metadata.
    pub fn metadata(&self, key: &str) -> Option<String> {
        match &self.tensors {
            Tensors::Safetensors(index, ..) => index.metadata.get(key).cloned(),
            Tensors::Torch(_) => None,
        }
    }

    /// Names and shapes of all tensors, but for the unusable ones.
    pub fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        match &self.tensors {
            Tensors::Safetensors(index, ..) => index.tensors.iter().map(|(name, (_, shape, _))| (name.clone(), shape.clone())).collect(),
            Tensors::Torch(file) => file
                .tensors
                .iter()
                .filter_map(|(name, info)| match info {
                    TensorInfo::Tensor(tensor) => Some((name.clone(), tensor.shape.clone())),
                    TensorInfo::Unusable(_) => None,
                })
                .collect(),
        }
    }

    /// Tensors of kinds that no weights here can have, and what each is, to follow "is" in a sentence.
    pub fn unusable(&self) -> BTreeMap<String, String> {
        match &self.tensors {
            Tensors::Safetensors(index, ..) => index.unusable.clone(),
            Tensors::Torch(file) => file
                .tensors
                .iter()
                .filter_map(|(name, info)| match info {
                    TensorInfo::Tensor(_) => None,
                    TensorInfo::Unusable(kind) => Some((name.clone(), kind.clone())),
                })
                .collect(),
        }
    }

    /// The element type of a tensor.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        match &self.tensors {
            Tensors::Safetensors(index, ..) => index.tensors.get(name).map(|(dtype, ..)| *dtype),
            Tensors::Torch(file) => match file.tensors.get(name)? {
                TensorInfo::Tensor(tensor) => Some(tensor.dtype),
                TensorInfo::Unusable(_) => None,
            },
        }
    }

    /// Refuses a set of tensors that would take more memory than any network, or much more than the file has bytes: weights do not
    /// compress, and views that repeat one element are no weights.
    pub fn check_size<'n>(&self, names: impl Iterator<Item = &'n String>) -> Result<()> {
        let bytes = |name: &String| match &self.tensors {
            Tensors::Safetensors(index, ..) => index.tensors.get(name).map(|(.., range)| range.end - range.start),
            Tensors::Torch(file) => match file.tensors.get(name) {
                Some(TensorInfo::Tensor(tensor)) => Some(tensor.byte_len()),
                _ => None,
            },
        };
        let total = names.filter_map(bytes).fold(0u64, u64::saturating_add);
        if total > self.length.saturating_mul(8).saturating_add(1 << 20) {
            return Err(Error::weights(&self.path, format!("claims {total} bytes of weights in a file of {} bytes", self.length)));
        }
        if total > MAX_WEIGHTS {
            return Err(Error::weights(&self.path, format!("has {total} bytes of weights; at most {MAX_WEIGHTS} are accepted")));
        }
        Ok(())
    }

    /// Notes that a tensor lost digits on its way to float32.
    pub fn count_rounded(&self) {
        self.rounded.set(self.rounded.get() + 1);
    }

    /// How many tensors did.
    pub fn rounded(&self) -> usize {
        self.rounded.get()
    }

    /// Reads one tensor.
    pub fn read(&self, name: &str) -> Result<AnyTensor<'static>> {
        let error = |message: &str| Error::weights(&self.path, format!("tensor {} {}", one_line(name), one_line(message)));
        let cannot = |cause: io::Error| error(&format!("cannot be read: {cause}"));
        let tensor = match &self.tensors {
            Tensors::Safetensors(index, file, start) => index.tensors.get(name).map(|(dtype, shape, range)| {
                let mut file = file;
                file.seek(SeekFrom::Start(start + range.start))?;
                let mut bytes = Vec::new();
                // The index was checked against the length of the file.
                let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
                bytes.try_reserve_exact(length)?;
                file.take(length as u64).read_to_end(&mut bytes)?;
                io::Result::Ok((*dtype, shape.clone(), bytes))
            }),
            Tensors::Torch(file) => match file.tensors.get(name) {
                Some(TensorInfo::Tensor(tensor)) => Some(file.read(tensor).map(|bytes| (tensor.dtype, tensor.shape.clone(), bytes))),
                Some(TensorInfo::Unusable(kind)) => return Err(error(&format!("is {kind}, which is not supported"))),
                None => None,
            },
        };
        let (dtype, shape, bytes) = tensor.ok_or_else(|| error("is missing"))?.map_err(cannot)?;
        AnyTensor::new(dtype, shape, bytes).ok_or_else(|| error("has fewer elements than its shape says"))
    }
}

/// Every tensor of a safetensors or PyTorch file, of any type and meaning, under the names the file has; names of nested containers are
/// joined by dots. Tensors of kinds that no [`AnyTensor`] can be (sparse, quantised, complex and so on) are left out.
pub fn read_tensors(path: impl AsRef<Path>) -> Result<BTreeMap<String, AnyTensor<'static>>> {
    let source = Source::open(path.as_ref())?;
    let shapes = source.shapes();
    source.check_size(shapes.keys())?;
    shapes.into_keys().map(|name| source.read(&name).map(|tensor| (name, tensor))).collect()
}

/// Says what a file is that is no weight file.
fn unknown(start: &[u8]) -> String {
    let what = match start {
        [] => "is empty",
        [b'<', ..] => "looks like a web page",
        [0x80, ..] => "is a bare pickle without tensor storages",
        _ if start.starts_with(b"version https://git-lfs") => "is a Git LFS pointer, not the file itself",
        _ => "is of no known kind",
    };
    format!("{what}; expected a safetensors file or one written by torch.save")
}
