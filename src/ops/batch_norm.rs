//! Batch normalisation with an optional residual sum and ReLU behind it. PyTorch: `torch.nn.functional.batch_norm`, `relu(bn(x) + r)`.
//!
//! y = relu?((x − mean) · invstd · weight + bias (+ residual)), invstd = 1/√(variance + eps).
//! Backward, with g = dy where the ReLU let through: dbias = Σ g, dweight = Σ g·x̂, dresidual = g,
//! dx = weight · invstd · (g − Σg/N − x̂ · Σ(g·x̂)/N) in training; in evaluation mode the two means vanish.
//! In training the running statistics take `momentum` of the batch's mean and unbiased variance.

use super::{element, groups, rows_of};
use crate::gpu::{DeviceKind, KernelSpec, Params, Specialization};
use crate::graph::{Backward, DType, Graph, Lowering, Node, Op, Recomputes, Tensor, TensorId, Window};

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
    /// Running mean, updated in place in training.
    pub running_mean: Tensor,
    /// Running unbiased variance, updated in place in training.
    pub running_var: Tensor,
}

/// Added to variances. PyTorch's default.
const EPS: f32 = 1e-5;

struct Statistics(BatchNormMode);
struct BatchNorm {
    relu: bool,
    training: bool,
}
struct BatchNormBackward {
    relu: bool,
    training: bool,
    residual: bool,
}

impl Tensor {
    /// Batch normalisation of (N, H, W, C) or (N, C) over all but the last dimension, then `+ residual`, then ReLU when asked.
    ///
    /// # Panics
    /// When the shapes do not fit.
    #[must_use]
    #[track_caller]
    pub fn batch_norm(&self, parameters: &BatchNormParameters, mode: BatchNormMode, residual: Option<&Self>, relu: bool) -> Self {
        let shape = self.shape();
        let channels = *shape.last().expect("a tensor with channels");
        assert_eq!(parameters.weight.shape(), [channels], "batch_norm of {self:?} with weight {:?}", parameters.weight);
        if let Some(residual) = residual {
            assert_eq!((residual.shape(), residual.dtype()), (self.shape(), self.dtype()), "batch_norm: {residual:?} added to {self:?}");
        }
        let graph = self.graph();
        let mean = graph.intermediate("mean", &[channels], DType::F32);
        let invstd = graph.intermediate("invstd", &[channels], DType::F32);
        let (running_mean, running_var) = (&parameters.running_mean, &parameters.running_var);
        match mode {
            // The running statistics are written by the node.
            BatchNormMode::Training { .. } => graph.record(Statistics(mode), &[self], &[&mean, &invstd, running_mean, running_var]),
            BatchNormMode::Evaluation => graph.record(Statistics(mode), &[running_mean, running_var], &[&mean, &invstd]),
        }
        let output = graph.intermediate("batch_norm", &shape, self.dtype());
        let op = BatchNorm { relu, training: mode != BatchNormMode::Evaluation };
        let mut inputs = vec![self, &mean, &invstd, &parameters.weight, &parameters.bias];
        inputs.extend(residual);
        graph.record(op, &inputs, &[&output]);
        output
    }
}

impl Op for Statistics {
    fn name(&self) -> &'static str {
        "batch_norm_statistics"
    }

    /// The statistics' own share of the derivative is in [`BatchNormBackward`].
    fn differentiate(&self, cx: &Backward<'_>) -> Vec<Option<Tensor>> {
        vec![None; cx.inputs()]
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let channels = cx.shape(node.outputs[0])[0];
        let quads = channels.div_ceil(4);
        let BatchNormMode::Training { momentum } = self.0 else {
            let params = params(cx, quads, Window::whole(0), 1, 0.0);
            cx.launch(KernelSpec::new("batch_norm", "evaluate"), params, groups(quads), &node.inputs, &node.outputs);
            return;
        };
        let x = node.inputs[0];
        let rows = rows_of(cx, x);
        let (chunk, chunks) = chunks(rows, quads);
        let partials = cx.scratch("batch_norm.partials", &[2 * chunks, channels], DType::F32);
        let statistics = KernelSpec::new("batch_norm", "statistics").with(element(cx.info(x).dtype));
        for part in cx.windows(rows, chunk, &[x]) {
            let launched = groups(quads * part.count.div_ceil(chunk));
            cx.launch(statistics.clone(), params(cx, quads, part, chunk, 0.0), launched, &[part.of(x)], &[partials]);
        }
        let params = params(cx, quads, Window::whole(rows), chunk, momentum);
        cx.launch(finalizer(cx, "finalize"), params, quads, &[partials], &node.outputs);
    }
}

