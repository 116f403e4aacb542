//! Tar shards in WebDataset style: indexed once, then read by position.
//!
//! Members are `CLASS/name.png`, or `key.jpg` with its class as text in `key.cls` or `key.json`: [`samples`].

mod index;
mod kept;
mod members;
mod samples;
mod unpack;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use serde::{Deserialize, Serialize};

use super::dataset::found::{Class, Found, PassedOver, Source};
use crate::error::{Error, Result};
use index::Kept;
pub use kept::{KeptShards, kept_shards};
use members::{Members, members};
use samples::Member;
use unpack::{Compression, Unpacked};

/// Shards beyond this many are opened anew for each read, so that a set of thousands does not run out of file handles.
const KEPT_OPEN: usize = 256;

/// Most shards that are indexed at a time: on network disks this is a matter of waiting, not of cores.
const AT_ONCE: usize = 8;

/// How names of shards end, in any case. What is in them their first bytes say.
const ENDINGS: [&str; 9] = [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.bz2", ".tbz2", ".tar.xz", ".txz"];

/// Whether a file name looks like a shard's.
pub(super) fn is_shard(name: &str) -> bool {
    let name = name.to_lowercase();
    ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Whether a file is a shard, whatever its name: a tar file with a magic number, or something that is compressed.
pub(super) fn holds_shard(path: &Path) -> bool {
    use std::io::Read;
    let mut first = Vec::new();
    let read = File::open(path).and_then(|file| file.take(262).read_to_end(&mut first));
    read.is_ok() && (first.ends_with(b"ustar") || first.starts_with(&[0x1f, 0x8b]) || first.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]))
}

/// What tells a file from the one that was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    /// Bytes.
    pub size: u64,
    /// Time of change since 1970; files that are older count as of then.
    changed: Duration,
    /// Time of the last change of anything about it, where the system has one: it tells a file that
    /// was replaced by one of the same size and time of change (`cp -p`).
    status: Duration,
}

impl Stamp {
    fn of(path: &Path) -> std::io::Result<Self> {
        let about = std::fs::metadata(path)?;
        let changed = about.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Ok(Self { size: about.len(), changed: changed.unwrap_or_default(), status: status(&about) })
    }

    fn time(&self) -> SystemTime {
        UNIX_EPOCH + self.changed
    }

    /// 16 hexadecimal digits.
    fn hash(&self) -> String {
        let text = format!("{} {} {}", self.size, self.changed.as_nanos(), self.status.as_nanos());
        blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
    }
}

#[cfg(unix)]
fn status(about: &std::fs::Metadata) -> Duration {
    use std::os::unix::fs::MetadataExt;
    Duration::new(about.ctime().try_into().unwrap_or_default(), about.ctime_nsec().try_into().unwrap_or_default())
}

#[cfg(not(unix))]
fn status(_about: &std::fs::Metadata) -> Duration {
    Duration::ZERO
}

/// A tar file that members are read from.
#[derive(Clone, Debug)]
pub(super) struct Shard {
    /// Where it lies.
    pub path: PathBuf,
    stamp: Stamp,
    /// Where its members lie, if it is compressed.
    unpacked: Option<Unpacked>,
    /// The open file of one that is kept open.
    file: Option<Arc<OnceLock<File>>>,
}

/// Shards of a set: with the class of members that have none of their own.
pub(super) type Outer = (PathBuf, Class);

/// How shards are indexed.
pub(super) struct Indexing<'a> {
    /// Where the index is kept, and what compressed shards hold.
    pub cache: Option<&'a Path>,
    /// What the class is called in `.json` members, where the user says so.
    pub label_key: Option<&'a str>,
    /// Nobody reads the images: compressed shards that were never unpacked are left out.
    pub count_only: bool,
}

/// Adds `new` to `shards` and their images to `found`: shard by shard in their order, images sorted by name. Returns how many were left out.
pub(super) fn index_all(
    new: &[Outer],
    how: &Indexing<'_>,
    (shards, found, passed): (&mut Vec<Shard>, &mut Vec<Found>, &mut PassedOver),
) -> Result<usize> {
    let (cache, label_key) = (how.cache, how.label_key);
    let mut kept: BTreeMap<&Path, Kept> = BTreeMap::new();
    for (path, _) in new {
        let folder = crate::atomic::folder_of(path);
        if let Some(cache) = cache {
            kept.entry(folder).or_insert_with(|| Kept::read(folder, cache, label_key));
        }
    }
    let known = |path: &Path, stamp: &Stamp| kept.get(crate::atomic::folder_of(path))?.get(path.file_name()?, stamp);
    let go = || -> Vec<Result<Option<Indexed>>> { new.par_iter().map(|(path, _)| one(path, how, &known)).collect() };
    let outcomes = match rayon::ThreadPoolBuilder::new().num_threads(AT_ONCE.min(new.len()).max(1)).build() {
        Ok(pool) => pool.install(go),
        Err(_) => go(),
    };
    let (mut all, mut left) = (Vec::new(), 0);
    for (outcome, (path, outer)) in outcomes.into_iter().zip(new) {
        match outcome? {
            Some(indexed) => all.push((indexed, path, outer)),
            None => left += 1,
        }
    }
    if let Some(cache) = cache {
        let mut changed: Vec<&Path> = Vec::new();
        for (indexed, path, _) in all.iter().filter(|(indexed, ..)| indexed.fresh) {
            let folder = crate::atomic::folder_of(path);
            if let (Some(kept), Some(name)) = (kept.get_mut(folder), path.file_name()) {
                kept.insert(name, indexed.stamp, indexed.members.clone());
                changed.push(folder);
            }
        }
        kept.into_iter().filter(|(folder, _)| changed.contains(folder)).for_each(|(folder, kept)| kept.write(folder, cache, label_key));
    }
    for (Indexed { stamp, members, unpacked, .. }, path, outer) in all {
        let number = shards.len();
        members.kinds.iter().for_each(|(kind, n)| passed.count(kind, *n));
        let samples = samples::samples(path, members.files, label_key.is_some(), outer, passed)?;
        found.extend(samples.into_iter().map(|(Member { name, offset, length, .. }, class)| {
            let source = Source::Member { shard: number as u32, name: name.into(), offset, length };
            Found { source, class }
        }));
        if unpacked.is_some() {
            passed.unpacked += 1;
        }
        shards.push(Shard { path: path.clone(), stamp, unpacked, file: (number < KEPT_OPEN).then(Arc::default) });
    }
    Ok(left)
}

