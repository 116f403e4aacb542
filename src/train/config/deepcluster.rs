//! `method` and `[deepcluster]`: what else a pre-training run can be than SwAV.

use super::check::Check;
use super::{LossConfig, ModelConfig, Origins, PretrainConfig};
use crate::error::Result;
use crate::nn::architecture::Head;
use crate::swav::Precision;
use crate::train::event::Warning;
use serde::{Deserialize, Serialize};

/// Steps for which the official DeepCluster-v2 freezes its prototypes unless told otherwise: for ever.
const FROZEN_FOR_EVER: u64 = 10_000_000_000;

/// What the network is trained to predict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    /// The other crops' codes.
    #[default]
    #[serde(rename = "swav")]
    Swav,
    /// The image's cluster in the epoch before.
    #[serde(rename = "deepcluster-v2")]
    DeepclusterV2,
}

/// `[deepcluster]`: memory banks and their clustering, with `method = "deepcluster-v2"`. `model.prototypes` is the number of clusters of each
/// head, `loss.crops_for_assign` the crops that have a bank, which the heads take in turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeepclusterConfig {
    /// H, prototype heads.
    pub heads: usize,
    /// Iterations of k-means at the start of every epoch, before the last assignment.
    pub kmeans_iterations: u32,
}

impl Default for DeepclusterConfig {
    fn default() -> Self {
        Self { heads: 3, kmeans_iterations: 10 }
    }
}

impl PretrainConfig {
    /// Projection head and prototypes, of several heads where the method has them.
    pub fn head(&self) -> Head {
        let ModelConfig { hidden, feat_dim, prototypes, .. } = self.model;
        let heads = (self.method == Method::DeepclusterV2).then_some(self.deepcluster.heads);
        Head { hidden, feat_dim, prototypes, heads }
    }

    /// Gives keys that were left out the defaults of their method: SwAV's queue is no default of another's.
    pub(super) fn fill_in(&mut self, origins: &Origins) {
        if self.method == Method::DeepclusterV2 {
            if !origins.gives("queue.length") {
                self.queue.length = 0;
            }
            if !origins.gives("train.freeze_prototypes_steps") {
                self.train.freeze_prototypes_steps = FROZEN_FOR_EVER;
            }
        }
    }
}

/// Refuses what the method has no place for, and warns of values that it does not look at.
pub(super) fn validate(config: &PretrainConfig, c: &Check, warnings: &mut Vec<Warning>) -> Result<()> {
    let DeepclusterConfig { heads, kmeans_iterations } = config.deepcluster;
    c.count("deepcluster.heads", heads as u64, 1, 64)?;
    c.count("deepcluster.kmeans_iterations", kmeans_iterations.into(), 1, 1000)?;
    let mut unused = |key: &str, is_default: bool, method: &str| {
        if !is_default {
            warnings.push(Warning::new(key, format!("has no part in method = \"{method}\"")));
        }
    };
    match config.method {
        Method::Swav => unused("deepcluster", config.deepcluster == DeepclusterConfig::default(), "swav"),
        Method::DeepclusterV2 => {
            let must = "must be 0 with method = \"deepcluster-v2\", which has memory banks instead of a queue";
            c.that("queue.length", config.queue.length == 0, config.queue.length, must)?;
            let default = LossConfig::default();
            let whole = "must be 1 with method = \"deepcluster-v2\", whose steps are not computed in micro-batches";
            c.that("train.accumulate", config.train.accumulate == 1, config.train.accumulate, whole)?;
            let exact = "must be \"f32\" with method = \"deepcluster-v2\"";
            c.that("train.precision", config.train.precision == Precision::F32, "\"f16\"", exact)?;
            unused("loss.epsilon", config.loss.epsilon == default.epsilon, "deepcluster-v2");
            unused("loss.sinkhorn_iterations", config.loss.sinkhorn_iterations == default.sinkhorn_iterations, "deepcluster-v2");
        }
    }
    Ok(())
}
