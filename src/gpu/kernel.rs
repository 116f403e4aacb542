//! Compute pipelines: one per (shader, entry point, specialisation), built on first use, several at a time, and kept.

use super::passthrough::{MATRICES, Translated};
use super::watch::watched;
use super::{Gpu, Specialization, compose, source};
use crate::error::{Error, Result};
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

/// Which pipeline: a file of `shaders/`, one of its entry points, and values for its knobs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KernelSpec {
    /// File name without folder and ending.
    pub shader: &'static str,
    /// Entry point.
    pub entry: &'static str,
    /// Knob values.
    pub constants: Specialization,
}

impl KernelSpec {
    /// A kernel with the shader's own defaults.
    pub fn new(shader: &'static str, entry: &'static str) -> Self {
        Self { shader, entry, constants: Specialization::default() }
    }

    /// The same kernel with knob values.
    #[must_use]
    pub fn with(mut self, constants: Specialization) -> Self {
        self.constants = constants;
        self
    }

    /// `conv2d_tile/forward[STRIDE=2]`: the string of profiles and errors.
    pub fn label(&self) -> String {
        let constants = self.constants.label();
        if constants.is_empty() { format!("{}/{}", self.shader, self.entry) } else { format!("{}/{}[{constants}]", self.shader, self.entry) }
    }
}

/// The words of a kernel's `Params` uniform, by field name and in order; the names are held against the shader when the
/// pipeline is built, so that the two sides cannot drift apart.
#[derive(Clone, Debug, Default)]
pub struct Params {
    pub(super) names: Vec<&'static str>,
    words: Vec<u32>,
}

impl Params {
    /// Appends an unsigned field.
    ///
    /// # Panics
    /// When `value` does not fit 32 bits.
    #[must_use]
    pub fn u32(mut self, name: &'static str, value: usize) -> Self {
        self.names.push(name);
        self.words.push(u32::try_from(value).unwrap_or_else(|_| panic!("{name} = {value} does not fit 32 bits")));
        self
    }

    /// Appends a signed field.
    #[must_use]
    pub fn i32(mut self, name: &'static str, value: i32) -> Self {
        self.names.push(name);
        self.words.push(value.cast_unsigned());
        self
    }

    /// Appends a float field.
    #[must_use]
    pub fn f32(mut self, name: &'static str, value: f32) -> Self {
        self.names.push(name);
        self.words.push(value.to_bits());
        self
    }

    pub(super) fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.words)
    }
}

/// A built pipeline.
#[derive(Clone)]
pub struct Kernel {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) label: Arc<str>,
    fields: Arc<[String]>,
    /// Binding of the counter of accesses beyond a binding, where they are counted.
    pub(super) counter: Option<u32>,
}

impl Kernel {
    /// Panics when `params` does not name exactly the shader's fields, in order.
    pub(super) fn check_params(&self, params: &Params) {
        assert!(self.fields.iter().eq(&params.names), "{}: the shader's Params are {:?}, the host sends {:?}", self.label, self.fields, params.names);
    }
}

/// The pipelines built so far.
#[derive(Default)]
pub(super) struct PipelineCache(Mutex<HashMap<KernelSpec, Kernel>>);

impl PipelineCache {
    /// The kernels of `specs`, in order, and how many had to be built: those side by side on all cores, unless a stop is asked for meanwhile.
    pub(super) fn get(&self, gpu: &Gpu, specs: &[&KernelSpec]) -> Result<(Vec<Kernel>, usize)> {
        let missing: Vec<&KernelSpec> = {
            let built = self.built();
            let distinct: HashSet<&KernelSpec> = specs.iter().copied().filter(|spec| !built.contains_key(spec)).collect();
            // In order of use, so that the first error is the same every time.
            specs.iter().copied().scan(distinct, |left, spec| Some(left.take(spec))).flatten().collect()
        };
        let new = missing.par_iter().map(|spec| if gpu.stopping() { Err(Error::StoppedEmpty) } else { build(gpu, spec) }).collect::<Vec<_>>();
        let mut built = self.built();
        for (spec, kernel) in missing.iter().zip(new) {
            built.insert((*spec).clone(), kernel?);
        }
        Ok((specs.iter().map(|spec| built[*spec].clone()).collect(), missing.len()))
    }

    fn built(&self) -> MutexGuard<'_, HashMap<KernelSpec, Kernel>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[expect(unsafe_code, reason = "runtime checks of shaders are switched off in release; the tests run with them on")]
fn build(gpu: &Gpu, spec: &KernelSpec) -> Result<Kernel> {
    let label = spec.label();
    let constants = if gpu.caps().f16 { spec.constants.clone() } else { spec.constants.clone().packed() };
    let text = compose(spec.shader, source, &constants).map_err(|e| Error::Gpu { context: label.clone(), message: e.to_string() })?;
    let fields = params_fields(&text).map_err(|message| Error::Gpu { context: label.clone(), message })?;
    let watched = match gpu.overrun_counter() {
        Some(_) => watched(&text, gpu.description().max_storage_buffers).map_err(|message| Error::Gpu { context: label.clone(), message })?,
        None => None,
    };
    let (text, counter) = watched.map_or((text, None), |watched| (watched.text, Some(watched.binding)));
    let checked = gpu.checked();
    let pipeline = if gpu.repairs_spirv() && text.contains(MATRICES) {
        let named = |message| Error::Gpu { context: label.clone(), message };
        let translated = Translated::new(&text, spec.entry, checked).map_err(named)?;
        gpu.scoped(&label, || translated.pipeline(gpu, &label, spec.entry))?.map_err(named)?
    } else {
        let descriptor = wgpu::ShaderModuleDescriptor { label: Some(&label), source: wgpu::ShaderSource::Wgsl(text.into()) };
        gpu.scoped(&label, || {
            let module = if checked {
                gpu.device.create_shader_module(descriptor)
            } else {
                // SAFETY: tests of every kernel count its accesses beyond a binding (`watch`, `tests/ops`), and no index depends on data: labels and the
                // position of a queue are kept in their range by the shaders, and the tables of the optimiser are made by the host for the arenas they
                // are bound with.
                unsafe { gpu.device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
            };
            gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(&label),
                layout: None,
                module: &module,
                entry_point: Some(spec.entry),
                compilation_options: wgpu::PipelineCompilationOptions { zero_initialize_workgroup_memory: checked, ..Default::default() },
                cache: gpu.pipeline_file().map(|file| &file.cache),
            })
        })?
    };
    Ok(Kernel { pipeline, label: label.into(), fields: fields.into(), counter })
}

/// Field names of the uniform `params`, in order; empty when the shader has none.
pub(super) fn params_fields(text: &str) -> Result<Vec<String>, String> {
    let module = wgpu::naga::front::wgsl::parse_str(text).map_err(|e| e.emit_to_string(text))?;
    let params = module.global_variables.iter().find(|(_, variable)| variable.name.as_deref() == Some("params"));
    Ok(match params.map(|(_, variable)| &module.types[variable.ty].inner) {
        Some(wgpu::naga::TypeInner::Struct { members, .. }) => members.iter().filter_map(|m| m.name.clone()).collect(),
        _ => Vec::new(),
    })
}