/// What is known of one shard.
struct Indexed {
    stamp: Stamp,
    members: Members,
    unpacked: Option<Unpacked>,
    /// Whether it was read just now.
    fresh: bool,
}

/// Indexes a shard, or finds it in the index; `None` is one that would have to be unpacked only to be counted.
fn one<'k>(
    path: &Path,
    &Indexing { cache, label_key, count_only }: &Indexing<'_>,
    known: &(impl Fn(&Path, &Stamp) -> Option<&'k Members> + Sync),
) -> Result<Option<Indexed>> {
    let failed = |e: std::io::Error| Error::data(path, format!("cannot be opened: {e}"));
    let stamp = Stamp::of(path).map_err(failed)?;
    if stamp.size == 0 {
        return Err(Error::data(path, "is empty"));
    }
    let known = known(path, &stamp);
    if let Some(members) = known.filter(|members| members.unpacked.is_none()) {
        return Ok(Some(Indexed { stamp, members: members.clone(), unpacked: None, fresh: false }));
    }
    let before = cache.map(|cache| unpack::place(path, &stamp, cache)).filter(|place| place.is_file());
    let mut file = File::open(path).map_err(failed)?;
    let how = unpack::compression(&mut file, path)?;
    if how == Compression::None {
        let members = members(&file, path, stamp.size, label_key).map_err(|e| unreadable(path, &e))?;
        return Ok(Some(Indexed { stamp, members, unpacked: None, fresh: true }));
    }
    // A copy that was cut is made anew.
    let size = |place: &PathBuf| std::fs::metadata(place).ok().map(|about| about.len());
    let before = before.filter(|place| known.is_none_or(|members| size(place) == members.unpacked));
    if let (Some(members), true) = (known, before.is_some() || count_only) {
        return Ok(Some(Indexed { stamp, members: members.clone(), unpacked: before.map(unpack::found), fresh: false }));
    }
    if count_only && before.is_none() {
        return Ok(None);
    }
    // What was unpacked before, by a run whose index is gone, counts if it is whole.
    if let Some(place) = before
        && let Ok(members) = packed_members(&place, label_key)
    {
        return Ok(Some(Indexed { stamp, members, unpacked: Some(unpack::found(place)), fresh: true }));
    }
    let unpacked = unpack::unpack(path, file, how, &stamp, cache)?;
    let members = packed_members(&unpacked.path, label_key).map_err(|e| unreadable(path, &e))?;
    Ok(Some(Indexed { stamp, members, unpacked: Some(unpacked), fresh: true }))
}

fn unreadable(path: &Path, e: &std::io::Error) -> Error {
    Error::data(path, format!("is not a readable tar file: {e}"))
}

/// Members of a compressed shard, from its unpacked copy.
fn packed_members(path: &Path, label_key: Option<&str>) -> std::io::Result<Members> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    Ok(Members { unpacked: Some(size), ..members(&file, path, size, label_key)? })
}

impl Shard {
    /// Reads `length` bytes at `offset`; any number of threads may do so at once.
    pub fn read(&self, offset: u64, length: u64) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; length as usize];
        let path = self.unpacked.as_ref().map_or(&self.path, |unpacked| &unpacked.path);
        match &self.file {
            Some(kept) => {
                let file = match kept.get() {
                    Some(file) => file,
                    None => {
                        let file = self.open(path)?;
                        // Of two threads that open it at once, the first one's stays.
                        kept.get_or_init(|| file)
                    }
                };
                read_at(file, path, &mut bytes, offset)?;
            }
            None => read_at(&self.open(path)?, path, &mut bytes, offset)?,
        }
        Ok(bytes)
    }

    /// Opens the file that was indexed, and no other that has taken its name.
    fn open(&self, path: &Path) -> std::io::Result<File> {
        let file = File::open(path)?;
        let same = |now: &Stamp| (now.size, now.changed) == (self.stamp.size, self.stamp.changed);
        if self.unpacked.is_none() && !same(&Stamp::of(path)?) {
            let message = format!("{} has changed since the set was opened", path.display());
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, message));
        }
        Ok(file)
    }
}

#[cfg(unix)]
fn read_at(file: &File, _path: &Path, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(not(unix))]
fn read_at(_file: &File, path: &Path, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    use std::io::{Read, Seek};
    // A shared handle has one position for all threads here: take one of our own.
    let mut file = File::open(path)?;
    file.seek(std::io::SeekFrom::Start(offset))?;
    file.read_exact(bytes)
}
