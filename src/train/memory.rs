//! Memory of a training run, known before anything is allocated, and what would fit.

use super::config::{Method, PretrainConfig};
use super::plan::{model, settings};
use crate::gpu::{Caps, DeviceKind, Gpu};
use crate::graph::{Graph, Storage, Tensor, TensorId, Variants, lower, plan};
use crate::swav::deepcluster::ClusterStep;
use crate::swav::{Precision, QueueUse, StepVariables, record};

/// Pixels of a batch that kernels can count, in 32 bits.
pub const MOST_PIXELS: u64 = u32::MAX as u64;

/// Memory in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Parameters and running statistics.
    pub weights: u64,
    /// Gradients and momentum.
    pub optimizer: u64,
    /// What a step keeps besides: the feature queue; with micro-batches also embeddings and codes of a batch.
    pub queue: u64,
    /// Everything a step computes: activations, their gradients, scratch, inputs.
    pub activations: u64,
    /// Upload and read-back buffers. On cards with memory of their own these lie in the host's.
    pub staging: u64,
    /// The most that a kernel binds of one tensor; larger tensors are visited in windows.
    pub largest_binding: u64,
    /// That tensor.
    pub largest_tensor: String,
    /// The largest buffer.
    pub largest_buffer: u64,
}

impl Memory {
    /// All of it.
    pub fn peak(&self) -> u64 {
        self.weights + self.optimizer + self.queue + self.activations + self.staging
    }

    /// What of it lies in the adapter's memory: cards of their own have the staging in the host's.
    fn on_device(&self, caps: &Caps) -> u64 {
        if caps.kind == DeviceKind::Discrete { self.peak() - self.staging } else { self.peak() }
    }

    /// Whether every tensor can be bound, window by window, and every buffer made.
    pub fn bindable(&self, caps: &Caps) -> bool {
        self.largest_binding <= caps.max_binding_bytes && self.largest_buffer <= caps.max_buffer_bytes
    }

    /// Whether it also fits the adapter's memory, where that is known.
    pub fn fits(&self, caps: &Caps) -> bool {
        self.bindable(caps) && caps.memory_bytes.is_none_or(|all| self.on_device(caps) <= usable(all))
    }
}

/// What of an adapter's memory a program may count on: the driver and other programs take their share.
fn usable(all: u64) -> u64 {
    all / 10 * 9
}

/// What steps of `config` are lowered for on `gpu`: in f16 its matrices must have passed their test.
pub fn caps<'a>(gpu: &'a Gpu, config: &PretrainConfig) -> &'a Caps {
    if config.train.precision == Precision::F16 { gpu.tested_caps() } else { gpu.caps() }
}

/// Memory that `config` takes.
pub fn memory(config: &PretrainConfig, caps: &Caps, variants: &dyn Variants) -> Memory {
    // A pixel of an image takes 16 bytes: so much is no buffer of any adapter.
    let pixels = |i: usize| (config.crops.num[i] * config.train.batch) as u64 * (config.crops.size[i] as u64).pow(2);
    let pixels: u64 = (0..config.crops.num.len()).map(pixels).sum();
    if pixels > MOST_PIXELS {
        return Memory { activations: pixels * 16, largest_buffer: pixels * 16, largest_tensor: "crops".into(), ..Memory::default() };
    }
    let mut model = model(config, caps.max_binding_bytes);
    let (weights, optimizer) = model.parameters.bytes();
    let settings = settings(config);
    let step = StepVariables::new(&mut model, &settings);
    let queue = model.parameters.variables().bytes() - weights - optimizer;
    let mut memory = Memory { weights, optimizer, queue, ..Memory::default() };
    let use_queue = if step.queues.is_empty() { QueueUse::Absent } else { QueueUse::Used };
    let ids = |tensors: &mut dyn Iterator<Item = &Tensor>| tensors.map(Tensor::id).collect::<Vec<_>>();
    let parts: Vec<(Graph, Vec<TensorId>)> = match config.method {
        Method::Swav => record(&model, &settings, &step, use_queue, false)
            .into_iter()
            .map(|part| (part.graph, ids(&mut part.outputs.iter().map(|(_, t)| t))))
            .collect(),
        Method::DeepclusterV2 => {
            let step = ClusterStep::record(&model, &settings);
            vec![(step.graph().clone(), ids(&mut step.outputs().into_iter().map(|(_, t)| t)))]
        }
    };
    for (graph, keep) in parts {
        let lowered = lower(&graph, &keep, caps, variants);
        let plan = plan(&lowered, &keep);
        memory.activations += plan.bytes();
        let inputs = plan.places.keys().map(|t| lowered.info(*t)).filter(|t| matches!(t.storage, Storage::Input(_)));
        let outputs = keep.iter().map(|t| lowered.info(*t));
        // Three steps may be under way.
        memory.staging += 3 * inputs.chain(outputs).map(|t| t.bytes().next_multiple_of(16)).sum::<u64>();
        memory.largest_buffer = plan.slots.iter().copied().max().unwrap_or(0).max(memory.largest_buffer);
        if let Some((bytes, tensor)) = lowered.largest_binding().filter(|(bytes, _)| *bytes > memory.largest_binding) {
            (memory.largest_binding, memory.largest_tensor) = (bytes, tensor.name.clone());
        }
    }
    memory
}

/// The largest batch, a multiple of the configured micro-batches, that fits this adapter; 0 when none does.
pub fn largest_batch(config: &PretrainConfig, caps: &Caps, variants: &dyn Variants) -> usize {
    const MOST: usize = 1 << 16;
    let unit = config.train.accumulate.max(1);
    let fits = |units: usize| {
        let mut config = config.clone();
        config.train.batch = units * unit;
        memory(&config, caps, variants).fits(caps)
    };
    // A batch norm wants two images.
    let (mut good, mut bad) = (1, 2);
    while fits(bad) {
        good = bad;
        bad *= 2;
        if bad * unit > MOST {
            return good * unit;
        }
    }
    while bad - good > 1 {
        let middle = usize::midpoint(good, bad);
        if fits(middle) { good = middle } else { bad = middle }
    }
    if good < 2 { 0 } else { good * unit }
}

/// The fewest micro-batches, more than configured, in which the configured batch fits, if any number does.
pub fn micro_batches_that_fit(config: &PretrainConfig, caps: &Caps, variants: &dyn Variants) -> Option<usize> {
    // DeepCluster-v2 computes its batches whole.
    if config.method == Method::DeepclusterV2 {
        return None;
    }
    let batch = config.train.batch;
    let mut counts = (config.train.accumulate + 1..=batch / 2).filter(|k| batch.is_multiple_of(*k));
    counts.find(|&k| {
        let mut config = config.clone();
        config.train.accumulate = k;
        memory(&config, caps, variants).fits(caps)
    })
}
