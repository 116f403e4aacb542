//! `swav-wgpu bench`.

use super::args::{BenchArgs, Global};
use super::{common, output};
use crate::bench::{cases, measure, profile};
use crate::error::{Error, Result};
use serde_json::json;
use std::time::Duration;

pub(super) fn run(args: &BenchArgs, global: &Global) -> Result<()> {
    let filter = pattern(args.filter.as_deref())?;
    let chosen: Vec<_> = cases(args.batch, args.recompute).into_iter().filter(|c| filter.as_ref().is_none_or(|f| f.is_match(&c.name))).collect();
    if chosen.is_empty() {
        return Err(Error::Usage(format!("no case matches {:?}; --list shows them", args.filter.as_deref().unwrap_or(""))));
    }
    if args.list && global.json {
        return output::json(&chosen.iter().map(|c| &c.name).collect::<Vec<_>>());
    }
    if args.list {
        return chosen.iter().try_for_each(|c| output::line(&c.name));
    }
    let gpu = common::open(global)?;
    let (variants, budget) = (common::variants(global, &gpu), Duration::from_secs_f64(args.seconds));
    for case in &chosen {
        if args.profile {
            let kernels = profile(&gpu, &variants, case)?;
            if global.json {
                let object = |(kernel, ms, launches): &(String, f64, usize)| json!({"kernel": kernel, "ms": ms, "launches": launches});
                output::json(&json!({"name": case.name, "kernels": kernels.iter().map(object).collect::<Vec<_>>()}))?;
                continue;
            }
            output::line(&case.name)?;
            for (kernel, ms, launches) in kernels {
                output::line(&format!("  {ms:>9.3} ms  {launches:>4} x  {kernel}"))?;
            }
            continue;
        }
        let m = measure(&gpu, &variants, case, budget)?;
        if global.json {
            output::json(&m)?;
        } else {
            let rate = m.gflops.map_or(String::new(), |g| format!("  {g:8.2} GFLOP/s"));
            let bytes = m.gigabytes_per_second.map_or(String::new(), |g| format!("  {g:7.2} GB/s"));
            let images = m.images_per_second.map_or(String::new(), |i| format!("  {i:8.2} img/s"));
            let host = m.host_ms.map_or(String::new(), |ms| format!("  host {ms:.2} ms for {} dispatches", m.dispatches));
            let times = format!("{:>10.3} ms  cpu {:>10.3} ms  first {:>8.0} ms", m.median_ms, m.cpu_ms, m.first_ms);
            output::line(&format!("{:<36}{times}{rate}{bytes}{images}{host}", m.name))?;
        }
    }
    Ok(())
}

/// A regular expression of `--filter`.
pub(super) fn pattern(text: Option<&str>) -> Result<Option<regex::Regex>> {
    let wrong = |t: &str, e: regex::Error| {
        // The lines before the last show the pattern and mark a place in it.
        let what = e.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Error::Usage(format!("--filter {t:?} is no regular expression: {what}"))
    };
    text.map(|t| regex::Regex::new(t).map_err(|e| wrong(t, e))).transpose()
}
