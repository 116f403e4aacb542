//! A planned graph on a device: allocated once, then replayed.

use super::{
    Choices, DType, Decision, Graph, Lowered, Plan, Storage, Store, Tensor, TensorId, TensorInfo, Variants, View, lower, pad4, plan, unpad_rows,
};
use crate::error::{Error, Result};
use crate::gpu::{Binding, Buffer, Caps, Dispatch, Gpu, Readback, Recording, UploadRing};
use std::collections::{HashMap, VecDeque};

/// A program ready to run.
pub struct Program {
    recording: Recording,
    inputs: HashMap<String, (Binding, TensorInfo)>,
    outputs: Vec<(String, Binding, TensorInfo)>,
    ring: UploadRing,
    readbacks: VecDeque<Readback>,
    plan: Plan,
    traffic: u64,
    decisions: Vec<Decision>,
    fusions: Choices,
}

/// Results of a run by name: stored bytes and what they are.
pub struct Outputs(HashMap<String, (Vec<u8>, TensorInfo)>);

/// A run whose results were not waited for yet.
#[must_use = "results are lost unless they are finished"]
pub struct Pending(Readback);

/// What to lower for: kernels on cooperative matrices must have passed their test where they may be chosen.
fn caps<'a>(gpu: &'a Gpu, graph: &Graph, variants: &dyn Variants) -> &'a Caps {
    let halves = (0..graph.tensor_count()).any(|t| graph.info(TensorId(t)).dtype == DType::F16);
    if halves || variants.may_round() { gpu.tested_caps() } else { gpu.caps() }
}

/// Runs whose results may be outstanding at once.
const IN_FLIGHT: usize = 3;

impl Program {
    /// Lowers and plans `graph`, allocates its memory and builds its pipelines. `outputs` can be read after each run.
    pub fn new(gpu: &Gpu, store: &Store, graph: &Graph, outputs: &[(&str, &Tensor)], variants: &dyn Variants) -> Result<Self> {
        let ids: Vec<TensorId> = outputs.iter().map(|(_, t)| t.id()).collect();
        let caps = caps(gpu, graph, variants);
        let mut lowered = lower(graph, &ids, caps, variants);
        if variants.prepare(gpu, &lowered.graph, &lowered.decisions)? {
            lowered = lower(graph, &ids, caps, variants);
        }
        let plan = plan(&lowered, &ids);
        check_limits(gpu, &lowered)?;
        let buffers = plan
            .slots
            .iter()
            .zip(&plan.largest)
            .map(|(bytes, t)| Buffer::new(gpu, &lowered.tensors[t.0].name, *bytes))
            .collect::<Result<Vec<_>>>()?;
        if gpu.checked() {
            // Memory of a plan holds what was there before, never zeros: no kernel may count on them.
            for (buffer, bytes) in buffers.iter().zip(&plan.slots) {
                gpu.write(buffer, 0, &vec![0xff; usize::try_from(*bytes).expect("a slot that fits the address space")])?;
            }
        }
        let binding = |t: TensorId| -> Binding {
            let info = &lowered.tensors[t.0];
            match info.storage {
                Storage::Variable(id) => store.binding(id),
                _ => {
                    let place = plan.places[&t];
                    Binding { buffer: buffers[place.slot].clone(), offset: place.offset, bytes: info.bytes().max(16) }
                }
            }
        };
        let view = |view: &View| -> Binding {
            let whole = binding(view.tensor);
            let (offset, bytes) = lowered.range(view);
            Binding { offset: whole.offset + offset, bytes: bytes.max(16), ..whole }
        };
        let mut inputs = HashMap::new();
        for &t in plan.places.keys() {
            let info = &lowered.tensors[t.0];
            match &info.storage {
                Storage::Input(name) => {
                    inputs.insert(name.clone(), (binding(t), info.clone()));
                }
                Storage::Constant(bytes) => gpu.write(&binding(t).buffer, binding(t).offset, bytes)?,
                _ => {}
            }
        }
        let kernels = gpu.kernels(&lowered.launches.iter().map(|launch| &launch.kernel).collect::<Vec<_>>())?;
        let dispatches = lowered
            .launches
            .iter()
            .zip(kernels)
            .map(|(launch, kernel)| Dispatch {
                kernel,
                params: launch.params.clone(),
                bindings: launch.reads.iter().chain(&launch.writes).map(view).collect(),
                grid: launch.grid,
                label: launch.label.clone(),
            })
            .collect();
        let recording = Recording::new(gpu, dispatches)?;
        let traffic = lowered.traffic();
        let outputs: Vec<_> = outputs.iter().map(|(name, t)| ((*name).to_owned(), binding(t.id()), lowered.tensors[t.id().0].clone())).collect();
        let upload = inputs.values().map(|(_, info)| info.bytes().next_multiple_of(16)).sum();
        let ring = UploadRing::new(gpu, upload)?;
        let mut readbacks = VecDeque::new();
        if !outputs.is_empty() {
            let bytes: u64 = outputs.iter().map(|(_, _, info)| info.bytes().next_multiple_of(16)).sum();
            for _ in 0..IN_FLIGHT {
                readbacks.push_back(Readback::new(gpu, bytes)?);
            }
        }
        Ok(Self { recording, inputs, outputs, ring, readbacks, plan, traffic, decisions: lowered.decisions, fusions: lowered.fusions })
    }

