//! `swav-wgpu check`: every kernel variant of this adapter against the CPU.

use super::args::{CheckArgs, Global};
use super::{common, output};
use crate::check::{CaseResult, run as check};
use crate::error::{Error, Result};

pub(super) fn run(args: &CheckArgs, global: &Global) -> Result<()> {
    let filter = super::bench::pattern(args.filter.as_deref())?;
    let gpu = common::open(global)?;
    let mut failed: Option<String> = None;
    let mut told = Ok(());
    let report = check(&gpu, filter.as_ref(), &mut |case: &CaseResult| {
        if !case.pass {
            failed.get_or_insert_with(|| format!("{} ({}) at {}", case.op, case.variant, case.shape));
        }
        if told.is_ok() && !global.json && (!case.pass || global.verbose > 0) {
            let mark = if case.pass { "ok  " } else { "FAIL" };
            let text = format!("{mark} {} {} {}: error {:.1e}, tolerance {:.1e}", case.op, case.variant, case.shape, case.max_error, case.tolerance);
            told = output::line(&text);
        }
    })?;
    told?;
    if global.json {
        output::json(&report)?;
    } else {
        worst(&report.cases).iter().try_for_each(|line| output::line(line))?;
        output::line(&format!("{}: {} passed, {} failed", report.adapter, report.passed, report.failed))?;
    }
    match failed {
        Some(first) => Err(Error::Failed(format!("{} of {} cases failed, first {first}", report.failed, report.cases.len()))),
        None if report.cases.is_empty() => Err(Error::Usage(format!("no case matches --filter {:?}", args.filter.as_deref().unwrap_or("")))),
        None => Ok(()),
    }
}

/// The worst error of each op and variant, as a share of its tolerance.
fn worst(cases: &[CaseResult]) -> Vec<String> {
    let mut rows: Vec<(String, &CaseResult, usize)> = Vec::new();
    // What failed is worse than what did not, whatever its error is.
    let worse = |a: &CaseResult, b: &CaseResult| match (a.pass, b.pass) {
        (false, true) => true,
        (true, false) => false,
        _ => (a.max_error / a.tolerance).total_cmp(&(b.max_error / b.tolerance)).is_gt(),
    };
    for case in cases {
        let name = format!("{} {}", case.op, case.variant);
        match rows.iter_mut().find(|(known, ..)| *known == name) {
            Some((_, worst, count)) => {
                *count += 1;
                if worse(case, worst) {
                    *worst = case;
                }
            }
            None => rows.push((name, case, 1)),
        }
    }
    let line = |(name, worst, count): &(String, &CaseResult, usize)| {
        format!("{name:<44} {count:>3} cases  worst error {:.1e} of {:.1e}", worst.max_error, worst.tolerance)
    };
    rows.iter().map(line).collect()
}
