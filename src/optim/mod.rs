//! Learning-rate schedules and parameter updates.

mod optimizer;
pub mod schedule;

pub use optimizer::{Optimizer, OptimizerKind, Treatment};
