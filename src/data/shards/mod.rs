//! Tar shards in WebDataset style: indexed once, then read by position.
//!
//! Members are `CLASS/name.png`, or `key.jpg` with its class as text in `key.cls` or `key.json`: [`samples`].

mod samples;

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::dataset::found::{Class, Found, Source, Tally};
use super::folder::is_image;
use super::labels::json::class_in;
use crate::error::{Error, Result};
use samples::{Kind, Member};

/// Shards beyond this many are opened anew for each read, so that a set of thousands does not run out of file handles.
const KEPT_OPEN: usize = 256;

/// Tar files consist of blocks of so many bytes.
const BLOCK: u64 = 512;

/// Longest class text, in bytes: anything longer is not a class.
const LONGEST_CLASS: u64 = 4096;

/// Longest `.json` member that a class is looked for in, in bytes.
const LONGEST_JSON: u64 = 1 << 20;

/// Whether a file name looks like a shard's.
pub(super) fn is_shard(name: &str) -> bool {
    let name = name.to_lowercase();
    [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.bz2", ".tbz2", ".tar.xz", ".txz"].iter().any(|ending| name.ends_with(ending))
}

/// A tar file that members are read from.
#[derive(Clone, Debug)]
pub(super) struct Shard {
    /// Where it lies.
    pub path: PathBuf,
    file: Option<Arc<File>>,
}

impl Shard {
    /// Opens shard number `number` and adds its images to `found`, sorted by name. `outer` is the class of those that have none of their own, `label_key`
    /// what the class is called in `.json` members, where the user says so.
    pub fn index(path: &Path, number: usize, (outer, label_key): (&Class, Option<&str>), found: &mut Vec<Found>, tally: &mut Tally) -> Result<Self> {
        let failed = |e: std::io::Error| Error::data(path, format!("cannot be opened: {e}"));
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        if length == 0 {
            return Err(Error::data(path, "is empty"));
        }
        if let Some(packed) = compression(&mut &file).map_err(failed)? {
            return Err(Error::data(path, format!("is compressed with {packed}: unpack it, or make it a plain tar file")));
        }
        let members = members(&file, length, label_key).map_err(|e| Error::data(path, format!("is not a readable tar file: {e}")))?;
        let samples = samples::samples(path, members, label_key.is_some(), outer, tally)?;
        found.extend(samples.into_iter().map(|(Member { name, offset, length, .. }, class)| {
            let source = Source::Member { shard: number as u32, name: name.into(), offset, length };
            Found { source, class }
        }));
        Ok(Self { path: path.to_owned(), file: (number < KEPT_OPEN).then(|| Arc::new(file)) })
    }

    /// Reads `length` bytes at `offset`; any number of threads may do so at once.
    pub fn read(&self, offset: u64, length: u64) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; length as usize];
        match &self.file {
            Some(file) => read_at(file, &self.path, &mut bytes, offset)?,
            None => read_at(&File::open(&self.path)?, &self.path, &mut bytes, offset)?,
        }
        Ok(bytes)
    }
}

#[cfg(unix)]
fn read_at(file: &File, _path: &Path, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(not(unix))]
fn read_at(_file: &File, path: &Path, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    // A shared handle has one position for all threads here: take one of our own.
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(bytes)
}

/// What a file that looks like a tar by its name is compressed with, by its first bytes. Leaves the file at its beginning.
fn compression(file: &mut (impl Read + Seek)) -> std::io::Result<Option<&'static str>> {
    let mut first = Vec::new();
    file.by_ref().take(262).read_to_end(&mut first)?;
    file.rewind()?;
    // A member's name may begin with anything.
    if first.ends_with(b"ustar") {
        return Ok(None);
    }
    first.truncate(4);
    Ok(match first[..] {
        [0x1f, 0x8b, ..] => Some("gzip"),
        [b'B', b'Z', b'h', b'1'..=b'9'] => Some("bzip2"),
        [0xfd, b'7', b'z', b'X'] => Some("xz"),
        [0x28, 0xb5, 0x2f, 0xfd] => Some("zstd"),
        _ => None,
    })
}

/// Files of a tar of `size` bytes; class texts are read.
fn members(file: &File, size: u64, label_key: Option<&str>) -> std::io::Result<Vec<Member>> {
    let (mut found, mut end) = (Vec::new(), Some(0));
    for entry in tar::Archive::new(BufReader::new(file)).entries_with_seek()? {
        let mut entry = entry?;
        let full = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = full.trim_start_matches("./").trim_start_matches('/').to_owned();
        let (offset, length) = (entry.raw_file_position(), entry.size());
        // Sparse files say how long they would be, not how long they are here; images are none.
        if entry.header().entry_type().is_gnu_sparse() {
            end = None;
            continue;
        }
        // Members are skipped by seeking, which does not notice the end of the file.
        if offset.checked_add(length).is_none_or(|end| end > size) {
            return Err(std::io::Error::other(format!("cut off inside of {name}")));
        }
        end = Some((offset + length).next_multiple_of(BLOCK));
        let base = name.rsplit('/').next().unwrap_or(&name);
        if !entry.header().entry_type().is_file() || name.split('/').any(|part| part.starts_with('.')) {
            continue;
        }
        let extension = base.rsplit_once('.').map_or("", |(_, extension)| extension).to_lowercase();
        let mut read = |most: u64| -> std::io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            entry.by_ref().take(most).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let wrong = |message: String| std::io::Error::other(format!("{name} {message}"));
        let kind = match extension.as_str() {
            _ if is_image(base) => Kind::Image,
            "cls" if length > LONGEST_CLASS => return Err(wrong(format!("has {length} bytes: a class has at most {LONGEST_CLASS}"))),
            "cls" => Kind::Class(String::from_utf8_lossy(&read(length)?).into_owned()),
            "json" if length <= LONGEST_JSON => Kind::Json(class_in(&read(length)?, label_key).map_err(wrong)?),
            "json" if label_key.is_some() => return Err(wrong(format!("has {length} bytes: classes are looked for in at most {LONGEST_JSON}"))),
            _ => Kind::Other,
        };
        found.push(Member { name, offset, length, kind });
    }
    end.map_or(Ok(()), |end| expect_end(file, end))?;
    Ok(found)
}

/// Behind the last member, which ends at `end`, there must be a block of zeros and nothing else: a file that was cut off between two members lacks it, and
/// of several files in one only the first would be read.
fn expect_end(mut file: &File, end: u64) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(end))?;
    let (mut piece, mut seen) = (vec![0; 1 << 16], 0);
    loop {
        let count = file.read(&mut piece)?;
        if piece[..count].iter().any(|byte| *byte != 0) {
            return Err(std::io::Error::other("holds more behind its end; files that were joined must be joined by `tar --concatenate`"));
        }
        if count == 0 {
            break;
        }
        seen += count as u64;
    }
    if seen < BLOCK { Err(std::io::Error::other("ends without a tar file's end: it is cut off")) } else { Ok(()) }
}
