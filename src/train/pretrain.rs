//! Pre-training: data, steps, events, checkpoints.
//!
//! Promises: the losses depend on configuration, data and adapter alone, not on worker threads or on where the run was interrupted; a stopped
//! run goes on with the identical trajectory, and so do the numbers of an epoch that was interrupted, but for its seconds; an image that cannot
//! be read is replaced and told; what spoils the data or a log for good ends the run after a checkpoint, a full disk or a checkpoint in mid-run that cannot
//! be written does not; a loss that is not finite ends the run without touching the last checkpoint. In f16 steps that overflow are skipped instead
//! (`skips`).

mod bad;
mod data;
mod data_change;
mod deepcluster;
mod diagnosis;
mod epoch;
mod faults;
mod memory;
mod prepared;
mod runner;
mod saving;
mod skips;
mod state;

use super::config::PretrainConfig;
use super::event::{Epoch, Event, Finished, Observer, RunStarted, Step, noted};
use super::plan;
use super::run_folder::RunFolder;
use crate::data::{Dataset, Loader, Summary, steps_per_epoch};
use crate::error::{Error, Result};
use crate::fault;
use crate::gpu::Gpu;
use crate::graph::{Pending, Variants};
use crate::optim::overflowed;
use crate::swav::StepInputs;
use crate::weights::Checkpoint;
pub use data::open_data;
use epoch::EpochRecord;
use memory::{advise, check_memory};
pub use prepared::Prepared;
use skips::{MOST_SKIPPED, Skips};
use state::State;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// What a run needs besides its configuration.
pub struct Run<'a> {
    /// The device.
    pub gpu: &'a Gpu,
    /// Kernel choice.
    pub variants: &'a dyn Variants,
    /// Where it writes; `None` writes nothing.
    pub folder: Option<&'a RunFolder>,
    /// Stop after this many steps in all.
    pub max_steps: Option<u64>,
    /// Whether a run goes on though its data has more or fewer images than before.
    pub allow_data_change: bool,
    /// Set from outside to stop after the present step with a checkpoint, or before the first.
    pub stop: &'a AtomicBool,
}

/// Builds the network, takes what the run starts from: its newest checkpoint, else the weights `init` of a file, else random ones.
pub fn prepare(config: &PretrainConfig, run: &Run<'_>, data: Arc<Dataset>, init: Option<(&Path, Checkpoint)>) -> Result<Prepared> {
    let steps_per_epoch = steps_per_epoch(data.len(), config.train.batch, true);
    if steps_per_epoch == 0 {
        let message = format!("holds {} images, fewer than a batch of {}", data.len(), config.train.batch);
        return Err(Error::data(data.root(), message));
    }
    check_memory(config, run)?;
    let mut warnings = Vec::new();
    let advise = |e| advise(config, run, e);
    let mut state = State::new(config, run, init, &data, &mut warnings).map_err(advise)?;
    let queue = state.step / steps_per_epoch >= config.queue.start_epoch;
    state.prepare(run, queue).map_err(advise)?;
    let total = config.train.epochs * steps_per_epoch;
    let end = run.max_steps.map_or(total, |m| m.min(total));
    Ok(Prepared { data, state, steps_per_epoch, end, warnings, said: Vec::new(), total })
}

/// Trains to the end, to `max_steps` or to a stop request: then [`Finished::stopped`] says so, and there is a checkpoint, but for a stop
/// before the first step.
pub fn pretrain(config: &PretrainConfig, run: &Run<'_>, prepared: Prepared, observer: &mut dyn Observer) -> Result<Finished> {
    let Prepared { data, state, steps_per_epoch, end, warnings, said, .. } = prepared;
    #[expect(clippy::cast_precision_loss, reason = "a count of prototypes")]
    let chance = (config.model.prototypes as f64).ln();
    observer.event(&Event::RunStarted(RunStarted {
        adapter: run.gpu.description().name.clone(),
        parameters: state.model.parameters.count(),
        images: data.len() as u64,
        batch: config.train.batch as u64,
        epochs: config.train.epochs,
        steps: end,
        start_step: state.step,
        chance_loss: chance,
        chance_name: "ln K".into(),
        config: config.to_toml()?,
        warnings: said,
        data: Summary::clone(data.summary()),
    }))?;
    for warning in warnings {
        observer.event(&Event::Warning(warning))?;
    }
    let mut training = Training {
        config,
        run,
        schedule: config.schedule(steps_per_epoch),
        steps_per_epoch,
        end,
        observer,
        reads: VecDeque::new(),
        began: Instant::now(),
        started_at: state.step,
        running: None,
        skips: Skips::new(state.step),
        postponed: false,
        checkpoint: state.restored.clone(),
        saved_at: None,
        state,
    };
    let outcome = training.go(Arc::clone(&data)).map_err(|e| training.explained(e, &data));
    noted(training.observer, outcome)
}

