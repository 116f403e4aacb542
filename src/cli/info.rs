//! `swav-wgpu info`: what a configuration needs, computed from its graph, before anything is allocated.

use super::args::{Global, InfoArgs};
use super::report::progress::grouped;
use super::{common, output};
use crate::error::Result;
use crate::gpu::{Gpu, megabytes};
use crate::train::config::PretrainConfig;
use crate::train::plan;
use serde_json::json;

pub(super) fn run(args: &InfoArgs, global: &Global) -> Result<()> {
    let (mut config, warnings) = PretrainConfig::load(&args.config, &args.set)?;
    for warning in warnings {
        common::note(global, &format!("warning: {warning}"));
    }
    if let Some(batch) = args.batch {
        config.train.batch = batch;
    }
    let gpu = Gpu::open(global.adapter.as_deref())?;
    let caps = gpu.caps();
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
    let (memory, largest) = plan::memory(&config, batch, caps, &variants);
    let bindable = memory.largest_tensor <= caps.max_binding_bytes;
    let fits = plan::largest_batch(&config, caps, &variants, u64::MAX);
    if global.json {
        return output::json(&json!({
            "parameters": parameters,
            "parameters_by_part": {"backbone": backbone, "neck": neck, "prototypes": prototypes},
            "flops": flops,
            "image_size": size,
            "batch": batch,
            "memory": {
                "weights": memory.weights, "optimizer": memory.optimizer, "queue": memory.queue,
                "activations": memory.activations, "peak_bytes": memory.peak(),
                "largest_tensor": {"name": largest, "bytes": memory.largest_tensor},
            },
            "fits_adapter_bindings": bindable,
            "largest_batch": fits,
            "adapter": gpu.description().name,
        }));
    }
    output::line(&format!("parameters   {:>15}", grouped(parameters)))?;
    output::line(&format!("  backbone   {:>15}", grouped(backbone)))?;
    output::line(&format!("  neck       {:>15}", grouped(neck)))?;
    output::line(&format!("  prototypes {:>15}", grouped(prototypes)))?;
    output::line(&format!("FLOPs        {:>15}  backbone on one {size}x{size} image (multiply-add 1, as mmengine counts)", grouped(flops)))?;
    output::line(&format!("memory at batch {batch}: {}", megabytes(memory.peak())))?;
    output::line(&format!("  weights {}, optimiser {}, queue {}", megabytes(memory.weights), megabytes(memory.optimizer), megabytes(memory.queue)))?;
    output::line(&format!("  activations {}, largest tensor {largest} {}", megabytes(memory.activations), megabytes(memory.largest_tensor)))?;
    let limit = megabytes(caps.max_binding_bytes);
    output::line(&format!("largest batch whose tensors {} binds ({limit} each): {fits}", gpu.description().name))?;
    if !bindable {
        common::note(global, &format!("warning: batch {batch} does not fit this adapter's binding limit"));
    }
    Ok(())
}
