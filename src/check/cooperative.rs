//! Are the adapter's cooperative matrices used? A device on which they compute wrong is reported, and no failure: nothing then uses them.

use super::CaseResult;
use crate::gpu::{Access, Gpu};

pub(super) const OP: &str = "cooperative_matrix";

/// Nothing where the adapter has none that kernels can use.
pub(super) fn run(gpu: &Gpu) -> Option<CaseResult> {
    let variant = gpu.cooperative_matrix_status()?;
    let matrix = gpu.tested_caps().cooperative_matrix.or(gpu.caps().cooperative_matrix)?;
    let bytes = match matrix.access {
        Access::Octs => 16,
        Access::Quads | Access::Single => 8,
    };
    let shape = format!("{0}x{0}x{0}, subgroups of {1}, {bytes} bytes at a time", matrix.tile, matrix.subgroup);
    Some(CaseResult { op: OP.into(), variant, shape, max_error: 0.0, tolerance: 0.0, pass: true })
}
