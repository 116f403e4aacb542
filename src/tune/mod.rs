//! Which kernel variant runs at which shape.

use crate::graph::Variants;

/// Takes what the op offers first: its own guess from the kind of adapter.
#[derive(Clone, Copy, Debug, Default)]
pub struct BestGuess;

impl Variants for BestGuess {
    fn choose<'a>(&self, _op: &str, _shape: &str, offered: &[&'a str]) -> &'a str {
        offered[0]
    }
}
