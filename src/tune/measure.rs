//! Times the variants of one node.

use crate::error::{Error, Result};
use crate::gpu::{DeviceKind, Gpu};
use crate::graph::{Decision, Graph, Isolated, Program, Variants, key};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Runs of which the fastest counts.
const RUNS: usize = 5;
/// A card is kept busy for about this long before each, because it lowers its clock between launches: what is timed alone may take three times as long.
const WARM_UP: Duration = Duration::from_millis(20);
/// No more runs once they took this long together.
const ENOUGH: Duration = Duration::from_millis(400);

/// Takes `variant` for one choice; others as `rest` does.
struct Forced<'a> {
    key: String,
    variant: &'a str,
    rest: &'a dyn Variants,
}

impl Variants for Forced<'_> {
    fn choose<'v>(&self, op: &str, shape: &str, offered: &[&'v str]) -> &'v str {
        let forced = if key(op, shape) == self.key { offered.iter().copied().find(|v| *v == self.variant) } else { None };
        forced.unwrap_or_else(|| self.rest.choose(op, shape, offered))
    }
}

/// Milliseconds of the node of `decision` under each variant offered; `None` when that was `over` before all had run.
pub(super) fn variants(
    gpu: &Gpu,
    graph: &Graph,
    decision: &Decision,
    rest: &dyn Variants,
    over: &dyn Fn() -> bool,
) -> Result<Option<BTreeMap<String, f64>>> {
    if over() {
        return Ok(None);
    }
    let alone = match Isolated::new(gpu, graph, decision.node) {
        Ok(alone) => alone,
        Err(error) => {
            let ms = unfit(error)?;
            return Ok(Some(decision.offered.iter().map(|variant| (variant.clone(), ms)).collect()));
        }
    };
    let mut times = BTreeMap::new();
    for variant in &decision.offered {
        if over() {
            return Ok(None);
        }
        let forced = Forced { key: decision.key(), variant, rest };
        let best = times.values().copied().fold(f64::MAX, f64::min);
        let ms = match alone.program(gpu, &forced) {
            Ok(mut program) => time(gpu, &mut program, &forced.key, best)?,
            Err(error) => unfit(error)?,
        };
        times.insert(variant.clone(), ms);
    }
    Ok(Some(times))
}

/// What does not fit the device is out of the question there; it is no reason to end a run.
fn unfit(error: Error) -> Result<f64> {
    match error {
        Error::OutOfMemory(_) | Error::Gpu { .. } => {
            tracing::warn!("a kernel is not measured: {error}");
            Ok(f64::MAX)
        }
        other => Err(other),
    }
}

/// The fastest of several runs, on the device's own clock where it has one; `f64::MAX` where that failed in all of them.
fn time(gpu: &Gpu, program: &mut Program, key: &str, best: f64) -> Result<f64> {
    // The first run pays for compilation.
    once(gpu, program, key)?;
    let began = Instant::now();
    once(gpu, program, key)?;
    let busy = if gpu.caps().kind == DeviceKind::Cpu { 0.0 } else { WARM_UP.as_secs_f64() / began.elapsed().as_secs_f64() };
    let (started, mut fastest) = (Instant::now(), f64::MAX);
    for _ in 0..RUNS {
        // At most as many as a queue bears.
        for _ in 0..busy.min(256.0) as usize {
            program.run_only(gpu, &[])?;
        }
        fastest = fastest.min(once(gpu, program, key)?.unwrap_or(f64::MAX));
        // A variant that is far behind needs no better figure.
        let behind = fastest < f64::MAX && fastest > 3.0 * best;
        if started.elapsed() > ENOUGH || behind {
            break;
        }
    }
    Ok(fastest)
}

/// Milliseconds of the launches that follow from the choice `key`; of all, where the device has no clock. `None` where its clock failed for one of them.
fn once(gpu: &Gpu, program: &mut Program, key: &str) -> Result<Option<f64>> {
    if gpu.caps().timestamp_period.is_some() {
        let times = program.profile(gpu)?;
        let launches = program.decisions().iter().filter(|d| d.key() == key).flat_map(|d| d.launches.clone());
        return Ok(launches.map(|at| times[at].1).sum());
    }
    let started = Instant::now();
    program.run_only(gpu, &[])?;
    gpu.wait()?;
    Ok(Some(started.elapsed().as_secs_f64() * 1e3))
}
