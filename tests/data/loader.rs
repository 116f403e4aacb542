//! The loader's promises: batches that depend on nothing but the step, errors at the right step, threads that end.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
use swav_wgpu::data::{
    AugmentConfig, Batch, CropGroup, Dataset, EvalTransform, Loader, MultiCrop, Order, Split, TrainTransform, crop_bytes, steps_per_epoch,
};
use swav_wgpu::error::Error;
use tempfile::TempDir;

const RATIO: [f64; 2] = [0.75, 4.0 / 3.0];

/// `n` images of two classes; image i is a gradient that starts at red 10 i.
pub fn images(n: usize) -> (TempDir, Arc<Dataset>) {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..n {
        let pixels: Vec<u8> = (0..20 * 16).flat_map(|p| [(10 * i) as u8, (p * 7) as u8, (p / 20 * 9) as u8]).collect();
        let class = dir.path().join(if i < n / 2 { "train/a" } else { "train/b" });
        fs::create_dir_all(&class).unwrap();
        let file = fs::File::create(class.join(format!("{i:03}.png"))).unwrap();
        PngEncoder::new(file).write_image(&pixels, 20, 16, ExtendedColorType::Rgb8).unwrap();
    }
    let set = Dataset::open(dir.path(), Split::Train).unwrap();
    (dir, Arc::new(set))
}

pub fn pipeline() -> MultiCrop {
    let group = |count, size, scale| CropGroup { count, size, scale, ratio: RATIO };
    let augment = AugmentConfig {
        flip: 0.5,
        jitter_probability: 0.8,
        jitter: [0.4, 0.4, 0.4, 0.1],
        grayscale: 0.2,
        blur_probability: 0.5,
        blur_sigma: [0.1, 2.0],
        order: Order::Official,
    };
    MultiCrop { groups: vec![group(2, 16, [0.3, 1.0]), group(3, 8, [0.05, 0.3])], augment, seed: 11 }
}

fn run(set: &Arc<Dataset>, workers: usize, start: u64, end: u64) -> Vec<Batch> {
    Loader::multi_crop(Arc::clone(set), pipeline(), 4, workers, start, end).unwrap().map(Result::unwrap).collect()
}

#[test]
fn the_first_pass_visits_epoch_zeros_images_in_crops_of_its_own() {
    let (_dir, set) = images(11);
    let epoch = run(&set, 2, 0, 2);
    let first: Vec<Batch> = Loader::first_pass(Arc::clone(&set), pipeline(), 4, 3).unwrap().map(Result::unwrap).collect();
    assert_eq!(first.len(), 2);
    for (a, b) in first.iter().zip(&epoch) {
        assert_eq!((&a.indices, a.groups[1].len()), (&b.indices, b.groups[1].len()));
        assert!(a.groups[0] != b.groups[0] && a.groups[1] != b.groups[1]);
    }
    assert_eq!(first, Loader::first_pass(Arc::clone(&set), pipeline(), 4, 1).unwrap().map(Result::unwrap).collect::<Vec<_>>());
}

#[test]
fn batches_do_not_depend_on_workers_recycling_or_where_a_run_starts() {
    let (_dir, set) = images(11); // 2 steps an epoch, 3 images left over
    let whole = run(&set, 1, 0, 7);
    assert_eq!(whole.iter().map(|b| (b.step, b.epoch)).collect::<Vec<_>>(), [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (6, 3)]);
    for workers in [0, 2, 3, 9] {
        assert_eq!(whole, run(&set, workers, 0, 7), "{workers} workers");
    }
    for start in 0..7 {
        assert_eq!(whole[start as usize..], run(&set, 2, start, 7), "resumed at {start}");
    }
    let mut loader = Loader::multi_crop(Arc::clone(&set), pipeline(), 4, 2, 0, 7).unwrap();
    for expected in &whole {
        let mut batch = loader.next().unwrap().unwrap();
        assert_eq!(expected, &batch);
        batch.groups.iter_mut().flatten().for_each(|v| *v = 99);
        loader.recycle(batch);
    }
    assert!(loader.next().is_none() && loader.next().is_none());
    // Within an epoch no image comes twice; the next epoch has another order.
    let epoch = |e: usize| whole[2 * e..2 * e + 2].iter().flat_map(|b| b.indices.clone()).collect::<Vec<_>>();
    let mut seen = epoch(0);
    seen.sort_unstable();
    seen.dedup();
    assert!(seen.len() == 8 && epoch(0) != epoch(1));
}

#[test]
fn a_batch_is_laid_out_crop_by_crop() {
    let (_dir, set) = images(11);
    let p = pipeline();
    let batch = &run(&set, 2, 3, 4)[0];
    assert_eq!(batch.groups.iter().map(Vec::len).collect::<Vec<_>>(), [2 * 4 * 16 * 16 * 4, 3 * 4 * 8 * 8 * 4]);
    assert_eq!(batch.labels, batch.indices.iter().map(|&i| Some(usize::from(i >= 5))).collect::<Vec<_>>());
    for (sample, &index) in batch.indices.iter().enumerate() {
        let mut views: Vec<Vec<u8>> = [16, 16, 8, 8, 8].iter().map(|s| vec![0; crop_bytes(*s)]).collect();
        let image = set.decode(index as usize).unwrap();
        let mut slices: Vec<&mut [u8]> = views.iter_mut().map(Vec::as_mut_slice).collect();
        p.crops(&image, batch.epoch, u64::from(index), &mut slices, &mut Default::default());
        for (view, expected) in views.iter().enumerate() {
            let (group, crop) = if view < 2 { (0, view) } else { (1, view - 2) };
            let at = (crop * 4 + sample) * expected.len();
            assert_eq!(&batch.groups[group][at..at + expected.len()], expected, "sample {sample} view {view}");
        }
    }
}

