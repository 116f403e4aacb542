//! The thread that makes the batches, and those that help it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Batch, steps_per_epoch};
use crate::data::augment::{Scratch, crop_bytes};
use crate::data::bad::{Bad, OnBad, attempts, replacement};
use crate::data::dataset::Dataset;
use crate::data::reading::Reading;
use crate::data::rng::permutation;
use crate::error::{Error, Result};

/// Which images a step takes.
#[derive(Clone)]
pub(super) struct Schedule {
    pub images: usize,
    pub batch: usize,
    pub drop_last: bool,
    /// Seed of the shuffle; none keeps the order.
    pub shuffle: Option<u64>,
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

/// What one thread has to itself.
pub(super) struct Worker {
    pub scratch: Scratch,
    /// What it reads, for whoever waits for it.
    pub reading: Arc<Reading>,
}

/// What is done to one image; `crops[view]` are the bytes of one crop.
pub(super) trait Work: Send + Sync + 'static {
    fn run(&self, epoch: u64, index: u32, crops: &mut [&mut [u8]], worker: &mut Worker) -> Result<()>;
}

impl<F: Fn(u64, u32, &mut [&mut [u8]], &mut Worker) -> Result<()> + Send + Sync + 'static> Work for F {
    fn run(&self, epoch: u64, index: u32, crops: &mut [&mut [u8]], worker: &mut Worker) -> Result<()> {
        self(epoch, index, crops, worker)
    }
}

/// Makes the batches.
pub(super) struct Producer<W> {
    pub dataset: Arc<Dataset>,
    pub schedule: Schedule,
    /// Crops per image and side, for each group.
    pub layout: Vec<(usize, usize)>,
    pub work: W,
    pub stop: Arc<AtomicBool>,
}

/// What went wrong in a batch.
#[derive(Default)]
struct Faults {
    /// The first image, by its place in the batch, that ends it all.
    error: Option<(usize, Error)>,
    /// Bad images that were not known before.
    bad: Vec<Bad>,
    /// Places whose image was replaced, and by which.
    replaced: Vec<(usize, u32)>,
    /// Places that are to be left out.
    skipped: Vec<usize>,
}

impl<W: Work> Producer<W> {
    pub fn run(&self, steps: std::ops::Range<u64>, mut workers: Vec<Worker>, send: &SyncSender<Result<Batch>>, reuse: &Receiver<Vec<Vec<u8>>>) {
        let mut order = None;
        for step in steps {
            let (epoch, indices) = self.schedule.indices(step, &mut order);
            let mut groups = reuse.try_recv().unwrap_or_default();
            groups.resize_with(self.layout.len(), Vec::new);
            for (group, &(count, size)) in groups.iter_mut().zip(&self.layout) {
                group.resize(count * indices.len() * crop_bytes(size), 0);
            }
            let batch = self.fill(epoch, &indices, &mut groups, &mut workers).map(|faults| self.batch(step, epoch, indices, groups, faults));
            let failed = batch.is_err();
            if self.stop.load(Ordering::Relaxed) || send.send(batch).is_err() || failed {
                return;
            }
        }
    }

    /// The batch as it goes out.
    fn batch(&self, step: u64, epoch: u64, mut indices: Vec<u32>, mut groups: Vec<Vec<u8>>, faults: Faults) -> Batch {
        let Faults { mut bad, replaced, mut skipped, .. } = faults;
        // Threads find them in any order.
        bad.sort_by_key(|bad| bad.index);
        for &(place, by) in &replaced {
            indices[place] = by;
        }
        if !skipped.is_empty() {
            skipped.sort_unstable();
            let (all, stays) = (indices.len(), |place: usize| skipped.binary_search(&place).is_err());
            for (group, &(_, size)) in groups.iter_mut().zip(&self.layout) {
                let crops = group.chunks_exact(crop_bytes(size)).enumerate();
                *group = crops.filter(|(i, _)| stays(i % all)).flat_map(|(_, crop)| crop).copied().collect();
            }
            indices = indices.iter().enumerate().filter(|(place, _)| stays(*place)).map(|(_, index)| *index).collect();
        }
        let labels = indices.iter().map(|&i| self.dataset.label(i as usize)).collect();
        Batch { step, epoch, indices, labels, groups, bad, replaced: replaced.len() }
    }

