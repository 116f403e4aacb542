//! Weight files, tensors and checkpoints.

use super::harness::fuzz;
use super::hostile_files;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use swav_wgpu::train::checkpoint::{Checkpoint, CheckpointStore, TensorRef};
use swav_wgpu::weights::{load, load_classifier, read_safetensors, read_tensors};

/// The small weight files of the tests whose names end so; damaged ones are for other tests.
fn files(endings: &[&str]) -> Vec<Vec<u8>> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let folders = ["ckpt", "pickles"].map(|name| std::fs::read_dir(golden.join(name)).unwrap());
    let mut all: Vec<PathBuf> = folders.into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    all.retain(|path| endings.iter().any(|e| name(path).ends_with(e)) && !name(path).starts_with("truncated"));
    all.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Reads a file in every way; whether any way took it.
fn taken(path: &Path) -> bool {
    [load(path).is_ok(), load_classifier(path).is_ok(), read_tensors(path).is_ok()].contains(&true)
}

#[test]
fn pytorch_files() {
    fuzz("weights.pth", &files(&[".pth", ".ckpt", ".torch", ".pth.tar"]), taken);
}

/// Pickles in files without checksums, which would refuse any mutation before it is parsed.
#[test]
fn pickles() {
    let seeds = [hostile_files::dict("conv1.weight", &hostile_files::tensor(16, 4, 1))];
    for (name, around) in [("zip.pth", hostile_files::torch_zip as fn(&[u8]) -> Vec<u8>), ("legacy.pth", with_storage)] {
        fuzz(name, &seeds, |path| {
            std::fs::write(path, around(&std::fs::read(path).unwrap())).unwrap();
            taken(path)
        });
    }
}

/// Pickles of everything that Python has, in the files that they came in, but without checksums.
#[test]
fn pickles_of_objects() {
    for file in ["objects.zip1.pth", "objects.zip4.pth", "kinds.zip2.pth", "module.zip5.pth", "lightning.ckpt"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pickles").join(file);
        let mut archive = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
        let mut members = Vec::new();
        for index in 0..archive.len() {
            let mut member = archive.by_index(index).unwrap();
            let (name, mut bytes) = (member.name().unwrap().into_owned(), Vec::new());
            std::io::Read::read_to_end(&mut member, &mut bytes).unwrap();
            members.push((name, bytes));
        }
        let place = members.iter().position(|(name, _)| name.ends_with("data.pkl")).unwrap();
        fuzz(file, &[members[place].1.clone()], |path| {
            let mutated = std::fs::read(path).unwrap();
            let bytes = |index: usize| if index == place { &mutated } else { &members[index].1 };
            let all: Vec<_> = (0..members.len()).map(|i| (&members[i].0[..], 0, &bytes(i)[..], bytes(i).len() as u32)).collect();
            std::fs::write(path, hostile_files::zip(&all)).unwrap();
            taken(path)
        });
    }
}

/// A legacy file whose list of storages names the one that the pickle has, with its 16 floats.
fn with_storage(pickle: &[u8]) -> Vec<u8> {
    let mut file = hostile_files::legacy(pickle);
    file.truncate(file.len() - b"\x80\x02].".len());
    file.extend(b"\x80\x02]X\x01\0\0\x000a.");
    file.extend(16u64.to_le_bytes());
    file.extend([0; 64]);
    file
}

#[test]
fn safetensors_files() {
    let seeds: Vec<_> = files(&[".safetensors"]);
    fuzz("weights.safetensors", &seeds, |path| read_safetensors(path).is_ok() | taken(path));
}

/// Where the sum lies in a checkpoint of a run, and its length: `{"__metadata__":{"blake3":"` after eight bytes.
const SUM: std::ops::Range<usize> = 35..99;

#[test]
fn checkpoints_of_runs() {
    let folder = tempfile::tempdir().unwrap();
    let values = [1.0f32, 2.0, 3.0, 4.0];
    let tensors: BTreeMap<String, TensorRef<'_>> = [("model/a".to_owned(), TensorRef::f32(&[2, 2], bytemuck::cast_slice(&values)))].into();
    let metadata = BTreeMap::from([("images".to_owned(), "8".to_owned()), ("config".to_owned(), "kind = \"pretrain\"".to_owned())]);
    let path = CheckpointStore::open(folder.path().join("checkpoints"), 1).unwrap().save(3, &tensors, &metadata, &mut Vec::new()).unwrap();
    let seed = std::fs::read(path).unwrap();
    assert!(seed[SUM].iter().all(u8::is_ascii_hexdigit) && seed[SUM.end] == b'"');
    fuzz("step-000000003.safetensors", &[seed], |path| {
        // With a sum that fits, or nothing behind it would ever be looked at.
        let mut bytes = std::fs::read(path).unwrap();
        if bytes.len() > SUM.end {
            bytes[SUM].fill(b'0');
            let sum = blake3::hash(&bytes).to_hex();
            bytes[SUM].copy_from_slice(sum.as_bytes());
            std::fs::write(path, &bytes).unwrap();
        }
        Checkpoint::load(path).is_ok()
    });
}
