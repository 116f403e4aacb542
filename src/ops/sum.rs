//! Ordered sums. [`Tensor::sum_columns`] (PyTorch: `x.sum(0)`) is the gradient of a bias.

use super::{expect_f32, groups};
use crate::gpu::{KernelSpec, Params};
use crate::graph::{DType, Lowering, Node, Op, Tensor};

struct SumColumns;

impl Tensor {
    /// Sum over the rows of a matrix: (N, C) to (C).
    #[must_use]
    #[track_caller]
    pub fn sum_columns(&self) -> Self {
        let [_, columns] = self.rows_columns();
        expect_f32("sum_columns", &[self]);
        let output = self.graph().intermediate("sum_columns", &[columns], DType::F32);
        self.graph().record(SumColumns, &[self], &[&output]);
        output
    }
}

/// Parameters of the kernel `sum/all`: `factor` times the sum of a vector of `rows` values, a scalar.
pub(super) fn sum_params(rows: usize, factor: f32) -> Params {
    params(rows, [0; 3], factor)
}

fn params(rows: usize, [quads, chunk, first]: [usize; 3], factor: f32) -> Params {
    Params::default().u32("rows", rows).u32("quads", quads).u32("chunk", chunk).u32("first", first).f32("factor", factor)
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
            for window in cx.windows(rows, CHUNK, &[source]) {
                let params = params(window.count, [quads, CHUNK, window.first / CHUNK], 1.0);
                let launched = groups(window.count.div_ceil(CHUNK) * quads);
                cx.launch(KernelSpec::new("sum", "columns"), params, launched, &[window.of(source)], &[target]);
            }
            if left == 1 {
                break;
            }
            (rows, source) = (left, target);
        }
    }
}
