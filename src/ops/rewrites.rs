//! The rewrites that ops offer each other ([`crate::graph::Op::fuse`]), by name.

use std::fmt;
use std::str::FromStr;

/// Work of one node that another takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rewrite {
    /// Batch norm adds the residual and cuts off at 0 in its own pass.
    Activation,
    /// Its reverse pass applies the ReLU's mask.
    ActivationGradient,
    /// A convolution notes the moments of what it writes, for the batch norm behind it.
    Statistics,
    /// The convolution that computes a gradient masks it and sums it up for the reverse pass of the batch norm before it.
    GradientSums,
    /// The convolution that computes a gradient adds another gradient of the same tensor or weight.
    SumOfGradients,
    /// The gradient of a weight reads what is before the batch norm and normalises it there.
    WeightGradientInput,
    /// So does the convolution itself. Not done where nobody asks: software devices load twice as much then in their innermost loop, which costs
    /// more than the pass that is saved; an NVIDIA H200 was 2 % slower with it.
    ConvolutionInput,
}

impl Rewrite {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Activation,
        Self::ActivationGradient,
        Self::Statistics,
        Self::GradientSums,
        Self::SumOfGradients,
        Self::WeightGradientInput,
        Self::ConvolutionInput,
    ];

    /// Its name in records of runs and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Activation => "activation",
            Self::ActivationGradient => "activation-gradient",
            Self::Statistics => "statistics",
            Self::GradientSums => "gradient-sums",
            Self::SumOfGradients => "sum-of-gradients",
            Self::WeightGradientInput => "weight-gradient-input",
            Self::ConvolutionInput => "convolution-input",
        }
    }

    /// Whether it is made where nobody decides.
    pub fn usual(self) -> bool {
        self != Self::ConvolutionInput
    }
}

impl fmt::Display for Rewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Rewrite {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|r| r.name() == text).ok_or_else(|| format!("{text:?} is no rewrite; there are {}", names()))
    }
}
