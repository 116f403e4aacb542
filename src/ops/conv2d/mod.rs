//! 2-D convolution (cross-correlation) as an implicit matrix product in NHWC. PyTorch: `torch.nn.functional.conv2d`.
//!
//! Forward: y[n,p,q,o] = Σ x[n, p·stride + r − padding, q·stride + s − padding, i] · w[r,s,i,o].
//! Gradient of the input: the same gather with weights whose channels change places, once per class of input pixels modulo the stride, so no multiply is
//! wasted. Gradient of the weight: a sum over output pixels, dealt out to partial sums that are added in order.
//!
//! Fused: normalised inputs are made from what is before the batch norm where they are read; forward notes the statistics of the batch norm behind
//! it; gradients are added to others of the same tensor, and the input's is masked and summed up for the batch norm before it.
//!
//! Variants: `broadcast`, `broadcast32` and, into few channels, `narrow` for software devices with subgroups of 8, `tile`, `tile128`, `tile128x64` and
//! `lean128x64`, which goes first where registers are few, for GPUs, `plain` everywhere; for activations in f16 also `coop`, `coop128x64` and `coop128`, on cooperative matrices. 3x3 windows without stride over f32 also have
//! `winograd-KERNEL`: Winograd's minimal filtering, whose products that kernel computes.

mod gather;
mod kernels;
mod weight;
mod winograd;

pub(super) use self::gather::{Epilogue, Tallied, can_tally};
pub(super) use self::weight::WeightGradient;

use self::gather::{Gather, Input, Weights};
use super::batch_norm::{BatchNorm, finalize_statistics};
use super::{Rewrite, typed, wants};
use crate::gpu::Specialization;
use crate::graph::{Backward, DType, Fused, Fusing, Graph, Lowering, Node, Op, Recomputes, Tensor, TensorId, pad4};
use std::rc::Rc;

/// Window of a convolution.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Window {
    stride: usize,
    padding: usize,
}

/// Reads [x, weight]; where x is to be normalised (and cut off at 0) first, also [moments, gamma, beta]. Writes [y]; with `statistics`, the share of
/// the batch in the running statistics of the batch norm behind, also [moments, running mean, running variance].
#[derive(Clone, Copy)]
pub(super) struct Conv2d {
    window: Window,
    normalizes: bool,
    pub(super) statistics: Option<f32>,
}

/// Reads [dy, weight], and another gradient of x to add where there is a `sum`. Writes [dx].
#[derive(Clone, Copy)]
pub(super) struct InputGradient {
    window: Window,
    pub(super) sum: bool,
}

/// Inputs of the batch norm with a ReLU that writes `x`, where it can be made from them again: [x, moments, gamma, beta].
fn normalized_from(cx: &Fusing<'_>, x: TensorId) -> Option<[TensorId; 4]> {
    let norm = cx.maker::<BatchNorm>(x).filter(|m| m.op.relu)?;
    norm.node.inputs.as_slice().try_into().ok()
}

impl Tensor {
    /// Convolution of `self` (N, H, W, C) with `weight` (R, S, C padded to a multiple of 4, O), the same stride and zero padding on all
    /// sides; a matrix (N, C) counts as N single pixels.
    ///
    /// # Panics
    /// When the shapes do not fit.
    #[must_use]
    #[track_caller]
    pub fn conv2d(&self, weight: &Self, stride: usize, padding: usize) -> Self {
        let (shape, w) = (self.shape(), weight.nhwc());
        let channels = *shape.last().expect("a tensor with channels");
        assert!(stride > 0, "conv2d: {self:?} with {weight:?} at stride 0");
        assert!(pad4(channels) == w[2], "conv2d: input {self:?} has {channels} channels, weight {weight:?} expects {}", w[2]);
        // Where it is known how many rows are no padding, as of a network's weights.
        let inputs = self.graph().inputs_of(weight).unwrap_or(channels);
        assert!(inputs == channels, "conv2d: input {self:?} has {channels} channels, weight {weight:?} is for {inputs}");
        let output_shape = match *shape {
            [n, h, width, _] => {
                assert!(h + 2 * padding >= w[0] && width + 2 * padding >= w[1], "conv2d: {weight:?} is larger than the padded {self:?}");
                vec![n, (h + 2 * padding - w[0]) / stride + 1, (width + 2 * padding - w[1]) / stride + 1, w[3]]
            }
            [n, _] => {
                assert!((w[0], w[1], stride, padding) == (1, 1, 1, 0), "conv2d: {weight:?} for single pixels {self:?}");
                vec![n, w[3]]
            }
            _ => panic!("conv2d: {self:?} is neither an image batch nor a matrix"),
        };
        let output = self.graph().intermediate("conv2d", &output_shape, self.dtype());
        let op = Conv2d { window: Window { stride, padding }, normalizes: false, statistics: None };
        self.graph().record(op, &[self, weight], &[&output]);
        output
    }
}

impl Conv2d {
    /// The same with the statistics of a batch norm behind, which takes `momentum` of the batch.
    pub(super) fn with_statistics(self, momentum: f32) -> Self {
        Self { statistics: Some(momentum), ..self }
    }
}

