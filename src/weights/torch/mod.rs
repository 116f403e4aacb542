//! PyTorch files: what `torch.save` wrote in any version, read without PyTorch; and zip files as it writes them now.
//!
//! * [`pickle`] reads the pickles, [`value`] holds what is in them and knows what PyTorch's constructors mean, [`walk`] finds the tensors.
//! * [`storage`] and [`tar`] know where their elements lie, [`tensor`] which of them each tensor has.
//! * [`write`] writes.
//!
//! The crates that read pickles refuse what is no tensor instead of reading past it, and one odd tensor is the end of all; hence this
//! reader. Promises: nothing in a file is executed; memory and time are bounded by the file's length and a budget; whatever
//! `torch.load` makes a tensor of is found, or named as [`TensorInfo::Unusable`].

mod pickle;
mod storage;
mod tar;
mod tensor;
mod value;
mod walk;
mod write;

pub(super) use self::tensor::Tensor;
pub(super) use self::write::{Pickle, Storages as WrittenStorages, write_torch};

use self::storage::{Storages, Zip};
use self::value::{Node, Tree, Value};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io;

/// The number 0x1950a86a20f9469cfc6c that files from before PyTorch 1.6 begin with, as binary protocols and as text ones write it.
const MAGIC: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
const MAGIC_TEXT: &[u8] = b"L119547037146038801333356L\n";

/// How a PyTorch file keeps its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Container {
    /// PyTorch 1.6 and later.
    Zip,
    /// PyTorch 0.1.10 to 1.5.
    Legacy,
    /// Before.
    Tar,
}

impl Container {
    /// Tells it by the first bytes of a file, of which there should be [`Self::START`].
    pub fn of(start: &[u8]) -> Option<Self> {
        let first = &start[..start.len().min(32)];
        if first.starts_with(b"PK\x03\x04") {
            Some(Self::Zip)
        } else if first.starts_with(MAGIC_TEXT) || first.windows(MAGIC.len()).any(|bytes| bytes == MAGIC) {
            Some(Self::Legacy)
        } else if start.get(257..262) == Some(b"ustar") {
            Some(Self::Tar)
        } else {
            None
        }
    }

    /// Bytes at the start of a file that tell its kind.
    pub const START: u64 = 262;
}

/// What is known of a tensor before it is read.
#[derive(Debug, PartialEq)]
pub(super) enum TensorInfo {
    Tensor(Tensor),
    /// A tensor of a kind that is of no use here; which, to follow "is" in a sentence.
    Unusable(String),
}

/// The tensors of a file by name.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub tensors: BTreeMap<String, TensorInfo>,
}

impl Found {
    /// Adds a tensor. Another one of the same name, which nesting and dots in keys can make, is marked.
    fn add(&mut self, mut name: String, tensor: TensorInfo) -> Result<(), String> {
        for _ in 0..8 {
            match self.tensors.entry(name.clone()) {
                Entry::Vacant(place) => {
                    place.insert(tensor);
                    return Ok(());
                }
                Entry::Occupied(other) if *other.get() == tensor => return Ok(()),
                Entry::Occupied(_) => name += " (again)",
            }
        }
        Err(format!("many tensors of one name: {name}"))
    }
}

/// An opened PyTorch file.
pub(super) struct TorchFile {
    pub tensors: BTreeMap<String, TensorInfo>,
    /// Class names of mmpretrain's and mmcls's checkpoints.
    pub classes: Option<Vec<String>>,
    storages: Storages,
}

impl TorchFile {
    /// Reads everything but the tensors' elements.
    pub fn open(file: File, container: Container) -> Result<Self, String> {
        let mut tree = Tree::default();
        let (root, storages) = match container {
            Container::Zip => {
                let mut zip = Zip::open(file)?;
                let root = zip.pickle(&mut tree)?;
                (root, Storages::Zip(zip.into()))
            }
            Container::Legacy => storage::legacy(file, &mut tree)?,
            Container::Tar => tar::read(file, &mut tree)?,
        };
        let tensors = walk::tensors(&tree, root)?.tensors;
        Ok(Self { tensors, classes: classes(&tree, root), storages })
    }

    /// The elements of a tensor, row-major.
    pub fn read(&self, tensor: &Tensor) -> io::Result<Vec<u8>> {
        self.storages.read(tensor)
    }
}

/// The class names of an mmpretrain (`meta.dataset_meta.classes`) or mmcls (`meta.CLASSES`) checkpoint.
fn classes(tree: &Tree, root: Value) -> Option<Vec<String>> {
    let meta = tree.field(root, "meta")?;
    let list = tree.field(meta, "dataset_meta").and_then(|data| tree.field(data, "classes")).or_else(|| tree.field(meta, "CLASSES"))?;
    match tree.node(list)? {
        Node::List(items) => items.iter().map(|item| tree.text(*item).map(str::to_owned)).collect(),
        _ => None,
    }
}
