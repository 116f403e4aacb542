use super::*;

fn state(value: u8) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    (vec![value; 24], 7i64.to_le_bytes().to_vec(), vec![value; 3])
}

fn save(store: &CheckpointStore, step: u64, value: u8) -> PathBuf {
    let (w, n, rng) = state(value);
    let tensors = BTreeMap::from([
        ("a.rng".to_owned(), TensorRef { dtype: Dtype::U8, shape: &[3], bytes: &rng }),
        ("conv1.weight".to_owned(), TensorRef::f32(&[2, 3], &w)),
        ("steps".to_owned(), TensorRef { dtype: Dtype::I64, shape: &[], bytes: &n }),
    ]);
    store.save(step, &tensors, &BTreeMap::from([("config".to_owned(), "a = \"\\\"blake3\\\":\\\"\"".to_owned())]), &mut Vec::new()).unwrap()
}

#[test]
fn comes_back_as_it_was_and_is_plain_safetensors() {
    let dir = tempfile::tempdir().unwrap();
    let store = CheckpointStore::open(dir.path().join("checkpoints"), 3).unwrap();
    assert!(store.latest().unwrap().is_none());
    let path = save(&store, 12, 5);
    let bytes = std::fs::read(&path).unwrap();
    save(&store, 12, 5);
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    let (checkpoint, warnings) = store.latest().unwrap().unwrap();
    assert_eq!((checkpoint.step, warnings.len(), checkpoint.metadata.len()), (12, 0, 1));
    assert_eq!(checkpoint.metadata["config"], "a = \"\\\"blake3\\\":\\\"\"");
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a.rng", "conv1.weight", "steps"]);
    assert_eq!(checkpoint.expect("conv1.weight", Dtype::F32, &[2, 3]).unwrap(), [5; 24]);
    assert_eq!(checkpoint.expect("steps", Dtype::I64, &[]).unwrap(), 7i64.to_le_bytes());
    let wrong = checkpoint.expect("conv1.weight", Dtype::F32, &[3, 2]).unwrap_err().to_string();
    assert!(wrong.contains("step-000000012.safetensors: tensor conv1.weight: is F32 [2, 3] instead of F32 [3, 2]"), "{wrong}");
    assert!(checkpoint.expect("fc.weight", Dtype::F32, &[]).unwrap_err().to_string().contains("fc.weight: is missing"));
    // Any safetensors reader takes the file, with every tensor aligned to its type.
    let plain = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(plain.tensor("a.rng").unwrap().data(), [5; 3]);
    assert_eq!(plain.tensor("steps").unwrap().data().as_ptr() as usize % 8, bytes.as_ptr() as usize % 8);
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = CheckpointStore::open(dir.path(), 3).unwrap();
    let path = save(&store, 1, 9);
    let good = std::fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bad).unwrap();
        let error = Checkpoint::load(&path).expect_err(&format!("byte {at}"));
        assert!(error.exit_code() == 2 && error.to_string().contains("step-000000001.safetensors: damaged"), "{error}");
    }
    for length in 0..good.len() {
        std::fs::write(&path, &good[..length]).unwrap();
        assert!(Checkpoint::load(&path).is_err(), "{length} bytes");
    }
    std::fs::write(&path, [&good[..], b"x"].concat()).unwrap();
    assert!(Checkpoint::load(&path).is_err());
}

#[test]
fn keeps_the_newest_and_falls_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = CheckpointStore::open(dir.path(), 2).unwrap();
    for step in [10, 20, 30] {
        save(&store, step, step as u8);
    }
    assert_eq!(store.list().unwrap(), [20, 30]);
    std::fs::write(store.path(30), b"short").unwrap();
    let (checkpoint, warnings) = store.latest().unwrap().unwrap();
    assert_eq!((checkpoint.step, warnings.len()), (20, 1));
    assert!(warnings[0].message.contains("step-000000030.safetensors: damaged"), "{warnings:?}");
    // Going on from 20: the damaged 30 must not push out the good 20.
    save(&store, 25, 25);
    assert_eq!(store.list().unwrap(), [20, 25]);
    for step in [20, 25] {
        std::fs::write(store.path(step), b"short").unwrap();
    }
    assert!(store.latest().unwrap_err().to_string().contains("step-000000025"));
}

#[test]
fn a_failed_write_leaves_the_old_one_and_leftovers_go() {
    let dir = tempfile::tempdir().unwrap();
    let store = CheckpointStore::open(dir.path(), 1).unwrap();
    save(&store, 1, 1);
    let wrong = BTreeMap::from([("w".to_owned(), TensorRef::f32(&[2], &[0; 7]))]);
    assert!(store.save(2, &wrong, &BTreeMap::new(), &mut Vec::new()).unwrap_err().to_string().contains("tensor w: F32 [2] does not fit 7 bytes"));
    assert!(store.save(2, &BTreeMap::new(), &BTreeMap::from([("step".into(), "9".into())]), &mut Vec::new()).is_err());
    // The name is taken by a folder: the rename fails after the data was written.
    std::fs::create_dir(store.path(3)).unwrap();
    assert_eq!(store.save(3, &BTreeMap::new(), &BTreeMap::new(), &mut Vec::new()).unwrap_err().exit_code(), 5);
    std::fs::remove_dir(store.path(3)).unwrap();
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    std::fs::write(dir.path().join(".swav-wgpu-tmp-killed"), "half").unwrap();
    let store = CheckpointStore::open(dir.path(), 1).unwrap();
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    assert_eq!(store.latest().unwrap().unwrap().0.step, 1);
}
