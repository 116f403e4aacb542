//! Choosing one kernel variant by name, and finding out which there are.

use crate::graph::{FUSE, FUSED, SEPARATE, Variants};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// Uses the named variant wherever it is offered, else the op's first. What can be fused is, all of it, unless `separate` is the name.
#[derive(Clone, Debug)]
pub struct Force(pub String);

impl Variants for Force {
    fn choose<'a>(&self, op: &str, _shape: &str, offered: &[&'a str]) -> &'a str {
        let wanted = if op == FUSE && self.0 != SEPARATE { FUSED } else { &self.0 };
        offered.iter().copied().find(|v| *v == wanted).unwrap_or(offered[0])
    }

    fn may_round(&self) -> bool {
        true
    }
}

/// Notes every variant that is offered.
#[derive(Default)]
pub(super) struct Survey {
    names: RefCell<BTreeSet<String>>,
    may_round: bool,
}

impl Survey {
    /// A survey that is also offered kernels that round f32 factors to f16.
    pub(super) fn rounding() -> Self {
        Self { may_round: true, ..Self::default() }
    }

    /// The variants in alphabetical order; none where ops offer no choice.
    pub(super) fn offered(self) -> Vec<String> {
        self.names.into_inner().into_iter().collect()
    }
}

impl Variants for Survey {
    fn choose<'a>(&self, op: &str, _shape: &str, offered: &[&'a str]) -> &'a str {
        // Where nodes can be fused, every variant is run fused, and one apart.
        let names = offered.iter().filter(|v| op != FUSE || **v == SEPARATE);
        self.names.borrow_mut().extend(names.map(|&v| v.to_owned()));
        offered.iter().copied().find(|v| *v == FUSED).unwrap_or(offered[0])
    }

    fn may_round(&self) -> bool {
        self.may_round
    }
}
