//! Opens a weight file of any container and gives its tensors under the names they have there.
//!
//! Promises: the container is told by content, never by extension; nothing in a pickle is ever executed (the parser interprets tensors and
//! plain values only), and a pickle that asks for operating-system calls is refused; what a file claims is checked against its size
//! before memory is reserved for it, and parsing a pickle is bounded beforehand.

use super::budget::check_pickles;
use super::safetensors::{Index, read_index};
use super::tensor::{AnyTensor, DType};
use super::{MAX_TENSORS, one_line};
use crate::error::{Error, Result};
use pytorch_reader::{PickleValue, PytorchReader, Tensor};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use zip::{CompressionMethod, ZipArchive};

/// Largest compressed pickle accepted, after decompression: PyTorch never compresses, and the pickle of a ResNet has 0.1 MB.
const MAX_DEFLATED_PICKLE: u64 = 512 << 10;

/// Most bytes of weights accepted in a network: three times what the widest published one (a ResNet-50 of five times the width) has in float64.
const MAX_WEIGHTS: u64 = 16 << 30;

/// First bytes of a `torch.save` file from before PyTorch 1.6, after the protocol number: the number 0x1950a86a20f9469cfc6c.
const LEGACY_MAGIC: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";

/// Pickles at the start of such a file: the magic number, the version, the system, the object, the names of its storages.
const LEGACY_PICKLES: usize = 5;

/// Python modules whose functions no weight file has any business calling.
const FORBIDDEN_MODULES: &[&str] =
    &["os", "posix", "nt", "subprocess", "sys", "shutil", "socket", "pty", "ctypes", "runpy", "importlib", "webbrowser", "commands"];

/// Built-in functions that run code; `getattr`, which mmengine's logs use, is not among them.
const FORBIDDEN_BUILTINS: &[&str] = &["eval", "exec", "execfile", "compile", "open", "__import__", "apply"];

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
    Torch(BTreeMap<String, Tensor>),
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
        Read::by_ref(&mut file).take(64).read_to_end(&mut start).map_err(|error| format!("cannot read: {error}"))?;
        let (tensors, classes) = if start.starts_with(b"PK\x03\x04") {
            check_zip(path)?;
            open_torch(path)?
        } else if start.first() == Some(&0x80) && start.get(2..).is_some_and(|rest| rest.starts_with(LEGACY_MAGIC)) {
            file.rewind().map_err(|error| format!("cannot read: {error}"))?;
            check_pickles(BufReader::new(file), LEGACY_PICKLES)?;
            open_torch(path)?
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

    /// Names and shapes of all tensors.
    pub fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        match &self.tensors {
            Tensors::Safetensors(index, ..) => index.tensors.iter().map(|(name, (_, shape, _))| (name.clone(), shape.clone())).collect(),
            Tensors::Torch(tensors) => tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shape().to_vec())).collect(),
        }
    }

    /// Refuses a set of tensors that would take more memory than any network, or much more than the file has bytes: weights do not
    /// compress, and views that repeat one element are no weights.
    pub fn check_size<'n>(&self, names: impl Iterator<Item = &'n String>) -> Result<()> {
        let bytes = |name: &String| match &self.tensors {
            Tensors::Safetensors(index, ..) => index.tensors.get(name).map(|(.., range)| range.end - range.start),
            Tensors::Torch(tensors) => tensors.get(name).map(|tensor| tensor.byte_len() as u64),
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
            Tensors::Torch(tensors) => tensors.get(name).map(|tensor| Ok((dtype(tensor.dtype()), tensor.shape().to_vec(), tensor.read()?))),
        };
        let (dtype, shape, bytes) = tensor.ok_or_else(|| error("is missing"))?.map_err(cannot)?;
        AnyTensor::new(dtype, shape, bytes).ok_or_else(|| error("has fewer elements than its shape says"))
    }
}

/// Every tensor of a safetensors or PyTorch file, of any type and meaning, under the names the file has; names of nested containers are
/// joined by dots.
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

