//! Fully connected layer: y = x W + b with W stored (in, out). dx = dy Wᵀ, dW = xᵀ dy, db = sum of dy over rows.
//! PyTorch: `torch.nn.functional.linear`, whose weight is (out, in). The products are 1x1 convolutions.

use super::{elementwise, kernel_for};
use crate::gpu::Params;
use crate::graph::{Backward, DType, Lowering, Node, Op, Tensor};

struct AddBias;

impl Tensor {
    /// y = x W (+ bias). `self` (N, in), `weight` (1, 1, in padded to a multiple of 4, out), `bias` (out).
    ///
    /// # Panics
    /// When the shapes do not fit.
    #[must_use]
    #[track_caller]
    pub fn linear(&self, weight: &Self, bias: Option<&Self>) -> Self {
        let product = self.conv2d(weight, 1, 0);
        match bias {
            Some(bias) => product.add_bias(bias),
            None => product,
        }
    }

    /// Adds `bias` (C) to every row of a matrix (N, C).
    ///
    /// # Panics
    /// When the shapes do not fit.
    #[must_use]
    #[track_caller]
    pub fn add_bias(&self, bias: &Self) -> Self {
        let [_, columns] = self.rows_columns();
        assert_eq!((bias.shape(), bias.dtype()), (vec![columns], DType::F32), "add_bias: {bias:?} to {self:?}");
        let output = self.graph().intermediate("add_bias", &self.shape(), self.dtype());
        self.graph().record(AddBias, &[self, bias], &[&output]);
        output
    }
}

impl Op for AddBias {
    fn name(&self) -> &'static str {
        "add_bias"
    }

    fn differentiate(&self, cx: &Backward<'_>) -> Vec<Option<Tensor>> {
        let dy = cx.grad_output();
        let db = cx.needs(1).then(|| dy.cast(crate::graph::DType::F32).sum_columns());
        vec![Some(dy), db]
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let quads = cx.shape(node.inputs[1])[0].div_ceil(4);
        let kernel = kernel_for(cx, node.outputs[0], "linear", "add_bias");
        let params = |count| Params::default().u32("count", count).u32("quads", quads);
        elementwise(cx, &kernel, (&node.inputs[..1], &node.inputs[1..], &node.outputs), params);
    }
}
