//! `swav-wgpu devices`.

use super::args::Global;
use super::output;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, adapter, adapters, none_found};

pub(super) fn run(global: &Global) -> Result<()> {
    let mut found = match &global.adapter {
        Some(wanted) => vec![adapter(wanted)?],
        None => adapters(),
    };
    // Whether cooperative matrices can be trusted only a run tells.
    for a in found.iter_mut().filter(|a| !a.cooperative_matrix.is_empty()) {
        a.cooperative_matrix_status = match Gpu::open(Some(&a.index.to_string())) {
            Ok(gpu) => gpu.cooperative_matrix_status(),
            Err(e) => Some(format!("not used: {e}")),
        };
    }
    if global.json {
        output::json(&found)?;
    }
    for a in found.iter().filter(|_| !global.json) {
        let yes = |on: bool| if on { "yes" } else { "no" };
        let subgroups = a.subgroup_size.map_or("no".to_owned(), |[low, high]| if low == high { low.to_string() } else { format!("{low}-{high}") });
        output::line(&format!("{}: {} ({}, {:?})", a.index, a.name, a.backend, a.kind))?;
        output::line(&format!("   driver {}", a.driver))?;
        let mut matrices = if a.cooperative_matrix.is_empty() { "no".to_owned() } else { a.cooperative_matrix.join(", ") };
        if let Some(status) = &a.cooperative_matrix_status {
            matrices = format!("{matrices} ({status})");
        }
        output::line(&format!("   f16 {}, subgroups {subgroups}, cooperative matrix {matrices}, timestamps {}", yes(a.f16), yes(a.timestamps)))?;
        output::line(&format!(
            "   binding {}, buffer {}, workgroup {} invocations and {} KiB, {} storage buffers",
            crate::gpu::megabytes(a.max_binding_bytes),
            crate::gpu::megabytes(a.max_buffer_bytes),
            a.max_workgroup_invocations,
            a.max_workgroup_memory_bytes / 1024,
            a.max_storage_buffers
        ))?;
    }
    if found.is_empty() { Err(Error::NoAdapter(none_found())) } else { Ok(()) }
}
