//! Training and judging a classifier, as linear evaluation and fine-tuning share it: the epochs, what is told of them, and the best one.

mod sets;
pub(super) mod trainer;

pub use sets::{ClassSets, parts, replaceable};
pub(super) use sets::{next_batch, numbers};
pub(super) use trainer::Trainer;

use super::config::LinearConfig;
use super::event::{Epoch, Evaluated, Event, Finished, Observer, RunStarted, Step, Warning};
use super::knn::Accuracy;
use crate::data::Summary;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::nn::Values;
use serde::Serialize;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Outcome of a linear evaluation or a fine-tuning, per cent.
#[derive(Debug, Serialize)]
pub struct ClassifierResult {
    /// Best top-1 over the epochs.
    pub top1: f64,
    /// Top-5 of that epoch.
    pub top5: f64,
    /// Mean over classes of each class's own top-1, of that epoch.
    pub mean_class: f64,
    /// That epoch, counted from 1.
    pub best_epoch: u64,
    /// Epochs that were judged.
    pub epochs: u64,
    /// Whether it ended before the last epoch.
    pub stopped: bool,
    /// What spoilt it, if not a signal: an image that could not be read, say, or a log that could not be written. The result is that of the epochs
    /// before.
    #[serde(skip)]
    pub failure: Option<Error>,
    /// Top-1 of the last epoch.
    pub last_top1: f64,
    /// Class names.
    pub classes: Vec<String>,
    /// Everything that was trained, of the best epoch, PyTorch layout: `fc.weight` (classes, features), `fc.bias`, and in fine-tuning the
    /// backbone with its running statistics.
    #[serde(skip)]
    pub values: Values,
}

/// Is told the number and the loss of a step; says whether to go on.
pub(super) type Tell<'a> = dyn FnMut(u64, f64) -> Result<ControlFlow<()>> + 'a;

