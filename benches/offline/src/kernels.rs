//! The kernels of a training step as a card would get them.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use swav_wgpu::gpu::{Caps, KernelSpec, spirv};
use swav_wgpu::graph::{TensorId, lower};
use swav_wgpu::swav::{QueueUse, StepVariables, record};
use swav_wgpu::train::config::PretrainConfig;
use swav_wgpu::train::plan::{model, settings};
use swav_wgpu::tune::BestGuess;

/// A kernel in SPIR-V.
pub struct Kernel {
    /// Shader, entry point and knobs.
    pub label: String,
    pub entry: &'static str,
    /// Launches of it in a step.
    pub launches: usize,
    /// Bytes that they bind, each tensor once a launch ([`Lowered::traffic`](swav_wgpu::graph::Lowered::traffic)).
    pub traffic: u64,
    pub words: Vec<u32>,
}

/// The distinct kernels of a SwAV step of `config` on a card with `caps`, most launches first.
pub fn of_a_step(config: &Path, sets: &[String], caps: &Caps) -> Result<Vec<Kernel>, Box<dyn Error>> {
    let (config, _) = PretrainConfig::load(config, sets)?;
    let mut model = model(&config, caps.max_binding_bytes);
    let settings = settings(&config);
    let variables = StepVariables::new(&mut model, &settings);
    let queue = if variables.queues.is_empty() { QueueUse::Absent } else { QueueUse::Used };
    let mut totals: HashMap<KernelSpec, (usize, u64)> = HashMap::new();
    for part in record(&model, &settings, &variables, queue, false) {
        let outputs: Vec<TensorId> = part.outputs.iter().map(|(_, tensor)| tensor.id()).collect();
        let lowered = lower(&part.graph, &outputs, caps, &BestGuess);
        for launch in &lowered.launches {
            let (launches, traffic) = totals.entry(launch.kernel.clone()).or_default();
            *launches += 1;
            *traffic += lowered.traffic_of(launch);
        }
    }
    let mut all = Vec::new();
    for (spec, (launches, traffic)) in totals {
        all.push(Kernel { label: spec.label(), entry: spec.entry, launches, traffic, words: spirv(&spec)? });
    }
    all.sort_by(|a, b| b.launches.cmp(&a.launches).then_with(|| a.label.cmp(&b.label)));
    Ok(all)
}
