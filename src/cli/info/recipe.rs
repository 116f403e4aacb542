//! The resolved recipe, the iterations of an epoch, and the learning rate over time: what `info` says of either kind of configuration
//! without a GPU.

use super::super::args::{Global, InfoArgs};
use super::super::report::progress::grouped;
use super::super::{common, output};
use crate::data::{Split, Summary, steps_per_epoch};
use crate::error::{Error, Result};
use crate::train::classifier::ClassSets;
use crate::train::config::{DataConfig, LinearConfig, LinearSchedule, PretrainConfig, ScheduleKind};
use crate::train::event::Warning;
use crate::train::finetune::steps_per_epoch as tuning_steps_per_epoch;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// Training images of ImageNet-1k, taken where no data set is there to be counted.
const IMAGENET: usize = 1_281_167;

/// What a configuration amounts to on a number of images.
pub(super) struct Recipe {
    /// The resolved configuration as JSON and as TOML.
    config: (Value, String),
    images: usize,
    /// Where the number of images is from.
    source: String,
    iterations: u64,
    steps: u64,
    rates: Vec<Rate>,
    warnings: Vec<Warning>,
    /// What was found where the images were counted.
    found: Option<Arc<Summary>>,
}

/// Warnings that were not said yet.
struct Warnings(Vec<Warning>);

impl Warnings {
    /// Says them.
    fn told(self) -> Vec<Warning> {
        self.0.iter().for_each(common::warn);
        self.0
    }
}

/// Learning rate of one step.
#[derive(Serialize)]
struct Rate {
    step: u64,
    epoch: u64,
    lr: f64,
    /// In fine-tuning, where the backbone has a rate of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    backbone_lr: Option<f64>,
}

impl Recipe {
    /// Of a pre-training.
    pub(super) fn pretrain(config: &PretrainConfig, args: &InfoArgs, warnings: Vec<Warning>, global: &Global) -> Result<Self> {
        let mut config = config.clone();
        let mut found = None;
        let count = |data: &DataConfig| {
            let data = data.scan(&[Split::Pretrain])?.into_dataset(Split::Pretrain)?;
            common::tell_data(data.summary(), global);
            found = Some(Arc::clone(data.summary()));
            Ok(data.len())
        };
        let mut warnings = Warnings(warnings);
        // `--batch` asks what another would take, not to train with it.
        warnings.0.retain(|w| args.batch.is_none() || w.about != "train.batch");
        let (images, source) = images(args, &mut config.data, IMAGENET, count, &mut warnings)?;
        let iterations = steps_per_epoch(images, config.train.batch, true);
        if iterations == 0 {
            warnings.0.push(Warning::new("", format!("{images} images are fewer than a batch of {}: there is no iteration", config.train.batch)));
        }
        warnings.0.extend(config.advice_for(images));
        let schedule = config.schedule(iterations);
        // The last step of the warm-up is the first at the full rate.
        let turns = schedule.warmup_steps.checked_sub(1).into_iter();
        let json = to_json(&config)?;
        let rate = |step| (schedule.lr(step), None);
        let (config, steps) = ((json, config.to_toml()?), schedule.total_steps);
        Self { config, images, source, iterations, steps, rates: Vec::new(), warnings: warnings.told(), found }.with_rates(args, turns, rate)
    }

    /// Of a linear evaluation or a fine-tuning.
    fn linear(mut config: LinearConfig, args: &InfoArgs, warnings: Vec<Warning>, global: &Global) -> Result<Self> {
        let mut found = None;
        let mut warnings = Warnings(warnings);
        let mut data = config.data.clone();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a count of images")]
        let part = ((IMAGENET as f64 * config.train.fraction).round() as usize).max(1);
        let count = |data: &DataConfig| {
            let mut config = config.clone();
            config.data = data.clone();
            let sets = ClassSets::open(&config)?;
            common::tell_data(sets.train.summary(), global);
            found = Some(Arc::clone(sets.train.summary()));
            Ok(sets.train.len())
        };
        let (images, source) = images(args, &mut data, part, count, &mut warnings)?;
        config.data = data;
        warnings.0.extend(config.advice_for(images));
        // As there: a batch is at most all images, and the last one of an epoch may be smaller. Only fine-tuning has a rate for the backbone.
        let batch = config.train.batch.min(images);
        let tuning = config.optimizer.backbone_lr.is_some();
        let iterations = if tuning { tuning_steps_per_epoch(images, batch) } else { steps_per_epoch(images, batch, false) };
        let LinearSchedule { kind, milestones, .. } = &config.schedule;
        let turns: Vec<u64> = if *kind == ScheduleKind::Step { milestones.iter().map(|m| m * iterations).collect() } else { Vec::new() };
        let backbone = config.optimizer.backbone_lr.map(|_| config.backbone_lr(batch));
        let rate = |step| (config.lr(config.base_lr(batch), step, iterations), backbone.map(|base| config.lr(base, step, iterations)));
        let steps = config.train.epochs * iterations;
        let resolved = (to_json(&config)?, config.to_toml()?);
        Self { config: resolved, images, source, iterations, steps, rates: Vec::new(), warnings: warnings.told(), found }.with_rates(
            args,
            turns.into_iter(),
            rate,
        )
    }