impl Op for BatchNorm {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn differentiate(&self, cx: &Backward<'_>) -> Vec<Option<Tensor>> {
        let (x, y, dy) = (cx.input(0), cx.output(0), cx.grad_output());
        let graph = x.graph();
        let residual = cx.inputs() == 6;
        let channels = cx.input(3).shape();
        let dweight = graph.intermediate("grad_weight", &channels, DType::F32);
        let dbias = graph.intermediate("grad_bias", &channels, DType::F32);
        let dx = graph.intermediate("grad_input", &x.shape(), x.dtype());
        let dresidual = residual.then(|| graph.intermediate("grad_residual", &x.shape(), x.dtype()));
        let mut outputs = vec![&dx, &dweight, &dbias];
        outputs.extend(&dresidual);
        let op = BatchNormBackward { relu: self.relu, training: self.training, residual };
        graph.record(op, &[&x, &cx.input(1), &cx.input(2), &cx.input(3), &y, &dy], &outputs);
        let mut gradients = vec![Some(dx), None, None, Some(dweight), Some(dbias)];
        if residual {
            gradients.push(dresidual);
        }
        gradients
    }

    fn flops(&self, graph: &Graph, node: &Node) -> u64 {
        2 * graph.info(node.outputs[0]).shape.iter().product::<usize>() as u64
    }

    fn recomputes(&self) -> Recomputes {
        Recomputes::Cheaply
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let quads = cx.shape(node.inputs[3])[0].div_ceil(4);
        let [x, mean, invstd, weight, bias] = [0, 1, 2, 3, 4].map(|i| node.inputs[i]);
        let (residual, y) = (node.inputs.get(5), node.outputs[0]);
        let entry = if residual.is_some() { "forward_residual" } else { "forward" };
        let kernel = KernelSpec::new("batch_norm", entry).with(element(cx.info(x).dtype).bool("RELU", self.relu));
        for part in cx.windows(rows_of(cx, x), 1, &[x, y]) {
            let mut reads = vec![part.of(x), mean.into(), invstd.into(), weight.into(), bias.into()];
            reads.extend(residual.map(|r| part.of(*r)));
            cx.launch(kernel.clone(), params(cx, quads, part, 1, 0.0), spans(part.count, quads, cx), &reads, &[part.of(y)]);
        }
    }
}