struct Training<'a> {
    config: &'a PretrainConfig,
    run: &'a Run<'a>,
    state: State,
    schedule: crate::optim::schedule::Cosine,
    steps_per_epoch: u64,
    end: u64,
    observer: &'a mut dyn Observer,
    /// When the steps were read that the speed is told of, the newest last.
    reads: VecDeque<Instant>,
    began: Instant,
    started_at: u64,
    /// The step in flight.
    running: Option<Running>,
    /// Steps that were skipped because something overflowed.
    skips: Skips,
    /// Whether a checkpoint is due, and waits for a step that was not skipped.
    postponed: bool,
    checkpoint: Option<PathBuf>,
    /// After how many steps it was written, if this process did it.
    saved_at: Option<u64>,
}

/// Steps that the speed is told of.
const RATED_STEPS: usize = 8;

/// A step whose results were not read yet.
struct Running {
    step: u64,
    lr: f64,
    data_wait_ms: f64,
    /// Images that were replaced by then, in all.
    replaced: u64,
    pending: Pending,
}

impl Training<'_> {
    fn go(&mut self, data: Arc<Dataset>) -> Result<Finished> {
        // Before anything was done, so that kernels which a stop left unmeasured do not become a part of the run.
        if self.run.stop.load(Ordering::Relaxed) {
            return self.stopped();
        }
        if let Some(folder) = self.run.folder.filter(|_| self.state.step < self.end) {
            self.note_images(folder)?;
        }
        let (pipeline, batch) = (plan::multi_crop(self.config), self.config.train.batch);
        if self.state.fill_memory(self.config, self.run, &data, self.observer).map_err(|e| advise(self.config, self.run, e))?.is_break() {
            return self.stopped();
        }
        let mut loader = Loader::multi_crop(data, pipeline, batch, self.config.data.workers, self.state.step, self.end)?;
        self.reads = VecDeque::from([Instant::now()]);
        // Whatever failed first: that the folder went away is what there is to tell.
        let run = self.run;
        let gone = |error: Error| run.folder.and_then(|folder| folder.expect_here().err()).unwrap_or(error);
        let outcome = self.steps(&mut loader).map_err(gone).inspect_err(|error| {
            // What spoils an input or an output leaves the network as it was: the steps done so far are kept, if that is possible.
            if matches!(error, Error::Data { .. } | Error::Output { .. }) && self.state.step > self.started_at {
                self.rescue();
            }
        });
        if outcome?.is_break() {
            return self.stopped();
        }
        let finished = self.numbers(false);
        self.observer.event(&Event::Finished(finished.clone()))?;
        Ok(finished)
    }

    /// Ends before the last step.
    fn stopped(&mut self) -> Result<Finished> {
        self.observer.event(&Event::Stopped { step: self.state.step, resumable: true })?;
        Ok(self.numbers(true))
    }

    /// Where the run stands.
    fn numbers(&self, stopped: bool) -> Finished {
        let seconds = self.began.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let images = ((self.state.step - self.started_at) * self.config.train.batch as u64) as f64;
        Finished {
            steps: self.state.step,
            epochs: self.state.step / self.steps_per_epoch,
            loss: self.state.epoch.loss().unwrap_or(self.state.last_loss),
            images_per_second: images / seconds.max(1e-9),
            seconds,
            checkpoint: self.checkpoint.clone(),
            stopped,
            bad_images: self.state.bad.count(),
            replaced_images: self.state.bad.replaced(),
            skipped_steps: self.skips.total(),
        }
    }

    /// Runs all steps, or breaks off on a stop request.
    fn steps(&mut self, loader: &mut Loader) -> Result<ControlFlow<()>> {
        while self.state.step < self.end {
            let step = self.state.step;
            fault::begin_step(step);
            self.run.folder.map_or(Ok(()), RunFolder::expect_here)?;
            let waited = Instant::now();
            let Some(crops) = self.batch(loader)? else { return self.keep() };
            let data_wait_ms = waited.elapsed().as_secs_f64() * 1e3;
            let epoch = step / self.steps_per_epoch;
            if step.is_multiple_of(self.steps_per_epoch) {
                self.state.epoch = EpochRecord::default();
                self.state.begin_epoch(self.config, self.run, epoch, self.observer).map_err(|e| advise(self.config, self.run, e))?;
            }
            let queue = epoch >= self.config.queue.start_epoch;
            if self.state.runner.will_rebuild(queue) {
                // A step in flight belongs to the program that is about to go.
                self.settle()?;
            }
            // Not where programs are built: a run that goes on from here has built them already.
            if queue && self.state.runner.queue_is_new() {
                self.observer.event(&Event::QueueUsed { step })?;
            }
            self.state.suffer(self.run.gpu)?;
            let lr = self.schedule.lr(step);
            let frozen = step < self.config.train.freeze_prototypes_steps;
            let groups: Vec<&[u8]> = crops.groups.iter().map(Vec::as_slice).collect();
            let started = self.state.run(self.run, &StepInputs { crops: &groups, lr, frozen, queue_active: queue }, &crops.indices);
            let pending = match started {
                // While programs were built for the queue: the steps before are kept.
                Err(Error::StoppedEmpty) if step > self.started_at => return self.keep(),
                started => started.map_err(|e| advise(self.config, self.run, e))?,
            };
            loader.recycle(crops);
            let before = self.running.replace(Running { step, lr, data_wait_ms, replaced: self.state.bad.replaced(), pending });
            self.state.step += 1;
            self.settle_one(before)?;
            let done = self.state.step;
            let (ends_epoch, stop) = (done.is_multiple_of(self.steps_per_epoch), self.run.stop.load(Ordering::Relaxed));
            self.postponed |= self.due(done);
            if ends_epoch || stop || done == self.end || self.postponed {
                self.settle()?;
            }
            if ends_epoch {
                self.end_epoch(done)?;
            }
            if stop || done == self.end {
                self.save_last(stop && done < self.end)?;
            } else if self.postponed {
                self.save_or_warn()?;
            }
            if stop && done < self.end {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Reads the results of the step in flight, if there is one, and tells them.
    fn settle(&mut self) -> Result<()> {
        let running = self.running.take();
        self.settle_one(running)
    }

    fn settle_one(&mut self, running: Option<Running>) -> Result<()> {
        let Some(running) = running else { return Ok(()) };
        let step = self.read(running)?;
        self.tell_step(step)
    }

    /// Reads a step's results and takes note of them.
    fn read(&mut self, running: Running) -> Result<Step> {
        let Running { step, lr, data_wait_ms, replaced, pending } = running;
        let outputs = self.state.runner.finish(self.run.gpu, pending)?;
        let loss = f64::from(outputs.scalar("loss"));
        let scale = outputs.get_f32("loss_scale");
        // In f16 something may overflow; such a step changed nothing.
        let skipped = scale.as_ref().is_some_and(|state| state[3] > 0.0);
        let told = scale.as_ref().and_then(|state| self.skips.note(step, state));
        // What is not a number can get lost on its way to the loss: the larger of it and 0 is 0 on many devices.
        let spoiled = outputs.get_f32("norms").is_some_and(|sums| overflowed(&sums));
        if spoiled || !loss.is_finite() && !skipped || self.skips.in_row() == MOST_SKIPPED {
            let what = match (loss.is_finite(), spoiled) {
                (false, _) => "the loss".into(),
                (true, true) => "a gradient".into(),
                (true, false) => format!("a gradient of each of {MOST_SKIPPED} steps"),
            };
            return Err(Error::NonFinite { what, step });
        }
        if loss.is_finite() {
            self.state.epoch.add(loss, &outputs);
        }
        if let Some(warning) = told {
            self.observer.event(&Event::Warning(warning))?;
        }
        let images_per_second = self.images_per_second();
        let epoch = step / self.steps_per_epoch;
        let mut extra = scale.map_or_else(Vec::new, |s| vec![("loss_scale", f64::from(s[0])), ("skipped_steps", f64::from(s[2]))]);
        #[expect(clippy::cast_precision_loss, reason = "a count of images")]
        extra.push(("replaced_images", replaced as f64));
        Ok(Step { step, epoch, loss, lr, images_per_second, data_wait_ms, extra })
    }

    /// Of the last steps, one of which is read now: a step's own time is not known, since the next one is under way before it is read, all of it where it has
    /// several parts. The first step, with all that it prepares, counts to no other's.
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    fn images_per_second(&mut self) -> f64 {
        let now = Instant::now();
        let (steps, since) = (self.reads.len().saturating_sub(1).max(1), self.reads.get(1).or(self.reads.front()).copied().unwrap_or(now));
        self.reads.push_back(now);
        if self.reads.len() > RATED_STEPS + 1 {
            self.reads.pop_front();
        }
        (steps * self.config.train.batch) as f64 / now.duration_since(since).as_secs_f64().max(1e-9)
    }

    fn end_epoch(&mut self, done: u64) -> Result<()> {
        let record = std::mem::take(&mut self.state.epoch);
        let (used, entropy) = self.state.runner.usage().unwrap_or_else(|| record.codes());
        // In f16 every step of a short epoch may have been skipped.
        self.state.last_loss = record.loss().unwrap_or(self.state.last_loss);
        self.observer.event(&Event::Epoch(Epoch {
            epoch: done / self.steps_per_epoch - 1,
            step: done - 1,
            loss: self.state.last_loss,
            seconds: record.began.elapsed().as_secs_f64(),
            prototypes_used: Some(used),
            code_entropy: Some(entropy),
            skipped_steps: self.skips.end_epoch(),
        }))
    }
}
