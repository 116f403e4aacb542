//! Choosing one kernel variant by name, and finding out which there are.

use crate::graph::Variants;
use std::cell::RefCell;
use std::collections::BTreeSet;

/// Uses the named variant wherever it is offered, else the op's first.
#[derive(Clone, Debug)]
pub struct Force(pub String);

impl Variants for Force {
    fn choose<'a>(&self, _op: &str, _shape: &str, offered: &[&'a str]) -> &'a str {
        offered.iter().copied().find(|v| *v == self.0).unwrap_or(offered[0])
    }
}

/// Notes every variant that is offered.
#[derive(Default)]
pub(super) struct Survey(RefCell<BTreeSet<String>>);

impl Survey {
    /// The variants in alphabetical order: all of an op's, or one without a name where ops offer no choice.
    pub(super) fn offered(self) -> Vec<String> {
        let names: Vec<String> = self.0.into_inner().into_iter().collect();
        if names.is_empty() { vec![String::new()] } else { names }
    }
}

impl Variants for Survey {
    fn choose<'a>(&self, _op: &str, _shape: &str, offered: &[&'a str]) -> &'a str {
        self.0.borrow_mut().extend(offered.iter().map(|&v| v.to_owned()));
        offered[0]
    }
}
