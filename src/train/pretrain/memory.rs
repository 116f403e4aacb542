//! What does not fit is said before anything is trained, with what would.

use super::Run;
use crate::error::{Error, Result};
use crate::gpu::megabytes;
use crate::train::config::PretrainConfig;
use crate::train::memory::{caps, largest_batch, memory, micro_batches_that_fit};

/// Refuses a configuration that cannot run on this adapter, the queue's later share in a step included.
pub(super) fn check_memory(config: &PretrainConfig, run: &Run<'_>) -> Result<()> {
    let caps = caps(run.gpu, config);
    let needs = memory(config, caps, run.variants);
    if needs.fits(caps) {
        return Ok(());
    }
    let message = if needs.largest_binding > caps.max_binding_bytes {
        let [needed, limit] = [needs.largest_binding, caps.max_binding_bytes].map(megabytes);
        format!("tensor {} needs a binding of {needed}, and this adapter binds at most {limit}", needs.largest_tensor)
    } else if needs.largest_buffer > caps.max_buffer_bytes {
        format!("a tensor needs {} and this adapter's largest buffer is {}", megabytes(needs.largest_buffer), megabytes(caps.max_buffer_bytes))
    } else {
        format!("this adapter has {}", caps.memory_bytes.map_or_else(String::new, megabytes))
    };
    Err(advise(config, run, Error::OutOfMemory(message)))
}

/// Adds to an out-of-memory error what would fit.
pub(super) fn advise(config: &PretrainConfig, run: &Run<'_>, error: Error) -> Error {
    let Error::OutOfMemory(message) = error else { return error };
    let (caps, batch) = (caps(run.gpu, config), config.train.batch);
    let whole = megabytes(memory(config, caps, run.variants).peak());
    if caps.memory_bytes.is_none() {
        // Metal and DX12 are not asked: what would fit is anyone's guess.
        return Error::OutOfMemory(format!("{message}; batch {batch} needs {whole} in all, and how much this adapter has is not known"));
    }
    let largest = match largest_batch(config, caps, run.variants) {
        0 => "no batch fits".to_owned(),
        fits => format!("the largest batch that fits is {fits}"),
    };
    let parts = match micro_batches_that_fit(config, caps, run.variants).filter(|k| *k > config.train.accumulate) {
        Some(k) => format!(", and batch {batch} fits with train.accumulate = {k}"),
        None => String::new(),
    };
    Error::OutOfMemory(format!("{message}; batch {batch} needs {whole} in all; {largest}{parts}"))
}
