//! What a scan finds: samples before their classes are numbered, and everything that is no sample.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::data::shards::Shard;

/// Where a sample's bytes are.
#[derive(Clone, Debug)]
pub(in crate::data) enum Source {
    File(PathBuf),
    Member { shard: u32, name: Box<str>, offset: u64, length: u64 },
}

impl Source {
    /// Its path, or `shard.tar!CLASS/name.png`.
    pub fn path(&self, shards: &[Shard]) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Member { shard, name, .. } => format!("{}!{name}", shards[*shard as usize].path.display()),
        }
    }
}

/// What is known of a sample's class before the classes are numbered.
#[derive(Clone, Debug)]
pub(in crate::data) enum Class {
    None,
    /// Name of the folder it lies in.
    Folder(Arc<str>),
    /// Text of its `.cls` member: a name or a number.
    Text(Arc<str>),
}

impl Class {
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
pub(in crate::data) struct Tally {
    /// `.txt`, or in words; how many.
    pub kinds: BTreeMap<String, u64>,
    /// Single things, by name.
    pub named: Vec<String>,
    /// Sentences about what is used, but looks wrong.
    pub notes: Vec<String>,
    /// Class folders without a picture.
    pub empty: Vec<String>,
    /// Names that differ from another of their folder by upper and lower case only.
    pub alike: Vec<String>,
}

impl Tally {
    /// A file of this name was passed over.
    pub fn file(&mut self, name: &str) {
        let extension = name.rsplit_once('.').map(|(_, e)| e.to_lowercase());
        let plain = |e: &String| !e.is_empty() && e.chars().count() <= LONGEST_EXTENSION && e.chars().all(char::is_alphanumeric);
        match extension {
            None => self.count("without extension", 1),
            Some(e) if plain(&e) => self.count(&format!(".{e}"), 1),
            Some(_) => self.count("of other extensions", 1),
        }
    }

    /// So many of a kind were passed over.
    pub fn count(&mut self, kind: &str, n: u64) {
        if n > 0 {
            *self.kinds.entry(kind.to_owned()).or_default() += n;
        }
    }

    /// Whether a kind is of pictures.
    pub fn is_picture(kind: &str) -> bool {
        kind.strip_prefix('.').is_some_and(|e| PICTURES.contains(&e))
    }
}
