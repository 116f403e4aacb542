//! The open device: creation, error capture, device loss, waiting.

use super::adapter::{self, AdapterDescription, Caps, DeviceKind};
use super::kernel::PipelineCache;
use super::pipeline_file::PipelineFile;
use super::{Buffer, CooperativeMatrix, Kernel, KernelSpec, Specialization, self_test, unbounded};
use crate::error::{Error, Result};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// An open adapter: device, queue, capabilities and the pipelines built so far.
pub struct Gpu {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    caps: Caps,
    /// What kernels may use, as far as the adapter says: where there are several, a test finds out.
    matrices: Vec<CooperativeMatrix>,
    tested: OnceLock<(Caps, Option<String>)>,
    description: AdapterDescription,
    info: wgpu::AdapterInfo,
    pipelines: PipelineCache,
    pipeline_file: Option<PipelineFile>,
    faults: Arc<Faults>,
    checked: bool,
    repairs_spirv: bool,
    /// Where kernels count their accesses beyond a binding, if they do.
    overruns: Option<Buffer>,
    /// Set from outside to build no more pipelines.
    stop: Option<Arc<AtomicBool>>,
}

/// What wgpu reported outside any error scope.
#[derive(Default)]
struct Faults {
    lost: Mutex<Option<String>>,
    uncaptured: Mutex<Vec<String>>,
}

/// What wgpu's allocator holds for the device; constant while steps are replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocationReport {
    /// Live allocations.
    pub allocations: usize,
    /// Bytes in live allocations.
    pub allocated_bytes: u64,
    /// Bytes reserved from the driver.
    pub reserved_bytes: u64,
}

/// What is asked of an adapter where it has it.
const WANTED: wgpu::Features = wgpu::Features::SHADER_F16
    .union(wgpu::Features::SUBGROUP)
    .union(wgpu::Features::PIPELINE_CACHE)
    .union(wgpu::Features::TIMESTAMP_QUERY)
    .union(wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS)
    .union(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES);

impl Gpu {
    /// Opens the adapter that `selector` names (index or part of a name), or the best one, with all of its own limits.
    pub fn open(selector: Option<&str>) -> Result<Self> {
        Self::open_as(selector, false, WANTED)
    }

    /// As [`Gpu::open`], but every kernel is built with bounds checks and zeroed workgroup memory, and counts its accesses beyond a binding
    /// ([`Gpu::overruns`]), which checks only hide. For tests: slower.
    pub fn open_checked(selector: Option<&str>) -> Result<Self> {
        Self::open_counting(selector, WANTED)
    }

    /// As [`Gpu::open_checked`], but without f16 in shaders, as adapters that have none.
    pub fn open_without_f16(selector: Option<&str>) -> Result<Self> {
        Self::open_counting(selector, WANTED.difference(wgpu::Features::SHADER_F16))
    }

    fn open_counting(selector: Option<&str>, wanted: wgpu::Features) -> Result<Self> {
        let mut gpu = Self::open_as(selector, true, wanted)?;
        gpu.overruns = Some(Buffer::new(&gpu, "overruns", 16)?);
        Ok(gpu)
    }

