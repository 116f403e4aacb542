//! `kind = "linear"`: a linear head on the frozen backbone (`eval-linear`), or fine-tuning of all layers (`finetune`).
//!
//! Defaults are the official `eval_linear.py` (SGD 0.3, 100 epochs, cosine per epoch, lr not scaled by the batch), equal to mmpretrain's
//! `resnet50_8xb32-linear-coslr-100e_in1k` but for the batch, which is one device's 32.

use super::check::Check;
use super::{BackboneConfig, DataConfig, Kind, Origins, advice, load, scaled, to_toml, unused};
use crate::error::Result;
use crate::optim::schedule::{Cosine, MultiStep, Schedule};
use crate::train::event::Warning;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Everything that decides a linear evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinearConfig {
    /// Always `linear`.
    pub kind: Kind,
    /// Seed of the head, shuffling and augmentation.
    pub seed: u64,
    /// Images.
    pub data: DataConfig,
    /// Sizes in pixels.
    pub image: ImageConfig,
    /// Augmentation of the training images.
    pub augment: LinearAugment,
    /// SGD or LARS.
    pub optimizer: LinearOptimizer,
    /// Learning rate over time.
    pub schedule: LinearSchedule,
    /// Length.
    pub train: LinearTrain,
    /// The classifier.
    pub head: HeadConfig,
    /// Architecture for `--weights random`; weight files carry their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<BackboneConfig>,
}

impl Default for LinearConfig {
    fn default() -> Self {
        Self {
            kind: Kind::Linear,
            seed: 0,
            data: DataConfig::default(),
            image: ImageConfig::default(),
            augment: LinearAugment::default(),
            optimizer: LinearOptimizer::default(),
            schedule: LinearSchedule::default(),
            train: LinearTrain::default(),
            head: HeadConfig::default(),
            model: None,
        }
    }
}

/// `[image]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageConfig {
    /// Side of the square the network sees.
    pub size: usize,
    /// Validation images: shorter side before the centre crop of `size`; with 0 they are not scaled, and what is smaller gets a black border.
    pub resize: usize,
}

impl Default for ImageConfig {
    fn default() -> Self {
        Self { size: 224, resize: 256 }
    }
}

impl ImageConfig {
    /// What is wrong with `resize` beside the size, which the user knows as `named`; `None` when nothing is.
    pub fn wrong_resize(&self, named: &str) -> Option<String> {
        let Self { size, resize } = *self;
        let fits = resize == 0 || (size..=8192).contains(&resize);
        (!fits).then(|| format!("is {resize}: must be 0 (none) or from {named} = {size} to 8192"))
    }
}

/// `[augment]` of linear evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinearAugment {
    /// Whether training images are cropped at random and flipped; if not, they are prepared like validation images.
    pub enabled: bool,
    /// Area of the crop as a fraction of the image, `[low, high]`; aspect ratio 3/4 to 4/3.
    pub scale: [f64; 2],
    /// Probability of a horizontal flip.
    pub flip: f64,
}

impl Default for LinearAugment {
    fn default() -> Self {
        Self { enabled: true, scale: [0.08, 1.0], flip: 0.5 }
    }
}

/// Optimisers of the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinearOptimizerKind {
    /// Stochastic gradient descent with momentum, as PyTorch.
    Sgd,
    /// As mmpretrain: trust 0.001, the learning rate inside the momentum buffer.
    Lars,
}

/// `[optimizer]` of linear evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinearOptimizer {
    /// `sgd` (PyTorch's, with momentum) or `lars` (mmpretrain's).
    pub kind: LinearOptimizerKind,
    /// Learning rate of the head; not scaled by the batch unless `scale_lr_by_batch` is given.
    pub lr: f64,
    /// Learning rate of the backbone in `finetune`; absent means `lr`. `eval-linear` leaves the backbone as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backbone_lr: Option<f64>,
    /// Momentum.
    pub momentum: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Nesterov momentum (SGD only).
    pub nesterov: bool,
    /// The learning rates are multiplied by batch / this, for example 256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale_lr_by_batch: Option<usize>,
}

