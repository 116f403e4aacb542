//! The feature queue (Caron et al. 2020, section 4.1): features of earlier batches that join the codes' computation.

use super::groups;
use crate::gpu::{KernelSpec, Params};
use crate::graph::{Backward, DType, Lowering, Node, Op, Tensor};

struct QueuePush {
    first: usize,
    rows: usize,
}

impl Tensor {
    /// Writes rows `first .. first + rows` of `self` (N, D) into the variable `queue` (L, D), a ring, from row `position` (u32 scalar) on.
    ///
    /// # Panics
    /// When the shapes do not fit.
    #[track_caller]
    pub fn queue_push(&self, first: usize, rows: usize, position: &Self, queue: &Self) {
        let ([n, d], [length, depth]) = (self.rows_columns(), queue.rows_columns());
        assert!(first + rows <= n && rows <= length && d == depth, "queue_push: rows {first}+{rows} of {self:?} into {queue:?}");
        assert_eq!(position.dtype(), DType::U32, "queue_push: {position:?} is no row number");
        self.graph().record(QueuePush { first, rows }, &[self, position], &[queue]);
    }
}

impl Op for QueuePush {
    fn name(&self) -> &'static str {
        "queue_push"
    }

    fn differentiate(&self, cx: &Backward<'_>) -> Vec<Option<Tensor>> {
        vec![None; cx.inputs()]
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let [length, depth] = <[usize; 2]>::try_from(cx.shape(node.outputs[0])).expect("a matrix");
        let quads = depth.div_ceil(4);
        let params = Params::default().u32("rows", self.rows).u32("quads", quads).u32("queue_rows", length).u32("first_row", self.first);
        cx.launch(KernelSpec::new("queue", "push"), params, groups(self.rows * quads), &node.inputs, &node.outputs);
    }
}