    /// Makes all crops of one batch, its images shared among the workers.
    fn fill(&self, epoch: u64, indices: &[u32], groups: &mut [Vec<u8>], workers: &mut [Worker]) -> Result<Faults> {
        // Each image's own slices, in the order of the views.
        let mut slots: Vec<Vec<&mut [u8]>> = indices.iter().map(|_| Vec::new()).collect();
        for (group, &(_, size)) in groups.iter_mut().zip(&self.layout) {
            for (i, crop) in group.chunks_exact_mut(crop_bytes(size)).enumerate() {
                slots[i % indices.len()].push(crop);
            }
        }
        let queue = Mutex::new(indices.iter().zip(slots).enumerate());
        let faults = Mutex::new(Faults::default());
        let ended = AtomicBool::new(false);
        let work = |worker: &mut Worker| {
            while !ended.load(Ordering::Relaxed) && !self.stop.load(Ordering::Relaxed) {
                let Some((place, (&index, mut crops))) = queue.lock().unwrap_or_else(PoisonError::into_inner).next() else { break };
                let Err(error) = self.one(epoch, index, &mut crops, worker) else { continue };
                if let Err(error) = self.instead(epoch, (place, index), error, &mut crops, worker, &faults) {
                    ended.store(true, Ordering::Relaxed);
                    // Images are taken in order, so the first bad one is always among those tried: report that one.
                    let first = &mut faults.lock().unwrap_or_else(PoisonError::into_inner).error;
                    if first.as_ref().is_none_or(|(first, _)| place < *first) {
                        *first = Some((place, error));
                    }
                }
            }
        };
        let (own, others) = workers.split_at_mut(1);
        std::thread::scope(|scope| {
            for worker in others.iter_mut().take(indices.len().saturating_sub(1)) {
                // A machine that refuses another thread is only slower: the others take its share.
                let _ = std::thread::Builder::new().spawn_scoped(scope, || work(worker));
            }
            own.iter_mut().for_each(work);
        });
        let mut faults = faults.into_inner().unwrap_or_else(PoisonError::into_inner);
        faults.error.take().map_or(Ok(faults), |(_, error)| Err(error))
    }

    fn one(&self, epoch: u64, index: u32, crops: &mut [&mut [u8]], worker: &mut Worker) -> Result<()> {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.work.run(epoch, index, crops, worker)));
        outcome.unwrap_or_else(|_| Err(Error::data(self.dataset.path(index as usize), "a worker thread panicked over it")))
    }

    /// What is done about an image that `error` spoils: an error again where that is nothing.
    fn instead(
        &self,
        epoch: u64,
        (place, index): (usize, u32),
        error: Error,
        crops: &mut [&mut [u8]],
        worker: &mut Worker,
        faults: &Mutex<Faults>,
    ) -> Result<()> {
        let faults = || faults.lock().unwrap_or_else(PoisonError::into_inner);
        let (register, images) = (self.dataset.bad(), self.dataset.len());
        let note = |index: u32, error: Error| -> Result<()> {
            let path = self.dataset.path(index as usize);
            if let Some(reason) = register.note(path.clone(), error, images)? {
                faults().bad.push(Bad { index, path, reason });
            }
            Ok(())
        };
        match register.on() {
            OnBad::Stop => Err(error),
            OnBad::Skip => {
                note(index, error)?;
                faults().skipped.push(place);
                Ok(())
            }
            OnBad::Replace { seed } => {
                note(index, error)?;
                for attempt in attempts() {
                    if self.stop.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    let other = replacement(seed, epoch, index, attempt, images);
                    match self.one(epoch, other, crops, worker) {
                        Ok(()) => {
                            faults().replaced.push((place, other));
                            return Ok(());
                        }
                        Err(error) => note(other, error)?,
                    }
                }
                let tried = attempts().end;
                Err(Error::data(
                    self.dataset.path(index as usize),
                    format!("cannot be used, nor can any of {tried} images that might take its place"),
                ))
            }
        }
    }
}
