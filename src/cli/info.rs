//! `swav-wgpu info`: what a configuration needs, computed from its graph, before anything is allocated; and what it says, resolved.

mod recipe;

use super::args::{Global, InfoArgs};
use super::report::progress::grouped;
use super::{common, output};
use crate::error::Result;
use crate::gpu::{Caps, Gpu, megabytes};
use crate::train::config::{Kind, PretrainConfig, kind_of};
use crate::train::event::Warning;
use crate::train::memory::{Memory, caps, largest_batch, memory, micro_batches_that_fit};
use crate::train::plan;
use serde_json::json;

pub(super) fn run(args: &InfoArgs, global: &Global) -> Result<()> {
    if kind_of(&args.config, &args.set)? == Kind::Linear {
        return recipe::linear(args, global);
    }
    args.said_once()?;
    let (config, warnings) = PretrainConfig::load(&args.config, &args.overrides()).map_err(|e| args.named(e))?;
    let mut recipe = recipe::Recipe::pretrain(&config, args, warnings, global)?;
    let gpu = Gpu::open(global.adapter.as_deref())?;
    let caps = caps(&gpu, &config);
    let model = plan::model(&config, caps.max_binding_bytes);
    let count = |prefix: &[&str]| -> u64 {
        let wanted = |name: &&str| prefix.iter().any(|p| name.starts_with(p));
        let specs = model.parameters.names().filter(wanted).map(|n| model.parameters.spec(n));
        specs.filter(|s| s.kind.is_parameter()).map(|s| s.elements() as u64).sum()
    };
    let (neck, prototypes) = (count(&["projection_head"]), count(&["prototypes"]));
    let parameters = model.parameters.count();
    let backbone = parameters - neck - prototypes;
    let size = config.crops.size[0];
    let flops = plan::backbone_flops(&model, size);
    let batch = config.train.batch;
    let variants = common::variants(global, &gpu);
    let needs = memory(&config, caps, &variants);
    let fits = largest_batch(&config, caps, &variants);
    let parts = if needs.fits(caps) { None } else { micro_batches_that_fit(&config, caps, &variants) };
    if global.json {
        let mut all = json!({
            "parameters": parameters,
            "parameters_by_part": {"backbone": backbone, "neck": neck, "prototypes": prototypes},
            "flops": flops,
            "image_size": size,
            "batch": batch,
            "micro_batches": config.train.accumulate,
            "memory": {
                "weights": needs.weights, "optimizer": needs.optimizer, "queue": needs.queue,
                "activations": needs.activations, "staging": needs.staging, "peak_bytes": needs.peak(),
                "largest_binding": {"name": needs.largest_tensor, "bytes": needs.largest_binding},
                "adapter_bytes": caps.memory_bytes,
            },
            "fits": needs.fits(caps),
            "largest_batch": fits,
            "micro_batches_that_fit": parts,
            "adapter": gpu.description().name,
        });
        tell(&mut recipe, &config, caps, (&needs, parts));
        recipe.add_to(&mut all);
        return output::json(&all);
    }
    output::line(&format!("parameters   {:>15}", grouped(parameters)))?;
    output::line(&format!("  backbone   {:>15}", grouped(backbone)))?;
    output::line(&format!("  neck       {:>15}", grouped(neck)))?;
    output::line(&format!("  prototypes {:>15}", grouped(prototypes)))?;
    output::line(&format!("FLOPs        {:>15}  backbone on one {size}x{size} image (multiply-add 1, as mmengine counts)", grouped(flops)))?;
    let micro = config.train.accumulate;
    let parted = if micro > 1 { format!(" in {micro} micro-batches") } else { String::new() };
    let own = caps.memory_bytes.map_or_else(String::new, |bytes| format!(" of {}", megabytes(bytes)));
    output::line(&format!("memory at batch {batch}{parted}: {}{own}", megabytes(needs.peak())))?;
    output::line(&format!(
        "  weights {}, optimiser {}, queue {}, activations {}, staging {}",
        megabytes(needs.weights),
        megabytes(needs.optimizer),
        megabytes(needs.queue),
        megabytes(needs.activations),
        megabytes(needs.staging)
    ))?;
    let unknown = if caps.memory_bytes.is_none() { ", by its limits alone: how much memory it has is not known" } else { "" };
    output::line(&format!("largest batch that fits {}: {fits}{unknown}", gpu.description().name))?;
    tell(&mut recipe, &config, caps, (&needs, parts));
    recipe.print()
}

/// Warns of what does not fit the adapter, of which `parts` micro-batches would.
fn tell(recipe: &mut recipe::Recipe, config: &PretrainConfig, caps: &Caps, (needs, parts): (&Memory, Option<usize>)) {
    if !needs.bindable(caps) {
        let (largest, limit) = (megabytes(needs.largest_binding), megabytes(caps.max_binding_bytes));
        recipe
            .warn(Warning::new("", format!("{} takes {largest} that a kernel must bind at once; this adapter binds {limit}", needs.largest_tensor)));
    }
    if !needs.fits(caps) {
        let advice = parts.map_or_else(String::new, |k| format!("; it does with train.accumulate = {k}"));
        recipe.warn(Warning::new("", format!("batch {} does not fit this adapter{advice}", config.train.batch)));
    }
}
