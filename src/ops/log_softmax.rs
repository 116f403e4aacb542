//! Log-softmax of rows: y = x − log Σ exp(x); dx = dy − softmax(x) Σ dy. PyTorch: `torch.nn.functional.log_softmax(dim=1)`.

use super::expect_f32;
use crate::gpu::{KernelSpec, Params};
use crate::graph::{Backward, DType, Lowering, Node, Op, Tensor};

struct LogSoftmax;
struct LogSoftmaxBackward;

impl Tensor {
    /// Log-softmax over the last dimension of (N, C).
    #[must_use]
    #[track_caller]
    pub fn log_softmax(&self) -> Self {
        let _ = self.rows_columns();
        expect_f32("log_softmax", &[self]);
        let output = self.graph().intermediate("log_softmax", &self.shape(), DType::F32);
        self.graph().record(LogSoftmax, &[self], &[&output]);
        output
    }
}

impl Op for LogSoftmax {
    fn name(&self) -> &'static str {
        "log_softmax"
    }

    fn differentiate(&self, cx: &Backward<'_>) -> Vec<Option<Tensor>> {
        let y = cx.output(0);
        let dx = y.graph().intermediate("log_softmax", &y.shape(), DType::F32);
        y.graph().record(LogSoftmaxBackward, &[&y, &cx.grad_output()], &[&dx]);
        vec![Some(dx)]
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        launch(cx, node, "forward");
    }
}

impl Op for LogSoftmaxBackward {
    fn name(&self) -> &'static str {
        "log_softmax_backward"
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        launch(cx, node, "backward");
    }
}

fn launch(cx: &mut Lowering<'_>, node: &Node, entry: &'static str) {
    let [rows, columns] = <[usize; 2]>::try_from(cx.shape(node.outputs[0])).expect("a matrix");
    let params = Params::default().u32("rows", rows).u32("quads", columns.div_ceil(4)).u32("columns", columns);
    cx.launch(KernelSpec::new("log_softmax", entry), params, rows, &node.inputs, &node.outputs);
}
