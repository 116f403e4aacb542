//! Learning-rate schedules, parameter updates, and the scale of the loss in f16 training.

mod loss_scale;
mod optimizer;
pub mod schedule;

pub use loss_scale::{LossScale, LossScaling};
pub use optimizer::{Optimizer, OptimizerKind, Treatment, overflowed};
