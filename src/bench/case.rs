//! What a case is: a name, what it counts, and how it becomes ready to run.

use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::{Program, Store, Variants};
use std::time::Instant;

/// One thing to time.
pub struct Case {
    /// Its name.
    pub name: String,
    /// Floating point operations of a run; forward and backward count three forwards.
    pub flops: Option<f64>,
    /// Images of a run, for training steps and for what prepares images.
    pub images: Option<f64>,
    /// Whether to report the host's time per dispatch.
    pub host: bool,
    build: Build,
}

type Build = Box<dyn Fn(&Gpu, &dyn Variants) -> Result<Ready>>;

impl Case {
    pub(super) fn new(name: impl Into<String>, build: impl Fn(&Gpu, &dyn Variants) -> Result<Ready> + 'static) -> Self {
        Self { name: name.into(), flops: None, images: None, host: false, build: Box::new(build) }
    }

    #[expect(clippy::cast_precision_loss, reason = "operation counts")]
    pub(super) fn macs(mut self, macs: usize) -> Self {
        self.flops = Some(2.0 * macs as f64);
        self
    }

    #[expect(clippy::cast_precision_loss, reason = "a count of images")]
    pub(super) fn images(mut self, images: usize) -> Self {
        self.images = Some(images as f64);
        self
    }

    /// A whole step, whose host time matters.
    pub(super) fn step(mut self) -> Self {
        self.host = true;
        self
    }

    /// Builds what it times, with its pipelines.
    pub fn prepare(&self, gpu: &Gpu, variants: &dyn Variants) -> Result<Ready> {
        (self.build)(gpu, variants)
    }
}

/// A case ready to run.
pub struct Ready(Work);

enum Work {
    /// A program whose inputs stay on the device.
    Device { program: Box<Program>, _store: Store, started: bool },
    /// Work of the processor.
    Host(Box<dyn FnMut() -> Result<()>>),
}

impl Ready {
    pub(super) fn device(program: Program, store: Store) -> Self {
        Self(Work::Device { program: Box::new(program), _store: store, started: false })
    }

    /// The same, of a program whose first run is under way.
    pub(super) fn started(program: Program, store: Store) -> Self {
        Self(Work::Device { program: Box::new(program), _store: store, started: true })
    }

    pub(super) fn host(work: Box<dyn FnMut() -> Result<()>>) -> Self {
        Self(Work::Host(work))
    }

    /// Runs it once and waits.
    pub fn run(&mut self, gpu: &Gpu) -> Result<()> {
        match &mut self.0 {
            Work::Device { program, started, .. } => {
                if !std::mem::take(started) {
                    program.run_only(gpu, &[])?;
                }
                gpu.wait()
            }
            Work::Host(work) => work(),
        }
    }

    /// Dispatches of a run.
    pub(super) fn dispatches(&self) -> usize {
        match &self.0 {
            Work::Device { program, .. } => program.dispatches(),
            Work::Host(_) => 0,
        }
    }

    /// Bytes that the dispatches of a run bind ([`Program::traffic`]); `None` for work of the processor.
    pub(super) fn traffic(&self) -> Option<u64> {
        match &self.0 {
            Work::Device { program, .. } => Some(program.traffic()),
            Work::Host(_) => None,
        }
    }

    /// Device time of every dispatch, as far as its clock could tell.
    pub(super) fn profile(&self, gpu: &Gpu) -> Result<Vec<(String, Option<f64>)>> {
        match &self.0 {
            Work::Device { program, .. } => program.profile(gpu),
            Work::Host(_) => Err(Error::Usage("work of the processor has no device profile".into())),
        }
    }

    /// Milliseconds of the host alone: replays are submitted without waiting, and only that is on the clock. The best of ten.
    pub(super) fn host_ms(&mut self, gpu: &Gpu) -> Result<f64> {
        let mut best = f64::MAX;
        if let Work::Device { program, .. } = &mut self.0 {
            for _ in 0..10 {
                let start = Instant::now();
                program.run_only(gpu, &[])?;
                best = best.min(start.elapsed().as_secs_f64() * 1e3);
                gpu.wait()?;
            }
        }
        Ok(best)
    }
}
