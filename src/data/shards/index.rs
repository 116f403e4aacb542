//! The index of shards that is kept from one run to the next: a start need not read every member's header again.
//!
//! One file a folder of shards, in `shards/` of the cache folder. An entry counts while the shard has the size and the time of change that
//! it was made with. A file that is damaged, of another version or of another folder is ignored and written anew; that it cannot be
//! written is no error.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::Stamp;
use super::members::Members;
use super::samples::Member;
use crate::atomic;
use crate::data::decode::EXTENSIONS;

/// Raise it when the form of the file changes, or what members of a shard mean ([`super::members`]).
const FORMAT: u32 = 2;

/// A shard that changed so shortly before it was indexed might change again without another time: it is not kept.
const UNSETTLED: Duration = Duration::from_secs(2);

/// What is known of one shard.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    stamp: Stamp,
    members: Members,
}

/// What is known of the shards of a folder, by name.
#[derive(Debug, Default)]
pub(super) struct Kept {
    entries: BTreeMap<String, Entry>,
}

/// Everything that the form and the meaning of the file hang on.
fn head(folder: &Path, label_key: Option<&str>) -> Vec<u8> {
    let conventions = format!("swav-wgpu shards {FORMAT} {EXTENSIONS:?} {label_key:?} of {}\n", hash(folder));
    conventions.into_bytes()
}

/// 32 hexadecimal digits that stand for an absolute path.
pub(super) fn hash(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    blake3::hash(absolute.as_os_str().as_encoded_bytes()).to_hex()[..32].to_owned()
}

fn place(folder: &Path, cache: &Path) -> PathBuf {
    cache.join("shards").join(format!("{}.index", hash(folder)))
}

impl Kept {
    /// What was kept for the shards of `folder`.
    pub fn read(folder: &Path, cache: &Path, label_key: Option<&str>) -> Self {
        let Ok(bytes) = std::fs::read(place(folder, cache)) else { return Self::default() };
        let body = bytes.strip_prefix(&head(folder, label_key)[..]).and_then(|rest| rest.split_first_chunk::<32>());
        let Some((_, body)) = body.filter(|(sum, body)| blake3::hash(body).as_bytes() == *sum) else { return Self::default() };
        postcard::from_bytes(body).map(|entries| Self { entries }).unwrap_or_default()
    }

    /// What is known of a shard as it is now.
    pub fn get(&self, name: &OsStr, stamp: &Stamp) -> Option<&Members> {
        let entry = self.entries.get(name.to_str()?).filter(|entry| entry.stamp == *stamp)?;
        // Sizes of members are allocated as they are read.
        let size = entry.members.unpacked.unwrap_or(stamp.size);
        let fits = |m: &Member| m.offset.checked_add(m.length).is_some_and(|end| end <= size);
        Some(&entry.members).filter(|members| members.files.iter().all(fits))
    }

    /// Adds a shard, where its name can be kept and it has settled.
    pub fn insert(&mut self, name: &OsStr, stamp: Stamp, members: Members) {
        let settled = SystemTime::now().duration_since(stamp.time()).is_ok_and(|age| age > UNSETTLED);
        if let Some(name) = name.to_str().filter(|_| settled) {
            self.entries.insert(name.to_owned(), Entry { stamp, members });
        }
    }

    /// Writes it, without shards that are no more.
    pub fn write(mut self, folder: &Path, cache: &Path, label_key: Option<&str>) {
        self.entries.retain(|name, _| folder.join(name).exists());
        let place = place(folder, cache);
        let go = || -> Result<(), String> {
            let body = postcard::to_stdvec(&self.entries).map_err(|e| e.to_string())?;
            std::fs::create_dir_all(atomic::folder_of(&place)).map_err(|e| e.to_string())?;
            let bytes = [&head(folder, label_key)[..], &blake3::hash(&body).as_bytes()[..], &body].concat();
            atomic::write(&place, &bytes).map_err(|e| e.to_string())
        };
        if let Err(why) = go() {
            tracing::info!("the index of {} is not kept: {why}", folder.display());
        }
    }
}
