//! The operations: one file each, with formula, derivative, PyTorch's name, and the kernels it launches.
//!
//! | op | shader | gradients |
//! | --- | --- | --- |
//! | [`conv2d`](Tensor::conv2d) | `conv2d_*` | input, weight |
//! | [`linear`](Tensor::linear) | `conv2d_*`, `linear` | input, weight, bias |
//! | [`batch_norm`](Tensor::batch_norm) | `batch_norm` | input, weight, bias, residual |
//! | [`accumulate_into`](Tensor::accumulate_into), [`clear`](Tensor::clear) | `add` | none |
//! | [`relu`](Tensor::relu), [`add`](Tensor::add), [`cast`](Tensor::cast) | `relu`, `add`, `cast` | all |
//! | [`max_pool2d`](Tensor::max_pool2d), [`global_avg_pool2d`](Tensor::global_avg_pool2d) | same | input |
//! | [`normalize`](Tensor::normalize), [`log_softmax`](Tensor::log_softmax) | same | input |
//! | [`cross_entropy`](Tensor::cross_entropy), [`soft_cross_entropy`](Tensor::soft_cross_entropy), [`weighted_cross_entropy`](Tensor::weighted_cross_entropy) | `cross_entropy`, `sum` | logits |
//! | [`concat_rows`] , [`slice_rows`](Tensor::slice_rows) | `cast` | all |
//! | [`sinkhorn`](Tensor::sinkhorn), [`swap_codes`](Tensor::swap_codes), [`queue_push`](Tensor::queue_push), [`rows_at`](Tensor::rows_at), [`normalize_columns`](Tensor::normalize_columns) | `sinkhorn`, `swap_codes`, `queue`, `normalize` | none |
//! | [`normalize_pixels`](Tensor::normalize_pixels), [`argmax_rows`](Tensor::argmax_rows), [`nonfinite`](Tensor::nonfinite) | `normalize_pixels`, `argmax`, `nonfinite` | none |
//!
//! A wrong shape is a bug in the caller and panics with both shapes. What is not a number stays so:
//! all ops hand NaN on as PyTorch's do (`shaders/lib/nan.wgsl`).

mod add;
mod argmax;
mod batch_norm;
mod conv2d;
mod cross_entropy;
mod global_avg_pool2d;
mod linear;
mod log_softmax;
mod max_pool2d;
mod nonfinite;
mod normalize;
mod normalize_pixels;
mod queue;
mod relu;
mod rewrites;
mod rows;
mod sinkhorn;
mod sum;
mod swap_codes;

pub use batch_norm::{BatchNormMode, BatchNormParameters};
pub use nonfinite::{Watched, watch};
pub use normalize_pixels::PixelStatistics;
pub use rewrites::Rewrite;
pub use rows::concat_rows;

use crate::gpu::{KernelSpec, Params, Specialization};
use crate::graph::{DType, Fusing, Graph, Lowering, Tensor, TensorId, View, differentiate};

/// Whether `rewrite` is wanted.
fn wants(cx: &Fusing<'_>, rewrite: Rewrite) -> bool {
    cx.wants(rewrite.name(), rewrite.usual())
}

/// Invocations of a workgroup in every element-wise kernel.
const WORKGROUP: usize = 64;

/// Knob `Element` of a kernel over activations of this type.
fn element(dtype: DType) -> Specialization {
    typed("Element", dtype)
}

/// The knob `alias` of a kernel over such numbers.
fn typed(alias: &'static str, dtype: DType) -> Specialization {
    match dtype {
        // The shader's default.
        DType::F32 => Specialization::default(),
        other => Specialization::default().alias(alias, other.wgsl()),
    }
}

/// A kernel whose knob `Element` follows the type of `tensor`.
fn kernel_for(cx: &Lowering<'_>, tensor: TensorId, shader: &'static str, entry: &'static str) -> KernelSpec {
    KernelSpec::new(shader, entry).with(element(cx.info(tensor).dtype))
}

/// Rows of a tensor as stored: runs of its last dimension.
fn rows_of(cx: &Lowering<'_>, tensor: TensorId) -> usize {
    cx.vec4s(tensor) / quads_of(cx, tensor)
}

/// `vec4`s of a stored row.
fn quads_of(cx: &Lowering<'_>, tensor: TensorId) -> usize {
    cx.shape(tensor).last().map_or(1, |last| last.div_ceil(4))
}

/// Launches a kernel with one invocation per `vec4` over tensors of one shape, window by window. `params` makes its parameters from the
/// number of `vec4`s; `shared` are read whole, after `reads`.
fn elementwise(
    cx: &mut Lowering<'_>,
    kernel: &KernelSpec,
    (reads, shared, writes): (&[TensorId], &[TensorId], &[TensorId]),
    params: impl Fn(usize) -> Params,
) {
    let (rows, quads) = (rows_of(cx, writes[0]), quads_of(cx, writes[0]));
    for window in cx.windows(rows, 1, &[reads, writes].concat()) {
        let count = window.count * quads;
        let mut inputs: Vec<View> = reads.iter().map(|t| window.of(*t)).collect();
        inputs.extend(shared.iter().map(View::from));
        let outputs: Vec<View> = writes.iter().map(|t| window.of(*t)).collect();
        cx.launch(kernel.clone(), params(count), groups(count), &inputs, &outputs);
    }
}

/// Refuses tensors of another type, for kernels that read f32 whatever they are bound with.
#[track_caller]
fn expect_f32(op: &str, tensors: &[&Tensor]) {
    for tensor in tensors {
        assert_eq!(tensor.dtype(), DType::F32, "{op}: {tensor:?}");
    }
}

/// Workgroups for one invocation per item.
fn groups(items: usize) -> usize {
    items.div_ceil(WORKGROUP)
}

/// The scalar 1, as the gradient of a loss.
fn one(graph: &Graph) -> Tensor {
    graph.constant("one", &[1], DType::F32, bytemuck::cast_slice(&[1.0_f32, 0.0, 0.0, 0.0]))
}

/// Gradients of the scalar `loss` with respect to `wrt`. PyTorch: `torch.autograd.grad`.
pub fn gradients(loss: &Tensor, wrt: &[Tensor]) -> Vec<Option<Tensor>> {
    gradients_from(loss, one(loss.graph()), wrt)
}

/// The same, times the first element of `seed`. PyTorch: `grad_outputs`.
pub fn gradients_from(loss: &Tensor, seed: Tensor, wrt: &[Tensor]) -> Vec<Option<Tensor>> {
    differentiate(loss, seed, wrt, Tensor::add)
}
