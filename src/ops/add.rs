//! Sum of two tensors of one shape: z = x + y, dx = dy = dz. PyTorch: `torch.add`.

use super::{elementwise, kernel_for};
use crate::gpu::Params;
use crate::graph::{Backward, Lowering, Node, Op, Tensor};

struct Add;

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
}

impl Op for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn differentiate(&self, cx: &Backward<'_>) -> Vec<Option<Tensor>> {
        vec![Some(cx.grad_output()); 2]
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let kernel = kernel_for(cx, node.outputs[0], "add", "forward");
        elementwise(cx, &kernel, (&node.inputs, &[], &node.outputs), |count| Params::default().u32("count", count));
    }
}