#[test]
fn evaluation_sees_every_image_once_in_order() {
    let (_dir, set) = images(11);
    let transform = EvalTransform { resize: Some(12), crop: 10 };
    let all = |workers| -> Vec<Batch> { Loader::evaluation(Arc::clone(&set), transform, 4, workers).unwrap().map(Result::unwrap).collect() };
    let batches = all(2);
    assert_eq!(batches, all(1));
    let order: Vec<u32> = batches.iter().flat_map(|b| b.indices.clone()).collect();
    assert_eq!(order, (0..11).collect::<Vec<_>>());
    assert_eq!(batches.iter().map(|b| b.groups[0].len() / 400).collect::<Vec<_>>(), [4, 4, 3]);
    // Image i is red 10 i everywhere.
    for (i, image) in batches.iter().flat_map(|b| b.groups[0].chunks_exact(400)).enumerate() {
        assert!(image.chunks_exact(4).all(|p| usize::from(p[0]) == 10 * i), "image {i}");
    }
    assert_eq!((steps_per_epoch(11, 4, false), steps_per_epoch(11, 4, true), steps_per_epoch(12, 4, false)), (3, 2, 3));
}

#[test]
fn supervised_batches_shuffle_and_keep_the_rest() {
    let (_dir, set) = images(11);
    let transform = TrainTransform { size: 8, scale: [0.08, 1.0], ratio: RATIO, flip: 0.5 };
    let run = |workers, drop_last, steps| -> Vec<Batch> {
        let loader = Loader::supervised(Arc::clone(&set), transform.clone(), 5, 4, drop_last, workers, steps).unwrap();
        loader.map(Result::unwrap).collect()
    };
    let batches = run(2, false, 0..6);
    assert_eq!(batches, run(0, false, 0..6));
    assert_eq!(batches[4..], run(1, false, 4..6));
    assert_eq!(batches.iter().map(|b| b.indices.len()).collect::<Vec<_>>(), [4, 4, 3, 4, 4, 3]);
    let mut order: Vec<u32> = batches[..3].iter().flat_map(|b| b.indices.clone()).collect();
    assert_ne!(order, (0..11).collect::<Vec<_>>());
    order.sort_unstable();
    assert_eq!(order, (0..11).collect::<Vec<_>>());
    assert_eq!(run(1, true, 0..3).iter().map(|b| (b.epoch, b.indices.len())).collect::<Vec<_>>(), [(0, 4), (0, 4), (1, 4)]);

    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x.png"), b"").unwrap();
    let bare = Arc::new(Dataset::open(dir.path(), Split::All).unwrap());
    let error = Loader::supervised(bare, transform.clone(), 5, 1, false, 1, 0..1).err().unwrap();
    assert!(error.to_string().contains("x.png: has no class"), "{error}");
}

#[test]
fn wrong_sizes_are_refused() {
    let (_dir, set) = images(3);
    let error = Loader::multi_crop(Arc::clone(&set), pipeline(), 4, 1, 0, 1).err().unwrap().to_string();
    assert!(error.contains("3 images") && error.contains("batch of 4"), "{error}");
    let mut p = pipeline();
    p.groups[1].size = 0;
    assert!(matches!(Loader::multi_crop(Arc::clone(&set), p, 2, 1, 0, 1), Err(Error::Usage(_))));
    let mut p = pipeline();
    p.groups[0].scale = [0.5, 0.2];
    assert!(matches!(Loader::multi_crop(Arc::clone(&set), p, 2, 1, 0, 1), Err(Error::Usage(_))));
    assert!(matches!(Loader::multi_crop(Arc::clone(&set), pipeline(), 0, 1, 0, 1), Err(Error::Usage(_))));
    assert_eq!(Loader::multi_crop(Arc::clone(&set), pipeline(), 2, 1, 5, 5).unwrap().count(), 0);
}

#[test]
fn a_bad_image_is_an_error_at_its_step_and_ends_the_run() {
    let (dir, _) = images(12);
    fs::write(dir.path().join("train/b/009.png"), b"not an image").unwrap();
    fs::write(dir.path().join("train/b/010.png"), b"not an image").unwrap();
    let set = Arc::new(Dataset::open(dir.path(), Split::Train).unwrap());
    for workers in [0, 1, 3] {
        let mut loader = Loader::evaluation(Arc::clone(&set), EvalTransform { resize: None, crop: 8 }, 4, workers).unwrap();
        assert_eq!(loader.next().unwrap().unwrap().step, 0);
        assert_eq!(loader.next().unwrap().unwrap().step, 1);
        let error = loader.next().unwrap().unwrap_err();
        assert!(error.to_string().contains("009.png") && error.exit_code() == 4, "{workers} workers: {error}");
        assert!(loader.next().is_none());
    }
}

#[test]
fn dropping_a_loader_stops_it_at_once() {
    let (_dir, set) = images(12);
    let mut p = pipeline();
    p.groups[0].size = 400;
    let started = Instant::now();
    let mut loader = Loader::multi_crop(Arc::clone(&set), p, 12, 2, 0, u64::MAX).unwrap();
    assert!(loader.next().unwrap().is_ok());
    std::thread::sleep(Duration::from_millis(50));
    drop(loader);
    // All threads are gone: nothing else holds the set.
    assert_eq!(Arc::strong_count(&set), 1);
    assert!(started.elapsed() < Duration::from_secs(20));
}
