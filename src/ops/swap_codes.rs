//! Targets of the swapped prediction (Caron et al. 2020, eq. 6): each view predicts the codes of every assigned crop but its own.

use super::{expect_f32, groups};
use crate::gpu::{KernelSpec, Params};
use crate::graph::{DType, Lowering, Node, Op, Tensor, pad_rows};

struct SwapCodes {
    views: usize,
    assigned: usize,
}

impl Tensor {
    /// Targets (views · B, K) from codes (|assign| · B, K): the rows of view v sum the codes of the crops in `assign` that are not v.
    ///
    /// # Panics
    /// When the codes are not a block of rows per assigned crop.
    #[must_use]
    #[track_caller]
    pub fn swap_codes(&self, views: usize, assign: &[usize]) -> Self {
        let [rows, columns] = self.rows_columns();
        expect_f32("swap_codes", &[self]);
        assert!(views > 0 && !assign.is_empty() && rows % assign.len() == 0, "swap_codes: {self:?} for {} assigned crops of {views}", assign.len());
        let predicts: Vec<u32> = (0..views).flat_map(|v| assign.iter().map(move |&a| u32::from(a != v))).collect();
        let count = predicts.len();
        let graph = self.graph();
        let predicts = graph.constant("predicts", &[count], DType::U32, bytemuck::cast_slice(&pad_rows(&predicts, &[count])));
        let targets = graph.intermediate("targets", &[views * (rows / assign.len()), columns], DType::F32);
        graph.record(SwapCodes { views, assigned: assign.len() }, &[self, &predicts], &[&targets]);
        targets
    }
}

impl Op for SwapCodes {
    fn name(&self) -> &'static str {
        "swap_codes"
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let [rows, columns] = <[usize; 2]>::try_from(cx.shape(node.inputs[0])).expect("a matrix");
        let params = Params::default()
            .u32("views", self.views)
            .u32("batch", rows / self.assigned)
            .u32("quads", columns.div_ceil(4))
            .u32("assigned", self.assigned);
        let count = cx.vec4s(node.outputs[0]);
        cx.launch(KernelSpec::new("swap_codes", "forward"), params, groups(count), &node.inputs, &node.outputs);
    }
}
