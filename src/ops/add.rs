//! Sum of two tensors of one shape: z = x + y, dx = dy = dz. PyTorch: `torch.add`; in place `Tensor.add_`, `Tensor.zero_`.

use super::{elementwise, kernel_for};
use crate::gpu::Params;
use crate::graph::{Backward, Lowering, Node, Op, Recomputes, Tensor};

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

    fn recomputes(&self) -> Recomputes {
        Recomputes::Cheaply
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let kernel = kernel_for(cx, node.outputs[0], "add", "forward");
        elementwise(cx, &kernel, (&node.inputs, &[], &node.outputs), |count| Params::default().u32("count", count));
    }
}

impl Op for AccumulateInto {
    fn name(&self) -> &'static str {
        "accumulate_into"
    }

    fn differentiate(&self, cx: &Backward<'_>) -> Vec<Option<Tensor>> {
        vec![None; cx.inputs()]
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

    fn differentiate(&self, cx: &Backward<'_>) -> Vec<Option<Tensor>> {
        vec![None; cx.inputs()]
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let kernel = kernel_for(cx, node.outputs[0], "add", "clear");
        elementwise(cx, &kernel, (&[], &[], &node.outputs), |count| Params::default().u32("count", count));
    }
}