/// Looks for pickles that inflate to more, or hold more operations, than a weight file needs.
fn check_zip(path: &Path) -> Result<(), String> {
    let open = || File::open(path).map(BufReader::new).map_err(|error| format!("cannot read: {error}"));
    let mut archive = ZipArchive::new(open()?).map_err(|error| format!("not a whole zip file: {error}"))?;
    if archive.len() > 2 * MAX_TENSORS {
        return Err(format!("zip file with {} members; at most {} are accepted", archive.len(), 2 * MAX_TENSORS));
    }
    for index in 0..archive.len() {
        let member = archive.by_index_raw(index).map_err(|error| format!("damaged zip file: {error}"))?;
        let name = member.name().map_err(|error| format!("damaged zip file: {error}"))?;
        if !name.ends_with("data.pkl") {
            continue;
        }
        if member.compression() != CompressionMethod::Stored {
            if member.size() > MAX_DEFLATED_PICKLE {
                return Err(format!("compressed pickle of {} bytes; at most {MAX_DEFLATED_PICKLE} are accepted", member.size()));
            }
        } else {
            check_pickles(BufReader::new(member), 1)?;
        }
    }
    Ok(())
}

fn open_torch(path: &Path) -> Result<(Tensors, Option<Vec<String>>), String> {
    let damaged = |error| format!("cannot be read as a PyTorch file: {error}");
    let reader = PytorchReader::new(path).map_err(damaged)?;
    if reader.len() > MAX_TENSORS {
        return Err(format!("{} tensors; at most {MAX_TENSORS} are accepted", reader.len()));
    }
    let values = PytorchReader::read_pickle_data(path, None).map_err(damaged)?;
    if let Some(call) = forbidden(&values) {
        return Err(format!("its pickle calls {call}, which no weight file needs; nothing was executed"));
    }
    let classes = classes(&values);
    Ok((Tensors::Torch(reader.into_tensors().into_iter().collect()), classes))
}

/// The first value of a pickle that stands for running code.
fn forbidden(value: &PickleValue) -> Option<&str> {
    match value {
        PickleValue::Unsupported(name) => {
            let module = name.split('.').next().unwrap_or_default();
            let function = name.rsplit('.').next().unwrap_or_default();
            let builtin = matches!(module, "builtins" | "__builtin__");
            (FORBIDDEN_MODULES.contains(&module) || builtin && FORBIDDEN_BUILTINS.contains(&function)).then_some(name)
        }
        PickleValue::List(items) => items.iter().find_map(forbidden),
        PickleValue::Dict(items) => items.values().find_map(forbidden),
        _ => None,
    }
}

/// The class names of an mmpretrain (`meta.dataset_meta.classes`) or mmcls (`meta.CLASSES`) checkpoint.
fn classes(root: &PickleValue) -> Option<Vec<String>> {
    let field = |value: &PickleValue, key: &str| match value {
        PickleValue::Dict(items) => items.get(key).cloned(),
        _ => None,
    };
    let meta = field(root, "meta")?;
    let list = field(&meta, "dataset_meta").and_then(|data| field(&data, "classes")).or_else(|| field(&meta, "CLASSES"))?;
    let PickleValue::List(items) = list else { return None };
    items
        .into_iter()
        .map(|item| match item {
            PickleValue::String(name) => Some(name),
            _ => None,
        })
        .collect()
}

fn dtype(dtype: pytorch_reader::DType) -> DType {
    use pytorch_reader::DType as Torch;
    match dtype {
        Torch::F64 => DType::F64,
        Torch::F32 => DType::F32,
        Torch::F16 => DType::F16,
        Torch::BF16 => DType::BF16,
        Torch::I64 => DType::I64,
        Torch::I32 => DType::I32,
        Torch::I16 => DType::I16,
        Torch::I8 => DType::I8,
        Torch::U64 => DType::U64,
        Torch::U32 => DType::U32,
        Torch::U16 => DType::U16,
        Torch::U8 => DType::U8,
        Torch::Bool => DType::Bool,
    }
}
