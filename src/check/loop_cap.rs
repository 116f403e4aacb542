//! Does the driver cut loops? Some software drivers silently end all loops of an invocation after 65,535 iterations in total.
//! It is reported, and no failure: every kernel here stays below, which the cases with many rows and pixels hold to.

use super::CaseResult;
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Dispatch, Gpu, KernelSpec, Params, Recording, UploadRing};

pub(super) const OP: &str = "loop_cap";

const ASKED: u32 = 200_000;

pub(super) fn run(gpu: &Gpu) -> Result<CaseResult> {
    let counted = Buffer::new(gpu, "loop iterations", 16)?;
    let dispatch = Dispatch {
        kernel: gpu.kernels(&[&KernelSpec::new("loop_cap", "count")])?.remove(0),
        params: Params::default().u32("iterations", ASKED as usize).u32("step", 1),
        bindings: vec![Binding { buffer: counted.clone(), offset: 0, bytes: 16 }],
        grid: [1, 1, 1],
        label: OP.into(),
    };
    Recording::new(gpu, vec![dispatch])?.replay(gpu, &mut UploadRing::new(gpu, 16)?, &[], &[], None)?;
    let got: u32 = bytemuck::pod_read_unaligned(&gpu.read(&counted, 0, 4)?[..4]);
    let missing = 1.0 - f64::from(got) / f64::from(ASKED);
    let variant = if got == ASKED { "not seen".to_owned() } else { format!("loops end after {got} iterations") };
    Ok(CaseResult { op: OP.into(), variant, shape: format!("{ASKED} iterations"), max_error: missing, tolerance: 1.0, pass: true })
}
