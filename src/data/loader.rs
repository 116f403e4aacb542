//! Batches made by worker threads, delivered in order.
//!
//! A batch depends on (dataset, pipeline, seed, step) alone: the number of workers changes nothing but the speed, and a run that starts at
//! step n sees what an uninterrupted one sees from step n on. One thread prepares batch after batch, sharing each batch's images among the
//! workers; at most two finished batches wait while a third is made. The first error ends the iteration after naming the image.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::augment::{EvalTransform, MultiCrop, Scratch, TrainTransform, crop_bytes};
use super::dataset::Dataset;
use super::rng::{Stream, permutation};
use crate::error::{Error, Result};

/// Finished batches that may wait to be taken.
const AHEAD: usize = 2;

/// Epoch number of the crops of [`Loader::first_pass`]: no training epoch has it.
const FIRST_PASS: u64 = u64::MAX - 1;

/// One step's images.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The step, counted from 0 over the whole run.
    pub step: u64,
    /// The epoch the step belongs to, counted from 0.
    pub epoch: u64,
    /// Indices of the images in the dataset.
    pub indices: Vec<u32>,
    /// Their classes.
    pub labels: Vec<Option<usize>>,
    /// For each crop group `count * batch` crops of [`crop_bytes`]: crop 0 of every image, then crop 1 of every image, and so on.
    pub groups: Vec<Vec<u8>>,
}

/// Steps in one epoch: a last partial batch counts unless it is dropped.
pub fn steps_per_epoch(images: usize, batch: usize, drop_last: bool) -> u64 {
    (if drop_last { images / batch.max(1) } else { images.div_ceil(batch.max(1)) }) as u64
}

/// Which images a step takes.
#[derive(Clone)]
struct Schedule {
    images: usize,
    batch: usize,
    drop_last: bool,
    /// Seed of the shuffle; none keeps the order.
    shuffle: Option<u64>,
}

impl Schedule {
    /// Epoch and indices of a step; `order` keeps the last epoch's order.
    fn indices(&self, step: u64, order: &mut Option<(u64, Vec<u32>)>) -> (u64, Vec<u32>) {
        let per_epoch = steps_per_epoch(self.images, self.batch, self.drop_last);
        let epoch = step / per_epoch;
        if order.as_ref().is_none_or(|(of, _)| *of != epoch) {
            let n = self.images as u32;
            *order = Some((epoch, self.shuffle.map_or_else(|| (0..n).collect(), |seed| permutation(seed, epoch, n))));
        }
        let from = (step % per_epoch) as usize * self.batch;
        let indices = order.iter().flat_map(|(_, all)| &all[from..(from + self.batch).min(self.images)]).copied().collect();
        (epoch, indices)
    }
}

/// What is done to one image; `crops[view]` are the bytes of one crop.
trait Work: Send + Sync + 'static {
    fn run(&self, epoch: u64, index: u32, crops: &mut [&mut [u8]], scratch: &mut Scratch) -> Result<()>;
}

impl<F: Fn(u64, u32, &mut [&mut [u8]], &mut Scratch) -> Result<()> + Send + Sync + 'static> Work for F {
    fn run(&self, epoch: u64, index: u32, crops: &mut [&mut [u8]], scratch: &mut Scratch) -> Result<()> {
        self(epoch, index, crops, scratch)
    }
}

/// An iterator over batches. Dropping it stops its threads.
pub struct Loader {
    batches: Option<Receiver<Result<Batch>>>,
    used: Sender<Vec<Vec<u8>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    next: u64,
    end: u64,
}

impl Loader {
    /// Pre-training batches of steps `start_step..end_step`: shuffled anew each epoch, the last partial batch dropped, so an epoch has
    /// `len / batch` steps. `workers` threads share the work of a batch (0 counts as 1).
    pub fn multi_crop(dataset: Arc<Dataset>, pipeline: MultiCrop, batch: usize, workers: usize, start_step: u64, end_step: u64) -> Result<Self> {
        Self::crops(dataset, pipeline, batch, workers, start_step..end_step, None)
    }

