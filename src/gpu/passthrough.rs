//! WGSL to SPIR-V in this process, handed to Vulkan as it is: the way of kernels whose SPIR-V needs repair.

use super::Gpu;
use super::spirv_repair::repair;
use super::{KernelSpec, compose, source};
use wgpu::naga::back::spv;
use wgpu::naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use wgpu::naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use wgpu::naga::{AddressSpace, Module, ShaderStage, StorageAccess, front::wgsl};

/// The line of kernels on cooperative matrices.
pub(super) const MATRICES: &str = "enable wgpu_cooperative_matrix;";

/// A kernel in SPIR-V, and what wgpu would have read from its WGSL.
pub(super) struct Translated {
    pub(super) words: Vec<u32>,
    bindings: Vec<(u32, wgpu::BufferBindingType)>,
    workgroup_size: [u32; 3],
}

/// A kernel as a release build gives it to Vulkan, for tools that look at what becomes of it. Errors name the kernel.
pub fn spirv(spec: &KernelSpec) -> Result<Vec<u32>, String> {
    let text = compose(spec.shader, source, &spec.constants).map_err(|e| format!("{}: {e}", spec.label()))?;
    let words = Translated::new(&text, spec.entry, false)?.words;
    if text.contains(MATRICES) { repair(&words) } else { Ok(words) }
}

impl Translated {
    /// Translates entry point `entry` of `text`, with bounds checks and bounded loops when `checked`.
    pub(super) fn new(text: &str, entry: &str, checked: bool) -> Result<Self, String> {
        let module = wgsl::parse_str(text).map_err(|e| e.emit_to_string(text))?;
        let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
        let info = validator.validate(&module).map_err(|e| e.emit_to_string(text))?;
        let index = module.entry_points.iter().position(|e| e.name == entry).ok_or_else(|| format!("no entry point {entry}"))?;
        let pipeline = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: entry.to_owned() };
        let words = spv::write_vec(&module, &info, &options(checked), Some(&pipeline)).map_err(|e| e.to_string())?;
        Ok(Self { words, bindings: bindings(&module, &info, index), workgroup_size: module.entry_points[index].workgroup_size })
    }

    /// The pipeline with ordered accesses to workgroup memory. Errors of wgpu go to the caller's error scope.
    #[expect(unsafe_code, reason = "wgpu validates no SPIR-V")]
    pub(super) fn pipeline(self, gpu: &Gpu, label: &str, entry: &str) -> Result<wgpu::ComputePipeline, String> {
        let device = &gpu.device;
        let words = repair(&self.words)?;
        let [x, y, z] = self.workgroup_size;
        let descriptor = wgpu::ShaderModuleDescriptorPassthrough {
            label: Some(label),
            entry_points: vec![wgpu::PassthroughShaderEntryPoint { name: entry.into(), workgroup_size: (x, y, z) }].into(),
            spirv: Some(words.into()),
            ..Default::default()
        };
        // SAFETY: the words are naga's translation of a validated module; the repair adds memory operands, has barriers of subgroups order workgroup memory, and makes
        // factors of matrices f16 that lie in memory as f32 (strides count in what memory is of, and rows begin at multiples of 16 bytes). The layout below names
        // exactly the bindings of the entry point. Tests count accesses beyond a binding (`Gpu::overruns`), and no index of these depends on data.
        let module = unsafe { device.create_shader_module_passthrough(descriptor) };
        let entries: Vec<wgpu::BindGroupLayoutEntry> = self
            .bindings
            .iter()
            .map(|&(binding, ty)| wgpu::BindGroupLayoutEntry {
                binding,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
                count: None,
            })
            .collect();
        let group = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(label), entries: &entries });
        let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(label),
            bind_group_layouts: &[Some(&group)],
            immediate_size: 0,
        });
        Ok(device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(label),
            layout: Some(&layout),
            module: &module,
            entry_point: Some(entry),
            compilation_options: wgpu::PipelineCompilationOptions { zero_initialize_workgroup_memory: false, ..Default::default() },
            cache: gpu.pipeline_file().map(|file| &file.cache),
        }))
    }
}

/// What wgpu would ask of naga, with and without runtime checks.
fn options(checked: bool) -> spv::Options<'static> {
    let policy = if checked { BoundsCheckPolicy::Restrict } else { BoundsCheckPolicy::Unchecked };
    spv::Options {
        // Vulkan 1.2, which cooperative matrices are written against.
        lang_version: (1, 5),
        bounds_check_policies: BoundsCheckPolicies { index: policy, buffer: policy, image_load: policy, binding_array: policy },
        // Never: one invocation would zero whole arrays element by element, which lavapipe takes minutes to compile.
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: checked,
        emit_int_div_checks: checked,
        ..Default::default()
    }
}

/// Bindings of group 0 that entry point `index` uses. naga keeps their numbers, and wgpu numbers them from 0 without gaps:
/// the two agree because kernels bind without gaps (`tests/shaders.rs`).
fn bindings(module: &Module, info: &ModuleInfo, index: usize) -> Vec<(u32, wgpu::BufferBindingType)> {
    let used = module.global_variables.iter().filter(|(handle, _)| !info.get_entry_point(index)[*handle].is_empty());
    let mut bindings: Vec<_> = used
        .filter_map(|(_, variable)| {
            let ty = match variable.space {
                AddressSpace::Storage { access } => wgpu::BufferBindingType::Storage { read_only: !access.contains(StorageAccess::STORE) },
                _ => wgpu::BufferBindingType::Uniform,
            };
            Some((variable.binding.as_ref()?.binding, ty))
        })
        .collect();
    bindings.sort_by_key(|b| b.0);
    bindings
}
