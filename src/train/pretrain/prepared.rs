//! A run that is ready to start.

use super::state::State;
use crate::data::Dataset;
use crate::train::event::Warning;
use std::sync::Arc;

/// Data and state of a run about to start.
pub struct Prepared {
    pub(super) data: Arc<Dataset>,
    pub(super) state: State,
    pub(super) steps_per_epoch: u64,
    /// The step to end with.
    pub(super) end: u64,
    pub(super) warnings: Vec<Warning>,
    pub(super) said: Vec<Warning>,
    pub(super) total: u64,
}

impl Prepared {
    /// Notes for the logs what the user was told of the configuration already.
    #[must_use]
    pub fn having_said(self, said: Vec<Warning>) -> Self {
        Self { said, ..self }
    }

    /// The first step to run.
    pub fn start_step(&self) -> u64 {
        self.state.step
    }

    /// Steps of the whole run, whatever `max_steps` says.
    pub fn total_steps(&self) -> u64 {
        self.total
    }

    /// Whether there is any step left to run.
    pub fn is_complete(&self) -> bool {
        self.state.step >= self.end
    }
}
