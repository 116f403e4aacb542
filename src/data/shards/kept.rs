//! What the cache folder keeps of shards: how much it is, and how to be rid of it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Files that are kept of shards.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct KeptShards {
    /// Where they lie.
    pub folder: PathBuf,
    /// Unpacked copies of compressed shards.
    pub copies: u64,
    /// Their bytes.
    pub copy_bytes: u64,
    /// Indexes, one a folder of shards.
    pub indexes: u64,
    /// Their bytes.
    pub index_bytes: u64,
}

/// Counts what is kept below `cache`, and removes it if `clear` says so. Files of other names are
/// left alone.
pub fn kept_shards(cache: &Path, clear: bool) -> Result<KeptShards> {
    let folder = cache.join("shards");
    let mut kept = KeptShards { folder: folder.clone(), ..KeptShards::default() };
    let entries = match fs::read_dir(&folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(kept),
        other => other.map_err(Error::output(&folder))?,
    };
    for entry in entries {
        let path = entry.map_err(Error::output(&folder))?.path();
        let Ok(about) = fs::symlink_metadata(&path) else { continue };
        let hexadecimal = |text: &str, length: usize| text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit());
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let (count, bytes) = match path.extension().and_then(|e| e.to_str()) {
            Some("tar") if stem.split_once('-').is_some_and(|(shard, stamp)| hexadecimal(shard, 32) && hexadecimal(stamp, 16)) => {
                (&mut kept.copies, &mut kept.copy_bytes)
            }
            Some("index") if hexadecimal(stem, 32) => (&mut kept.indexes, &mut kept.index_bytes),
            _ => continue,
        };
        if clear {
            fs::remove_file(&path).map_err(Error::output(&path))?;
        }
        *count += 1;
        *bytes += about.len();
    }
    Ok(kept)
}
