//! `kind = "pretrain"`: SwAV and DeepCluster-v2 pre-training.
//!
//! Defaults are mmpretrain's recipe `swav_resnet50_8xb32-mcrop-coslr-200e_in1k-224px-96px`, but for `train.batch`, which is
//! one device's 32, `data.path`, and `loss.sinkhorn`, which sees the whole batch as the paper has it.

use super::check::Check;
use super::{BackboneConfig, Block, DataConfig, DeepclusterConfig, Kind, Method, Origins, Stem, load, scaled, to_toml};
use crate::error::Result;
use crate::nn::Recompute;
use crate::optim::schedule::Cosine;
use crate::swav::{Precision, SinkhornScope};
use crate::train::event::Warning;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Everything that decides a pre-training run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PretrainConfig {
    /// Always `pretrain`.
    pub kind: Kind,
    /// Seed of initialisation, shuffling and augmentation.
    pub seed: u64,
    /// `swav` or `deepcluster-v2`.
    pub method: Method,
    /// Images.
    pub data: DataConfig,
    /// Network and head.
    pub model: ModelConfig,
    /// Multi-crop.
    pub crops: CropsConfig,
    /// Colour and blur.
    pub augment: AugmentConfig,
    /// Swapped prediction.
    pub loss: LossConfig,
    /// Queue of earlier embeddings.
    pub queue: QueueConfig,
    /// Memory and clusters of DeepCluster-v2.
    pub deepcluster: DeepclusterConfig,
    /// LARS or LARC.
    pub optimizer: OptimizerConfig,
    /// Learning rate over time.
    pub schedule: ScheduleConfig,
    /// Length.
    pub train: TrainConfig,
    /// Checkpoints.
    pub checkpoint: CheckpointConfig,
}

/// `[model]`: backbone, projection head and prototypes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// 18, 34 or 50; not beside `blocks`. Neither means 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth: Option<u32>,
    /// Blocks in each of the four stages, with `block`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocks: Option<[usize; 4]>,
    /// Kind of block, with `blocks`: `basic` or `bottleneck`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<Block>,
    /// Channels after the stem.
    pub width: usize,
    /// First layers: `standard` (7x7 with stride 2, then pooling) or `small` (3x3, for images of 32 pixels or so).
    pub stem: Stem,
    /// The last batch norm of each block starts with weight 0 (mmpretrain yes, official code no).
    pub zero_init_residual: bool,
    /// Hidden units of the projection head; 0 for a single linear layer.
    pub hidden: usize,
    /// D, dimensions of the embedding.
    pub feat_dim: usize,
    /// K, number of prototypes.
    pub prototypes: usize,
}

impl Default for ModelConfig {
    fn default() -> Self {
        let BackboneConfig { depth, blocks, block, width, stem, zero_init_residual } = BackboneConfig::default();
        Self { depth, blocks, block, width, stem, zero_init_residual, hidden: 2048, feat_dim: 128, prototypes: 3000 }
    }
}

impl ModelConfig {
    /// The backbone part.
    pub fn backbone(&self) -> BackboneConfig {
        let Self { depth, blocks, block, width, stem, zero_init_residual, .. } = *self;
        BackboneConfig { depth, blocks, block, width, stem, zero_init_residual }
    }
}

/// `[crops]`: groups of crops of one size each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CropsConfig {
    /// Crops of each group.
    pub num: Vec<usize>,
    /// Side of each group's crops in pixels.
    pub size: Vec<usize>,
    /// Area of each group's crops as a fraction of the image, `[low, high]`.
    pub scale: Vec<[f64; 2]>,
    /// Aspect ratio, log-uniform, `[low, high]`.
    pub ratio: [f64; 2],
}

impl Default for CropsConfig {
    fn default() -> Self {
        Self { num: vec![2, 6], size: vec![224, 96], scale: vec![[0.14, 1.0], [0.05, 0.14]], ratio: [0.75, 4.0 / 3.0] }
    }
}