    /// Number of dispatches a run encodes.
    pub fn dispatches(&self) -> usize {
        self.recording.len()
    }

    /// Bytes of the program's own memory.
    pub fn bytes(&self) -> u64 {
        self.plan.bytes()
    }

    /// Bytes that the dispatches of a run read and write, each tensor once a dispatch ([`Lowered::traffic`]).
    pub fn traffic(&self) -> u64 {
        self.traffic
    }

    /// Which kernel variants it uses and what it fuses, where there was a choice.
    pub fn choices(&self) -> Choices {
        self.decisions.iter().map(|d| (d.key(), d.chosen.clone())).chain(self.fusions.clone()).collect()
    }

    /// The choices in order, each with the launches that follow from it: positions in [`Self::profile`].
    pub fn decisions(&self) -> &[Decision] {
        &self.decisions
    }

    /// Starts a run with `inputs`, each in stored (padded) form; inputs left out keep their last contents. Does not wait.
    ///
    /// # Panics
    /// When an input's length is wrong, or more than three runs are outstanding.
    pub fn run(&mut self, gpu: &Gpu, inputs: &[(&str, &[u8])]) -> Result<Pending> {
        let readback = self.readbacks.pop_front().expect("at most three unfinished runs");
        let outputs: Vec<_> = self.outputs.iter().map(|(_, b, info)| (&b.buffer, b.offset, info.bytes())).collect();
        let uploads = uploads(&self.inputs, inputs);
        match self.recording.replay(gpu, &mut self.ring, &uploads, &outputs, Some(&readback)) {
            Ok(()) => Ok(Pending(readback)),
            Err(error) => {
                self.readbacks.push_back(readback);
                Err(error)
            }
        }
    }

    /// Starts a run whose results nobody reads.
    pub fn run_only(&mut self, gpu: &Gpu, inputs: &[(&str, &[u8])]) -> Result<()> {
        let uploads = uploads(&self.inputs, inputs);
        self.recording.replay(gpu, &mut self.ring, &uploads, &[], None)
    }

    /// Waits for a run and takes its results.
    pub fn finish(&mut self, gpu: &Gpu, pending: Pending) -> Result<Outputs> {
        let bytes = pending.0.wait(gpu);
        self.readbacks.push_back(pending.0);
        let bytes = bytes?;
        let mut at = 0;
        let mut results = HashMap::new();
        for (name, _, info) in &self.outputs {
            let length = usize::try_from(info.bytes()).expect("an output that fits the address space");
            results.insert(name.clone(), (bytes[at..at + length].to_vec(), info.clone()));
            at += length.next_multiple_of(16);
        }
        Ok(Outputs(results))
    }

