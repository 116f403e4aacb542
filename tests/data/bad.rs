//! Bad images: replaced by a function of seed, epoch and image, or left out, never in silence, and never more than were allowed.

use crate::loader::{images, pipeline};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use swav_wgpu::data::{Batch, Dataset, EvalTransform, Loader, OnBad, Split};

const REPLACE: OnBad = OnBad::Replace { seed: 5 };

/// 40 images, of which the ones of these numbers are of different badness.
fn damaged(dir: &Path) {
    fs::write(dir.join("train/a/003.png"), b"not an image").unwrap();
    fs::write(dir.join("train/b/021.png"), b"").unwrap();
    let cut = dir.join("train/b/030.png");
    fs::write(&cut, &fs::read(&cut).unwrap()[..40]).unwrap();
}

fn open(dir: &Path, on: OnBad, limit: Option<f64>) -> Arc<Dataset> {
    Arc::new(Dataset::open(dir, Split::Train).unwrap().on_bad(on, limit))
}

/// What the steps show, without what is told but once.
fn shown(dir: &Path, workers: usize, start: u64, end: u64) -> Vec<Batch> {
    let loader = Loader::multi_crop(open(dir, REPLACE, None), pipeline(), 8, workers, start, end).unwrap();
    loader.map(|batch| Batch { bad: vec![], ..batch.unwrap() }).collect()
}

#[test]
fn replacements_depend_on_nothing_but_files_seed_and_step() {
    let (dir, set) = images(40);
    let whole: Vec<Batch> = Loader::multi_crop(set, pipeline(), 8, 2, 0, 15).unwrap().map(Result::unwrap).collect();
    damaged(dir.path());
    let all = shown(dir.path(), 2, 0, 15);
    for workers in [1, 3, 9] {
        assert_eq!(all, shown(dir.path(), workers, 0, 15), "{workers} workers");
    }
    for start in [1, 4, 5, 11] {
        assert_eq!(all[start as usize..], shown(dir.path(), 2, start, 15), "from {start}");
    }
    // In each of three epochs each of the bad is met once, and only its own place differs, with the other's label and the other's crops.
    assert_eq!(all.iter().map(|b| b.replaced).sum::<usize>(), 9);
    let clean = open(dir.path(), OnBad::Stop, None);
    let mut chosen = Vec::new();
    for (batch, before) in all.iter().zip(&whole) {
        for (place, (now, then)) in batch.indices.iter().zip(&before.indices).enumerate() {
            let crop = |b: &Batch| b.groups[0][place * 1024..][..1024].to_vec();
            if [3, 21, 30].contains(then) {
                assert!(![3, 21, 30].contains(now));
                let mut views: Vec<Vec<u8>> = [1024, 1024, 256, 256, 256].iter().map(|n| vec![0; *n]).collect();
                let mut slices: Vec<&mut [u8]> = views.iter_mut().map(Vec::as_mut_slice).collect();
                let image = clean.decode(*now as usize).unwrap();
                pipeline().crops(&image, batch.epoch, u64::from(*now), &mut slices, &mut Default::default());
                assert_eq!(crop(batch), views[0]);
                chosen.push(*now);
            } else {
                assert_eq!((now, crop(batch)), (then, crop(before)));
            }
        }
        assert_eq!(batch.labels, batch.indices.iter().map(|i| Some(usize::from(*i >= 20))).collect::<Vec<_>>());
    }
    chosen.sort_unstable();
    chosen.dedup();
    assert!(chosen.len() > 3, "another one in each epoch: {chosen:?}");
}

#[test]
fn a_file_that_turns_good_changes_its_own_places_only() {
    let (dir, _) = images(40);
    damaged(dir.path());
    let before = shown(dir.path(), 2, 0, 5);
    fs::copy(dir.path().join("train/a/004.png"), dir.path().join("train/a/003.png")).unwrap();
    let after = shown(dir.path(), 2, 0, 5);
    let differ: usize = before.iter().zip(&after).map(|(a, b)| a.indices.iter().zip(&b.indices).filter(|(x, y)| x != y).count()).sum();
    assert_eq!(differ, 1);
}

