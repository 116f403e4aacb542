//! Batches made by worker threads, delivered in order.
//!
//! A batch depends on (dataset, pipeline, seed, step) alone: the number of workers changes nothing but the speed, and a run that starts at
//! step n sees what an uninterrupted one sees from step n on. One thread prepares batch after batch, sharing each batch's images among the
//! workers; at most two finished batches wait while a third is made. What becomes of an image that cannot be read is the data set's choice
//! ([`Dataset::on_bad`]); by default the first ends the iteration after naming it. A read that does not end is told to whoever waits for it, who
//! can go away: a thread that hangs in a read is left behind.

mod producer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::augment::{EvalTransform, MultiCrop, Scratch, TrainTransform};
use super::bad::{Bad, Notice};
use super::dataset::Dataset;
use super::reading::Reading;
use super::rng::Stream;
use super::survey::Facts;
use crate::error::{Error, Result};
use producer::{Producer, Schedule, Work, Worker};

/// Finished batches that may wait to be taken.
const AHEAD: usize = 2;

/// A read that takes so long is told of, and again each time it has taken [`TOLD_AGAIN`] times as long.
const STALLED: Duration = Duration::from_secs(30);
const TOLD_AGAIN: u32 = 10;

/// How often whoever waits for a batch looks round.
const SLICE: Duration = Duration::from_millis(50);

/// A read that lasts so long when it is to stop is not waited for: it may never end.
const PATIENCE: Duration = Duration::from_secs(1);

/// Nor is a batch that takes so long from then on.
const LONGEST_STOP: Duration = Duration::from_secs(2);

/// Epoch number of the crops of [`Loader::first_pass`]: no training epoch has it.
const FIRST_PASS: u64 = u64::MAX - 1;

/// One step's images.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The step, counted from 0 over the whole run.
    pub step: u64,
    /// The epoch the step belongs to, counted from 0.
    pub epoch: u64,
    /// Indices of the images in the dataset: where one was replaced, that of the other.
    pub indices: Vec<u32>,
    /// Their classes.
    pub labels: Vec<Option<usize>>,
    /// For each crop group `count * batch` crops of [`crop_bytes`](super::crop_bytes): crop 0 of
    /// every image, then crop 1 of every image, and so on.
    pub groups: Vec<Vec<u8>>,
    /// Images that were found to be bad now, and not before, by index.
    pub bad: Vec<Bad>,
    /// How many of the images take the place of others.
    pub replaced: usize,
}

/// Steps in one epoch: a last partial batch counts unless it is dropped.
pub fn steps_per_epoch(images: usize, batch: usize, drop_last: bool) -> u64 {
    (if drop_last { images / batch.max(1) } else { images.div_ceil(batch.max(1)) }) as u64
}