    /// Runs with `inputs` and waits for the results.
    pub fn call(&mut self, gpu: &Gpu, inputs: &[(&str, &[u8])]) -> Result<Outputs> {
        let pending = self.run(gpu, inputs)?;
        self.finish(gpu, pending)
    }

    /// Milliseconds of every dispatch, by label, measured on the device; `None` where its clock failed.
    pub fn profile(&self, gpu: &Gpu) -> Result<Vec<(String, Option<f64>)>> {
        self.recording.profile(gpu)
    }
}

fn uploads<'a>(known: &'a HashMap<String, (Binding, TensorInfo)>, given: &[(&str, &'a [u8])]) -> Vec<(&'a Buffer, u64, &'a [u8])> {
    let find = |(name, data): &(&str, &'a [u8])| {
        // An input that nothing live reads was planned away.
        let (binding, info) = known.get(*name)?;
        assert_eq!(data.len() as u64, info.bytes(), "input {name} of shape {:?}", info.shape);
        Some((&binding.buffer, binding.offset, *data))
    };
    given.iter().filter_map(find).collect()
}

fn check_limits(gpu: &Gpu, lowered: &Lowered) -> Result<()> {
    let limit = gpu.caps().max_binding_bytes;
    match lowered.largest_binding() {
        Some((bytes, info)) if bytes > limit => Err(Error::OutOfMemory(format!(
            "tensor {} {:?} needs a binding of {} and this adapter binds at most {}",
            info.name,
            info.shape,
            crate::gpu::megabytes(bytes),
            crate::gpu::megabytes(limit)
        ))),
        _ => Ok(()),
    }
}

impl Outputs {
    /// The f32 tensor `name`, without padding.
    ///
    /// # Panics
    /// When the program has no such output.
    pub fn f32(&self, name: &str) -> Vec<f32> {
        let (bytes, info) = self.get(name);
        unpad_rows(&bytemuck::pod_collect_to_vec(bytes), &info.shape)
    }

    /// The f32 tensor `name` without padding, when the program has it.
    pub fn get_f32(&self, name: &str) -> Option<Vec<f32>> {
        self.0.contains_key(name).then(|| self.f32(name))
    }

    /// The f16 tensor `name`, widened, without padding.
    ///
    /// # Panics
    /// When the program has no such output.
    pub fn f16(&self, name: &str) -> Vec<f32> {
        let (bytes, info) = self.get(name);
        let raw: Vec<half::f16> = unpad_rows(&bytemuck::pod_collect_to_vec(bytes), &info.shape);
        raw.iter().map(|v| v.to_f32()).collect()
    }

    /// The u32 tensor `name`, without padding.
    ///
    /// # Panics
    /// When the program has no such output.
    pub fn u32(&self, name: &str) -> Vec<u32> {
        let (bytes, info) = self.get(name);
        unpad_rows(&bytemuck::pod_collect_to_vec(bytes), &info.shape)
    }

    /// The first element of `name`.
    pub fn scalar(&self, name: &str) -> f32 {
        self.f32(name)[0]
    }

    /// Whether the padding of `name` is zero, as every kernel promises.
    ///
    /// # Panics
    /// When the program has no such output.
    pub fn padding_is_zero(&self, name: &str) -> bool {
        let (bytes, info) = self.get(name);
        let last = info.shape.last().copied().unwrap_or(1) * info.dtype.bytes();
        let stored = pad4(info.shape.last().copied().unwrap_or(1)) * info.dtype.bytes();
        // -0 is a zero too: its only set bit is the highest of the last byte.
        let zero = |value: &[u8]| value.split_last().is_none_or(|(high, low)| high & 0x7f == 0 && low.iter().all(|&b| b == 0));
        bytes.chunks_exact(stored).all(|row| row[last..].chunks_exact(info.dtype.bytes()).all(zero))
    }

    fn get(&self, name: &str) -> &(Vec<u8>, TensorInfo) {
        self.0.get(name).unwrap_or_else(|| panic!("no output {name}"))
    }
}
