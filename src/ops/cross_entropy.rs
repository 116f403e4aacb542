//! Cross-entropy of logits against class labels or distributions, at a temperature. PyTorch: `torch.nn.functional.cross_entropy(x / T, t)`.
//!
//! loss = scale · Σ_rows (Σ_k t_k · logsumexp(x/T) − Σ_k t_k x_k/T); dx = dloss · scale/T · (softmax(x/T) Σ_k t_k − t).
//! With scale = 1/rows it is PyTorch's mean.

use super::groups;
use crate::gpu::{KernelSpec, Params};
use crate::graph::{Backward, DType, Lowering, Node, Op, Tensor};

#[derive(Clone, Copy)]
struct CrossEntropy {
    hard: bool,
    temperature: f32,
    scale: f32,
}
/// Connects the rows' sum to the rows' normalizers, which the derivative needs.
struct CrossEntropyLoss(CrossEntropy);
struct CrossEntropyBackward(CrossEntropy);

impl Tensor {
    /// Mean cross-entropy of logits (N, K) against `labels` (N) of type u32. Every label must be below K.
    #[must_use]
    #[track_caller]
    pub fn cross_entropy(&self, labels: &Self) -> Self {
        let [rows, _] = self.rows_columns();
        assert_eq!((labels.shape(), labels.dtype()), (vec![rows], DType::U32), "cross_entropy: labels {labels:?} for {self:?}");
        #[expect(clippy::cast_precision_loss, reason = "a batch size")]
        let scale = 1.0 / rows as f32;
        self.record_cross_entropy(labels, CrossEntropy { hard: true, temperature: 1.0, scale })
    }

    /// `scale` times the sum over rows of the cross-entropy of logits / `temperature` (N, K) against `targets` (N, K), whose rows may have
    /// any sum.
    #[must_use]
    #[track_caller]
    pub fn soft_cross_entropy(&self, targets: &Self, temperature: f32, scale: f32) -> Self {
        assert_eq!(targets.shape(), self.shape(), "soft_cross_entropy: targets {targets:?} for {self:?}");
        self.record_cross_entropy(targets, CrossEntropy { hard: false, temperature, scale })
    }

    fn record_cross_entropy(&self, targets: &Self, op: CrossEntropy) -> Self {
        let [rows, _] = self.rows_columns();
        let graph = self.graph();
        let losses = graph.intermediate("cross_entropy.rows", &[rows], DType::F32);
        let normalizers = graph.intermediate("cross_entropy.normalizers", &[rows.div_ceil(2), 4], DType::F32);
        graph.record(op, &[self, targets], &[&losses, &normalizers]);
        let total = losses.scaled_sum(op.scale);
        let output = graph.intermediate("cross_entropy", &[1], DType::F32);
        graph.record(CrossEntropyLoss(op), &[&total, self, targets, &normalizers], &[&output]);
        output
    }
}

fn params(op: CrossEntropy, rows: usize, columns: usize) -> Params {
    Params::default()
        .u32("rows", rows)
        .u32("quads", columns.div_ceil(4))
        .u32("columns", columns)
        .f32("temperature", op.temperature)
        .f32("scale", op.scale)
}

impl Op for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn differentiate(&self, cx: &Backward<'_>) -> Vec<Option<Tensor>> {
        vec![None; cx.inputs()]
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let [rows, columns] = <[usize; 2]>::try_from(cx.shape(node.inputs[0])).expect("a matrix");
        let entry = if self.hard { "forward_hard" } else { "forward_soft" };
        cx.launch(KernelSpec::new("cross_entropy", entry), params(*self, rows, columns), rows, &node.inputs, &node.outputs);
    }
}

impl Op for CrossEntropyLoss {
    fn name(&self) -> &'static str {
        "cross_entropy_loss"
    }

    fn differentiate(&self, cx: &Backward<'_>) -> Vec<Option<Tensor>> {
        let (logits, targets, normalizers) = (cx.input(1), cx.input(2), cx.input(3));
        let dx = logits.graph().intermediate("cross_entropy", &logits.shape(), DType::F32);
        logits.graph().record(CrossEntropyBackward(self.0), &[&logits, &targets, &normalizers, &cx.grad_output()], &[&dx]);
        vec![None, Some(dx), None, None]
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let params = Params::default().u32("count", 1).f32("factor", 1.0);
        cx.launch(KernelSpec::new("scale", "forward"), params, 1, &node.inputs[..1], &node.outputs);
    }
}

impl Op for CrossEntropyBackward {
    fn name(&self) -> &'static str {
        "cross_entropy_backward"
    }

    fn differentiate(&self, cx: &Backward<'_>) -> Vec<Option<Tensor>> {
        vec![None; cx.inputs()]
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let [rows, columns] = <[usize; 2]>::try_from(cx.shape(node.inputs[0])).expect("a matrix");
        let entry = if self.0.hard { "backward_hard" } else { "backward_soft" };
        let launched = groups(rows * columns.div_ceil(4));
        cx.launch(KernelSpec::new("cross_entropy", entry), params(self.0, rows, columns), launched, &node.inputs, &node.outputs);
    }
}
