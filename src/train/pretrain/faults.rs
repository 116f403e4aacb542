//! What the faults that tests provoke do to a run's state as a step begins ([`crate::fault`]).

use super::state::State;
use crate::error::Result;
use crate::fault;
use crate::gpu::Gpu;
use crate::nn::Values;
use crate::optim::LossScaling;

/// A loss scale with which the gradients of any loss overflow: a power of two, as every scale.
const ENORMOUS: f32 = f32::from_bits(0x7f00_0000);

impl State {
    /// Does what is asked for in the step that begins.
    pub(super) fn suffer(&self, gpu: &Gpu) -> Result<()> {
        if !fault::armed() {
            return Ok(());
        }
        if fault::in_step("device-lost").is_some() {
            gpu.destroy();
        }
        if fault::in_step("out-of-memory").is_some() {
            gpu.provoke_out_of_memory();
        }
        if let Some(name) = fault::in_step("nan") {
            let mut values = self.model.parameters.read(gpu, &self.store)?;
            values.retain(|known, _| known.contains(name) && self.model.parameters.spec(known).kind.is_parameter());
            if let Some((name, mut value)) = values.pop_first() {
                value[0] = f32::NAN;
                self.model.parameters.write(gpu, &self.store, &Values::from([(name, value)]))?;
            }
        }
        if let Some(id) = self.runner.loss_scale() {
            let mut state = self.store.read(gpu, id)?;
            let usual = LossScaling::default();
            if fault::in_step("overflow").is_some() {
                state[0] = ENORMOUS;
            } else if state[0] > usual.largest {
                state[0] = usual.initial;
            }
            self.store.write(gpu, id, &state)?;
        }
        Ok(())
    }
}
