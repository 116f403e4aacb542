//! What does not fit is said before anything is trained, with what would.

use super::Run;
use crate::error::{Error, Result};
use crate::train::config::PretrainConfig;
use crate::train::plan;

/// Refuses a configuration of which some tensor cannot be bound, the queue's later share in a step included.
pub(super) fn check_memory(config: &PretrainConfig, run: &Run<'_>) -> Result<()> {
    let (caps, batch) = (run.gpu.caps(), config.train.batch);
    let (memory, tensor) = plan::memory(config, batch, caps, run.variants);
    let limit = caps.max_binding_bytes.min(caps.max_buffer_bytes);
    if memory.largest_tensor <= limit {
        return Ok(());
    }
    let [needed, limit] = [memory.largest_tensor, limit].map(crate::gpu::megabytes);
    Err(advise(config, run, Error::OutOfMemory(format!("tensor {tensor} needs {needed} and this adapter binds at most {limit}"))))
}

/// Adds to an out-of-memory error what would fit.
pub(super) fn advise(config: &PretrainConfig, run: &Run<'_>, error: Error) -> Error {
    let Error::OutOfMemory(message) = error else { return error };
    let (caps, batch) = (run.gpu.caps(), config.train.batch);
    let fits = plan::largest_batch(config, caps, run.variants, u64::MAX);
    let whole = crate::gpu::megabytes(plan::memory(config, batch, caps, run.variants).0.peak());
    let largest =
        if fits == 0 { "no batch's tensors fit".to_owned() } else { format!("the largest batch whose tensors this adapter binds is {fits}") };
    Error::OutOfMemory(format!("{message}; batch {batch} needs {whole} in all, {largest}"))
}
