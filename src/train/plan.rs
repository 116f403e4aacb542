//! From a configuration as written to what will run: network, step, data pipeline, memory.

use super::config::{AugmentOrder, DataConfig, LinearConfig, Method, OptimizerKind as Kind, PretrainConfig};
use crate::data::{AugmentConfig, CropGroup, EvalTransform, MultiCrop, Normalize, Order};
use crate::gpu::Caps;
use crate::graph::{DType, Graph, Plan, Storage, TensorId, Variants, lower, plan};
use crate::nn::ResNet;
use crate::nn::architecture::Head;
use crate::ops::BatchNormMode;
use crate::optim::{Optimizer, OptimizerKind};
use crate::swav::deepcluster::ClusterStep;
use crate::swav::{Crops, StepRunner, StepSettings, SwavModel, TrainStep};

/// The network of a configuration.
pub fn model(config: &PretrainConfig, max_binding_bytes: u64) -> SwavModel {
    let m = &config.model;
    let heads = (config.method == Method::DeepclusterV2).then_some(config.deepcluster.heads);
    let head = Head { hidden: m.hidden, feat_dim: m.feat_dim, prototypes: m.prototypes, heads };
    SwavModel::new(m.backbone().architecture(), head, max_binding_bytes)
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
        crops: config.crops.num.iter().zip(&config.crops.size).map(|(&count, &size)| Crops { count, size }).collect(),
        batch: config.train.batch,
        temperature: config.loss.temperature as f32,
        epsilon: config.loss.epsilon as f32,
        sinkhorn_iterations: config.loss.sinkhorn_iterations as usize,
        crops_for_assign: config.loss.crops_for_assign.clone(),
        queue_rows: config.queue_rows(),
        optimizer: Optimizer { kind, momentum: o.momentum as f32, weight_decay: o.weight_decay as f32, trust: o.trust as f32, eps: o.eps as f32 },
        bn_momentum: 0.1,
    }
}

/// Mean and deviation of pixels.
#[expect(clippy::cast_possible_truncation, reason = "pixels are f32")]
pub fn normalize(data: &DataConfig) -> Normalize {
    Normalize { mean: data.mean.map(|v| v as f32), std: data.std.map(|v| v as f32) }
}

/// How a linear configuration prepares validation images.
pub fn eval_transform(config: &LinearConfig) -> EvalTransform {
    EvalTransform { resize: (config.image.resize > 0).then_some(config.image.resize), crop: config.image.size }
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
        normalize: normalize(&config.data),
        seed: config.seed,
    }
}

/// FLOPs of the backbone in evaluation on one image of `size` pixels, by mmengine's count: multiply-adds of convolutions, two for every
/// output of a batch norm.
pub fn backbone_flops(model: &SwavModel, size: usize) -> u64 {
    let graph = Graph::new();
    let images = graph.input("images", &[1, size, size, 3], DType::F32);
    let resnet = ResNet { backbone: &model.backbone, parameters: &model.parameters, mode: BatchNormMode::Evaluation };
    let _ = resnet.forward(&images);
    graph.flops()
}

/// Memory of a training run, in bytes, known before anything is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Parameters and running statistics.
    pub weights: u64,
    /// Gradients and momentum.
    pub optimizer: u64,
    /// The feature queue.
    pub queue: u64,
    /// Everything a step computes: activations, their gradients, scratch, inputs.
    pub activations: u64,
    /// The largest single tensor.
    pub largest_tensor: u64,
}

impl Memory {
    /// All of it.
    pub fn peak(&self) -> u64 {
        self.weights + self.optimizer + self.queue + self.activations
    }
}

/// Memory that `config` would take at `batch` images a step, and the name of the largest tensor.
pub fn memory(config: &PretrainConfig, batch: usize, caps: &Caps, variants: &dyn Variants) -> (Memory, String) {
    let mut config = config.clone();
    let rows = config.queue_rows();
    config.train.batch = batch;
    let mut model = model(&config, caps.max_binding_bytes);
    let (weights, optimizer) = model.parameters.bytes();
    let mut settings = settings(&config);
    settings.queue_rows = rows / batch * batch;
    let runner = StepRunner::new(&mut model, settings.clone(), false);
    let (queues, _) = runner.queue();
    let queue = queues.iter().map(|q| model.parameters.variables().info(*q).bytes()).sum();
    let (graph, keep): (Graph, Vec<TensorId>) = match config.method {
        Method::Swav => {
            let step = TrainStep::record(&model, &settings, queues, !queues.is_empty());
            (step.graph().clone(), step.outputs().iter().map(|(_, t)| t.id()).collect())
        }
        Method::DeepclusterV2 => {
            let step = ClusterStep::record(&model, &settings);
            (step.graph().clone(), step.outputs().iter().map(|(_, t)| t.id()).collect())
        }
    };
    let lowered = lower(&graph, &keep, caps, variants);
    let Plan { slots, .. } = plan(&lowered, &keep);
    let own = lowered.tensors.iter().filter(|t| !matches!(t.storage, Storage::Variable(_)));
    let largest = own.max_by_key(|t| t.bytes()).map_or((0, String::new()), |t| (t.bytes(), t.name.clone()));
    let memory = Memory { weights, optimizer, queue, activations: slots.iter().sum(), largest_tensor: largest.0 };
    (memory, largest.1)
}

/// The largest batch of which every tensor can be bound on this adapter, and which needs at most `budget` bytes in all; 0 when none does.
pub fn largest_batch(config: &PretrainConfig, caps: &Caps, variants: &dyn Variants, budget: u64) -> usize {
    let fits = |batch: usize| {
        let (memory, _) = memory(config, batch, caps, variants);
        memory.largest_tensor <= caps.max_binding_bytes.min(caps.max_buffer_bytes) && memory.peak() <= budget
    };
    if !fits(2) {
        return 0;
    }
    let (mut good, mut bad) = (2, 4);
    while fits(bad) {
        good = bad;
        bad *= 2;
        if bad > 1 << 16 {
            return good;
        }
    }
    while bad - good > 1 {
        let middle = usize::midpoint(good, bad);
        if fits(middle) { good = middle } else { bad = middle }
    }
    good
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
