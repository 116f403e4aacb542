//! Sinkhorn-Knopp: soft codes of samples over prototypes with equal shares for all prototypes (Caron et al. 2020, section 3.1, algorithm 1;
//! official `distributed_sinkhorn`). Computed in the log domain, which gives the same codes without overflow. No derivative, as in the paper.

use super::{expect_f32, groups};
use crate::gpu::{KernelSpec, Params, Specialization};
use crate::graph::{DType, Lowering, Node, Op, Tensor};

struct Sinkhorn {
    epsilon: f32,
    iterations: usize,
    keep: usize,
}

impl Tensor {
    /// Codes (keep, K) of the last `keep` rows of scores (N, K); every row sums to 1.
    ///
    /// # Panics
    /// When `keep` exceeds N, or there is no iteration.
    #[must_use]
    #[track_caller]
    pub fn sinkhorn(&self, epsilon: f32, iterations: usize, keep: usize) -> Self {
        let [rows, columns] = self.rows_columns();
        expect_f32("sinkhorn", &[self]);
        assert!((1..=rows).contains(&keep) && iterations > 0, "sinkhorn: {keep} of {rows} rows, {iterations} iterations");
        let codes = self.graph().intermediate("codes", &[keep, columns], DType::F32);
        self.graph().record(Sinkhorn { epsilon, iterations, keep }, &[self], &[&codes]);
        codes
    }
}

impl Op for Sinkhorn {
    fn name(&self) -> &'static str {
        "sinkhorn"
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        const CHUNK: usize = 64;
        let scores = node.inputs[0];
        let [rows, columns] = <[usize; 2]>::try_from(cx.shape(scores)).expect("a matrix");
        let (quads, chunks) = (columns.div_ceil(4), rows.div_ceil(CHUNK));
        let partials = cx.scratch("sinkhorn.partials", &[2 * chunks, columns], DType::F32);
        let prototypes = cx.scratch("sinkhorn.prototypes", &[columns], DType::F32);
        let samples = cx.scratch("sinkhorn.samples", &[rows], DType::F32);
        let params = Params::default()
            .u32("rows", rows)
            .u32("quads", quads)
            .u32("columns", columns)
            .u32("chunk", CHUNK)
            .u32("chunks", chunks)
            .u32("first_row", rows - self.keep)
            .f32("epsilon", self.epsilon);
        let kernel = |entry| KernelSpec::new("sinkhorn", entry);
        for iteration in 0..self.iterations {
            let first = Specialization::default().bool("FIRST", iteration == 0);
            let launched = groups(quads * chunks);
            cx.launch(kernel("prototypes_partial").with(first), params.clone(), launched, &[scores, samples], &[partials]);
            cx.launch(kernel("prototypes"), params.clone(), groups(quads), &[partials], &[prototypes]);
            cx.launch(kernel("samples"), params.clone(), rows, &[scores, prototypes], &[samples]);
        }
        cx.launch(kernel("write_codes"), params, groups(self.keep * quads), &[scores, prototypes, samples], &node.outputs);
    }
}
