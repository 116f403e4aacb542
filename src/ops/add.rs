//! Sum of two tensors of one shape: z = x + y, dx = dy = dz. PyTorch: `torch.add`; in place `Tensor.add_`, `Tensor.zero_`.

use super::batch_norm::{BatchNorm, BatchNormBackward};
use super::conv2d::{InputGradient, WeightGradient};
use super::{Rewrite, elementwise, kernel_for, wants};
use crate::gpu::Params;
use crate::graph::{Backward, Fused, Fusing, Lowering, Node, Op, Recomputes, Tensor, TensorId};
use std::rc::Rc;

struct Add;
struct AccumulateInto;
struct Clear;

impl Tensor {
    /// Element-wise sum.
    ///
    /// # Panics
    /// When shapes or types differ.
    #[must_use]
    #[track_caller]
    pub fn add(&self, other: &Self) -> Self {
        assert_eq!((self.shape(), self.dtype()), (other.shape(), other.dtype()), "add: {self:?} and {other:?}");
        let output = self.graph().intermediate("add", &self.shape(), self.dtype());
        self.graph().record(Add, &[self, other], &[&output]);
        output
    }

    /// Adds the values to the variable `total`, in place. No gradient.
    ///
    /// # Panics
    /// When shapes or types differ.
    #[track_caller]
    pub fn accumulate_into(&self, total: &Self) {
        assert_eq!((self.shape(), self.dtype()), (total.shape(), total.dtype()), "accumulate_into: {self:?} into {total:?}");
        self.graph().record(AccumulateInto, &[self], &[total]);
    }

    /// Sets a variable to zero, padding too. No gradient.
    pub fn clear(&self) {
        self.graph().record(Clear, &[], &[self]);
    }
}

impl Op for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn differentiate(&self, cx: &Backward<'_>) -> Vec<Option<Tensor>> {
        vec![Some(cx.grad_output()); 2]
    }

    /// Whoever makes one of the terms adds the other: a batch norm its residual, a convolution or a batch norm's reverse pass another gradient of
    /// the same tensor.
    fn fuse(&self, cx: &Fusing<'_>) -> Option<Fused> {
        let (terms, outputs) = (&cx.node().inputs, &cx.node().outputs);
        let residual =
            |i: usize| BatchNorm::fuse_behind(cx, i, |norm, node| (!norm.relu && node.inputs.len() == 4).then_some((norm, Some(terms[1 - i]))));
        let gradient = |i: usize| {
            let other = terms[1 - i];
            let onto = |op: Rc<dyn Op>, at: usize, node: &Node| {
                let inputs = node.inputs.iter().copied().chain([other]).collect();
                Fused { op, inputs, outputs: outputs.clone(), replaces: Some(at) }
            };
            let input = || cx.source::<InputGradient>(terms[i]).filter(|m| !m.op.sum).map(|m| onto(Rc::new(m.op.with_sum()), m.at, m.node));
            let weight = || cx.source::<WeightGradient>(terms[i]).filter(|m| !m.op.sum).map(|m| onto(Rc::new(m.op.with_sum()), m.at, m.node));
            let norm = || BatchNormBackward::with_sum(&cx.source(terms[i])?, [terms[i], other, outputs[0]]);
            let fused = input().or_else(weight).or_else(norm).filter(|_| cx.only_reader(terms[i]))?;
            wants(cx, Rewrite::SumOfGradients).then_some(fused)
        };
        // Of two gradients the later is made first thing before the sum.
        residual(0).or_else(|| residual(1)).or_else(|| gradient(1)).or_else(|| gradient(0))
    }

    fn recomputes(&self) -> Recomputes {
        Recomputes::Cheaply
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        sum(cx, [node.inputs[0], node.inputs[1]], node.outputs[0]);
    }
}

/// Launches the sum of two tensors.
pub(super) fn sum(cx: &mut Lowering<'_>, terms: [TensorId; 2], sum: TensorId) {
    let kernel = kernel_for(cx, sum, "add", "forward");
    elementwise(cx, &kernel, (&terms, &[], &[sum]), |count| Params::default().u32("count", count));
}

impl Op for AccumulateInto {
    fn name(&self) -> &'static str {
        "accumulate_into"
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let kernel = kernel_for(cx, node.outputs[0], "add", "accumulate");
        elementwise(cx, &kernel, (&node.inputs, &[], &node.outputs), |count| Params::default().u32("count", count));
    }
}

impl Op for Clear {
    fn name(&self) -> &'static str {
        "clear"
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let kernel = kernel_for(cx, node.outputs[0], "add", "clear");
        elementwise(cx, &kernel, (&[], &[], &node.outputs), |count| Params::default().u32("count", count));
    }
}
