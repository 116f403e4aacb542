//! Storage buffers.

use super::Gpu;
use crate::error::{Error, Result};
use crate::fault;

/// A storage buffer with the name that errors and reports use.
#[derive(Clone, Debug)]
pub struct Buffer {
    raw: wgpu::Buffer,
    label: std::sync::Arc<str>,
}

impl Buffer {
    /// A zeroed storage buffer of `bytes` bytes (rounded up to 16). Errors name `label`.
    pub fn new(gpu: &Gpu, label: &str, bytes: u64) -> Result<Self> {
        use wgpu::BufferUsages as Usage;
        let size = bytes.max(16).next_multiple_of(16);
        if size > gpu.caps().max_buffer_bytes {
            return Err(Error::OutOfMemory(format!(
                "{label} needs {} and the adapter's largest buffer is {}",
                megabytes(size),
                megabytes(gpu.caps().max_buffer_bytes)
            )));
        }
        let usage = Usage::STORAGE | Usage::UNIFORM | Usage::COPY_SRC | Usage::COPY_DST;
        if fault::buffer(label) {
            gpu.provoke_out_of_memory();
        }
        let raw = gpu.scoped(&format!("{label} ({})", megabytes(size)), || {
            gpu.device.create_buffer(&wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false })
        })?;
        Ok(Self { raw, label: label.into() })
    }

    /// Name given at creation.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.raw.size()
    }

    pub(super) fn raw(&self) -> &wgpu::Buffer {
        &self.raw
    }
}

/// `bytes` as people read it.
pub(crate) fn megabytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib >= 1024.0 { format!("{:.2} GiB", mib / 1024.0) } else { format!("{mib:.1} MiB") }
}
