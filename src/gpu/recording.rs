//! A list of dispatches with everything prepared: pipelines, bind groups, parameters. Replaying encodes and submits, no more.

use super::staging::{Readback, UploadRing};
use super::{Buffer, DeviceKind, Gpu, Kernel, Params};
use crate::error::{Error, Result};
use rayon::prelude::*;

/// A range of a buffer that a kernel sees as one storage array.
#[derive(Clone, Debug)]
pub struct Binding {
    /// The buffer.
    pub buffer: Buffer,
    /// First byte; a multiple of [`super::Caps::offset_alignment`].
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
}

/// One kernel launch: binding 0 is `params`, then `bindings` in the shader's order.
pub struct Dispatch {
    /// The pipeline.
    pub kernel: Kernel,
    /// Uniform values.
    pub params: Params,
    /// Storage arrays.
    pub bindings: Vec<Binding>,
    /// Workgroups in x, y, z.
    pub grid: [u32; 3],
    /// What it is part of, for profiles.
    pub label: String,
}

struct Prepared {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    grid: [u32; 3],
    label: String,
}

impl Prepared {
    fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        pass.dispatch_workgroups(self.grid[0], self.grid[1], self.grid[2]);
    }
}

/// Command buffers of a replay at most, which threads encode side by side, and dispatches that are worth one: encoding takes the host one to five
/// microseconds each.
const MOST_ENCODERS: usize = 4;
const LEAST_SHARE: usize = 128;

/// Dispatches of one command buffer at most on such a device. All but processors, whose time nobody watches, get each command buffer by itself: a step of
/// seconds in one go would freeze screens, and drivers give up a device whose submission takes too long (Windows after 2 seconds, amdgpu after 10).
fn most_submitted(kind: DeviceKind) -> usize {
    match kind {
        DeviceKind::Cpu => usize::MAX,
        DeviceKind::Discrete if cfg!(windows) => 128,
        DeviceKind::Discrete => 512,
        DeviceKind::Integrated | DeviceKind::Virtual | DeviceKind::Other => 64,
    }
}

/// Timestamps that a query set holds.
const MOST_TIMESTAMPS: usize = 4096;

/// Dispatches ready for replay.
pub struct Recording {
    prepared: Vec<Prepared>,
}

impl Recording {
    /// Prepares `dispatches`: one uniform buffer for all parameters, one bind group each.
    pub fn new(gpu: &Gpu, dispatches: Vec<Dispatch>) -> Result<Self> {
        let align = gpu.caps().offset_alignment;
        let mut words = Vec::new();
        let mut offsets = Vec::with_capacity(dispatches.len());
        for dispatch in &dispatches {
            dispatch.kernel.check_params(&dispatch.params);
            words.resize(words.len().next_multiple_of(usize::try_from(align).unwrap_or(256)), 0_u8);
            offsets.push(words.len() as u64);
            // Uniform structs are rounded up to 16 bytes by WGSL's layout rules.
            words.extend_from_slice(dispatch.params.bytes());
            words.resize(words.len().next_multiple_of(16), 0);
        }
        words.resize(words.len().max(16), 0);
        let uniforms = Buffer::new(gpu, "kernel parameters", words.len() as u64)?;
        gpu.write(&uniforms, 0, &words)?;
        let prepared = dispatches
            .into_iter()
            .zip(offsets)
            .map(|(dispatch, offset)| gpu.scoped(&dispatch.kernel.label.clone(), || prepare(gpu, dispatch, &uniforms, offset)))
            .collect::<Result<_>>()?;
        Ok(Self { prepared })
    }

    /// Number of dispatches.
    pub fn len(&self) -> usize {
        self.prepared.len()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.prepared.is_empty()
    }

    /// Uploads `inputs` (buffer, byte offset, data), runs every dispatch, copies `outputs` (buffer, byte offset, bytes) one after
    /// another, each at a multiple of 16, into `readback`. Returns without waiting.
    pub fn replay(
        &self,
        gpu: &Gpu,
        ring: &mut UploadRing,
        inputs: &[(&Buffer, u64, &[u8])],
        outputs: &[(&Buffer, u64, u64)],
        readback: Option<&Readback>,
    ) -> Result<()> {
        gpu.check()?;
        let encoder = || gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut commands = Vec::new();
        if !inputs.is_empty() {
            let mut encoder = encoder();
            ring.encode(gpu, &mut encoder, inputs)?;
            commands.push(encoder.finish());
        }
        // Command buffers run in the order of submission, whoever encodes them.
        let share = self.prepared.len().div_ceil(rayon::current_num_threads().min(MOST_ENCODERS)).max(LEAST_SHARE);
        commands.par_extend(self.prepared.par_chunks(share.min(most_submitted(gpu.caps().kind))).map(|items| {
            let mut encoder = encoder();
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            items.iter().for_each(|item| item.encode(&mut pass));
            drop(pass);
            encoder.finish()
        }));
        if let Some(readback) = readback {
            let (mut encoder, mut at) = (encoder(), 0);
            for (buffer, offset, bytes) in outputs {
                encoder.copy_buffer_to_buffer(buffer.raw(), *offset, readback.raw(), at, *bytes);
                at += bytes.next_multiple_of(16);
            }
            commands.push(encoder.finish());
        }
        let index = if gpu.caps().kind == DeviceKind::Cpu {
            gpu.queue.submit(commands)
        } else {
            let last = commands.pop();
            for each in commands {
                gpu.queue.submit([each]);
            }
            gpu.queue.submit(last)
        };
        if !inputs.is_empty() {
            ring.submitted(index.clone());
        }
        if let Some(readback) = readback {
            readback.request(index);
        }
        // Frees what finished; does not wait.
        gpu.poll(wgpu::PollType::Poll)
    }

