//! From a configuration as written to what will run: network, step, data pipeline.

use super::config::{AugmentOrder, DataConfig, LinearConfig, OptimizerKind as Kind, PretrainConfig};
use crate::data::{AugmentConfig, CropGroup, EvalTransform, MultiCrop, Order};
use crate::graph::{DType, Graph};
use crate::nn::{Images, Recompute, ResNet};
use crate::ops::{BatchNormMode, PixelStatistics};
use crate::optim::{LossScaling, Optimizer, OptimizerKind};
use crate::swav::{Crops, StepSettings, SwavModel};
use serde::{Deserialize, Serialize};

/// The network of a configuration.
pub fn model(config: &PretrainConfig, max_binding_bytes: u64) -> SwavModel {
    SwavModel::new(config.model.backbone().architecture(), config.head(), max_binding_bytes)
}

/// The training step of a configuration.
#[expect(clippy::cast_possible_truncation, reason = "the device computes in f32")]
pub fn settings(config: &PretrainConfig) -> StepSettings {
    let o = &config.optimizer;
    let kind = match o.kind {
        Kind::Lars => OptimizerKind::Lars,
        Kind::Larc => OptimizerKind::Larc,
    };
    StepSettings {
        images: images(&config.data),
        crops: config.crops.num.iter().zip(&config.crops.size).map(|(&count, &size)| Crops { count, size }).collect(),
        batch: config.train.batch,
        micro_batches: config.train.accumulate,
        sinkhorn: config.loss.sinkhorn,
        temperature: config.loss.temperature as f32,
        epsilon: config.loss.epsilon as f32,
        sinkhorn_iterations: config.loss.sinkhorn_iterations as usize,
        crops_for_assign: config.loss.crops_for_assign.clone(),
        queue_rows: config.queue_rows(),
        optimizer: Optimizer { kind, momentum: o.momentum as f32, weight_decay: o.weight_decay as f32, trust: o.trust as f32, eps: o.eps as f32 },
        batch_norm: BatchNormMode::Training { momentum: 0.1 },
        recompute: config.train.recompute,
        precision: config.train.precision,
        loss_scaling: LossScaling::default(),
    }
}

/// How images come from the loader.
#[expect(clippy::cast_possible_truncation, reason = "pixels are f32")]
pub fn images(data: &DataConfig) -> Images {
    Images::Bytes(PixelStatistics { mean: data.mean.map(|v| v as f32), std: data.std.map(|v| v as f32) })
}

/// How a linear configuration prepares validation images.
pub fn eval_transform(config: &LinearConfig) -> EvalTransform {
    HeadImages::of(config).transform()
}

/// How the images were prepared that a classifier was judged by, as its file keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadImages {
    size: usize,
    resize: usize,
    mean: [f64; 3],
    std: [f64; 3],
}

impl HeadImages {
    /// Those of a configuration.
    pub fn of(config: &LinearConfig) -> Self {
        Self { size: config.image.size, resize: config.image.resize, mean: config.data.mean, std: config.data.std }
    }

    /// Size and cut.
    pub fn transform(&self) -> EvalTransform {
        EvalTransform { resize: (self.resize > 0).then_some(self.resize), crop: self.size }
    }

    /// Normalisation, in the place of a configuration's.
    pub fn data(&self) -> DataConfig {
        DataConfig { mean: self.mean, std: self.std, ..DataConfig::default() }
    }
}

/// The multi-crop pipeline of a configuration.
pub fn multi_crop(config: &PretrainConfig) -> MultiCrop {
    let (c, a) = (&config.crops, &config.augment);
    let group = |i: usize| CropGroup { count: c.num[i], size: c.size[i], scale: c.scale[i], ratio: c.ratio };
    MultiCrop {
        groups: (0..c.num.len()).map(group).collect(),
        augment: AugmentConfig {
            flip: a.flip,
            jitter_probability: a.jitter_probability,
            jitter: a.jitter,
            grayscale: a.grayscale,
            blur_probability: a.blur_probability,
            blur_sigma: a.blur_sigma,
            order: match a.order {
                AugmentOrder::Official => Order::Official,
                AugmentOrder::Mmpretrain => Order::Mmpretrain,
            },
        },
        seed: config.seed,
    }
}

/// FLOPs of the backbone in evaluation on one image of `size` pixels, by mmengine's count: multiply-adds of convolutions, two for every
/// output of a batch norm.
pub fn backbone_flops(model: &SwavModel, size: usize) -> u64 {
    let graph = Graph::new();
    let images = graph.input("images", &[1, size, size, 3], DType::F32);
    let resnet = ResNet { backbone: &model.backbone, parameters: &model.parameters, mode: BatchNormMode::Evaluation, recompute: Recompute::None };
    let _ = resnet.forward(&images);
    graph.flops()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flops_are_mmengines() {
        let model = model(&PretrainConfig::default(), u64::MAX);
        assert_eq!(model.parameters.count(), 28_354_752);
        assert_eq!(backbone_flops(&model, 224), 4_109_364_224);
    }
}
