//! Where classes come from that no folder names: label files, metadata beside images, JSON members of shards.

mod file;
pub(super) mod json;
pub(super) mod metadata;
mod table;

use std::fs::File;
use std::io::Read;
use std::path::Path;

pub(super) use file::LabelFile;
pub(super) use table::{Row, Table};

use crate::error::{Error, Result};

/// The mark of UTF-8 that some programs begin a text with.
pub(super) const MARK: &[u8] = &[0xef, 0xbb, 0xbf];

/// Largest file of labels: a hundred bytes for each of ten million images.
const MOST_BYTES: u64 = 1 << 30;

/// The text of a file; letters that are no UTF-8 are replaced.
pub(super) fn read(path: &Path, most: u64) -> Result<String> {
    let failed = |e: std::io::Error| Error::data(path, format!("cannot be read: {e}"));
    let file = File::open(path).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() {
        return Err(Error::data(path, "is no file"));
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > most {
        return Err(Error::data(path, format!("has more than {} MiB: that is no list of labels", most >> 20)));
    }
    // Excel and other programs of Windows write a mark in front.
    let text = bytes.strip_prefix(MARK).unwrap_or(&bytes);
    Ok(String::from_utf8_lossy(text).into_owned())
}