impl Default for LinearOptimizer {
    fn default() -> Self {
        let kind = LinearOptimizerKind::Sgd;
        Self { kind, lr: 0.3, backbone_lr: None, momentum: 0.9, weight_decay: 1e-6, nesterov: false, scale_lr_by_batch: None }
    }
}

/// Shape of the learning-rate curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Half a cosine to `min_lr`.
    Cosine,
    /// Times `gamma` at each of `milestones`.
    Step,
}

/// How often the learning rate changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// Once an epoch (official code and mmpretrain).
    Epoch,
    /// Every step.
    Step,
}

/// `[schedule]` of linear evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinearSchedule {
    /// `cosine` (to `min_lr`) or `step` (times `gamma` at each of `milestones`).
    pub kind: ScheduleKind,
    /// How often it changes: every `epoch` or every `step`.
    pub per: Per,
    /// Final learning rate of the cosine.
    pub min_lr: f64,
    /// Epochs, counted from 0, from which `gamma` holds once more (`kind = "step"`); official 60 and 80.
    pub milestones: Vec<u64>,
    /// Factor at each milestone.
    pub gamma: f64,
}

impl Default for LinearSchedule {
    fn default() -> Self {
        Self { kind: ScheduleKind::Cosine, per: Per::Epoch, min_lr: 0.0, milestones: vec![60, 80], gamma: 0.1 }
    }
}

/// `[train]` of linear evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinearTrain {
    /// Epochs; the last partial batch of each is used too, but in `finetune` where it is a single image, of which batch norms have no variance.
    pub epochs: u64,
    /// Images per step.
    pub batch: usize,
    /// Part of each class's training images that is used, above 0 and at most 1: 0.01 and 0.1 in semi-supervised learning.
    pub fraction: f64,
}

impl Default for LinearTrain {
    fn default() -> Self {
        Self { epochs: 100, batch: 32, fraction: 1.0 }
    }
}

/// `[head]`: pooled features to classes, with bias.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeadConfig {
    /// How it begins: `normal` weights and a bias of 0, as in both linear evaluations, or `uniform` within one over the root of the number of features,
    /// PyTorch's default, as in the official fine-tuning.
    pub init: HeadInit,
    /// Standard deviation of normal weights.
    pub init_std: f64,
}

/// Initial values of a linear layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeadInit {
    /// Normal weights, a bias of 0 (`eval_linear.py`, mmpretrain).
    #[default]
    Normal,
    /// Both uniform within one over the root of the number of features, PyTorch's default (`eval_semisup.py`).
    Uniform,
}

impl Default for HeadConfig {
    fn default() -> Self {
        Self { init: HeadInit::default(), init_std: 0.01 }
    }
}

impl HeadConfig {
    /// What [`crate::nn::Init`] takes.
    pub fn classifier_std(&self) -> Option<f64> {
        (self.init == HeadInit::Normal).then_some(self.init_std)
    }
}

impl LinearConfig {
    /// Reads a file with its `extends` and `sets` (`a.b=VALUE`), checks every value.
    pub fn load(path: impl AsRef<Path>, sets: &[String]) -> Result<(Self, Vec<Warning>)> {
        let whole = Self { model: Some(BackboneConfig::default()), ..Self::default() };
        let (config, origins): (Self, _) = load::load(path.as_ref(), sets, Kind::Linear, &whole)?;
        let warnings = config.validate(&origins)?;
        Ok((config, warnings))
    }

    /// The resolved configuration; loading it again gives the same values.
    pub fn to_toml(&self) -> Result<String> {
        to_toml(self)
    }

    /// Learning rate of the head before the schedule, scaled by `batch`, the images of a step, if asked for.
    pub fn base_lr(&self, batch: usize) -> f64 {
        scaled(self.optimizer.lr, batch, self.optimizer.scale_lr_by_batch)
    }

