//! The kernels of a training step as a card would get them.

use naga::back::spv;
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use swav_wgpu::gpu::{Caps, KernelSpec, compose, source};
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
        all.push(Kernel { label: spec.label(), entry: spec.entry, launches, words: translate(&spec)? });
    }
    all.sort_by(|a, b| b.launches.cmp(&a.launches).then_with(|| a.label.cmp(&b.label)));
    Ok(all)
}

/// As a release of the program does, but for the order of accesses to workgroup memory, which the program repairs in kernels on cooperative matrices.
fn translate(spec: &KernelSpec) -> Result<Vec<u32>, Box<dyn Error>> {
    let text = compose(spec.shader, source, &spec.constants).map_err(|e| e.to_string())?;
    let module = naga::front::wgsl::parse_str(&text).map_err(|e| e.emit_to_string(&text))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module).map_err(|e| e.emit_to_string(&text))?;
    let unchecked = BoundsCheckPolicy::Unchecked;
    let options = spv::Options {
        lang_version: (1, 5),
        bounds_check_policies: BoundsCheckPolicies { index: unchecked, buffer: unchecked, image_load: unchecked, binding_array: unchecked },
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        emit_int_div_checks: false,
        ..Default::default()
    };
    let pipeline = spv::PipelineOptions { shader_stage: naga::ShaderStage::Compute, entry_point: spec.entry.to_owned() };
    Ok(spv::write_vec(&module, &info, &options, Some(&pipeline))?)
}
