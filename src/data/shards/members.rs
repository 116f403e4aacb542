//! The members of a tar file: headers are read one after the other, bodies are skipped.
//!
//! Promise: memory is bounded by what a member's name may be, not by what a header says it is; a file that ends too early, or goes on behind
//! its end, is an error.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Error, Result};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::read_at;
use super::samples::{Kind, Member};
use crate::data::dataset::found::PassedOver;
use crate::data::folder::is_image;
use crate::data::labels::MARK;
use crate::data::labels::json::class_of;

/// Tar files consist of blocks of so many bytes.
const BLOCK: u64 = 512;

/// Bytes that are read at once: few where members are large, more where they are so small that many lie in them.
const WINDOW: [u64; 2] = [4096, 1 << 16];

/// Longest name of a member, in bytes.
const LONGEST_NAME: u64 = 1 << 16;

/// Largest extended header (PAX), in bytes.
const LARGEST_PAX: u64 = 1 << 20;

/// Longest class text, in bytes: anything longer is not a class.
const LONGEST_CLASS: u64 = 4096;

/// Longest `.json` member that a class is looked for in, in bytes.
const LONGEST_JSON: u64 = 1 << 20;

/// What a tar holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Members {
    /// Files, in their order.
    pub files: Vec<Member>,
    /// What is no file, by kinds as [`PassedOver`] has them.
    pub kinds: BTreeMap<String, u64>,
    /// Bytes of the unpacked copy, if the shard is compressed.
    pub unpacked: Option<u64>,
}

/// Reads all headers of a tar of `size` bytes, and class texts. What is read of a member is part of the kept index: who changes it raises `FORMAT`
/// in [`super::index`].
pub(super) fn members(file: &File, path: &Path, size: u64, label_key: Option<&str>) -> Result<Members> {
    let mut walk = Walk { window: Window { file, path, size, at: 0, bytes: Vec::new() }, at: 0 };
    let (mut files, mut links, mut passed) = (Vec::new(), Vec::new(), PassedOver::default());
    while let Some(Entry { name, what, offset, length }) = walk.next()? {
        let Some(plain) = plain(&name) else {
            passed.count("members whose names lead out of the shard", 1);
            continue;
        };
        if name.ends_with('/') || plain.split('/').any(|part| part.starts_with('.')) {
            continue;
        }
        match what {
            What::File => files.push(member(&mut walk.window, plain, (offset, length), label_key, &mut passed)?),
            What::Folder => {}
            What::Link(target) => links.push((plain, target)),
            What::Other(kind) => passed.count(kind, 1),
        }
    }
    if !links.is_empty() {
        let mut places: HashMap<String, (u64, u64)> = files.iter().map(|m: &Member| (m.name.clone(), (m.offset, m.length))).collect();
        for (name, target) in links {
            let Some(place) = plain(&target).and_then(|target| places.get(&target).copied()) else {
                let message =
                    format!("{name} is a hard link to {target}, which the shard does not hold: `tar --hard-dereference` stores the file itself");
                return Err(Error::other(message));
            };
            places.insert(name.clone(), place);
            files.push(member(&mut walk.window, name, place, label_key, &mut passed)?);
        }
    }
    Ok(Members { files, kinds: passed.kinds, unpacked: None })
}