    /// One pass over the data before training, for DeepCluster's memory: the images in the order of epoch 0, in other crops than any epoch's.
    pub fn first_pass(dataset: Arc<Dataset>, pipeline: MultiCrop, batch: usize, workers: usize) -> Result<Self> {
        let steps = steps_per_epoch(dataset.len(), batch, true);
        Self::crops(dataset, pipeline, batch, workers, 0..steps, Some(FIRST_PASS))
    }

    /// `stream` takes the epoch's place in the choice of crops.
    fn crops(
        dataset: Arc<Dataset>,
        pipeline: MultiCrop,
        batch: usize,
        workers: usize,
        steps: std::ops::Range<u64>,
        stream: Option<u64>,
    ) -> Result<Self> {
        for g in &pipeline.groups {
            let fine = |[low, high]: [f64; 2]| low > 0.0 && low <= high && high.is_finite();
            if g.count == 0 || g.size == 0 || !fine(g.scale) || !fine(g.ratio) {
                return Err(Error::Usage(format!("crops need a count, a size, and ranges of scale and ratio above 0: {g:?}")));
            }
        }
        let schedule = Schedule { images: dataset.len(), batch, drop_last: true, shuffle: Some(pipeline.seed) };
        let layout = pipeline.groups.iter().map(|g| (g.count, g.size)).collect();
        let images = Arc::clone(&dataset);
        let work = move |epoch: u64, index: u32, crops: &mut [&mut [u8]], scratch: &mut Scratch| {
            pipeline.crops(&*images.image(index as usize)?, stream.unwrap_or(epoch), u64::from(index), crops, scratch);
            Ok(())
        };
        Self::start(dataset, schedule, layout, workers, steps, work)
    }

    /// Supervised training batches of steps `start_step..end_step`, one random crop of each image: shuffled anew each epoch. All images
    /// must have a class.
    pub fn supervised(
        dataset: Arc<Dataset>,
        transform: TrainTransform,
        seed: u64,
        batch: usize,
        drop_last: bool,
        workers: usize,
        steps: std::ops::Range<u64>,
    ) -> Result<Self> {
        if let Some(i) = (0..dataset.len()).find(|&i| dataset.label(i).is_none()) {
            return Err(Error::data(dataset.path(i), "has no class"));
        }
        let schedule = Schedule { images: dataset.len(), batch, drop_last, shuffle: Some(seed) };
        let layout = vec![(1, transform.size)];
        let images = Arc::clone(&dataset);
        let work = move |epoch: u64, index: u32, crops: &mut [&mut [u8]], scratch: &mut Scratch| {
            let image = images.image(index as usize)?;
            for crop in crops {
                transform.crop(&image, &mut Stream::new(seed, epoch, u64::from(index), 0), crop, scratch);
            }
            Ok(())
        };
        Self::start(dataset, schedule, layout, workers, steps, work)
    }

    /// Every image once, in order, through the evaluation transform; the last batch may be short. Labels may be missing.
    pub fn evaluation(dataset: Arc<Dataset>, transform: EvalTransform, batch: usize, workers: usize) -> Result<Self> {
        if transform.resize == Some(0) {
            return Err(Error::Usage("images cannot be resized to 0 pixels".into()));
        }
        let schedule = Schedule { images: dataset.len(), batch, drop_last: false, shuffle: None };
        let steps = 0..steps_per_epoch(dataset.len(), batch, false);
        let images = Arc::clone(&dataset);
        let work = move |_: u64, index: u32, crops: &mut [&mut [u8]], scratch: &mut Scratch| {
            let image = images.image(index as usize)?;
            for crop in crops {
                transform.crop(&image, crop, scratch);
            }
            Ok(())
        };
        Self::start(dataset, schedule, vec![(1, transform.crop)], workers, steps, work)
    }

