//! Cross-entropy of logits against class labels or distributions, at a temperature. PyTorch: `torch.nn.functional.cross_entropy(x / T, t)`.
//!
//! loss = scale · Σ_rows (Σ_k t_k · logsumexp(x/T) − Σ_k t_k x_k/T); dx = dloss · scale/T · (softmax(x/T) Σ_k t_k − t).
//! With scale = 1/rows it is PyTorch's mean. Rows with weights w against labels count w-fold; weights 1/n of the n rows that count and 0 of
//! the others are PyTorch's mean with `ignore_index`.

use super::sum::sum_params;
use super::{expect_f32, groups};
use crate::gpu::{DeviceKind, KernelSpec, Params, Specialization};
use crate::graph::{Backward, DType, Lowering, Node, Op, Tensor};

/// What the logits are held against.
#[derive(Clone, Copy, PartialEq)]
enum Targets {
    Labels,
    WeightedLabels,
    Distributions,
}

#[derive(Clone, Copy)]
struct CrossEntropy {
    targets: Targets,
    temperature: f32,
    scale: f32,
}
/// Sums the rows' losses; knows their normalizers too, which the derivative needs.
struct CrossEntropyLoss(CrossEntropy);
struct CrossEntropyBackward(CrossEntropy);

impl Tensor {
    /// Mean cross-entropy of logits (N, K) against `labels` (N) of type u32. Every label must be below K; a larger one
    /// counts as K - 1.
    #[must_use]
    #[track_caller]
    pub fn cross_entropy(&self, labels: &Self) -> Self {
        let [rows, _] = self.rows_columns();
        assert_eq!((labels.shape(), labels.dtype()), (vec![rows], DType::U32), "cross_entropy: labels {labels:?} for {self:?}");
        #[expect(clippy::cast_precision_loss, reason = "a batch size")]
        let scale = 1.0 / rows as f32;
        self.record_cross_entropy(&[labels], CrossEntropy { targets: Targets::Labels, temperature: 1.0, scale })
    }

    /// Sum over rows of `weights` (N) times the cross-entropy of logits / `temperature` (N, K) against `labels` (N) of type u32. Every label
    /// must be below K; what label a row of weight 0 has is all one.
    #[must_use]
    #[track_caller]
    pub fn weighted_cross_entropy(&self, labels: &Self, weights: &Self, temperature: f32) -> Self {
        let [rows, _] = self.rows_columns();
        assert_eq!((labels.shape(), labels.dtype()), (vec![rows], DType::U32), "weighted_cross_entropy: labels {labels:?} for {self:?}");
        assert_eq!((weights.shape(), weights.dtype()), (vec![rows], DType::F32), "weighted_cross_entropy: weights {weights:?} for {self:?}");
        self.record_cross_entropy(&[labels, weights], CrossEntropy { targets: Targets::WeightedLabels, temperature, scale: 1.0 })
    }

    /// `scale` times the sum over rows of the cross-entropy of logits / `temperature` (N, K) against `targets` (N, K), whose rows may have
    /// any sum.
    #[must_use]
    #[track_caller]
    pub fn soft_cross_entropy(&self, targets: &Self, temperature: f32, scale: f32) -> Self {
        expect_f32("soft_cross_entropy", &[targets]);
        assert_eq!(targets.shape(), self.shape(), "soft_cross_entropy: targets {targets:?} for {self:?}");
        self.record_cross_entropy(&[targets], CrossEntropy { targets: Targets::Distributions, temperature, scale })
    }

    fn record_cross_entropy(&self, targets: &[&Self], op: CrossEntropy) -> Self {
        let [rows, _] = self.rows_columns();
        expect_f32("cross_entropy", &[self]);
        let graph = self.graph();
        let losses = graph.intermediate("cross_entropy.rows", &[rows], DType::F32);
        let normalizers = graph.intermediate("cross_entropy.normalizers", &[rows, 4], DType::F32);
        let inputs: Vec<&Self> = std::iter::once(self).chain(targets.iter().copied()).collect();
        graph.record(op, &inputs, &[&losses, &normalizers]);
        let output = graph.intermediate("cross_entropy", &[1], DType::F32);
        graph.record(CrossEntropyLoss(op), &[&losses, self, targets[0], &normalizers], &[&output]);
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

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let [rows, columns] = <[usize; 2]>::try_from(cx.shape(node.inputs[0])).expect("a matrix");
        let entry = match self.targets {
            Targets::Labels => "forward_hard",
            Targets::WeightedLabels => "forward_weighted",
            Targets::Distributions => "forward_soft",
        };
        // A tree of 64 takes software devices twice as long to compile.
        let cpu = cx.caps().kind == DeviceKind::Cpu;
        let knobs = if cpu { Specialization::default().u32("LANES", 8) } else { Specialization::default() };
        cx.launch(KernelSpec::new("cross_entropy", entry).with(knobs), params(*self, rows, columns), rows, &node.inputs, &node.outputs);
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
        let rows = cx.shape(node.inputs[0])[0];
        cx.launch(KernelSpec::new("sum", "all"), sum_params(rows, self.0.scale), 1, &node.inputs[..1], &node.outputs);
    }
}

impl Op for CrossEntropyBackward {
    fn name(&self) -> &'static str {
        "cross_entropy_backward"
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let [rows, columns] = <[usize; 2]>::try_from(cx.shape(node.inputs[0])).expect("a matrix");
        let entry = if self.0.targets == Targets::Distributions { "backward_soft" } else { "backward_hard" };
        let launched = groups(rows * columns.div_ceil(4));
        cx.launch(KernelSpec::new("cross_entropy", entry), params(self.0, rows, columns), launched, &node.inputs, &node.outputs);
    }
}