    /// Learning rate of the backbone before the schedule, in `finetune`, scaled likewise.
    pub fn backbone_lr(&self, batch: usize) -> f64 {
        scaled(self.optimizer.backbone_lr.unwrap_or(self.optimizer.lr), batch, self.optimizer.scale_lr_by_batch)
    }

    /// Learning rate of iteration `step` (counted from 0 over the whole run) for a part whose base rate is `base_lr`.
    pub fn lr(&self, base_lr: f64, step: u64, steps_per_epoch: u64) -> f64 {
        let per_epoch = steps_per_epoch.max(1);
        let (unit, at) = match self.schedule.per {
            Per::Epoch => (1, step / per_epoch),
            Per::Step => (per_epoch, step),
        };
        let schedule = match self.schedule.kind {
            ScheduleKind::Cosine => Schedule::Cosine(Cosine {
                base_lr,
                final_lr: self.schedule.min_lr,
                warmup_start: 0.0,
                warmup_steps: 0,
                total_steps: self.train.epochs * unit,
            }),
            ScheduleKind::Step => {
                let milestones = self.schedule.milestones.iter().map(|m| m * unit).collect();
                Schedule::MultiStep(MultiStep { base_lr, gamma: self.schedule.gamma, milestones })
            }
        };
        schedule.lr(at)
    }

    /// Checks every value; `origins` tells errors which file a key came from.
    pub fn validate(&self, origins: &Origins) -> Result<Vec<Warning>> {
        let c = &Check { origins };
        let Self { data, image, augment, optimizer, schedule, train, head, model, .. } = self;
        c.that("kind", self.kind == Kind::Linear, self.kind, "must be linear")?;
        c.count("seed", self.seed, 0, i64::MAX as u64)?;
        data.validate(c)?;
        c.count("image.size", image.size as u64, 8, 4096)?;
        image.wrong_resize("image.size").map_or(Ok(()), |wrong| Err(c.error("image.resize", wrong)))?;
        c.interval("augment.scale", augment.scale, (0.0, false), 1.0)?;
        c.probability("augment.flip", augment.flip)?;
        c.not_negative("optimizer.lr", optimizer.lr)?;
        optimizer.backbone_lr.map_or(Ok(()), |lr| c.not_negative("optimizer.backbone_lr", lr))?;
        c.that("optimizer.momentum", (0.0..1.0).contains(&optimizer.momentum), optimizer.momentum, "must be >= 0 and < 1")?;
        c.not_negative("optimizer.weight_decay", optimizer.weight_decay)?;
        let nesterov = !optimizer.nesterov || optimizer.kind == LinearOptimizerKind::Sgd && optimizer.momentum > 0.0;
        c.that("optimizer.nesterov", nesterov, true, "needs optimizer.kind = \"sgd\" and a momentum above 0")?;
        optimizer.scale_lr_by_batch.map_or(Ok(()), |by| c.count("optimizer.scale_lr_by_batch", by as u64, 1, 1 << 20))?;
        c.not_negative("schedule.min_lr", schedule.min_lr)?;
        c.positive("schedule.gamma", schedule.gamma)?;
        schedule.milestones.iter().try_for_each(|&m| c.count("schedule.milestones", m, 1, 1_000_000))?;
        c.count("train.epochs", train.epochs, 1, 1_000_000)?;
        c.count("train.batch", train.batch as u64, 1, 1 << 20)?;
        c.that("train.fraction", train.fraction > 0.0 && train.fraction <= 1.0, train.fraction, "must be > 0 and <= 1")?;
        c.not_negative("head.init_std", head.init_std)?;
        model.as_ref().map_or(Ok(()), |m| m.validate(c))?;
        let mut warnings = self.advice();
        warnings.extend(unused::linear(self, origins));
        warnings.extend(advice::of_another_batch(origins, optimizer.lr, train.batch, optimizer.scale_lr_by_batch));
        warnings.extend(data.advice());
        Ok(warnings)
    }
}
