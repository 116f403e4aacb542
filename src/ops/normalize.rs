//! L2 normalisation of rows: y = x / max(‖x‖, eps). PyTorch: `torch.nn.functional.normalize(dim=1, eps=1e-12)`.
//! dx = (dy − y (y·dy)) / ‖x‖; where the norm is below eps, dx = dy / eps.
//! [`Tensor::normalize_columns`] does the same to a matrix's columns in place, outside differentiation: SwAV's prototypes.

use super::{expect_f32, groups};
use crate::gpu::{KernelSpec, MOST_ITERATIONS, Params};
use crate::graph::{Backward, DType, Lowering, Node, Op, Tensor, TensorId};

/// Smallest divisor. PyTorch's default.
const EPS: f32 = 1e-12;

struct Normalize;
struct NormalizeBackward;
struct NormalizeColumns;

impl Tensor {
    /// Rows of (N, C) scaled to length 1.
    #[must_use]
    #[track_caller]
    pub fn normalize(&self) -> Self {
        let [rows, _] = self.rows_columns();
        expect_f32("normalize", &[self]);
        let output = self.graph().intermediate("normalize", &self.shape(), DType::F32);
        let norms = self.graph().intermediate("normalize.norms", &[rows], DType::F32);
        self.graph().record(Normalize, &[self], &[&output, &norms]);
        output
    }

    /// Scales every column of the variable `self`, (1, 1, D, K), to length 1 in place.
    #[track_caller]
    pub fn normalize_columns(&self) {
        let [_, _, rows, _] = self.nhwc();
        assert!(2 * rows <= MOST_ITERATIONS, "normalize_columns: {self:?} has columns too long for a kernel's loops");
        expect_f32("normalize_columns", &[self]);
        self.graph().record(NormalizeColumns, &[], &[self]);
    }
}

fn params(rows: usize, columns: usize) -> Params {
    Params::default().u32("rows", rows).u32("quads", columns.div_ceil(4)).f32("eps", EPS)
}

impl Op for Normalize {
    fn name(&self) -> &'static str {
        "normalize"
    }

    fn differentiate(&self, cx: &Backward<'_>) -> Vec<Option<Tensor>> {
        let y = cx.output(0);
        let dx = y.graph().intermediate("normalize", &y.shape(), DType::F32);
        y.graph().record(NormalizeBackward, &[&y, &cx.output(1), &cx.grad_output()], &[&dx]);
        vec![Some(dx)]
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let [rows, columns] = <[usize; 2]>::try_from(cx.shape(node.inputs[0])).expect("a matrix");
        cx.launch(KernelSpec::new("normalize", "forward"), params(rows, columns), rows, &node.inputs, &node.outputs);
    }
}

impl Op for NormalizeBackward {
    fn name(&self) -> &'static str {
        "normalize_backward"
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let [rows, columns] = <[usize; 2]>::try_from(cx.shape(node.outputs[0])).expect("a matrix");
        cx.launch(KernelSpec::new("normalize", "backward"), params(rows, columns), rows, &node.inputs, &node.outputs);
    }
}

impl Op for NormalizeColumns {
    fn name(&self) -> &'static str {
        "normalize_columns"
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let [_, _, rows, columns] = cx.nhwc(node.outputs[0]);
        let kernel = KernelSpec::new("normalize", "columns");
        cx.launch(kernel, params(rows, columns), groups(columns.div_ceil(4)), &[] as &[TensorId], &node.outputs);
    }
}
