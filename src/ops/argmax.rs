//! Column of the largest value of every row; of equal values the lowest. No derivative. PyTorch: `x.argmax(dim=1)`, whose choice among
//! equals is its own.

use super::expect_f32;
use crate::gpu::{KernelSpec, Params};
use crate::graph::{DType, Lowering, Node, Op, Tensor};

struct Argmax;

impl Tensor {
    /// For each row of (N, K) the column of its largest value: (N) of type u32.
    #[must_use]
    #[track_caller]
    pub fn argmax_rows(&self) -> Self {
        let [rows, _] = self.rows_columns();
        expect_f32("argmax_rows", &[self]);
        let output = self.graph().intermediate("argmax", &[rows], DType::U32);
        self.graph().record(Argmax, &[self], &[&output]);
        output
    }
}

impl Op for Argmax {
    fn name(&self) -> &'static str {
        "argmax"
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let [rows, columns] = <[usize; 2]>::try_from(cx.shape(node.inputs[0])).expect("a matrix");
        let params = Params::default().u32("rows", rows).u32("quads", columns.div_ceil(4)).u32("columns", columns);
        cx.launch(KernelSpec::new("argmax", "forward"), params, rows, &node.inputs, &node.outputs);
    }
}