/// A name without `.` and `..`; none where it leads out of the shard's folder.
fn plain(name: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            _ => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// What a file is, with the class that it may hold.
fn member(window: &mut Window<'_>, name: String, (offset, length): (u64, u64), label_key: Option<&str>, passed: &mut PassedOver) -> Result<Member> {
    let base = name.rsplit('/').next().unwrap_or(&name);
    let extension = base.rsplit_once('.').map_or("", |(_, extension)| extension).to_lowercase();
    let wrong = |message: String| Error::other(format!("{name} {message}"));
    let kind = match extension.as_str() {
        _ if is_image(base) => Kind::Image,
        "cls" if length > LONGEST_CLASS => return Err(wrong(format!("has {length} bytes: a class has at most {LONGEST_CLASS}"))),
        "cls" => {
            let text = window.get(offset, length)?;
            Kind::Class(String::from_utf8_lossy(text.strip_prefix(MARK).unwrap_or(text)).into_owned())
        }
        "json" if length <= LONGEST_JSON => {
            let text = window.get(offset, length)?;
            let parsed = serde_json::from_slice(text.strip_prefix(MARK).unwrap_or(text));
            if parsed.is_err() {
                passed.count("members .json that are no JSON", 1);
            }
            Kind::Json(class_of(parsed, label_key).map_err(wrong)?)
        }
        "json" if label_key.is_some() => return Err(wrong(format!("has {length} bytes: classes are looked for in at most {LONGEST_JSON}"))),
        _ => Kind::Other,
    };
    Ok(Member { name, offset, length, kind })
}

/// What an entry is.
enum What {
    File,
    Folder,
    /// Another name of the member that is called so.
    Link(String),
    /// Something that holds no bytes of its own, as it is counted.
    Other(&'static str),
}

/// A member as its headers describe it.
struct Entry {
    name: String,
    what: What,
    offset: u64,
    length: u64,
}

/// Goes from header to header.
struct Walk<'a> {
    window: Window<'a>,
    at: u64,
}

/// What extended headers said of the member to come.
#[derive(Default)]
struct Extended {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

impl Walk<'_> {
    fn next(&mut self) -> Result<Option<Entry>> {
        let mut extended = Extended::default();
        loop {
            let at = self.at;
            if at.checked_add(BLOCK).is_none_or(|end| end > self.window.size) {
                return Err(Error::other("ends without a tar file's end: it is cut off"));
            }
            let mut header = tar::Header::new_old();
            header.as_mut_bytes().copy_from_slice(self.window.get(at, BLOCK)?);
            if header.as_bytes().iter().all(|byte| *byte == 0) {
                self.expect_end()?;
                return Ok(None);
            }
            check(&header, at)?;
            let (kind, stored) = (header.entry_type(), header.entry_size()?);
            let mut offset = at + BLOCK;
            if kind.is_gnu_longname() || kind.is_gnu_longlink() || kind.is_pax_local_extensions() || kind.is_pax_global_extensions() {
                let most = if kind.is_gnu_longname() || kind.is_gnu_longlink() { LONGEST_NAME } else { LARGEST_PAX };
                if stored > most {
                    return Err(Error::other(format!("claims a name or header of {stored} bytes; {most} is the most that is read")));
                }
                self.step(offset, stored, "a header")?;
                let body = self.window.get(offset, stored)?;
                if kind.is_gnu_longname() {
                    extended.name = Some(body.split(|byte| *byte == 0).next().unwrap_or_default().to_vec());
                } else if kind.is_gnu_longlink() {
                    extended.link = Some(body.split(|byte| *byte == 0).next().unwrap_or_default().to_vec());
                } else if kind.is_pax_local_extensions() {
                    extended.read(body)?;
                }
                continue;
            }
            let length = extended.size.unwrap_or(stored);
            let full = extended.name.take().unwrap_or_else(|| header.path_bytes().into_owned());
            let name = String::from_utf8_lossy(&full).into_owned();
            let mut sparse = extended.sparse;
            if kind.is_gnu_sparse() {
                sparse = true;
                // Its map may go on in blocks of its own.
                let mut more = header.as_gnu().is_some_and(tar::GnuHeader::is_extended);
                while more {
                    let block = self.window.get(offset, BLOCK)?;
                    // The flag is the byte behind 21 entries of 24 bytes.
                    more = block[21 * 24] == 1;
                    offset += BLOCK;
                }
            }
            self.step(offset, length, &name)?;
            let what = match kind {
                _ if sparse => What::Other("sparse members"),
                tar::EntryType::Regular | tar::EntryType::Continuous => What::File,
                tar::EntryType::Directory => What::Folder,
                tar::EntryType::Link => {
                    let target = extended.link.take().or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
                    What::Link(String::from_utf8_lossy(&target.unwrap_or_default()).into_owned())
                }
                tar::EntryType::Symlink => What::Other("symbolic links in shards"),
                tar::EntryType::Char | tar::EntryType::Block | tar::EntryType::Fifo => What::Other("pipes or devices"),
                _ => What::Other("members of unknown kinds"),
            };
            return Ok(Some(Entry { name, what, offset, length }));
        }
    }

    /// Goes behind a body, which must be there.
    fn step(&mut self, offset: u64, length: u64, name: &str) -> Result<()> {
        if offset.checked_add(length).is_none_or(|end| end > self.window.size) {
            let name: String = name.chars().take(200).collect();
            return Err(Error::other(format!("cut off inside of {name}")));
        }
        self.at = (offset + length).next_multiple_of(BLOCK);
        Ok(())
    }

    /// From a block of zeros on there must be nothing else: of several files in one only the first would be read.
    fn expect_end(&mut self) -> Result<()> {
        while self.at < self.window.size {
            let count = WINDOW[1].min(self.window.size - self.at);
            if self.window.get(self.at, count)?.iter().any(|byte| *byte != 0) {
                return Err(Error::other("holds more behind its end; files that were joined must be joined by `tar --concatenate`"));
            }
            self.at += count;
        }
        Ok(())
    }
}

impl Extended {
    /// Reads a PAX header.
    fn read(&mut self, body: &[u8]) -> Result<()> {
        for record in tar::PaxExtensions::new(body) {
            let record = record?;
            match record.key_bytes() {
                b"path" => self.name = Some(record.value_bytes().to_vec()),
                b"linkpath" => self.link = Some(record.value_bytes().to_vec()),
                b"size" => {
                    let size = record.value().ok().and_then(|text| text.parse().ok());
                    self.size = Some(size.ok_or_else(|| Error::other("has a PAX header whose size is no number"))?);
                }
                key if key.starts_with(b"GNU.sparse.") => self.sparse = true,
                _ => {}
            }
        }
        if [&self.name, &self.link].into_iter().flatten().any(|name| name.len() as u64 > LONGEST_NAME) {
            return Err(Error::other(format!("claims a name of more than {LONGEST_NAME} bytes")));
        }
        Ok(())
    }
}

/// Refuses a header whose sum is wrong.
fn check(header: &tar::Header, at: u64) -> Result<()> {
    let bytes = header.as_bytes();
    let sum: u32 = bytes.iter().enumerate().map(|(i, byte)| if (148..156).contains(&i) { 32 } else { u32::from(*byte) }).sum();
    if header.cksum().ok() == Some(sum) { Ok(()) } else { Err(Error::other(format!("byte {at} begins no tar header"))) }
}

/// A stretch of the file in memory.
struct Window<'a> {
    file: &'a File,
    path: &'a Path,
    size: u64,
    at: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// `length` bytes at `offset`.
    fn get(&mut self, offset: u64, length: u64) -> Result<&[u8]> {
        let end = offset.checked_add(length).filter(|end| *end <= self.size).ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let had = self.at + self.bytes.len() as u64;
        if offset < self.at || end > had {
            let near = offset <= had.saturating_add(WINDOW[0]) && offset >= self.at;
            let wanted = if near { (self.bytes.len() as u64 * 2).clamp(WINDOW[0], WINDOW[1]) } else { WINDOW[0] };
            let count = wanted.max(length).min(self.size - offset);
            self.bytes.resize(count as usize, 0);
            self.at = offset;
            read_at(self.file, self.path, &mut self.bytes, offset)?;
        }
        let from = (offset - self.at) as usize;
        Ok(&self.bytes[from..from + length as usize])
    }
}
