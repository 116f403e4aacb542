//! The table of cases: awkward shapes first.

mod batch_norm;
mod blocks;
mod conv2d;
mod elementwise;
mod losses;
mod matrices;
mod pools;
mod spoilt;

use super::case::Entry;
use crate::graph::DType;

/// Every case.
pub(super) fn all() -> Vec<Entry> {
    let mut all = Vec::new();
    // f32 first: a failure in f16 alone then stands out.
    for dtype in [DType::F32, DType::F16] {
        conv2d::cases(dtype, &mut all);
        matrices::linear(dtype, &mut all);
        batch_norm::cases(dtype, &mut all);
        elementwise::cases(dtype, &mut all);
        pools::cases(dtype, &mut all);
        blocks::cases(dtype, &mut all);
        spoilt::cases(dtype, &mut all);
    }
    matrices::cases(&mut all);
    losses::cases(&mut all);
    all
}