/// An iterator over batches, which waits for each and logs what there is to say. Dropping it stops its threads.
pub struct Loader {
    dataset: Arc<Dataset>,
    batches: Option<Receiver<Result<Batch>>>,
    used: Sender<Vec<Vec<u8>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
    /// What its helpers read.
    readings: Vec<Arc<Reading>>,
    /// How long a read may take before it is told of.
    patience: Duration,
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
        let work = move |epoch: u64, index: u32, crops: &mut [&mut [u8]], worker: &mut Worker| {
            pipeline.crops(
                &*images.image_by(index as usize, &worker.reading)?,
                stream.unwrap_or(epoch),
                u64::from(index),
                crops,
                &mut worker.scratch,
            );
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
        let work = move |epoch: u64, index: u32, crops: &mut [&mut [u8]], worker: &mut Worker| {
            let image = images.image_by(index as usize, &worker.reading)?;
            for crop in crops {
                transform.crop(&image, &mut Stream::new(seed, epoch, u64::from(index), 0), crop, &mut worker.scratch);
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
        let work = move |_: u64, index: u32, crops: &mut [&mut [u8]], worker: &mut Worker| {
            let image = images.image_by(index as usize, &worker.reading)?;
            for crop in crops {
                transform.crop(&image, crop, &mut worker.scratch);
            }
            Ok(())
        };
        Self::start(dataset, schedule, vec![(1, transform.crop)], workers, steps, work)
    }

    /// Every image once, in order, for [`super::survey`]: in place of crops what is noted of it.
    pub(super) fn survey(dataset: Arc<Dataset>, decode: bool, batch: usize, workers: usize) -> Result<Self> {
        let schedule = Schedule { images: dataset.len(), batch, drop_last: false, shuffle: None };
        let steps = 0..steps_per_epoch(dataset.len(), batch, false);
        let images = Arc::clone(&dataset);
        let work = move |_: u64, index: u32, crops: &mut [&mut [u8]], worker: &mut Worker| {
            let mut facts = Facts::default();
            if decode {
                let ([width, height], bytes) = images.examine(index as usize, &worker.reading)?;
                let content = blake3::hash(&bytes).as_bytes().first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
                facts = Facts { width: width as u32, height: height as u32, content };
            } else {
                images.glance(index as usize, &worker.reading)?;
            }
            crops.iter_mut().for_each(|crop| crop.copy_from_slice(&facts.to_bytes()));
            Ok(())
        };
        Self::start(dataset, schedule, vec![(1, Facts::SIDE)], workers, steps, work)
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
        let (alive, ended) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let workers: Vec<Worker> =
            (0..workers.max(1)).map(|_| Worker { scratch: Scratch::default(), reading: Arc::new(Reading::new(&stop)) }).collect();
        let readings = workers.iter().map(|worker| Arc::clone(&worker.reading)).collect();
        let producer = Producer { dataset: Arc::clone(&dataset), schedule, layout, work, stop: Arc::clone(&stop) };
        let run = move || {
            producer.run(next..end, workers, &send, &reuse);
            drop(producer);
            drop::<Sender<()>>(alive);
        };
        let failed = |e| Error::Failed(format!("cannot start the loader's thread: {e}"));
        let thread = std::thread::Builder::new().name("loader".into()).spawn(run).map_err(failed)?;
        Ok(Self { dataset, batches: Some(batches), used, stop, thread: Some(thread), ended, readings, patience: STALLED, next, end })
    }

    /// The next batch, and before it, through `tell`, what there is to say of bad images and of reads that do not end. When `stop` is set and the
    /// batch does not come, as where a disk does not answer, [`Error::StoppedEmpty`].
    pub fn next_or_stop(&mut self, stop: &AtomicBool, tell: &mut dyn FnMut(&Notice) -> Result<()>) -> Option<Result<Batch>> {
        if self.next >= self.end {
            return None;
        }
        let item = self.wait(stop, tell);
        self.next = if item.is_ok() { self.next + 1 } else { self.end };
        Some(item)
    }

    /// The same. Bad images and reads that do not end are logged.
    pub fn next_until(&mut self, stop: &AtomicBool) -> Option<Result<Batch>> {
        self.next_or_stop(stop, &mut |notice| {
            tracing::warn!("{notice}");
            Ok(())
        })
    }

    fn wait(&self, stop: &AtomicBool, tell: &mut dyn FnMut(&Notice) -> Result<()>) -> Result<Batch> {
        let gone = || Error::Failed("the loader's thread ended too early".into());
        let batches = self.batches.as_ref().ok_or_else(gone)?;
        let (mut patience, mut asked) = (self.patience, None);
        let batch = loop {
            match batches.recv_timeout(SLICE) {
                Ok(batch) => break batch?,
                Err(RecvTimeoutError::Disconnected) => return Err(gone()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let slowest = self.readings.iter().filter_map(|reading| reading.since()).max_by_key(|(_, time)| *time);
            if stop.load(Ordering::Relaxed) {
                let asked: &Instant = asked.get_or_insert_with(Instant::now);
                if asked.elapsed() >= LONGEST_STOP || slowest.is_some_and(|(_, time)| time >= PATIENCE) {
                    return Err(Error::StoppedEmpty);
                }
            }
            if let Some((image, time)) = slowest.filter(|(_, time)| *time >= patience) {
                patience = time.saturating_mul(TOLD_AGAIN);
                tell(&Notice::Stalled { path: self.dataset.path(image as usize), time })?;
            }
        };
        let on = self.dataset.bad().on();
        batch.bad.iter().try_for_each(|bad| tell(&Notice::Bad(bad.clone(), on)))?;
        Ok(batch)
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
        self.next_until(&AtomicBool::new(false))
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A producer that waits for room in the channel wakes up when the receiver is gone.
        self.batches = None;
        let began = Instant::now();
        while self.ended.recv_timeout(SLICE) == Err(RecvTimeoutError::Timeout) {
            let hangs = |reading: &Arc<Reading>| reading.since().is_some_and(|(_, time)| time >= PATIENCE);
            if began.elapsed() >= PATIENCE && self.readings.iter().any(hangs) {
                return;
            }
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