    fn start(
        dataset: Arc<Dataset>,
        schedule: Schedule,
        layout: Vec<(usize, usize)>,
        workers: usize,
        steps: std::ops::Range<u64>,
        work: impl Work,
    ) -> Result<Self> {
        if schedule.batch == 0 || layout.is_empty() || layout.iter().any(|&(_, size)| size == 0) {
            return Err(Error::Usage("the batch size, the crop sizes and the number of crops must be at least 1".into()));
        }
        if schedule.drop_last && schedule.images < schedule.batch {
            let (images, batch) = (schedule.images, schedule.batch);
            let path = if images == 0 { String::new() } else { dataset.path(0) };
            return Err(Error::data(path, format!("the set has {images} images, fewer than one batch of {batch}")));
        }
        let (next, end) = (steps.start, if schedule.images == 0 { steps.start } else { steps.end });
        let (send, batches) = sync_channel(AHEAD);
        let (used, reuse) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let producer = Producer { dataset, schedule, layout, work, stop: Arc::clone(&stop) };
        let thread = std::thread::Builder::new()
            .name("loader".into())
            .spawn(move || producer.run(next..end, workers.max(1), &send, &reuse))
            .map_err(|e| Error::Failed(format!("cannot start the loader's thread: {e}")))?;
        Ok(Self { batches: Some(batches), used, stop, thread: Some(thread), next, end })
    }

    /// Gives a batch's memory back for a later one.
    pub fn recycle(&self, batch: Batch) {
        // Nobody listens any more once the last batch has been made.
        let _ = self.used.send(batch.groups);
    }
}

impl Iterator for Loader {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.end {
            return None;
        }
        let item = self.batches.as_ref()?.recv().unwrap_or_else(|_| Err(Error::Failed("the loader's thread ended too early".into())));
        self.next = if item.is_ok() { self.next + 1 } else { self.end };
        Some(item)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A producer that waits for room in the channel wakes up when the receiver is gone.
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread that makes the batches.
struct Producer<W> {
    dataset: Arc<Dataset>,
    schedule: Schedule,
    /// Crops per image and side, for each group.
    layout: Vec<(usize, usize)>,
    work: W,
    stop: Arc<AtomicBool>,
}

impl<W: Work> Producer<W> {
    fn run(&self, steps: std::ops::Range<u64>, workers: usize, send: &SyncSender<Result<Batch>>, reuse: &Receiver<Vec<Vec<u8>>>) {
        let mut scratch: Vec<Scratch> = (0..workers).map(|_| Scratch::default()).collect();
        let mut order = None;
        for step in steps {
            let (epoch, indices) = self.schedule.indices(step, &mut order);
            let mut groups = reuse.try_recv().unwrap_or_default();
            groups.resize_with(self.layout.len(), Vec::new);
            for (group, &(count, size)) in groups.iter_mut().zip(&self.layout) {
                group.resize(count * indices.len() * crop_bytes(size), 0);
            }
            let outcome = self.fill(epoch, &indices, &mut groups, &mut scratch);
            let labels = indices.iter().map(|&i| self.dataset.label(i as usize)).collect();
            let failed = outcome.is_err();
            if self.stop.load(Ordering::Relaxed) || send.send(outcome.map(|()| Batch { step, epoch, indices, labels, groups })).is_err() || failed {
                return;
            }
        }
    }