impl Op for BatchNormBackward {
    fn name(&self) -> &'static str {
        "batch_norm_backward"
    }

    fn differentiate(&self, cx: &Backward<'_>) -> Vec<Option<Tensor>> {
        vec![None; cx.inputs()]
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let [x, mean, invstd, weight, y, dy] = <[TensorId; 6]>::try_from(node.inputs.as_slice()).expect("six inputs");
        let [dx, dweight, dbias] = [node.outputs[0], node.outputs[1], node.outputs[2]];
        let channels = cx.shape(weight)[0];
        let quads = channels.div_ceil(4);
        let rows = rows_of(cx, x);
        let (chunk, chunks) = chunks(rows, quads);
        let partials = cx.scratch("batch_norm.partials", &[2 * chunks, channels], DType::F32);
        let stats = cx.scratch("batch_norm.stats", &[5, channels], DType::F32);
        let knobs = element(cx.info(x).dtype).bool("RELU", self.relu);
        let reduce = KernelSpec::new("batch_norm", "backward_reduce").with(knobs.clone());
        for part in cx.windows(rows, chunk, &[x, y, dy]) {
            let launched = groups(quads * part.count.div_ceil(chunk));
            let reads = [part.of(x), mean.into(), invstd.into(), part.of(y), part.of(dy)];
            cx.launch(reduce.clone(), params(cx, quads, part, chunk, 0.0), launched, &reads, &[partials]);
        }
        let finalize = finalizer(cx, "backward_finalize");
        let whole = params(cx, quads, Window::whole(rows), chunk, 0.0);
        cx.launch(finalize, whole, quads, &[partials, mean, invstd, weight], &[dweight, dbias, stats]);
        let entry = if self.residual { "backward_residual" } else { "backward" };
        let kernel = KernelSpec::new("batch_norm", entry).with(with_training(knobs, self.training));
        for part in cx.windows(rows, 1, &[x, y, dy]) {
            let mut writes = vec![part.of(dx)];
            writes.extend(node.outputs.get(3).map(|t| part.of(*t)));
            let reads = [part.of(x), stats.into(), part.of(y), part.of(dy)];
            cx.launch(kernel.clone(), params(cx, quads, part, 1, 0.0), spans(part.count, quads, cx), &reads, &writes);
        }
    }
}

fn with_training(knobs: Specialization, training: bool) -> Specialization {
    // The shader's default is training.
    if training { knobs } else { knobs.bool("TRAINING", false) }
}

/// Parameters of a launch over `part` of the rows, cut into chunks of `chunk` rows.
fn params(cx: &Lowering<'_>, quads: usize, part: Window, chunk: usize, momentum: f32) -> Params {
    Params::default()
        .u32("rows", part.count)
        .u32("batch_rows", part.of)
        .u32("quads", quads)
        .u32("chunk", chunk)
        .u32("chunks", part.count.div_ceil(chunk))
        .u32("first_chunk", part.first / chunk)
        .u32("span", span(cx))
        .f32("momentum", momentum)
        .f32("eps", EPS)
}

/// A kernel that merges chunks, a workgroup a column quad. Barriers cost software devices more than the sums themselves: there a workgroup
/// is a subgroup.
fn finalizer(cx: &Lowering<'_>, entry: &'static str) -> KernelSpec {
    let kernel = KernelSpec::new("batch_norm", entry);
    if cx.caps().kind == DeviceKind::Cpu { kernel.with(Specialization::default().u32("LANES", 8)) } else { kernel }
}

/// Rows that one invocation of the element-wise kernels visits: many where loads of the column's values cost as much as any,
/// few where invocations must be many to hide latency.
fn span(cx: &Lowering<'_>) -> usize {
    if cx.caps().kind == DeviceKind::Cpu { 16 } else { 4 }
}

/// Workgroups of the element-wise kernels.
fn spans(rows: usize, quads: usize, cx: &Lowering<'_>) -> usize {
    groups(rows.div_ceil(span(cx)) * quads)
}

/// Rows of a chunk and number of chunks: about 16,384 invocations, of 32 to 2,048 rows each.
fn chunks(rows: usize, quads: usize) -> (usize, usize) {
    let chunk = (rows * quads / 16_384).clamp(32, 2_048);
    (chunk, rows.div_ceil(chunk))
}

#[cfg(test)]
mod tests {
    use super::chunks;

    /// No invocation loops over more rows, or more chunks, than drivers that cut loops allow.
    #[test]
    fn chunks_cover_the_rows_in_short_loops() {
        for rows in [1, 31, 32, 33, 210_001, 16_384 * 112 * 112] {
            for quads in [1, 16, 512] {
                let (chunk, chunks) = chunks(rows, quads);
                assert!(chunk * chunks >= rows && chunk * (chunks - 1) < rows);
                assert!(chunk < 65_535 && chunks.div_ceil(64) < 65_535, "{rows}x{quads}: {chunks} chunks of {chunk}");
            }
        }
    }
}
