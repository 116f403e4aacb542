//! What spoilt a step: its forward pass is run once more with every layer looked at.
//!
//! It needs the weights as they were. An update leaves a tensor alone whose gradient is not finite,
//! so they are, but for plain momentum in f32, whose update looks at no gradient.

use super::Training;
use crate::data::{Dataset, Loader};
use crate::error::{Error, Result};
use crate::swav::{crops_name, forward_pass};
use crate::train::diagnosis::first_nonfinite;
use crate::train::plan;
use crate::tune::{BestGuess, Repeat};
use std::sync::Arc;

impl Training<'_> {
    /// What is not finite in a step is the loss or a gradient, which names no cause: the first
    /// layer that spoilt it does.
    pub(super) fn explained(&mut self, error: Error, data: &Arc<Dataset>) -> Error {
        match error {
            Error::NonFinite { what, step } => {
                let layer = self.spoilt_layer(data, step);
                Error::NonFinite { what: layer.map_or(what.clone(), |layer| format!("the output of {layer}, and so {what},")), step }
            }
            other => other,
        }
    }

    /// The first layer whose output is not finite in `step`, which was the last to be read. `None`
    /// where there is none, or no telling.
    fn spoilt_layer(&mut self, data: &Arc<Dataset>, step: u64) -> Option<String> {
        // The next step's results are of no use, and its memory is needed.
        self.running = None;
        let found = self.look(data, step);
        found.inspect_err(|e| tracing::debug!("looking for what spoilt step {step}: {e}")).ok().flatten()
    }

    fn look(&self, data: &Arc<Dataset>, step: u64) -> Result<Option<String>> {
        let (gpu, state) = (self.run.gpu, &self.state);
        if let Some(name) = state.spoilt_weight(gpu)? {
            // They were finite before the step, so what is seen now is no cause.
            tracing::debug!("{name} is spoilt already");
            return Ok(None);
        }
        let settings = state.runner.settings();
        // Crops are a function of the step.
        let mut loader = Loader::multi_crop(Arc::clone(data), plan::multi_crop(self.config), self.config.train.batch, 1, step, step + 1)?;
        let Some(crops) = loader.next().transpose()? else { return Ok(None) };
        let groups: Vec<&[u8]> = crops.groups.iter().map(Vec::as_slice).collect();
        let graph = forward_pass(&state.model, settings);
        let variants = Repeat { choices: &state.choices, otherwise: &BestGuess };
        for micro in 0..settings.micro_batches {
            let parts = settings.part_of(&groups, micro);
            let named: Vec<(String, &[u8])> = parts.iter().enumerate().map(|(i, part)| (crops_name(i), part.as_slice())).collect();
            let inputs: Vec<(&str, &[u8])> = named.iter().map(|(name, part)| (name.as_str(), *part)).collect();
            if let Some(layer) = first_nonfinite(gpu, &state.store, &graph, &variants, &inputs)? {
                return Ok(Some(layer));
            }
        }
        Ok(None)
    }
}
