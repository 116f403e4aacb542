//! Size and time of change of images, by which a change of their contents is noticed.

use std::fs::{File, Metadata, metadata};
use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use rayon::prelude::*;

use super::Dataset;
use super::found::Source;
use crate::data::reading::Reading;
use crate::error::{Error, Result};

/// What tells an image's contents from others without reading them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Bytes of the file, or of the member of a shard.
    pub length: u64,
    /// When the file, or the shard, was changed: milliseconds since 1970.
    pub modified: i64,
    /// Where the member begins in its shard; 0 for a file.
    pub offset: u64,
}

fn modified(about: &Metadata) -> i64 {
    let milliseconds = |d: std::time::Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
    // Systems without such times give the same one always, and so none that differs.
    about.modified().map_or(0, |time| time.duration_since(UNIX_EPOCH).map_or_else(|e| -milliseconds(e.duration()), milliseconds))
}

impl Dataset {
    /// The stamp of every image, in order; none for one that cannot be looked at.
    pub fn stamps(&self) -> Vec<Option<Stamp>> {
        let shards: Vec<Option<i64>> = self.shards.par_iter().map(|shard| metadata(&shard.path).ok().map(|about| modified(&about))).collect();
        let of = |(source, _): &(Source, Option<u32>)| match source {
            Source::File(path) => metadata(path).ok().map(|about| Stamp { length: about.len(), modified: modified(&about), offset: 0 }),
            Source::Record { file, index } => {
                metadata(&file.path).ok().map(|about| Stamp { length: about.len(), modified: modified(&about), offset: u64::from(*index) })
            }
            Source::Member { shard, offset, length, .. } => {
                shards[*shard as usize].map(|modified| Stamp { length: *length, modified, offset: *offset })
            }
        };
        self.samples.par_iter().map(of).collect()
    }

    /// Sees whether image `i` could be read: it is there, a file that may be opened, and not empty.
    pub(in crate::data) fn glance(&self, i: usize, reading: &Reading) -> Result<()> {
        let failed = |message: String| Error::data(self.path(i), message);
        let Source::File(path) = &self.samples[i].0 else { return Ok(()) };
        let looked = reading.read(i as u32, false, || look(path));
        looked.map(drop).map_err(|e| failed(if e.kind() == io::ErrorKind::InvalidData { e.to_string() } else { format!("cannot be read: {e}") }))
    }
}

fn look(path: &Path) -> io::Result<Vec<u8>> {
    let wrong = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what.to_owned()));
    // Before it is opened: a pipe would never be.
    let about = metadata(path)?;
    match about.len() {
        _ if !about.is_file() => wrong("is no file"),
        0 => wrong("is empty"),
        _ => File::open(path).map(|_| Vec::new()),
    }
}
