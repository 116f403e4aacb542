//! Batch normalisation. PyTorch: `torch.nn.functional.batch_norm`.
//!
//! y = (x − mean) · invstd · weight + bias, invstd = 1/√(variance + eps).
//! Backward: dbias = Σ dy, dweight = Σ dy·x̂, and dx = weight · invstd · (dy − Σdy/N − x̂ · Σ(dy·x̂)/N) in training; in evaluation mode
//! the two means vanish. In training the running statistics take `momentum` of the batch's mean and unbiased variance.
//!
//! Fused, forward: a residual sum and a ReLU behind it, y = relu(bn(x) + r). Backward: their masks, and the sums, made by the convolution that
//! computes the gradient.

mod backward;
mod sums;

pub(super) use backward::BatchNormBackward;
pub(super) use sums::finalize_statistics;

use self::sums::{own_chunks, params, quads, spans};
use super::conv2d::{Conv2d, can_tally};
use super::{Rewrite, element, groups, rows_of, wants};
use crate::gpu::KernelSpec;
use crate::graph::{Backward, DType, Fused, Fusing, Graph, Lowering, Node, Op, Recomputes, Tensor, TensorId, Window};
use std::rc::Rc;

/// Where mean and variance come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BatchNormMode {
    /// From the batch; the running statistics take this share of it (PyTorch: 0.1).
    Training {
        /// Share of the batch in the running statistics.
        momentum: f32,
    },
    /// From the running statistics.
    Evaluation,
}

/// Parameters and running statistics, (C) each.
#[derive(Clone)]
pub struct BatchNormParameters {
    /// Scale γ.
    pub weight: Tensor,
    /// Shift β.
    pub bias: Tensor,
    /// Running mean, updated in place in training. As PyTorch's it takes what is not finite too,
    /// but not in a graph with f16 activations, where a batch that overflows is skipped and the run
    /// goes on.
    pub running_mean: Tensor,
    /// Running unbiased variance, updated in place in training like the mean.
    pub running_var: Tensor,
}

/// Added to variances. PyTorch's default.
const EPS: f32 = 1e-5;

/// Reads [x] in training, else [running mean, running variance]; writes [moments], in training also the running statistics. Moments (2, C) are
/// the means, then invstd. Their own share of the derivative is in [`BatchNormBackward`].
struct Statistics(BatchNormMode);

/// Reads [x, moments, weight, bias], and a residual to add where there is one.
#[derive(Clone, Copy)]
pub(super) struct BatchNorm {
    pub(super) relu: bool,
    training: bool,
}

impl Tensor {
    /// Batch normalisation of (N, H, W, C) or (N, C) over all but the last dimension.
    ///
    /// # Panics
    /// When the shapes do not fit.
    #[must_use]
    #[track_caller]
    pub fn batch_norm(&self, parameters: &BatchNormParameters, mode: BatchNormMode) -> Self {
        let shape = self.shape();
        let channels = *shape.last().expect("a tensor with channels");
        for t in [&parameters.weight, &parameters.bias, &parameters.running_mean, &parameters.running_var] {
            assert_eq!((t.shape(), t.dtype()), (vec![channels], DType::F32), "batch_norm of {self:?} with {t:?}");
        }
        let graph = self.graph();
        let moments = graph.intermediate("moments", &[2, channels], DType::F32);
        let (running_mean, running_var) = (&parameters.running_mean, &parameters.running_var);
        match mode {
            // The running statistics are written by the node.
            BatchNormMode::Training { .. } => graph.record(Statistics(mode), &[self], &[&moments, running_mean, running_var]),
            BatchNormMode::Evaluation => graph.record(Statistics(mode), &[running_mean, running_var], &[&moments]),
        }
        let output = graph.intermediate("batch_norm", &shape, self.dtype());
        let op = BatchNorm { relu: false, training: mode != BatchNormMode::Evaluation };
        graph.record(op, &[self, &moments, &parameters.weight, &parameters.bias], &[&output]);
        output
    }
}