    /// Makes all crops of one batch, its images shared among as many threads as there are scratch buffers.
    fn fill(&self, epoch: u64, indices: &[u32], groups: &mut [Vec<u8>], scratch: &mut [Scratch]) -> Result<()> {
        // Each image's own slices, in the order of the views.
        let mut slots: Vec<Vec<&mut [u8]>> = indices.iter().map(|_| Vec::new()).collect();
        for (group, &(_, size)) in groups.iter_mut().zip(&self.layout) {
            for (i, crop) in group.chunks_exact_mut(crop_bytes(size)).enumerate() {
                slots[i % indices.len()].push(crop);
            }
        }
        let queue = Mutex::new(indices.iter().zip(slots).enumerate());
        let error: Mutex<Option<(usize, Error)>> = Mutex::new(None);
        let ended = AtomicBool::new(false);
        let worker = |scratch: &mut Scratch| {
            while !ended.load(Ordering::Relaxed) && !self.stop.load(Ordering::Relaxed) {
                let Some((place, (&index, mut crops))) = queue.lock().unwrap_or_else(PoisonError::into_inner).next() else { break };
                let outcome = catch_unwind(AssertUnwindSafe(|| self.work.run(epoch, index, &mut crops, scratch)));
                let outcome = outcome.unwrap_or_else(|_| Err(Error::data(self.dataset.path(index as usize), "a worker thread panicked over it")));
                if let Err(e) = outcome {
                    ended.store(true, Ordering::Relaxed);
                    // Images are taken in order, so the first bad one is always among those tried: report that one.
                    let mut error = error.lock().unwrap_or_else(PoisonError::into_inner);
                    if error.as_ref().is_none_or(|(first, _)| place < *first) {
                        *error = Some((place, e));
                    }
                }
            }
        };
        let (own, others) = scratch.split_at_mut(1);
        std::thread::scope(|scope| {
            for s in others.iter_mut().take(indices.len().saturating_sub(1)) {
                // A machine that refuses another thread is only slower: the others take its share.
                let _ = std::thread::Builder::new().spawn_scoped(scope, || worker(s));
            }
            own.iter_mut().for_each(worker);
        });
        error.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), |(_, e)| Err(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Split;

    /// A set of two files that are never read.
    fn set() -> (tempfile::TempDir, Arc<Dataset>) {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.png", "b.png"] {
            std::fs::write(dir.path().join(name), b"").unwrap();
        }
        let set = Dataset::open(dir.path(), Split::All).unwrap();
        (dir, Arc::new(set))
    }

    #[test]
    fn a_panic_in_a_worker_is_an_error_that_names_the_image() {
        let (_dir, set) = set();
        let schedule = Schedule { images: 2, batch: 1, drop_last: true, shuffle: None };
        let work = |_: u64, index: u32, crops: &mut [&mut [u8]], _: &mut Scratch| {
            assert!(index != 1, "on purpose");
            crops[0].fill(7);
            Ok(())
        };
        let mut loader = Loader::start(set, schedule, vec![(1, 2)], 2, 0..9, work).unwrap();
        assert_eq!(loader.next().unwrap().unwrap().groups, [[7; 16]]);
        let error = loader.next().unwrap().unwrap_err().to_string();
        assert!(error.contains("b.png") && error.contains("panicked"), "{error}");
        assert!(loader.next().is_none());
    }

    #[test]
    fn of_several_bad_images_the_first_is_reported() {
        let (_dir, set) = set();
        let paths = Arc::clone(&set);
        let schedule = Schedule { images: 2, batch: 2, drop_last: true, shuffle: None };
        let work = move |_: u64, index: u32, _: &mut [&mut [u8]], _: &mut Scratch| {
            // The second image fails long before the first one does.
            std::thread::sleep(std::time::Duration::from_millis(if index == 0 { 100 } else { 20 }));
            Err(Error::data(paths.path(index as usize), "bad"))
        };
        let mut loader = Loader::start(set, schedule, vec![(1, 2)], 2, 0..1, work).unwrap();
        let error = loader.next().unwrap().unwrap_err().to_string();
        assert!(error.contains("a.png"), "{error}");
    }

    #[test]
    fn no_more_than_the_promised_batches_are_made_ahead() {
        let (_dir, set) = set();
        let made = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = Arc::clone(&made);
        let schedule = Schedule { images: 2, batch: 2, drop_last: true, shuffle: Some(0) };
        let work = move |_: u64, _: u32, _: &mut [&mut [u8]], _: &mut Scratch| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        let mut loader = Loader::start(set, schedule, vec![(1, 2)], 2, 0..1000, work).unwrap();
        loader.next().unwrap().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert_eq!(made.load(Ordering::Relaxed), 2 * (1 + AHEAD + 1));
    }
}