impl CropsConfig {
    /// V, crops per image.
    pub fn total(&self) -> usize {
        self.num.iter().sum()
    }
}

/// Where the flip stands among the augmentations, and how grey is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AugmentOrder {
    /// Crop, flip, jitter, greyscale (Pillow's luma, rounded), blur.
    Official,
    /// Crop, jitter, greyscale (mmcv's weights, truncated), blur, flip.
    Mmpretrain,
}

/// `[augment]`: drawn anew for every crop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AugmentConfig {
    /// Order of the operations: `official` (crop, flip, jitter, greyscale as Pillow, blur) or `mmpretrain` (crop, jitter, greyscale as mmcv, blur, flip).
    pub order: AugmentOrder,
    /// Probability of a horizontal flip.
    pub flip: f64,
    /// Probability of the colour jitter.
    pub jitter_probability: f64,
    /// Strengths of brightness, contrast, saturation (factor 1 ± s) and hue (shift ± s of a turn, at most 0.5).
    pub jitter: [f64; 4],
    /// Probability of greyscale.
    pub grayscale: f64,
    /// Probability of the Gaussian blur.
    pub blur_probability: f64,
    /// Standard deviation of the blur in pixels, uniform in `[low, high]`.
    pub blur_sigma: [f64; 2],
}

impl Default for AugmentConfig {
    fn default() -> Self {
        Self {
            order: AugmentOrder::Mmpretrain,
            flip: 0.5,
            jitter_probability: 0.8,
            jitter: [0.8, 0.8, 0.8, 0.2],
            grayscale: 0.2,
            blur_probability: 0.5,
            blur_sigma: [0.1, 2.0],
        }
    }
}

/// `[loss]`: swapped prediction with Sinkhorn codes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossConfig {
    /// τ of the softmax over prototypes.
    pub temperature: f64,
    /// ε, entropy regularisation of the codes; 0.03 helps small data sets.
    pub epsilon: f64,
    /// Iterations of Sinkhorn-Knopp.
    pub sinkhorn_iterations: u32,
    /// What the codes of a batch in micro-batches are computed over: `global`, the whole batch, as the official code over its devices;
    /// `local`, each micro-batch, as mmpretrain on each device. The same without micro-batches.
    pub sinkhorn: SinkhornScope,
    /// Crops that codes are computed for, counted from 0, all in the first group.
    pub crops_for_assign: Vec<usize>,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self { temperature: 0.1, epsilon: 0.05, sinkhorn_iterations: 3, sinkhorn: SinkhornScope::Global, crops_for_assign: vec![0, 1] }
    }
}

/// `[queue]`: earlier embeddings that join the batch when codes are computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueConfig {
    /// Rows per assignment crop; 0 for no queue, the default in DeepCluster-v2; rounded down to a multiple of the batch.
    pub length: usize,
    /// Epoch, counted from 0, in which it begins to fill.
    pub start_epoch: u64,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self { length: 3840, start_epoch: 15 }
    }
}

/// Layer-wise adaptive optimisers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// mmpretrain: the learning rate is inside the momentum buffer.
    Lars,
    /// Official code (apex LARC without clipping over SGD): the learning rate is outside.
    Larc,
}

/// `[optimizer]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerConfig {
    /// `lars` (mmpretrain: the learning rate is inside the momentum buffer) or `larc` (official code: outside).
    pub kind: OptimizerKind,
    /// Base learning rate; not scaled by the batch unless `scale_lr_by_batch` is given.
    pub lr: f64,
    /// Momentum.
    pub momentum: f64,
    /// Weight decay of every tensor, batch norms and biases included, as in the official code and mmpretrain.
    pub weight_decay: f64,
    /// η, trust coefficient.
    pub trust: f64,
    /// Added to the norms' sum.
    pub eps: f64,
    /// The learning rate is multiplied by batch / this, for example 256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale_lr_by_batch: Option<usize>,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self { kind: OptimizerKind::Lars, lr: 0.6, momentum: 0.9, weight_decay: 1e-6, trust: 0.001, eps: 1e-8, scale_lr_by_batch: None }
    }
}

