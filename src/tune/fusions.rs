//! Which rewrites of a graph are wanted.

use crate::graph::{FUSE, FUSED, SEPARATE, Variants};
use crate::ops::Rewrite;
use std::str::FromStr;

/// Which rewrites to make where nodes offer them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fusions {
    /// Those that usually pay.
    #[default]
    Usual,
    /// These and no others.
    Only(Vec<Rewrite>),
}

impl Fusions {
    /// What is wanted for the rewrite of this name: the usual comes first in `offered`.
    pub(super) fn choose_rewrite<'v>(&self, rewrite: &str, offered: &[&'v str]) -> &'v str {
        let Self::Only(wanted) = self else { return offered[0] };
        let choice = if wanted.iter().any(|w| w.name() == rewrite) { FUSED } else { SEPARATE };
        offered.iter().copied().find(|v| *v == choice).unwrap_or(offered[0])
    }
}

/// Kernels by the ops' own guess.
impl Variants for Fusions {
    fn choose<'v>(&self, op: &str, shape: &str, offered: &[&'v str]) -> &'v str {
        if op == FUSE { self.choose_rewrite(shape, offered) } else { offered[0] }
    }
}

impl FromStr for Fusions {
    type Err = String;

    /// `usual`, `none`, `all`, or names of rewrites between commas.
    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "usual" => Self::Usual,
            "none" => Self::Only(Vec::new()),
            "all" => Self::Only(Rewrite::ALL.to_vec()),
            list => Self::Only(list.split(',').map(str::parse).collect::<Result<_, _>>()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lists_and_names_what_is_wrong() {
        assert_eq!("usual".parse(), Ok(Fusions::Usual));
        assert_eq!("none".parse(), Ok(Fusions::Only(vec![])));
        let two: Fusions = "statistics,activation".parse().unwrap();
        assert_eq!(two, Fusions::Only(vec![Rewrite::Statistics, Rewrite::Activation]));
        assert_eq!(["statistics", "gradient-sums"].map(|r| two.choose(FUSE, r, &[FUSED, SEPARATE])), [FUSED, SEPARATE]);
        assert_eq!(Fusions::Usual.choose(FUSE, "convolution-input", &[SEPARATE, FUSED]), SEPARATE);
        assert!("statistics,typo".parse::<Fusions>().unwrap_err().contains("\"typo\" is no rewrite; there are activation, "));
    }
}
