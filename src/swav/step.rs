//! What a training step is: its settings, and what changes from step to step.

use crate::graph::DType;
use crate::nn::{Images, Recompute};
use crate::ops::BatchNormMode;
use crate::optim::{LossScaling, Optimizer};
use serde::{Deserialize, Serialize};

/// Crops of one resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crops {
    /// Crops of each image.
    pub count: usize,
    /// Their side in pixels.
    pub size: usize,
}

/// Which rows Sinkhorn balances over the prototypes when a batch is computed in micro-batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkhornScope {
    /// The whole batch, as the official code does over its devices: all embeddings first, then the codes.
    #[default]
    Global,
    /// Each micro-batch by itself, with its own share of the queue, as mmpretrain does on each device: there sums are reduced across devices
    /// only when one of them is 0.
    Local,
}

/// Element type of the backbone's activations, their gradients, and the weights as its convolutions see them. Sums, batch-norm
/// statistics, the head from the pooled features to the loss, codes, parameters and the optimiser are f32 always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits, with a dynamic scale of the loss (see [`crate::optim::LossScale`]).
    F16,
}

impl Precision {
    /// The type of activations.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
        }
    }
}

/// What a step computes, besides the network.
#[derive(Clone, Debug)]
pub struct StepSettings {
    /// Groups of crops, in order.
    pub crops: Vec<Crops>,
    /// The form in which they come.
    pub images: Images,
    /// Images of a batch, B.
    pub batch: usize,
    /// Micro-batches that a batch is computed in; divides `batch`. Batch norm sees one at a time.
    pub micro_batches: usize,
    /// What the codes are computed over when there are several micro-batches.
    pub sinkhorn: SinkhornScope,
    /// τ of the prediction.
    pub temperature: f32,
    /// Smoothing of the codes, ε of eq. 3.
    pub epsilon: f32,
    /// Sinkhorn iterations.
    pub sinkhorn_iterations: usize,
    /// Crops whose codes are predicted, numbered over all groups.
    pub crops_for_assign: Vec<usize>,
    /// Rows of the feature queue of each assigned crop, a multiple of `batch`; 0 for none.
    pub queue_rows: usize,
    /// The update rule.
    pub optimizer: Optimizer,
    /// Statistics of the batch, with the share that the running statistics take (0.1 in every reference); or the running ones.
    pub batch_norm: BatchNormMode,
    /// What is computed again in the reverse pass to save memory.
    pub recompute: Recompute,
    /// Type of activations.
    pub precision: Precision,
    /// How the scale of the loss moves, in f16.
    pub loss_scaling: LossScaling,
}

impl StepSettings {
    /// Crops of an image, V.
    pub fn views(&self) -> usize {
        self.crops.iter().map(|c| c.count).sum()
    }

    /// Backbone passes of a step: each updates the running statistics once. Neighbouring groups of one size pass together, as in the
    /// references.
    pub fn passes(&self) -> usize {
        self.crops.chunk_by(|a, b| a.size == b.size).count() * self.micro_batches
    }

    /// Images of a micro-batch.
    pub fn micro_batch(&self) -> usize {
        self.batch / self.micro_batches
    }

    /// The crops of micro-batch `micro`: of every crop its share of the images.
    pub fn part_of(&self, crops: &[&[u8]], micro: usize) -> Vec<Vec<u8>> {
        let rows = self.micro_batch();
        let one = |(group, data): (&Crops, &&[u8])| {
            let image = data.len() / (group.count * self.batch);
            let mut own = Vec::with_capacity(group.count * rows * image);
            data.chunks_exact(self.batch * image).for_each(|crop| own.extend_from_slice(&crop[micro * rows * image..][..rows * image]));
            own
        };
        self.crops.iter().zip(crops).map(one).collect()
    }

    /// Whether the codes of a step are computed before its predictions, from all micro-batches' embeddings.
    pub(super) fn codes_first(&self) -> bool {
        self.micro_batches > 1 && self.sinkhorn == SinkhornScope::Global
    }
}

/// What changes from step to step.
#[derive(Clone, Copy, Debug)]
pub struct StepInputs<'a> {
    /// One array per group of crops in the form of [`StepSettings::images`], crop after crop.
    pub crops: &'a [&'a [u8]],
    /// Learning rate.
    pub lr: f64,
    /// The prototypes stay as they are.
    pub frozen: bool,
    /// The queue has begun.
    pub queue_active: bool,
}

/// How the queue takes part in a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueueUse {
    /// Not at all.
    Absent,
    /// It takes the step's embeddings.
    Filling,
    /// Its embeddings also join the computation of the codes.
    Used,
}
