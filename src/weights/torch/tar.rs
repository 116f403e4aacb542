//! Reads the tar files that PyTorch 0.1 wrote.
//!
//! `storages` has the elements, `tensors` says which of them each tensor has, `pickle` is the object, whose pickle refers to tensors by number.
//!
//! Promise: as for newer files, nothing is called, and what is claimed lies inside the file.

use super::pickle;
use super::storage::Storages;
use super::tensor::{Element, Storage, Tensor};
use super::value::{Node, Tree, Value};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

type Reader = BufReader<File>;

/// Reads a whole file but for its storages' elements.
pub(super) fn read(file: File, tree: &mut Tree) -> Result<(Value, Storages), String> {
    let cannot = |error: std::io::Error| format!("cannot be read as a tar file of PyTorch 0.1: {error}");
    let mut members: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut archive = tar::Archive::new(&file);
    // There are four; other archives have other members first.
    for entry in archive.entries_with_seek().map_err(cannot)?.take(8) {
        let entry = entry.map_err(cannot)?;
        let path = entry.path_bytes();
        let name = ["storages", "tensors", "pickle"].into_iter().find(|name| path.strip_prefix(b"./").unwrap_or(&path) == name.as_bytes());
        members.extend(name.map(|name| (name, (entry.raw_file_position(), entry.size()))));
    }
    let mut reader = BufReader::new(file.try_clone().map_err(cannot)?);
    let open = |reader: &mut Reader, name: &str| {
        let &(start, size) = members.get(name).ok_or_else(|| format!("a tar file without the `{name}` that PyTorch 0.1 writes"))?;
        reader.seek(SeekFrom::Start(start)).map_err(cannot)?;
        Ok::<u64, String>(start.saturating_add(size))
    };

    let end = open(&mut reader, "storages")?;
    let mut storages: BTreeMap<String, (Element, u64, u64)> = BTreeMap::new();
    let mut places = BTreeMap::new();
    for _ in 0..count(&mut reader, tree)? {
        let fields = fields::<3>(&mut reader, tree)?;
        let key = tree.key(fields[0])?;
        let class = match tree.node(fields[2]) {
            Some(Node::Global(name)) => name.rsplit('.').next().unwrap_or_default(),
            _ => return Err(format!("storage {key} has no type")),
        };
        let element = Element::of_class(class);
        let elements = number(&mut reader)?;
        let start = reader.stream_position().map_err(cannot)?;
        let bytes = elements.checked_mul(element.size()).filter(|bytes| start.checked_add(*bytes).is_some_and(|stop| stop <= end));
        let bytes = bytes.ok_or_else(|| format!("cut short at storage {key}"))?;
        reader.seek(SeekFrom::Start(start + bytes)).map_err(cannot)?;
        places.insert(key.clone().into(), (start, bytes));
        storages.insert(key, (element, 0, elements));
    }
    // Parts of storages: key, key of the whole, first element, elements.
    let views = pickle::read(&mut reader, tree)?;
    for view in tree.list(views).ok_or("a tar file without a list of views")?.to_vec() {
        let Some(&[key, whole, Value::Int(from), Value::Int(elements)]) = tree.list(view) else {
            return Err("a view of a storage without key, offset and size".to_owned());
        };
        let (key, whole) = (tree.key(key)?, tree.key(whole)?);
        let &(element, _, held) = storages.get(&whole).ok_or_else(|| format!("storage {whole} is missing"))?;
        let (from, elements) = (from as u64, elements as u64);
        if from.checked_add(elements).is_none_or(|last| last > held) {
            return Err(format!("a view reaches beyond storage {whole}"));
        }
        let &(start, _) = places.get(&whole[..]).ok_or_else(|| format!("storage {whole} is missing"))?;
        places.insert(key.clone().into(), (start + from * element.size(), elements * element.size()));
        storages.insert(key, (element, 0, elements));
    }

    open(&mut reader, "tensors")?;
    for _ in 0..count(&mut reader, tree)? {
        let fields = fields::<3>(&mut reader, tree)?;
        let (key, storage) = (tree.key(fields[0])?, tree.key(fields[1])?);
        let &(element, from, elements) = storages.get(&storage).ok_or_else(|| format!("storage {storage} is missing"))?;
        // The second half was once written too.
        let axes = number(&mut reader)? & 0xffff_ffff;
        if axes > 64 {
            return Err(format!("tensor {key} has {axes} axes"));
        }
        let mut sizes = || (0..axes).map(|_| number(&mut reader).map(|size| size as usize)).collect::<Result<Vec<_>, _>>();
        let (shape, strides) = (sizes()?, sizes()?);
        let offset = number(&mut reader)?;
        let node = match element {
            Element::Plain(dtype) => {
                let storage = Storage { key: storage.into(), element, from, elements };
                Node::Tensor(Tensor::new(&storage, dtype, offset, shape, strides)?)
            }
            Element::Other(kind, _) => Node::Unusable(kind.into()),
            Element::Untyped => Node::Unusable("without a type".into()),
        };
        let tensor = tree.add(node)?;
        tree.tar.insert(key, tensor);
    }

    open(&mut reader, "pickle")?;
    let root = pickle::read(&mut reader, tree)?;
    Ok((root, Storages::Flat(file, places)))
}

fn number(reader: &mut Reader) -> Result<u64, String> {
    let mut bytes = [0; 8];
    reader.read_exact(&mut bytes).map_err(|_| "cut short".to_owned())?;
    Ok(u64::from_le_bytes(bytes))
}

fn count(reader: &mut Reader, tree: &mut Tree) -> Result<u64, String> {
    match pickle::read(reader, tree)? {
        Value::Int(count) => u64::try_from(count).map_err(|error| error.to_string()),
        _ => Err("a list without its length".to_owned()),
    }
}

fn fields<const N: usize>(reader: &mut Reader, tree: &mut Tree) -> Result<[Value; N], String> {
    let value = pickle::read(reader, tree)?;
    tree.list(value).and_then(|items| <[Value; N]>::try_from(items).ok()).ok_or_else(|| "a storage or tensor without its description".to_owned())
}
