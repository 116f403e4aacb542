//! Every op against naive loops in f64 (`swav_wgpu::check`) and against PyTorch's values (`tests/golden/ops`), on a real adapter with
//! runtime checks on in every kernel, none of which may be needed: the kernels of a release have none.

mod add;
mod argmax;
mod batch_norm;
mod block;
mod conv2d;
mod cross_entropy;
mod degenerate;
mod global_avg_pool2d;
mod golden;
mod linear;
mod log_softmax;
mod max_pool2d;
mod normalize;
mod normalize_pixels;
mod overruns;
mod packed;
mod queue;
mod relu;
mod rows;
mod samples;
mod sinkhorn;
mod special;
mod sum;
mod swap_codes;

use regex::Regex;
use std::sync::LazyLock;
use swav_wgpu::gpu::Gpu;

/// One device for all tests; without an adapter they fail, for an untested kernel is not a passing one.
pub static GPU: LazyLock<Gpu> =
    LazyLock::new(|| Gpu::open_checked(None).unwrap_or_else(|e| panic!("these tests need a Vulkan, Metal or DX12 adapter, software will do: {e}")));

/// Runs all cases of `op` and demands that there are some and that all hold.
pub fn check(op: &str) {
    check_on(&GPU, &format!("^{op} "));
}

/// The same for all cases whose op, shape and type match `pattern`.
pub fn check_on(gpu: &Gpu, pattern: &str) {
    let report = swav_wgpu::check::run(gpu, Some(&Regex::new(pattern).unwrap()), &mut |_| {}).unwrap();
    assert!(report.passed + report.failed > 0, "no case of {pattern}");
    let failures: Vec<String> = report
        .cases
        .iter()
        .filter(|c| !c.pass)
        .map(|c| format!("{} [{}] {}: {:.2e} > {:.2e}", c.op, c.variant, c.shape, c.max_error, c.tolerance))
        .collect();
    // Of all tests so far on this device.
    assert_eq!(gpu.overruns().unwrap(), Some(0), "accesses beyond a binding");
    assert!(failures.is_empty(), "{}: {} of {} failed\n{}", report.adapter, report.failed, report.cases.len(), failures.join("\n"));
}
