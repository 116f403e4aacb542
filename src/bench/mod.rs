//! Timed cases: kernels and whole training steps, under the names that the programs measuring burn and PyTorch use where the case is theirs.
//!
//! A case first runs once (`first_ms`: pipelines are built there), once more to settle, then in samples until its time is spent. Wall
//! times are medians; `cpu_ms` is processor time of the process, all threads, which hardly moves when the machine is shared.

mod case;
mod cases;
mod images;
mod kernels;
mod steps;

pub use case::{Case, Ready};
pub use cases::cases;

use crate::error::Result;
use crate::gpu::Gpu;
use crate::graph::Variants;
use cpu_time::ProcessTime;
use serde::Serialize;
use std::time::{Duration, Instant};

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// The case.
    pub name: String,
    /// Median wall time of a run.
    pub median_ms: f64,
    /// Median processor time of a run, all threads.
    pub cpu_ms: f64,
    /// The first run, with building the program and its pipelines.
    pub first_ms: f64,
    /// Its processor time.
    pub first_cpu_ms: f64,
    /// Of the median wall time; `None` where operations are not the point.
    pub gflops: Option<f64>,
    /// 10⁹ bytes a second of the median wall time, of what the dispatches bind; `None` for work of the processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gigabytes_per_second: Option<f64>,
    /// Images a second, for training steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images_per_second: Option<f64>,
    /// Dispatches of a run.
    pub dispatches: usize,
    /// Time of the host to encode and submit a run, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_ms: Option<f64>,
}

/// Time usually spent on a case after its first run.
pub const BUDGET: Duration = Duration::from_secs(3);

/// Measures one case for about `budget`.
pub fn measure(gpu: &Gpu, variants: &dyn Variants, case: &Case, budget: Duration) -> Result<Measured> {
    let (started, processor) = (Instant::now(), ProcessTime::now());
    let mut ready = case.prepare(gpu, variants)?;
    ready.run(gpu)?;
    let [first_ms, first_cpu_ms] = [started.elapsed(), processor.elapsed()].map(|t| t.as_secs_f64() * 1e3);
    ready.run(gpu)?;
    let mut once = |n: u32| -> Result<(f64, f64)> {
        let (wall, cpu) = (Instant::now(), ProcessTime::now());
        for _ in 0..n {
            ready.run(gpu)?;
        }
        let n = f64::from(n);
        Ok((wall.elapsed().as_secs_f64() * 1e3 / n, cpu.elapsed().as_secs_f64() * 1e3 / n))
    };
    let (single, _) = once(1)?;
    // Nine samples of several runs each where runs are short, at least three of one run.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    let repeats = (budget.as_secs_f64() * 1e3 / 9.0 / single).clamp(1.0, 1000.0) as u32;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    let samples = (budget.as_secs_f64() * 1e3 / (single * f64::from(repeats))).clamp(3.0, 9.0) as usize;
    let mut taken = (0..samples).map(|_| once(repeats)).collect::<Result<Vec<_>>>()?;
    let mut median = |part: fn(&(f64, f64)) -> f64| {
        taken.sort_by(|a, b| part(a).total_cmp(&part(b)));
        part(&taken[samples / 2])
    };
    let (median_ms, cpu_ms) = (median(|t| t.0), median(|t| t.1));
    #[expect(clippy::cast_precision_loss, reason = "a count of bytes")]
    let gigabytes_per_second = ready.traffic().map(|bytes| bytes as f64 / median_ms / 1e6);
    Ok(Measured {
        name: case.name.clone(),
        median_ms,
        cpu_ms,
        first_ms,
        first_cpu_ms,
        gflops: case.flops.map(|f| f / median_ms / 1e6),
        gigabytes_per_second,
        images_per_second: case.images.map(|n| n / median_ms * 1e3),
        dispatches: ready.dispatches(),
        host_ms: if case.host { Some(ready.host_ms(gpu)?) } else { None },
    })
}

/// Device time of each kernel of one run, milliseconds, most first, summed over launches of the same label; launches that the device's clock failed
/// to time are left out.
pub fn profile(gpu: &Gpu, variants: &dyn Variants, case: &Case) -> Result<Vec<(String, f64, usize)>> {
    let mut ready = case.prepare(gpu, variants)?;
    ready.run(gpu)?;
    let mut sums: std::collections::BTreeMap<String, (f64, usize)> = std::collections::BTreeMap::new();
    for (label, ms) in ready.profile(gpu)?.into_iter().filter_map(|(label, ms)| Some((label, ms?))) {
        // The kernel alone, without the scope before it.
        let kernel = label.rsplit(' ').next().unwrap_or(&label).to_owned();
        let sum = sums.entry(kernel).or_default();
        sum.0 += ms;
        sum.1 += 1;
    }
    let mut all: Vec<_> = sums.into_iter().map(|(label, (ms, n))| (label, ms, n)).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    Ok(all)
}