/// Something that learns to classify, an epoch at a time.
pub(super) trait Learner {
    /// `linear` or `finetune`.
    fn name(&self) -> &'static str;
    /// What learns, and where.
    fn trainer(&self) -> &Trainer;
    /// Steps of an epoch.
    fn steps_per_epoch(&self) -> u64;
    /// Trains an epoch from step `first` on; tells the loss of each step, and breaks off when the answer says so.
    fn epoch(&mut self, epoch: u64, first: u64, tell: &mut Tell<'_>) -> Result<ControlFlow<()>>;
    /// Judges the validation images.
    fn judge(&mut self) -> Result<Accuracy>;
}

/// Trains to the end of the schedule, to a stop request, or until something fails; the result is the best epoch's.
/// [`Error::StoppedEmpty`] or the failure when no epoch was complete.
pub(super) fn train(
    gpu: &Gpu,
    config: &LinearConfig,
    sets: &ClassSets,
    learner: &mut dyn Learner,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<ClassifierResult> {
    start(gpu, config, sets, learner, observer)?;
    let (epochs, began) = (config.train.epochs, Instant::now());
    let mut course = Course { gpu, config, sets, stop, best: None, last: Epoch::default(), last_top1: 0.0, done: 0, told: 0 };
    let outcome = course.run(learner, observer);
    let Course { best, last, last_top1, done, told, .. } = course;
    let stopped = done < epochs;
    let failure = match outcome {
        // The best epoch is in the host's memory, whatever became of a later one.
        Err(failure) if best.is_none() => return Err(failure),
        Err(failure) => {
            let _ = observer.event(&Event::Failed { message: failure.to_string() });
            Some(failure)
        }
        Ok(ControlFlow::Break(())) => observer.event(&Event::Stopped { step: told, resumable: false }).err(),
        Ok(ControlFlow::Continue(())) => {
            let (seconds, steps) = (began.elapsed().as_secs_f64(), learner.steps_per_epoch() * epochs);
            #[expect(clippy::cast_precision_loss, reason = "a rate")]
            let images_per_second = (sets.train.len() as u64 * epochs) as f64 / seconds.max(1e-9);
            let end = Finished { steps, epochs, loss: last.loss, images_per_second, seconds, checkpoint: None, ..Finished::default() };
            observer.event(&Event::Finished(end)).err()
        }
    };
    let best = best.ok_or(Error::StoppedEmpty)?;
    Ok(ClassifierResult { last_top1, epochs: done, stopped, failure, ..best })
}

/// A training, and how far it has come.
struct Course<'a> {
    gpu: &'a Gpu,
    config: &'a LinearConfig,
    sets: &'a ClassSets,
    stop: &'a AtomicBool,
    best: Option<ClassifierResult>,
    /// The last epoch that was judged, and what it reached.
    last: Epoch,
    last_top1: f64,
    /// Epochs judged.
    done: u64,
    /// Steps told.
    told: u64,
}

impl Course<'_> {
    /// Trains and judges epoch after epoch to the end of the schedule, or breaks off on a stop request.
    fn run(&mut self, learner: &mut dyn Learner, observer: &mut dyn Observer) -> Result<ControlFlow<()>> {
        for epoch in 0..self.config.train.epochs {
            // An epoch that is a single step has no middle to be left in.
            if epoch > 0 && self.stop.load(Ordering::Relaxed) {
                return Ok(ControlFlow::Break(()));
            }
            let Some(trained) = self.epoch(epoch, learner, observer)? else {
                return Ok(ControlFlow::Break(()));
            };
            let accuracy = match learner.judge() {
                // What is to be judged does not come.
                Err(Error::StoppedEmpty) => return Ok(ControlFlow::Break(())),
                // Training did it: losses were fine, each is computed before its step's update.
                Err(Error::NonFiniteOutput { layer, image }) => {
                    return Err(Error::NonFinite { what: format!("the output of {layer} for {image}"), step: trained.step });
                }
                judged => judged?,
            };
            let [top1, top5] = [accuracy.top1(), accuracy.top5()];
            (self.last, self.last_top1, self.done) = (trained, top1, epoch + 1);
            if self.best.as_ref().is_none_or(|b| top1 > b.top1) {
                self.best = Some(self.result(learner, &accuracy)?);
            }
            let evaluated = Evaluated { name: learner.name().into(), step: self.last.step, epoch: Some(epoch), top1, top5, loss: None };
            observer.event(&Event::Epoch(self.last.clone()))?;
            observer.event(&Event::Evaluated(evaluated))?;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Trains one epoch and sums it up. `None` when it was to stop before the end.
    fn epoch(&mut self, epoch: u64, learner: &mut dyn Learner, observer: &mut dyn Observer) -> Result<Option<Epoch>> {
        let Self { config, sets, stop, told, .. } = self;
        let (steps, started) = (learner.steps_per_epoch(), Instant::now());
        let (mut sum, mut count) = (0.0, 0.0);
        let what = format!("the loss of {}", learner.name());
        let outcome = learner.epoch(epoch, epoch * steps, &mut |step, loss| {
            if !loss.is_finite() {
                return Err(Error::NonFinite { what: what.clone(), step });
            }
            sum += loss;
            count += 1.0;
            #[expect(clippy::cast_precision_loss, reason = "a rate")]
            let images_per_second = count * sets.batch as f64 / started.elapsed().as_secs_f64().max(1e-9);
            let lr = config.lr(config.base_lr(sets.batch), step, steps);
            observer.event(&Event::Step(Step { step, epoch, loss, lr, images_per_second, ..Step::default() }))?;
            *told = step + 1;
            // A complete epoch is judged first.
            let stops = stop.load(Ordering::Relaxed) && *told < (epoch + 1) * steps;
            Ok(if stops { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        if outcome.is_break() {
            return Ok(None);
        }
        let step = (epoch + 1) * steps - 1;
        let seconds = started.elapsed().as_secs_f64();
        Ok(Some(Epoch { epoch, step, loss: sum / count, seconds, prototypes_used: None, code_entropy: None, skipped_steps: 0 }))
    }

    /// The epoch that was just judged, with its weights.
    fn result(&self, learner: &dyn Learner, accuracy: &Accuracy) -> Result<ClassifierResult> {
        let values = learner.trainer().values(self.gpu)?;
        // Its losses were fine: each is computed before its step's update.
        if !values.values().flatten().all(|v| v.is_finite()) {
            return Err(Error::NonFinite { what: format!("a weight of {}", learner.name()), step: self.last.step });
        }
        Ok(ClassifierResult {
            top1: accuracy.top1(),
            top5: accuracy.top5(),
            mean_class: accuracy.mean_class(),
            best_epoch: self.done,
            epochs: self.done,
            stopped: false,
            failure: None,
            last_top1: accuracy.top1(),
            classes: self.sets.classes().to_vec(),
            values,
        })
    }
}

fn start(gpu: &Gpu, config: &LinearConfig, sets: &ClassSets, learner: &dyn Learner, observer: &mut dyn Observer) -> Result<()> {
    let (images, batch) = (sets.train.len(), sets.batch);
    #[expect(clippy::cast_precision_loss, reason = "a count of classes")]
    let chance_loss = (sets.classes().len() as f64).ln();
    observer.event(&Event::RunStarted(RunStarted {
        adapter: gpu.description().name.clone(),
        parameters: learner.trainer().parameters.count(),
        images: images as u64,
        batch: batch as u64,
        epochs: config.train.epochs,
        steps: learner.steps_per_epoch() * config.train.epochs,
        start_step: 0,
        chance_loss,
        chance_name: "ln C".into(),
        config: config.to_toml()?,
        warnings: Vec::new(),
        data: Summary::clone(sets.train.summary()),
    }))?;
    if sets.rounded_up > 0 {
        let (fraction, classes) = (config.train.fraction, sets.rounded_up);
        let message = format!("is {fraction}, less than half an image of {classes} of the classes: one image of each is used, {images} in all");
        observer.event(&Event::Warning(Warning::new("train.fraction", message)))?;
    }
    if batch < config.train.batch {
        let message = format!("is {}, more than the {images} training images: batches have {batch}", config.train.batch);
        observer.event(&Event::Warning(Warning::new("train.batch", message)))?;
    }
    Ok(())
}