#[test]
fn each_bad_image_is_told_once() {
    let (dir, _) = images(40);
    damaged(dir.path());
    let set = open(dir.path(), REPLACE, None);
    let loader = Loader::multi_crop(Arc::clone(&set), pipeline(), 8, 3, 0, 15).unwrap();
    let mut told: Vec<_> = loader.flat_map(|batch| batch.unwrap().bad).collect();
    told.sort_by_key(|bad| bad.index);
    assert_eq!(told.iter().map(|bad| bad.index).collect::<Vec<_>>(), [3, 21, 30]);
    for (bad, (name, why)) in told.iter().zip([("003.png", "none of"), ("021.png", "is empty"), ("030.png", "cannot be decoded")]) {
        assert!(bad.path.ends_with(name) && bad.reason.contains(why), "{bad:?}");
    }
    assert_eq!(set.bad().found().len(), 3);
    // Another process that goes on from there knows them.
    let again = open(dir.path(), REPLACE, None);
    again.bad().remember(set.bad().found());
    let loader = Loader::multi_crop(again, pipeline(), 8, 3, 5, 15).unwrap();
    assert!(loader.flat_map(|batch| batch.unwrap().bad).next().is_none());
}

#[test]
fn more_than_allowed_end_it_at_the_same_step_whoever_reads() {
    let (dir, _) = images(40);
    damaged(dir.path());
    fs::write(dir.path().join("train/a/007.png"), b"nor this").unwrap();
    let ends: Vec<usize> = [1, 2, 7]
        .map(|workers| {
            let mut loader = Loader::multi_crop(open(dir.path(), REPLACE, None), pipeline(), 8, workers, 0, 10).unwrap();
            let good = loader.by_ref().take_while(Result::is_ok).count();
            assert!(loader.next().is_none());
            good
        })
        .to_vec();
    assert!(ends.iter().all(|end| *end == ends[0] && *end < 5), "{ends:?}");
    let loader = Loader::multi_crop(open(dir.path(), REPLACE, None), pipeline(), 8, 1, 0, 10).unwrap();
    let error = loader.filter_map(Result::err).next().unwrap();
    assert!(error.exit_code() == 4 && error.to_string().contains("4 of 40 images cannot be read, and data.bad_limit allows 3"), "{error}");
    // A limit that is given holds as it is.
    assert!(Loader::multi_crop(open(dir.path(), REPLACE, Some(0.1)), pipeline(), 8, 1, 0, 10).unwrap().all(|batch| batch.is_ok()));
    assert!(Loader::multi_crop(open(dir.path(), REPLACE, Some(0.05)), pipeline(), 8, 1, 0, 10).unwrap().any(|batch| batch.is_err()));
    let none = open(dir.path(), REPLACE, Some(1.0));
    for i in 0..40 {
        let _ = fs::remove_file(dir.path().join(format!("train/{}/{i:03}.png", if i < 20 { "a" } else { "b" })));
    }
    let error = Loader::multi_crop(none, pipeline(), 8, 2, 0, 10).unwrap().next().unwrap().unwrap_err();
    assert!(error.to_string().contains("nor can any of 100 images"), "{error}");
}

#[test]
fn what_is_left_out_leaves_the_others_as_they_are() {
    let (dir, set) = images(40);
    let transform = EvalTransform { resize: Some(12), crop: 10 };
    let all = |set: &Arc<Dataset>| -> Vec<Batch> { Loader::evaluation(Arc::clone(set), transform, 7, 2).unwrap().map(Result::unwrap).collect() };
    let rows = |batches: &[Batch]| -> Vec<(u32, Option<usize>, Vec<u8>)> {
        let of = |b: &Batch| {
            let crops: Vec<Vec<u8>> = b.groups[0].chunks_exact(400).map(<[u8]>::to_vec).collect();
            assert!(crops.len() == b.indices.len() && b.labels.len() == crops.len());
            b.indices.iter().copied().zip(b.labels.clone()).zip(crops).map(|((i, l), c)| (i, l, c)).collect::<Vec<_>>()
        };
        batches.iter().flat_map(of).collect()
    };
    let mut whole = rows(&all(&set));
    damaged(dir.path());
    let some = all(&open(dir.path(), OnBad::Skip, None));
    whole.retain(|(index, ..)| ![3, 21, 30].contains(index));
    assert_eq!(rows(&some), whole);
    assert_eq!(some.iter().map(|b| b.bad.len()).sum::<usize>(), 3);
}
