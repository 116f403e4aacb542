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
    pub words: Vec<u32>,
}

/// The distinct kernels of a SwAV step of `config` on a card with `caps`, most launches first.
pub fn of_a_step(config: &Path, sets: &[String], caps: &Caps) -> Result<Vec<Kernel>, Box<dyn Error>> {
    let (config, _) = PretrainConfig::load(config, sets)?;
    let mut model = model(&config, caps.max_binding_bytes);
    let settings = settings(&config);
    let variables = StepVariables::new(&mut model, &settings);
    let queue = if variables.queues.is_empty() { QueueUse::Absent } else { QueueUse::Used };
    let mut launches: HashMap<KernelSpec, usize> = HashMap::new();
    for part in record(&model, &settings, &variables, queue, false) {
        let outputs: Vec<TensorId> = part.outputs.iter().map(|(_, tensor)| tensor.id()).collect();
        for launch in lower(&part.graph, &outputs, caps, &BestGuess).launches {
            *launches.entry(launch.kernel).or_default() += 1;
        }
    }
    let mut all = Vec::new();
    for (spec, launches) in launches {
        all.push(Kernel { label: spec.label(), entry: spec.entry, launches, words: spirv(&spec)? });
    }
    all.sort_by(|a, b| b.launches.cmp(&a.launches).then_with(|| a.label.cmp(&b.label)));
    Ok(all)
}
