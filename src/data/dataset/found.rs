//! What a scan finds: samples before their classes are numbered, and everything that is no sample.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::data::labels::metadata::is_metadata;
use crate::data::records::Records;
use crate::data::shards::Shard;

/// Where a sample's bytes are.
#[derive(Clone, Debug)]
pub(in crate::data) enum Source {
    File(PathBuf),
    Member {
        shard: u32,
        name: Box<str>,
        offset: u64,
        length: u64,
    },
    /// Raw pixels, of which many lie in one file.
    Record {
        file: Arc<Records>,
        index: u32,
    },
}

impl Source {
    /// Its path, or `shard.tar!CLASS/name.png`, or `data_batch_1.bin!000017`.
    pub fn path(&self, shards: &[Shard]) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Member { shard, name, .. } => format!("{}!{name}", shards[*shard as usize].path.display()),
            Self::Record { file, index } => format!("{}!{}", file.path.display(), Records::name(*index as usize)),
        }
    }

    /// The file that it is, or lies in, and its name there.
    pub fn file<'a>(&'a self, shards: &'a [Shard]) -> (&'a Path, Option<Cow<'a, str>>) {
        match self {
            Self::File(path) => (path, None),
            Self::Member { shard, name, .. } => (&shards[*shard as usize].path, Some(Cow::Borrowed(name))),
            Self::Record { file, index } => (&file.path, Some(Cow::Owned(Records::name(*index as usize)))),
        }
    }

    /// Its name below `root`, with `/` between folders: `val/a.png`, `train-0.tar/CLASS/name.png`.
    pub fn name(&self, root: &Path, shards: &[Shard]) -> String {
        let (file, inside) = self.file(shards);
        let below = file.strip_prefix(root).unwrap_or(file);
        let parts = below.components().map(|part| part.as_os_str().to_string_lossy());
        parts.chain(inside).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
    }
}

/// What is known of a sample's class before the classes are numbered.
#[derive(Clone, Debug)]
pub(in crate::data) enum Class {
    None,
    /// Name of the folder it lies in.
    Folder(Arc<str>),
    /// Text of its `.cls` member, or of a line about it: a name or a number.
    Text(Arc<str>),
}

impl Class {
    /// Of a text; -1 and nothing stand for no class (STL-10, semi-supervised sets).
    pub fn text(text: &Arc<str>) -> Self {
        match text.trim() {
            "" | "-1" | "-1.0" => Self::None,
            _ => Self::Text(Arc::clone(text)),
        }
    }

    /// Its name or number.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::Folder(name) | Self::Text(name) => Some(name),
        }
    }
}

/// A sample as a scan finds it.
#[derive(Clone, Debug)]
pub(in crate::data) struct Found {
    pub source: Source,
    pub class: Class,
}

/// Longest extension that is counted under its own name, in characters.
const LONGEST_EXTENSION: usize = 12;

/// Formats of pictures that are not read: that they are passed over is told even where little is.
const PICTURES: [&str; 27] = [
    "arw", "avif", "cr2", "cr3", "dds", "dng", "eps", "exr", "hdr", "heic", "heif", "ico", "j2k", "jls", "jp2", "jxl", "jxr", "nef", "orf", "pcx",
    "psd", "qoi", "raf", "raw", "rw2", "svg", "tga",
];

/// What was not taken for a sample: counted by kind, or named.
#[derive(Clone, Debug, Default)]
pub(in crate::data) struct PassedOver {
    /// `.txt`, or in words; how many.
    pub kinds: BTreeMap<String, u64>,
    /// Single things, by name.
    pub named: Vec<String>,
    /// Sentences about what is used, but looks wrong.
    pub notes: Vec<String>,
    /// Files of metadata beside pictures.
    pub metadata: Vec<PathBuf>,
    /// Shards that are read from an unpacked copy.
    pub unpacked: u64,
    /// Class folders without a picture.
    pub empty: Vec<String>,
    /// Names that differ from another of their folder by upper and lower case only.
    pub alike: Vec<String>,
}

impl PassedOver {
    /// A file of this name was passed over.
    pub fn file(&mut self, name: &str) {
        let extension = name.rsplit_once('.').map(|(_, e)| e.to_lowercase());
        let plain = |e: &String| !e.is_empty() && e.chars().count() <= LONGEST_EXTENSION && e.chars().all(char::is_alphanumeric);
        match extension {
            None => self.count("files without extension", 1),
            Some(e) if plain(&e) => self.count(&format!(".{e}"), 1),
            Some(_) => self.count("files with odd extensions", 1),
        }
    }

    /// A file of a folder was passed over, but for metadata, which is kept to be read.
    pub fn path(&mut self, path: &Path, name: &str) {
        if is_metadata(name) { self.metadata.push(path.to_owned()) } else { self.file(name) }
    }

    /// So many of a kind were passed over.
    pub fn count(&mut self, kind: &str, n: u64) {
        if n > 0 {
            *self.kinds.entry(kind.to_owned()).or_default() += n;
        }
    }

    /// Adds what another has counted.
    pub fn add(&mut self, other: Self) {
        other.kinds.iter().for_each(|(kind, n)| self.count(kind, *n));
        self.named.extend(other.named);
        self.notes.extend(other.notes);
        self.metadata.extend(other.metadata);
        self.unpacked += other.unpacked;
        self.empty.extend(other.empty);
        self.alike.extend(other.alike);
    }

    /// Whether a kind is of pictures.
    pub fn is_picture(kind: &str) -> bool {
        kind.strip_prefix('.').is_some_and(|e| PICTURES.contains(&e))
    }
}