    /// Runs every dispatch once between timestamps: (label, milliseconds) each, `None` where the device's clock went backwards. Errors where the
    /// adapter has no timestamps.
    pub fn profile(&self, gpu: &Gpu) -> Result<Vec<(String, Option<f64>)>> {
        let Some(period) = gpu.caps().timestamp_period else {
            return Err(Error::Usage("this adapter cannot write timestamps inside a pass".into()));
        };
        let mut times = Vec::with_capacity(self.prepared.len());
        for chunk in self.prepared.chunks(most_submitted(gpu.caps().kind).min(MOST_TIMESTAMPS - 1)) {
            let count = u32::try_from(chunk.len() + 1).expect("a chunk is small");
            let queries = gpu.device.create_query_set(&wgpu::QuerySetDescriptor { label: None, ty: wgpu::QueryType::Timestamp, count });
            let bytes = u64::from(count) * 8;
            let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
            let resolved = gpu.device.create_buffer(&wgpu::BufferDescriptor { label: None, size: bytes, usage, mapped_at_creation: false });
            let readback = Readback::new(gpu, bytes)?;
            let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                pass.write_timestamp(&queries, 0);
                for (i, item) in (1..).zip(chunk) {
                    item.encode(&mut pass);
                    pass.write_timestamp(&queries, i);
                }
            }
            encoder.resolve_query_set(&queries, 0..count, &resolved, 0);
            encoder.copy_buffer_to_buffer(&resolved, 0, readback.raw(), 0, bytes);
            readback.request(gpu.queue.submit([encoder.finish()]));
            let ticks: Vec<u64> = readback.wait(gpu)?.chunks_exact(8).map(bytemuck::pod_read_unaligned).collect();
            times.extend(chunk.iter().zip(ticks.windows(2)).map(|(item, pair)| (item.label.clone(), elapsed(pair[0], pair[1], period))));
        }
        Ok(times)
    }
}

/// Milliseconds between two timestamps of `period` nanoseconds a tick. Some drivers give a later one that is smaller: that is no time.
#[expect(clippy::cast_precision_loss, reason = "a duration")]
fn elapsed(from: u64, to: u64, period: f32) -> Option<f64> {
    to.checked_sub(from).map(|ticks| ticks as f64 * f64::from(period) * 1e-6)
}

fn prepare(gpu: &Gpu, dispatch: Dispatch, uniforms: &Buffer, offset: u64) -> Prepared {
    let bytes = (dispatch.params.bytes().len() as u64).next_multiple_of(16);
    let mut entries = Vec::with_capacity(dispatch.bindings.len() + 1);
    if bytes > 0 {
        entries.push(wgpu::BindGroupEntry { binding: 0, resource: range(uniforms, offset, bytes) });
    }
    for (i, b) in (1..).zip(&dispatch.bindings) {
        entries.push(wgpu::BindGroupEntry { binding: i, resource: range(&b.buffer, b.offset, b.bytes) });
    }
    if let (Some(binding), Some(counter)) = (dispatch.kernel.counter, gpu.overrun_counter()) {
        entries.push(wgpu::BindGroupEntry { binding, resource: range(counter, 0, 16) });
    }
    let layout = dispatch.kernel.pipeline.get_bind_group_layout(0);
    let group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor { label: Some(&dispatch.label), layout: &layout, entries: &entries });
    Prepared { pipeline: dispatch.kernel.pipeline, group, grid: dispatch.grid, label: dispatch.label }
}

fn range(buffer: &Buffer, offset: u64, bytes: u64) -> wgpu::BindingResource<'_> {
    wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer: buffer.raw(), offset, size: wgpu::BufferSize::new(bytes) })
}

#[cfg(test)]
mod tests {
    use super::elapsed;

    #[test]
    fn time_that_goes_backwards_is_none() {
        assert_eq!(elapsed(1_000_000, 3_000_000, 1.0), Some(2.0));
        assert_eq!((elapsed(5, 5, 10.0), elapsed(5, 4, 10.0), elapsed(u64::MAX, 0, 1.0)), (Some(0.0), None, None));
    }
}