/// `[schedule]`: linear warm-up, then cosine, per iteration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleConfig {
    /// Final learning rate.
    pub min_lr: f64,
    /// Epochs of warm-up, its end included (see [`Cosine`]).
    pub warmup_epochs: u64,
    /// Learning rate of step 0 when there is a warm-up.
    pub warmup_start: f64,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self { min_lr: 6e-4, warmup_epochs: 0, warmup_start: 0.0 }
    }
}

/// `[train]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Epochs; the last partial batch of each is dropped.
    pub epochs: u64,
    /// B, images per step.
    pub batch: usize,
    /// Micro-batches that a batch is computed in, for cards that cannot hold all of it: gradients are summed over them, codes see all of
    /// them (see `loss.sinkhorn`), batch norm sees one at a time. Divides `batch`.
    pub accumulate: usize,
    /// Activations that are given up and computed again in the reverse pass: `none`, `norm` (normalised ones, almost free), `stage` or
    /// `block` (convolutions too, a third more work). Saves memory, changes no result.
    pub recompute: Recompute,
    /// `f16` halves the memory of activations and is what tensor cores want; `f32` is the reference. In f16 the backbone's activations and the
    /// weights as its convolutions see them have 16 bits, all sums, statistics, head, loss and parameters 32; the loss is scaled, and steps
    /// whose gradients overflow are skipped, as in PyTorch's automatic mixed precision. Evaluations compute in f32.
    pub precision: Precision,
    /// Steps at the start during which the prototypes are not updated; by default all of them in DeepCluster-v2.
    pub freeze_prototypes_steps: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self { epochs: 200, batch: 32, accumulate: 1, recompute: Recompute::Norm, precision: Precision::F32, freeze_prototypes_steps: 5005 }
    }
}

/// `[checkpoint]`: one is always written at the end and on a signal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointConfig {
    /// Every so many steps; 0 for only at epoch ends.
    pub every_steps: u64,
    /// Every so many epochs; 0 for none.
    pub every_epochs: u64,
    /// The newest so many are kept.
    pub keep: usize,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { every_steps: 0, every_epochs: 10, keep: 3 }
    }
}

impl PretrainConfig {
    /// Reads a file with its `extends` and `sets` (`a.b=VALUE`), checks every value.
    pub fn load(path: impl AsRef<Path>, sets: &[String]) -> Result<(Self, Vec<Warning>)> {
        let (mut config, origins): (Self, _) = load::load(path.as_ref(), sets, Kind::Pretrain, &Self::default())?;
        config.fill_in(&origins);
        let warnings = config.validate(&origins)?;
        Ok((config, warnings))
    }

    /// The resolved configuration; loading it again gives the same values.
    pub fn to_toml(&self) -> Result<String> {
        to_toml(self)
    }

    /// Base learning rate after scaling by the batch, if asked for.
    pub fn base_lr(&self) -> f64 {
        scaled(self.optimizer.lr, self.train.batch, self.optimizer.scale_lr_by_batch)
    }

    /// Rows of the queue: its length rounded down to whole batches (mmpretrain's SwAVHook).
    pub fn queue_rows(&self) -> usize {
        self.queue.length / self.train.batch * self.train.batch
    }

    /// Learning rate per step, for `steps_per_epoch` whole batches in an epoch.
    pub fn schedule(&self, steps_per_epoch: u64) -> Cosine {
        Cosine {
            base_lr: self.base_lr(),
            final_lr: self.schedule.min_lr,
            warmup_start: self.schedule.warmup_start,
            warmup_steps: self.schedule.warmup_epochs * steps_per_epoch,
            total_steps: self.train.epochs * steps_per_epoch,
        }
    }

    /// Checks every value; `origins` tells errors which file a key came from.
    pub fn validate(&self, origins: &Origins) -> Result<Vec<Warning>> {
        super::pretrain_check::validate(self, &Check { origins })
    }
}
