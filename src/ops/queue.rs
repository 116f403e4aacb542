//! The feature queue (Caron et al. 2020, section 3.1, "Working with small batches"): features of earlier batches that join the codes' computation. Banks of rows that
//! micro-batches fill and read by turns work the same way.

use super::{expect_f32, groups};
use crate::gpu::{KernelSpec, Params};
use crate::graph::{DType, Lowering, Node, Op, Tensor};

struct QueuePush {
    first: usize,
    rows: usize,
}

struct RowsAt;

impl Tensor {
    /// Writes rows `first .. first + rows` of `self` (N, D) into the variable `queue` (L, D), a ring, from row `position` (u32 scalar) on.
    ///
    /// # Panics
    /// When the shapes do not fit.
    #[track_caller]
    pub fn queue_push(&self, first: usize, rows: usize, position: &Self, queue: &Self) {
        let ([n, d], [length, depth]) = (self.rows_columns(), queue.rows_columns());
        assert!(rows > 0 && first + rows <= n && rows <= length && d == depth, "queue_push: rows {first}+{rows} of {self:?} into {queue:?}");
        expect_f32("queue_push", &[self, queue]);
        assert_eq!(position.dtype(), DType::U32, "queue_push: {position:?} is no row number");
        self.graph().record(QueuePush { first, rows }, &[self, position], &[queue]);
    }

    /// `rows` rows of the variable `self` (L, D) from row `position` (u32 scalar) on; after the last row comes the first. No gradient.
    ///
    /// # Panics
    /// When there are not so many rows.
    #[must_use]
    #[track_caller]
    pub fn rows_at(&self, position: &Self, rows: usize) -> Self {
        let [length, depth] = self.rows_columns();
        assert!((1..=length).contains(&rows), "rows_at: {rows} rows of {self:?}");
        expect_f32("rows_at", &[self]);
        assert_eq!(position.dtype(), DType::U32, "rows_at: {position:?} is no row number");
        let output = self.graph().intermediate("rows_at", &[rows, depth], self.dtype());
        self.graph().record(RowsAt, &[self, position], &[&output]);
        output
    }
}

impl Op for QueuePush {
    fn name(&self) -> &'static str {
        "queue_push"
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let [length, depth] = <[usize; 2]>::try_from(cx.shape(node.outputs[0])).expect("a matrix");
        let quads = depth.div_ceil(4);
        let params = Params::default().u32("rows", self.rows).u32("quads", quads).u32("queue_rows", length).u32("first_row", self.first);
        cx.launch(KernelSpec::new("queue", "push"), params, groups(self.rows * quads), &node.inputs, &node.outputs);
    }
}

impl Op for RowsAt {
    fn name(&self) -> &'static str {
        "rows_at"
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let [length, depth] = <[usize; 2]>::try_from(cx.shape(node.inputs[0])).expect("a matrix");
        let (rows, quads) = (cx.shape(node.outputs[0])[0], depth.div_ceil(4));
        let params = Params::default().u32("rows", rows).u32("quads", quads).u32("queue_rows", length).u32("first_row", 0);
        cx.launch(KernelSpec::new("queue", "rows_at"), params, groups(rows * quads), &node.inputs, &node.outputs);
    }
}
