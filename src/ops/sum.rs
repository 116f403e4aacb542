//! Ordered sums. [`Tensor::sum_columns`] (PyTorch: `x.sum(0)`) is the gradient of a bias; [`Tensor::scaled_sum`] reduces row losses.

use super::groups;
use crate::gpu::{KernelSpec, Params};
use crate::graph::{DType, Lowering, Node, Op, Tensor};

struct SumColumns;
struct ScaledSum {
    factor: f32,
}

impl Tensor {
    /// Sum over the rows of a matrix: (N, C) to (C).
    #[must_use]
    #[track_caller]
    pub fn sum_columns(&self) -> Self {
        let [_, columns] = self.rows_columns();
        let output = self.graph().intermediate("sum_columns", &[columns], DType::F32);
        self.graph().record(SumColumns, &[self], &[&output]);
        output
    }

    /// `factor` times the sum of a vector, a scalar. No gradient: the losses that use it differentiate themselves.
    #[must_use]
    pub(super) fn scaled_sum(&self, factor: f32) -> Self {
        let output = self.graph().intermediate("sum", &[1], DType::F32);
        self.graph().record(ScaledSum { factor }, &[self], &[&output]);
        output
    }
}

impl Op for SumColumns {
    fn name(&self) -> &'static str {
        "sum_columns"
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        const CHUNK: usize = 128;
        let [mut rows, columns] = <[usize; 2]>::try_from(cx.shape(node.inputs[0])).expect("a matrix");
        let quads = columns.div_ceil(4);
        let mut source = node.inputs[0];
        loop {
            let left = rows.div_ceil(CHUNK);
            let target = if left == 1 { node.outputs[0] } else { cx.scratch("sums", &[left, columns], DType::F32) };
            let params = Params::default().u32("rows", rows).u32("quads", quads).u32("chunk", CHUNK).f32("factor", 1.0);
            cx.launch(KernelSpec::new("sum", "columns"), params, groups(left * quads), &[source], &[target]);
            if left == 1 {
                break;
            }
            (rows, source) = (left, target);
        }
    }
}

impl Op for ScaledSum {
    fn name(&self) -> &'static str {
        "sum"
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let rows = cx.shape(node.inputs[0])[0];
        let params = Params::default().u32("rows", rows).u32("quads", 0).u32("chunk", 0).f32("factor", self.factor);
        cx.launch(KernelSpec::new("sum", "all"), params, 1, &node.inputs, &node.outputs);
    }
}