    fn open_as(selector: Option<&str>, checked: bool, wanted: wgpu::Features) -> Result<Self> {
        let (adapter, description) = adapter::choose(selector)?;
        let mut features = wanted & adapter.features();
        let backend = adapter.get_info().backend;
        let mut experimental_features = wgpu::ExperimentalFeatures::disabled();
        // Matrices have f16 factors: a device that does without f16 does without them.
        let matrices = if wanted.contains(wgpu::Features::SHADER_F16) { CooperativeMatrix::of(&adapter) } else { Vec::new() };
        if !matrices.is_empty() {
            features |= CooperativeMatrix::features(backend);
            experimental_features = experimental();
        }
        let request = wgpu::DeviceDescriptor {
            label: Some("swav-wgpu"),
            required_features: features,
            required_limits: adapter.limits(),
            experimental_features,
            ..Default::default()
        };
        let unbounded = if checked { None } else { unbounded::open(&adapter, &request) };
        let cannot = |e: wgpu::RequestDeviceError| Error::CannotOpen { name: description.name.clone(), message: e.to_string() };
        let (device, queue) = unbounded.map_or_else(|| pollster::block_on(adapter.request_device(&request)).map_err(cannot), Ok)?;
        let faults = Arc::new(Faults::default());
        let on_lost = Arc::clone(&faults);
        device.set_device_lost_callback(move |reason, message| {
            let text = if message.is_empty() { format!("{reason:?}") } else { message };
            on_lost.lost.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(text);
        });
        let on_error = Arc::clone(&faults);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            on_error.uncaptured.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(error.to_string());
        }));
        let caps = Caps { cooperative_matrix: matrices.first().copied(), ..adapter::caps(&adapter, features, queue.get_timestamp_period()) };
        tracing::debug!(?caps, adapter = description.name, "opened");
        let (info, pipelines, repairs_spirv) = (adapter.get_info(), PipelineCache::default(), backend == wgpu::Backend::Vulkan);
        let (tested, pipeline_file) = (OnceLock::new(), None);
        Ok(Self {
            device,
            queue,
            caps,
            matrices,
            tested,
            description,
            info,
            pipelines,
            pipeline_file,
            faults,
            checked,
            repairs_spirv,
            overruns: None,
            stop: None,
        })
    }

    /// What the adapter can do, as it says.
    pub fn caps(&self) -> &Caps {
        &self.caps
    }

    /// Binds at most `bytes` bytes from now on, as a smaller adapter would. For tests of windows.
    pub fn limit_bindings(&mut self, bytes: u64) {
        self.caps.max_binding_bytes = self.caps.max_binding_bytes.min(bytes);
        self.tested = OnceLock::new();
    }

    /// Chooses and builds kernels as for another kind of device. For tests of what cards run.
    pub fn act_as(&mut self, kind: DeviceKind) {
        self.caps.kind = kind;
        self.tested = OnceLock::new();
    }

    /// Offers kernels these cooperative matrices, as an adapter would whose subgroups may have several sizes. For tests.
    pub fn offer_matrices(&mut self, matrices: Vec<CooperativeMatrix>) {
        self.caps.cooperative_matrix = matrices.first().copied();
        self.matrices = matrices;
        self.tested = OnceLock::new();
    }

    /// What the adapter can do, without cooperative matrices where they compute wrong: programs in f16 are lowered for this. The first
    /// call runs kernels to find out, and logs a warning when they fail.
    pub fn tested_caps(&self) -> &Caps {
        self.tested_caps_with(&Specialization::default())
    }

    /// As [`Gpu::tested_caps`], with `fault` added to the knobs of the kernels under test when it is the first call: how a test shows
    /// that a wrong kernel is found.
    pub fn tested_caps_with(&self, fault: &Specialization) -> &Caps {
        &self.test_result(fault).0
    }

    /// Whether kernels use the adapter's cooperative matrices: `in use`, or `not used: why`; nothing where it has none that they could.
    pub fn cooperative_matrix_status(&self) -> Option<String> {
        self.caps.cooperative_matrix?;
        let fault = &self.test_result(&Specialization::default()).1;
        Some(fault.as_ref().map_or_else(|| "in use".to_owned(), |reason| format!("not used: {reason}")))
    }

    fn test_result(&self, fault: &Specialization) -> &(Caps, Option<String>) {
        self.tested.get_or_init(|| {
            let mut reason = None;
            let right = self.matrices.iter().copied().find(|matrix| {
                let found = self_test::fault(self, *matrix, fault);
                let right = found.is_none();
                reason = reason.take().or(found);
                right
            });
            if let (Some(reason), Some(right)) = (&reason, right) {
                tracing::info!("{}: of the ways to use cooperative matrices, {right:?} is the first that is right; {reason}", self.description.name);
            }
            // That another size of subgroups or width of access was right is no fault.
            let reason = reason.filter(|_| right.is_none());
            if let Some(reason) = &reason {
                tracing::warn!("{}: cooperative matrices are not used: {reason}", self.description.name);
            }
            (Caps { cooperative_matrix: right, ..self.caps.clone() }, reason)
        })
    }

    /// Whether kernels are built with runtime checks.
    pub fn checked(&self) -> bool {
        self.checked
    }

    /// Accesses of kernels beyond a binding so far, where they are counted: there must be none, for the kernels of a release have no checks.
    pub fn overruns(&self) -> Result<Option<u32>> {
        let count = |buffer: &Buffer| self.read(buffer, 0, 16).map(|bytes| bytemuck::pod_read_unaligned(&bytes[..4]));
        self.overruns.as_ref().map(count).transpose()
    }

    /// Where they are counted.
    pub(super) fn overrun_counter(&self) -> Option<&Buffer> {
        self.overruns.as_ref()
    }

    /// Whether kernels with cooperative matrices go round wgpu's own translation, which is not ordered by barriers.
    pub(super) fn repairs_spirv(&self) -> bool {
        self.repairs_spirv
    }

    /// Name, driver and limits of the adapter.
    pub fn description(&self) -> &AdapterDescription {
        &self.description
    }

    /// Keeps compiled pipelines in a file of `folder`, from one run of the program to the next, where the backend can: Vulkan.
    #[must_use]
    pub fn keeping_pipelines(mut self, folder: &Path) -> Self {
        self.pipeline_file = PipelineFile::open(&self, &self.info, folder);
        self
    }

    /// Builds no pipeline once `stop` is set, but ends with [`Error::StoppedEmpty`]: slow drivers take minutes over those of a step.
    #[must_use]
    pub fn until(self, stop: Arc<AtomicBool>) -> Self {
        Self { stop: Some(stop), ..self }
    }

    pub(super) fn stopping(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed))
    }

    pub(super) fn pipeline_file(&self) -> Option<&PipelineFile> {
        self.pipeline_file.as_ref()
    }

    /// Builds (or finds) the compute pipelines of `specs`, in order.
    pub fn kernels(&self, specs: &[&KernelSpec]) -> Result<Vec<Kernel>> {
        let started = std::time::Instant::now();
        let (kernels, built) = self.pipelines.get(self, specs)?;
        tracing::debug!("{built} pipelines built in {:?}", started.elapsed());
        if let (Some(file), true) = (&self.pipeline_file, built > 0) {
            file.built();
        }
        Ok(kernels)
    }

    /// Runs `work` and turns what wgpu refuses meanwhile into an error that names `context`.
    pub(super) fn scoped<T>(&self, context: &str, work: impl FnOnce() -> T) -> Result<T> {
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        // What a driver's compiler refuses.
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let value = work();
        let failed = pollster::block_on(internal.pop());
        let refused = pollster::block_on(validation.pop()).or(failed);
        let exhausted = pollster::block_on(memory.pop());
        self.check()?;
        if let Some(error) = exhausted {
            return Err(Error::OutOfMemory(format!("{context}: {error}")));
        }
        match refused {
            Some(error) => Err(Error::Gpu { context: context.to_owned(), message: error.to_string() }),
            None => Ok(value),
        }
    }

    /// Reports a lost device or an error that no scope caught.
    pub fn check(&self) -> Result<()> {
        if let Some(reason) = self.faults.lost.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone() {
            return Err(Error::DeviceLost(reason));
        }
        let mut messages = std::mem::take(&mut *self.faults.uncaptured.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        // Want of memory explains what came after it, and before.
        let exhausted = messages.iter().position(|message| message.to_lowercase().contains("out of memory"));
        let told = (!messages.is_empty()).then(|| messages.remove(exhausted.unwrap_or(0)));
        messages.iter().for_each(|message| tracing::debug!("device: {message}"));
        match told {
            Some(message) if exhausted.is_some() => Err(Error::OutOfMemory(message)),
            Some(message) => Err(Error::Gpu { context: "device".into(), message }),
            None => Ok(()),
        }
    }

    /// Waits until everything submitted has run.
    pub fn wait(&self) -> Result<()> {
        self.poll(wgpu::PollType::wait_indefinitely())
    }

    pub(super) fn poll(&self, how: wgpu::PollType) -> Result<()> {
        let outcome = self.device.poll(how);
        self.check()?;
        outcome.map(|_| ()).map_err(|e| Error::DeviceLost(e.to_string()))
    }

    /// Reads `bytes` bytes of `buffer` from `offset`, waiting for all earlier work. For set-up, tests and checkpoints; steps
    /// use a [`super::Readback`].
    pub fn read(&self, buffer: &Buffer, offset: u64, bytes: u64) -> Result<Vec<u8>> {
        if bytes == 0 {
            return Ok(Vec::new());
        }
        let readback = super::Readback::new(self, bytes)?;
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(buffer.raw(), offset, readback.raw(), 0, bytes);
        let index = self.queue.submit([encoder.finish()]);
        readback.request(index);
        readback.wait(self)
    }

    /// Writes `data` into `buffer` at `offset` before anything submitted later. For set-up; steps use an [`super::UploadRing`].
    pub fn write(&self, buffer: &Buffer, offset: u64, data: &[u8]) -> Result<()> {
        // Large writes go in pieces, so that the staging memory of a whole model does not pile up before it is freed.
        const PIECE: usize = 32 << 20;
        for (i, piece) in data.chunks(PIECE).enumerate() {
            self.scoped(buffer.label(), || self.queue.write_buffer(buffer.raw(), offset + (i * PIECE) as u64, piece))?;
            if data.len() > PIECE {
                self.queue.submit([]);
                self.wait()?;
            }
        }
        Ok(())
    }

    /// What wgpu's allocator holds, where the backend tells.
    pub fn allocation_report(&self) -> Option<AllocationReport> {
        let report = self.device.generate_allocator_report()?;
        Some(AllocationReport {
            allocations: report.allocations.len(),
            allocated_bytes: report.total_allocated_bytes,
            reserved_bytes: report.total_reserved_bytes,
        })
    }

    /// Reports want of memory at the next look, as a driver would. For tests.
    pub fn provoke_out_of_memory(&self) {
        let mut messages = self.faults.uncaptured.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        messages.push("Out of Memory, on purpose".into());
    }

    /// Destroys the device, as a driver reset would; every later call reports [`Error::DeviceLost`].
    pub fn destroy(&self) {
        self.device.destroy();
    }
}

#[expect(unsafe_code, reason = "wgpu asks for a promise before it opens experimental features")]
fn experimental() -> wgpu::ExperimentalFeatures {
    // SAFETY: wgpu warns that experimental features may have undefined behaviour in safe use. The one that is asked for, cooperative
    // matrices, serves kernels of this crate alone; what is wrong with it is repaired (`spirv_repair`), and it is used only after a
    // test on the device at hand (`self_test`).
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}