impl Op for Statistics {
    fn name(&self) -> &'static str {
        "batch_norm_statistics"
    }

    /// The convolution that writes the rows notes their moments.
    fn fuse(&self, cx: &Fusing<'_>) -> Option<Fused> {
        let (BatchNormMode::Training { momentum }, node) = (self.0, cx.node()) else { return None };
        let conv = cx.source::<Conv2d>(node.inputs[0]).filter(|conv| conv.op.statistics.is_none())?;
        let op = conv.op.with_statistics(momentum);
        let outputs = [conv.node.outputs.as_slice(), &node.outputs].concat();
        let fused = Fused { op: Rc::new(op), inputs: conv.node.inputs.clone(), outputs, replaces: Some(conv.at) };
        (can_tally(cx, node.inputs[0]) && wants(cx, Rewrite::Statistics)).then_some(fused)
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let BatchNormMode::Training { momentum } = self.0 else {
            let quads = quads(cx, node.inputs[0]);
            cx.launch(KernelSpec::new("batch_norm", "evaluate"), params(cx, quads, Window::whole(0), 1), groups(quads), &node.inputs, &node.outputs);
            return;
        };
        let x = node.inputs[0];
        let (rows, quads) = (rows_of(cx, x), quads(cx, node.outputs[1]));
        let t = own_chunks(rows, quads);
        let partials = cx.scratch("batch_norm.partials", &[2 * t.chunks, 4 * quads], DType::F32);
        let statistics = KernelSpec::new("batch_norm", "statistics").with(element(cx.info(x).dtype));
        for part in cx.windows(rows, t.chunk, &[x]) {
            let launched = groups(quads * part.count.div_ceil(t.chunk));
            cx.launch(statistics.clone(), params(cx, quads, part, t.chunk), launched, &[part.of(x)], &[partials]);
        }
        finalize_statistics(cx, momentum, &t, partials, &node.outputs);
    }
}

impl BatchNorm {
    /// The same with a ReLU behind.
    pub(super) fn with_relu(self) -> Self {
        Self { relu: true, ..self }
    }

    /// `cx.node()`, behind the batch norm that writes its input `input`, taken over by it: `changed` says how.
    pub(super) fn fuse_behind(cx: &Fusing<'_>, input: usize, changed: impl Fn(Self, &Node) -> Option<(Self, Option<TensorId>)>) -> Option<Fused> {
        let t = cx.node().inputs[input];
        let norm = cx.source::<Self>(t).filter(|_| cx.only_reader(t))?;
        let (op, residual) = changed(*norm.op, norm.node)?;
        let inputs = norm.node.inputs.iter().copied().chain(residual).collect();
        let fused = Fused { op: Rc::new(op), inputs, outputs: cx.node().outputs.clone(), replaces: Some(norm.at) };
        wants(cx, Rewrite::Activation).then_some(fused)
    }
}

impl Op for BatchNorm {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn differentiate(&self, cx: &Backward<'_>) -> Vec<Option<Tensor>> {
        let (x, dy) = (cx.input(0), cx.grad_output());
        let graph = x.graph();
        let channels = cx.input(2).shape();
        let dweight = graph.intermediate("grad_weight", &channels, DType::F32);
        let dbias = graph.intermediate("grad_bias", &channels, DType::F32);
        let dx = graph.intermediate("grad_input", &x.shape(), x.dtype());
        graph.record(BatchNormBackward::new(self.training), &[&x, &cx.input(1), &cx.input(2), &dy], &[&dx, &dweight, &dbias]);
        vec![Some(dx), None, Some(dweight), Some(dbias)]
    }

    fn flops(&self, graph: &Graph, node: &Node) -> u64 {
        2 * graph.info(node.outputs[0]).shape.iter().product::<usize>() as u64
    }

    fn recomputes(&self) -> Recomputes {
        Recomputes::Cheaply
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let [x, moments, weight, bias] = [0, 1, 2, 3].map(|i| node.inputs[i]);
        let (residual, y, quads) = (node.inputs.get(4), node.outputs[0], quads(cx, weight));
        let entry = if residual.is_some() { "forward_residual" } else { "forward" };
        let kernel = KernelSpec::new("batch_norm", entry).with(element(cx.info(x).dtype).bool("RELU", self.relu));
        for part in cx.windows(rows_of(cx, x), 1, &[x, y]) {
            let mut reads = vec![part.of(x), moments.into(), weight.into(), bias.into()];
            reads.extend(residual.map(|r| part.of(*r)));
            cx.launch(kernel.clone(), params(cx, quads, part, 1), spans(cx, part.count, quads), &reads, &[part.of(y)]);
        }
    }
}
