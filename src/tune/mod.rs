//! Picks a kernel variant per op and shape, out of those the ops offer.

use crate::graph::Variants;

/// The first variant on offer: what the op itself holds to be best on this kind of adapter.
#[derive(Clone, Copy, Debug, Default)]
pub struct BestGuess;

impl Variants for BestGuess {
    fn choose<'a>(&self, _op: &str, _shape: &str, offered: &[&'a str]) -> &'a str {
        offered[0]
    }
}