impl Op for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn differentiate(&self, cx: &Backward<'_>) -> Vec<Option<Tensor>> {
        let (x, w, dy) = (cx.input(0), cx.input(1), cx.grad_output());
        let graph = x.graph();
        let dx = cx.needs(0).then(|| {
            let dx = graph.intermediate("grad_input", &x.shape(), x.dtype());
            graph.record(InputGradient { window: self.window, sum: false }, &[&dy, &w], &[&dx]);
            dx
        });
        let dw = cx.needs(1).then(|| {
            let dw = graph.intermediate("grad_weight", &w.shape(), DType::F32);
            graph.record(WeightGradient { window: self.window, normalizes: false, sum: false }, &[&x, &dy], &[&dw]);
            dw
        });
        vec![dx, dw]
    }

    fn fuse(&self, cx: &Fusing<'_>) -> Option<Fused> {
        let node = cx.node();
        let [x, moments, gamma, beta] = normalized_from(cx, node.inputs[0]).filter(|_| !self.normalizes)?;
        let op = Self { normalizes: true, ..*self };
        let inputs = vec![x, node.inputs[1], moments, gamma, beta];
        wants(cx, Rewrite::ConvolutionInput).then(|| Fused { op: Rc::new(op), inputs, outputs: node.outputs.clone(), replaces: None })
    }

    fn flops(&self, graph: &Graph, node: &Node) -> u64 {
        let output: usize = graph.info(node.outputs[0]).shape.iter().product();
        let w = graph.info(node.inputs[1]).shape.clone();
        let channels = *graph.info(node.inputs[0]).shape.last().unwrap_or(&0);
        (output * w[0] * w[1] * channels) as u64
    }

    fn recomputes(&self) -> Recomputes {
        Recomputes::Dearly
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let Window { stride, padding } = self.window;
        let ([n, h, w, _], [_, p, q, channels], [r, s, _, _]) = (cx.nhwc(node.inputs[0]), cx.nhwc(node.outputs[0]), cx.nhwc(node.inputs[1]));
        let grid = Gather {
            grid: [n, p, q],
            output: [p, q],
            out_step: 1,
            out_origin: [0, 0],
            input: [h, w],
            in_step: stride,
            in_origin: [-signed(padding); 2],
            tap_step: 1,
            taps: [r, s],
            first_tap: [0, 0],
            tap_stride: 1,
        };
        let norm = self.normalizes.then(|| [2, 3, 4].map(|i| node.inputs[i]));
        let input = Input { tensor: node.inputs[0], norm };
        let product = (input, &mut Weights::AsStored(node.inputs[1]), node.outputs[0]);
        let Some(momentum) = self.statistics else {
            grid.lower(cx, "conv2d", product, (&Epilogue::Plain, 0));
            return;
        };
        let chunks = cx.scratch("chunks", &[0, channels], DType::F32);
        let tallied = grid.lower(cx, "conv2d", product, (&Epilogue::Statistics { chunks }, 0));
        cx.reshape_scratch(chunks, &[2 * tallied.chunks, channels]);
        finalize_statistics(cx, momentum, &tallied, chunks, &node.outputs[1..]);
    }
}

impl InputGradient {
    /// The same onto another gradient.
    pub(super) fn with_sum(self) -> Self {
        Self { sum: true, ..self }
    }

    /// Launches the gradient `dx` of the input, with what else becomes of it.
    pub(super) fn lower_with(self, cx: &mut Lowering<'_>, dy: TensorId, weight: TensorId, dx: TensorId, epilogue: &Epilogue) -> Tallied {
        let Window { stride, padding } = self.window;
        let ([n, h, w, channels], [_, p, q, _], [r, s, _, _]) = (cx.nhwc(dx), cx.nhwc(dy), cx.nhwc(weight));
        let mut weights = Weights::Turned { stored: weight, copy: None };
        let mut all = Tallied::default();
        // Input pixels of one class modulo the stride see the same taps, at neighbouring output pixels.
        for a in 0..stride.min(h) {
            for b in 0..stride.min(w) {
                let first_tap = [(a + padding) % stride, (b + padding) % stride];
                let along = |k: usize, first: usize| k.saturating_sub(first).div_ceil(stride);
                // None in one direction are none at all: no kernel looks for weights then.
                let taps = Some([along(r, first_tap[0]), along(s, first_tap[1])]).filter(|taps| !taps.contains(&0)).unwrap_or_default();
                let grid = Gather {
                    grid: [n, (h - a).div_ceil(stride), (w - b).div_ceil(stride)],
                    output: [h, w],
                    out_step: stride,
                    out_origin: [a, b],
                    input: [p, q],
                    in_step: 1,
                    in_origin: [signed((a + padding) / stride), signed((b + padding) / stride)],
                    tap_step: -1,
                    taps,
                    first_tap,
                    tap_stride: stride,
                };
                let input = Input { tensor: dy, norm: None };
                let tallied = grid.lower(cx, "conv2d_input_gradient", (input, &mut weights, dx), (epilogue, all.chunks));
                all = Tallied { rows: all.rows + tallied.rows, chunks: all.chunks + tallied.chunks, ..tallied };
            }
        }
        if let Some(chunks) = epilogue.chunks() {
            // Sums of gradients may be of any pixels; statistics would have to know which.
            assert!(!matches!(epilogue, Epilogue::Statistics { .. }), "statistics of pixels modulo a stride");
            cx.reshape_scratch(chunks, &[2 * all.chunks, channels]);
        }
        all
    }
}

impl Op for InputGradient {
    fn name(&self) -> &'static str {
        "conv2d_input_gradient"
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let epilogue = if self.sum { Epilogue::Sum { addend: node.inputs[2] } } else { Epilogue::Plain };
        self.lower_with(cx, node.inputs[0], node.inputs[1], node.outputs[0], &epilogue);
    }
}

fn signed(v: usize) -> i32 {
    i32::try_from(v).expect("image sizes fit 31 bits")
}

fn weight_knob(dtype: DType) -> Specialization {
    typed("Weight", dtype)
}