    /// Adds the rates at the steps of `--lr-at`, or else at the first, the middle and the last step and at `turns` of the schedule.
    fn with_rates(mut self, args: &InfoArgs, turns: impl Iterator<Item = u64>, rate: impl Fn(u64) -> (f64, Option<f64>)) -> Result<Self> {
        let mut chosen = args.lr_at.clone();
        if let Some(beyond) = chosen.iter().find(|s| **s >= self.steps) {
            return Err(Error::Usage(format!("--lr-at {beyond}: the run has {} steps, counted from 0", self.steps)));
        }
        if chosen.is_empty() && self.steps > 0 {
            chosen = [0, self.steps / 2, self.steps - 1].into_iter().chain(turns.filter(|s| *s < self.steps)).collect();
            chosen.sort_unstable();
            chosen.dedup();
        }
        let at = |step: u64| {
            let (lr, backbone_lr) = rate(step);
            Rate { step, epoch: step / self.iterations, lr, backbone_lr }
        };
        self.rates = chosen.into_iter().map(at).collect();
        Ok(self)
    }

    /// Says a warning, and keeps it for the JSON.
    pub(super) fn warn(&mut self, warning: Warning) {
        self.warnings.extend(Warnings(vec![warning]).told());
    }

    /// Adds its keys to those of `info --json`.
    pub(super) fn add_to(&self, all: &mut Value) {
        all["images"] = json!(self.images);
        all["images_from"] = json!(self.source);
        all["iterations_per_epoch"] = json!(self.iterations);
        all["steps"] = json!(self.steps);
        all["learning_rates"] = json!(self.rates);
        all["warnings"] = self.warnings.iter().map(|w| json!({"about": w.about, "message": w.message})).collect();
        all["recipe"] = self.config.0.clone();
        if let Some(found) = &self.found {
            all["data"] = json!(**found);
        }
    }

    /// Prints it.
    pub(super) fn print(&self) -> Result<()> {
        let [images, iterations, steps] = [self.images as u64, self.iterations, self.steps].map(grouped);
        output::line(&format!("images       {images:>15}  {}: {iterations} iterations an epoch, {steps} in all", self.source))?;
        output::line("learning rate at step")?;
        for Rate { step, epoch, lr, backbone_lr } in &self.rates {
            let backbone = backbone_lr.map_or(String::new(), |lr| format!(", of the backbone {}", short(lr)));
            output::line(&format!("  {:>12}  (epoch {epoch}) {}{backbone}", grouped(*step), short(*lr)))?;
        }
        output::line("")?;
        output::line("# resolved recipe")?;
        self.config.1.trim_end().lines().try_for_each(output::line)
    }
}

/// `info` of a configuration of kind "linear".
pub(super) fn linear(args: &InfoArgs, global: &Global) -> Result<()> {
    args.said_once()?;
    let (config, warnings) = LinearConfig::load(&args.config, &args.overrides()).map_err(|e| args.named(e))?;
    let recipe = Recipe::linear(config, args, warnings, global)?;
    if !global.json {
        return recipe.print();
    }
    let mut all = json!({});
    recipe.add_to(&mut all);
    output::json(&all)
}

/// At most nine decimal places, for people.
fn short(lr: f64) -> String {
    format!("{lr:.9}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn to_json(config: &impl Serialize) -> Result<Value> {
    serde_json::to_value(config).map_err(|e| Error::Failed(format!("the configuration cannot be written as JSON: {e}")))
}

/// Number of training images and where it is from: `--images`, the images of `--data` or of the configuration's `data` if they are there,
/// or else `usual`, ImageNet's. `data` becomes `--data`.
fn images(
    args: &InfoArgs,
    data: &mut DataConfig,
    usual: usize,
    mut count: impl FnMut(&DataConfig) -> Result<usize>,
    warnings: &mut Warnings,
) -> Result<(usize, String)> {
    args.data.apply(data)?;
    if let Some(images) = args.images {
        return Ok((images, "--images".into()));
    }
    let path = data.path.to_string();
    if !args.data.data.is_empty() {
        return Ok((count(data)?, path));
    }
    // A pattern that matches something is there, as a folder is.
    if data.path.patterns().iter().all(|pattern| !pattern.exists()) && data.path.find().is_err() {
        return Ok((usual, format!("ImageNet's ({path} is not here)")));
    }
    match count(data) {
        Ok(images) => Ok((images, path)),
        Err(error) => {
            warnings.0.push(Warning::new("", format!("{error}; ImageNet's images are counted instead")));
            Ok((usual, format!("ImageNet's ({path} cannot be used)")))
        }
    }
}
