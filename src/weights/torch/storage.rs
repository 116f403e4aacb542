//! Where the bytes of a PyTorch file's tensors lie.
//!
//! Promises: what a file claims is checked against its length before memory is reserved for it; every member of a zip file has its
//! checksum compared when it is first read (0 stands for none, which `torch.save` writes when told to); values come in the
//! byte order of this machine.

use super::pickle;
use super::tensor::Tensor;
use super::value::{Tree, Value};
use crate::weights::MAX_TENSORS;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use zip::read::{ArchiveOffset, Config, ZipFile};
use zip::{CompressionMethod, ZipArchive, ZipReadOptions};

/// Largest compressed pickle accepted, after decompression: PyTorch never compresses, and the pickle of a ResNet has 0.1 MB.
const MAX_DEFLATED_PICKLE: u64 = 8 << 20;

/// The storages of a file.
pub(super) enum Storages {
    Zip(RefCell<Zip>),
    /// Pieces of a file: their first bytes and lengths.
    Flat(File, BTreeMap<Box<str>, (u64, u64)>),
}

impl Storages {
    /// The elements of a tensor, row-major.
    pub fn read(&self, tensor: &Tensor) -> io::Result<Vec<u8>> {
        let (start, length) = tensor.window;
        if length == 0 {
            return Ok(Vec::new());
        }
        let window = match self {
            Self::Zip(zip) => {
                let zip = &mut *zip.borrow_mut();
                let mut window = zip.window(&tensor.key, start, length)?;
                if zip.big_endian {
                    window.chunks_exact_mut(tensor.dtype.size()).for_each(<[u8]>::reverse);
                }
                window
            }
            Self::Flat(file, places) => {
                let missing = || io::Error::other(format!("its storage {} is not in the file", tensor.key));
                let &(first, held) = places.get(&tensor.key).ok_or_else(missing)?;
                if start + length > held {
                    return Err(io::Error::other(format!("its storage {} has {held} bytes, {} are needed", tensor.key, start + length)));
                }
                let mut file = file;
                file.seek(SeekFrom::Start(first + start))?;
                exactly(&mut file, length)?
            }
        };
        Ok(tensor.gather(window))
    }
}

