//! Rectified linear unit: y = max(x, 0), dx = dy where y > 0. PyTorch: `torch.nn.functional.relu`.

use super::batch_norm::BatchNorm;
use super::{elementwise, kernel_for};
use crate::gpu::Params;
use crate::graph::{Backward, Fused, Fusing, Lowering, Node, Op, Recomputes, Tensor};

struct Relu;

/// Reads [y, dy].
pub(super) struct ReluBackward;

impl Tensor {
    /// max(x, 0), element by element.
    #[must_use]
    pub fn relu(&self) -> Self {
        let output = self.graph().intermediate("relu", &self.shape(), self.dtype());
        self.graph().record(Relu, &[self], &[&output]);
        output
    }
}

impl Op for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn differentiate(&self, cx: &Backward<'_>) -> Vec<Option<Tensor>> {
        let (y, dy) = (cx.output(0), cx.grad_output());
        let dx = y.graph().intermediate("relu", &y.shape(), y.dtype());
        y.graph().record(ReluBackward, &[&y, &dy], &[&dx]);
        vec![Some(dx)]
    }

    fn fuse(&self, cx: &Fusing<'_>) -> Option<Fused> {
        BatchNorm::fuse_behind(cx, 0, |norm, _| (!norm.relu).then_some((norm.with_relu(), None)))
    }

    fn recomputes(&self) -> Recomputes {
        Recomputes::Cheaply
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        launch(cx, node, "forward");
    }
}

impl Op for ReluBackward {
    fn name(&self) -> &'static str {
        "relu_backward"
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        launch(cx, node, "backward");
    }
}

fn launch(cx: &mut Lowering<'_>, node: &Node, entry: &'static str) {
    let kernel = kernel_for(cx, node.outputs[0], "relu", entry);
    elementwise(cx, &kernel, (&node.inputs, &[], &node.outputs), |count| Params::default().u32("count", count));
}
