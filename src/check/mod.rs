//! Every kernel this adapter can run against plain loops in f64: what `swav-wgpu check` and `tests/ops` run.
//!
//! An op states a case as data: operands, how a graph is built from them, and a naive forward (`reference`). The derivative is never
//! written twice: central differences of that forward, in f64, are the oracle of the GPU's backward (`gradient`).
//! Each case runs once per kernel variant that the adapter offers, twice in a row to see that the bits repeat, and looks at
//! the padding, which must stay zero.

mod case;
mod cases;
mod cooperative;
mod execute;
mod gradient;
mod loop_cap;
mod random;
mod reference;
mod tolerance;
mod variants;

pub use variants::Force;

use crate::error::Result;
use crate::gpu::Gpu;
use regex::Regex;
use serde::Serialize;

/// One comparison.
#[derive(Clone, Debug, Serialize)]
pub struct CaseResult {
    /// The op and what was compared, for example `conv2d`, `conv2d.grad.weight`, `conv2d.repeat`.
    pub op: String,
    /// Kernel variant and element type.
    pub variant: String,
    /// The shapes, in words.
    pub shape: String,
    /// Largest difference, relative to the largest value of the reference; `f64::MAX` when something is not finite or padding is not zero.
    pub max_error: f64,
    /// What `max_error` may be.
    pub tolerance: f64,
    /// Whether it held.
    pub pass: bool,
}

/// What a whole check found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Name and driver of the adapter.
    pub adapter: String,
    /// Comparisons that held.
    pub passed: usize,
    /// Comparisons that did not.
    pub failed: usize,
    /// All of them, in order.
    pub cases: Vec<CaseResult>,
}

/// Runs the cases whose `op shape type` matches `filter` and calls `on_case` after each comparison.
pub fn run(gpu: &Gpu, filter: Option<&Regex>, on_case: &mut dyn FnMut(&CaseResult)) -> Result<Report> {
    let description = gpu.description();
    let mut report = Report { adapter: format!("{} ({})", description.name, description.driver), passed: 0, failed: 0, cases: Vec::new() };
    let mut take = |result: CaseResult| {
        on_case(&result);
        *(if result.pass { &mut report.passed } else { &mut report.failed }) += 1;
        report.cases.push(result);
    };
    let wanted = |op: &str, shape: &str, dtype: &str| filter.is_none_or(|f| f.is_match(format!("{op} {shape} {dtype}").trim_end()));
    if wanted(cooperative::OP, "", "")
        && let Some(result) = cooperative::run(gpu)
    {
        take(result);
    }
    for entry in cases::all() {
        if wanted(entry.op, &entry.shape, entry.dtype.wgsl()) {
            execute::run(gpu, &entry, &mut take)?;
        }
    }
    if wanted(loop_cap::OP, "", "") {
        take(loop_cap::run(gpu)?);
    }
    Ok(report)
}