/// So many bytes, without reserving memory for those that do not come.
fn exactly(reader: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if length <= 1 << 20 {
        bytes.try_reserve_exact(length as usize)?;
    }
    reader.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// A zip file as `torch.save` writes it.
pub(super) struct Zip {
    archive: ZipArchive<BufReader<File>>,
    /// The same file; the archive goes to a place of its own before it reads.
    file: File,
    /// What stands before the names of its members: mostly the file's name without its ending.
    root: String,
    big_endian: bool,
    /// Of the file.
    length: u64,
    /// Members whose checksums were right.
    checked: HashSet<Box<str>>,
}

impl Zip {
    pub fn open(file: File) -> Result<Self, String> {
        let cannot = |error: io::Error| format!("cannot read: {error}");
        let (length, again) = (file.metadata().map_err(cannot)?.len(), file.try_clone().map_err(cannot)?);
        // The crate would look for bytes before the archive, and take a first record that is as long as the directory's end for such.
        let config = Config { archive_offset: ArchiveOffset::Known(0) };
        let archive = ZipArchive::with_config(config, BufReader::new(file)).map_err(|error| format!("not a whole zip file: {error}"))?;
        if archive.len() > 2 * MAX_TENSORS {
            return Err(format!("zip file with {} members; at most {} are accepted", archive.len(), 2 * MAX_TENSORS));
        }
        let names = archive.file_names().collect::<Result<Vec<_>, _>>().map_err(|error| format!("damaged zip file: {error}"))?;
        let roots = names.iter().filter_map(|name| name.strip_suffix("data.pkl")).filter(|root| root.is_empty() || root.ends_with('/'));
        let root = roots.min_by_key(|root| root.len()).ok_or("a zip file without the data.pkl that torch.save writes")?.to_owned();
        let mut zip = Self { archive, file: again, root, big_endian: false, length, checked: HashSet::new() };
        let order = format!("{}byteorder", zip.root);
        if zip.archive.index_for_name(&order).is_some() {
            let text = zip.member(&order).and_then(|member| {
                let mut text = String::new();
                member.take(16).read_to_string(&mut text).map(|_| text)
            });
            zip.big_endian = match text.map_err(|error| format!("cannot be read as a PyTorch file: {error}"))?.trim() {
                "little" => false,
                "big" => true,
                other => return Err(format!("has values in an unknown byte order: {other}")),
            };
        }
        Ok(zip)
    }

    /// A member's content. One of a checksum of 0 has none.
    fn member(&mut self, name: &str) -> io::Result<ZipFile<'_, BufReader<File>>> {
        let index = self.archive.index_for_name(name).ok_or_else(|| io::Error::other(format!("{name} is not in the file")))?;
        let checksum = self.archive.by_index_raw(index)?.crc32();
        Ok(self.archive.by_index_with_options(index, ZipReadOptions::new().ignore_crc32(checksum == 0))?)
    }

    /// Reads the pickle.
    pub fn pickle(&mut self, tree: &mut Tree) -> Result<Value, String> {
        let name = format!("{}data.pkl", self.root);
        let member = self.member(&name).map_err(|error| format!("cannot be read as a PyTorch file: {error}"))?;
        if member.compression() != CompressionMethod::Stored && member.size() > MAX_DEFLATED_PICKLE {
            return Err(format!("compressed pickle of {} bytes; at most {MAX_DEFLATED_PICKLE} are accepted", member.size()));
        }
        let size = member.size();
        let mut reader = BufReader::new(member.take(size));
        let root = pickle::read(&mut reader, tree)?;
        // The checksum is compared at the member's end.
        io::copy(&mut reader, &mut io::sink())
            .and_then(|_| reader.into_inner().into_inner().read(&mut [0]))
            .map_err(|error| format!("{name} cannot be read: {error}"))?;
        Ok(root)
    }

    /// A part of a storage.
    fn window(&mut self, key: &str, start: u64, length: u64) -> io::Result<Vec<u8>> {
        let name = format!("{}data/{key}", self.root);
        let (file, checked) = (self.length, self.checked.contains(&name[..]));
        let mut member = self.member(&name)?;
        let size = member.size();
        if start + length > size {
            return Err(io::Error::other(format!("{name} has {size} bytes, {} are needed", start + length)));
        }
        if size > file.saturating_mul(8).saturating_add(1 << 20) {
            return Err(io::Error::other(format!("{name} has {size} bytes in a file of {file}")));
        }
        let place = member.data_start().filter(|_| checked && member.compression() == CompressionMethod::Stored);
        if let Some(place) = place {
            drop(member);
            let mut file = &self.file;
            file.seek(SeekFrom::Start(place + start))?;
            return exactly(&mut file, length);
        }
        io::copy(&mut Read::by_ref(&mut member).take(start), &mut io::sink())?;
        let window = exactly(&mut member, length)?;
        // To the member's end, where its checksum is compared.
        let rest = size - start - length;
        if io::copy(&mut member.take(rest + 1), &mut io::sink())? != rest {
            return Err(io::Error::other(format!("{name} has not the {size} bytes that it should have")));
        }
        self.checked.insert(name.into());
        Ok(window)
    }
}

/// Reads a file from before PyTorch 1.6: pickles of a magic number, the version, the system, the object and the storages' keys, then
/// for each storage its number of elements and these. They are little-endian, whatever the system was.
pub(super) fn legacy(file: File, tree: &mut Tree) -> Result<(Value, Storages), String> {
    let cannot = |error: io::Error| format!("cannot be read as a PyTorch file: {error}");
    let length = file.metadata().map_err(cannot)?.len();
    let mut reader = BufReader::new(file);
    pickle::read(&mut reader, tree)?;
    match pickle::read(&mut reader, tree)? {
        Value::Int(1001) => {}
        other => return Err(format!("a PyTorch file of an unknown version: {other:?}")),
    }
    pickle::read(&mut reader, tree)?;
    let root = pickle::read(&mut reader, tree)?;
    let keys = pickle::read(&mut reader, tree)?;
    let keys = tree.list(keys).ok_or("a PyTorch file without a list of its storages")?.to_vec();
    let mut places = BTreeMap::new();
    for key in keys {
        let key = tree.key(key)?;
        let &(size, elements) = tree.storages.get(&key[..]).ok_or_else(|| format!("storage {key} is in the file, but of an unknown type"))?;
        let mut header = [0; 8];
        reader.read_exact(&mut header).map_err(|_| format!("cut short at storage {key}"))?;
        if u64::from_le_bytes(header) != elements {
            return Err(format!("storage {key} has {} elements, expected {elements}", i64::from_le_bytes(header)));
        }
        let start = reader.stream_position().map_err(cannot)?;
        let bytes = size.checked_mul(elements).filter(|bytes| start.checked_add(*bytes).is_some_and(|end| end <= length));
        let bytes = bytes.ok_or_else(|| format!("cut short at storage {key}"))?;
        reader.seek_relative(bytes as i64).map_err(cannot)?;
        places.insert(key.into(), (start, bytes));
    }
    Ok((root, Storages::Flat(reader.into_inner(), places)))
}
