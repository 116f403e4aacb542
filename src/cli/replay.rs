//! `swav-wgpu replay`.

use super::args::{Global, ReplayArgs};
use super::{common, output};
use crate::error::{Error, Result};
use crate::train::replay::{Judge, replay};

pub(super) fn run(args: &ReplayArgs, global: &Global) -> Result<()> {
    let gpu = common::gpu(global)?;
    let judge = Judge { precision: args.precision, tolerance: args.tolerance, steps: args.steps };
    let result = replay(&gpu, &common::variants(global, &gpu), &args.file, &judge)?;
    if global.json {
        output::json(&result)?;
    } else {
        for (step, (loss, error)) in result.loss.iter().zip(&result.loss_error).enumerate() {
            output::line(&format!("step {step}: loss {loss:.6}, off by {error:.1e}"))?;
        }
        output::line(&format!("gradients of step 0 off by {:.1e} of their norm", result.grad0_error_all))?;
        let (steps, update, running) = (result.steps, result.final_update_error_all, result.running_error_all);
        output::line(&format!("update after {steps} steps off by {update:.1e} of its norm, running statistics by {running:.1e}"))?;
        if result.pass {
            let judged = args.steps.map_or("all".to_owned(), |n| n.to_string());
            output::line(&format!("reproduced: {judged} of {steps} steps judged, all within their tolerances"))?;
        }
    }
    if result.pass { Ok(()) } else { Err(Error::Failed(format!("{} was not reproduced within its tolerances", args.file.display()))) }
}
