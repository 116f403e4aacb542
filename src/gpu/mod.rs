//! The GPU layer: everything that knows wgpu, and nothing that knows a tensor.
//!
//! Promises: every limit is read from the adapter; every error of wgpu becomes a named [`crate::Error`]; pipelines are built once per
//! specialisation; a [`Recording`] is replayed without allocation; the host waits only in [`Readback::wait`] and [`Gpu::read`].
//!
//! Architecture Invariant: no `wgpu` type leaves this module.

mod adapter;
mod buffer;
mod compose;
mod cooperative;
mod device;
mod kernel;
mod passthrough;
mod pipeline_file;
mod recording;
mod self_test;
mod shaders;
mod spirv_repair;
mod staging;
mod unbounded;
mod unroll;
mod watch;

pub use adapter::{AdapterDescription, Caps, DeviceKind, adapter, adapters, none_found};
pub use buffer::Buffer;
pub(crate) use buffer::megabytes;
pub use compose::{ShaderError, Specialization, compose};
pub use cooperative::{Access, CooperativeMatrix, ProductShape};
pub use device::{AllocationReport, Gpu};
pub use kernel::{Kernel, KernelSpec, Params};
pub use passthrough::spirv;
pub use recording::{Binding, Dispatch, Recording};
pub use shaders::{SHADERS, source};
pub use staging::{Readback, UploadRing};

/// Loop iterations that no invocation of a kernel exceeds: some software drivers end all loops of an invocation after 65,535 in total, silently.
pub const MOST_ITERATIONS: usize = 60_000;

/// Workgroup counts that cover `groups` workgroups within the limit of 65,535 a dimension; shaders fold them back with
/// `workgroup_index` of `shaders/lib/index.wgsl` and ignore what lies beyond their own count.
pub fn grid_fold(groups: u64, max_per_dimension: u32) -> [u32; 3] {
    let max = u64::from(max_per_dimension);
    let narrow = |v: u64| u32::try_from(v).expect("a dispatch within the limits of its adapter");
    if groups <= max {
        return [narrow(groups.max(1)), 1, 1];
    }
    let y = groups.div_ceil(max);
    if y <= max {
        return [narrow(groups.div_ceil(y)), narrow(y), 1];
    }
    let z = y.div_ceil(max);
    [max_per_dimension, max_per_dimension, narrow(z)]
}

#[cfg(test)]
mod tests {
    use super::grid_fold;

    #[test]
    fn folds_cover_every_group() {
        for groups in [0, 1, 65_535, 65_536, 1 << 20, 5_000_000_000] {
            let g = grid_fold(groups, 65_535).map(u64::from);
            assert!(g[0] * g[1] * g[2] >= groups && g.iter().all(|&v| (1..=65_535).contains(&v)), "{groups}: {g:?}");
        }
    }
}
