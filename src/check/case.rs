//! A case as data.

use super::random::Random;
use crate::graph::{DType, Tensor, pad4};

/// A naive computation in f64 over dense operands: one dense array per output.
pub(super) type Forward = Box<dyn Fn(&[Vec<f64>]) -> Vec<Vec<f64>>>;

/// Records the op under test: operands to outputs, the differentiable one first.
pub(super) type Build = Box<dyn Fn(&[Tensor]) -> Vec<Tensor>>;

/// How an operand reaches the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Uploaded before each run.
    Input,
    /// Uploaded, (R, S, C, O) with C padded to a multiple of 4 in the graph: a convolution's weight.
    Weight,
    /// A variable that the op may change in place.
    Variable,
}

/// One operand.
pub(super) struct Operand {
    pub(super) name: &'static str,
    /// Logical shape.
    pub(super) shape: Vec<usize>,
    /// Dense values, exact in `dtype`.
    pub(super) values: Vec<f64>,
    pub(super) dtype: DType,
    pub(super) kind: Kind,
    /// Whether its gradient is checked.
    pub(super) gradient: bool,
}

impl Operand {
    /// Shape in the graph.
    pub(super) fn graph_shape(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if self.kind == Kind::Weight {
            shape[2] = pad4(shape[2]);
        }
        shape
    }

    /// Dense data in the graph's shape: weights get zero rows for padded input channels.
    pub(super) fn graph_values(&self) -> Vec<f64> {
        if self.kind != Kind::Weight {
            return self.values.clone();
        }
        let (rows, columns) = (self.shape[2], self.shape[3]);
        let tap = |tap: &[f64]| tap.iter().copied().chain(std::iter::repeat_n(0.0, (pad4(rows) - rows) * columns)).collect::<Vec<f64>>();
        self.values.chunks_exact(rows * columns).flat_map(tap).collect()
    }

    /// The inverse of [`Operand::graph_values`]; `None` when a padded row is not zero.
    pub(super) fn dense(&self, graph_values: Vec<f64>) -> Option<Vec<f64>> {
        if self.kind != Kind::Weight {
            return Some(graph_values);
        }
        let (rows, columns) = (self.shape[2], self.shape[3]);
        let taps = || graph_values.chunks_exact(pad4(rows) * columns);
        let clean = taps().all(|tap| tap[rows * columns..].iter().all(|&v| v == 0.0));
        clean.then(|| taps().flat_map(|tap| &tap[..rows * columns]).copied().collect())
    }
}

/// Distances of values from the nearest kink, computed from the operands.
pub(super) type Distance = Box<dyn Fn(&[Vec<f64>]) -> Vec<f64>>;

/// An op at one size.
pub(super) struct Case {
    pub(super) operands: Vec<Operand>,
    /// Names of the outputs in order; an empty one stands for the op's own.
    pub(super) outputs: Vec<&'static str>,
    pub(super) build: Build,
    pub(super) reference: Forward,
    /// What to differentiate where it is not `reference`: max pooling's rule for ties.
    pub(super) smooth: Option<Forward>,
    /// Operands to differentiate at, where those that are run are not finite.
    pub(super) stand_in: Option<Vec<Vec<f64>>>,
    /// Distance of each value of the first output from the nearest kink: near one, nothing flows back.
    pub(super) kink: Option<Distance>,
    /// `exp` and `log` come in.
    pub(super) transcendental: bool,
    /// Terms of the longest sum, forward or backward.
    pub(super) longest_sum: usize,
    /// By how much values cancel.
    pub(super) cancellation: f64,
    /// Multiplications of the reference: decides how many differences are affordable.
    pub(super) work: usize,
}

impl Case {
    pub(super) fn new(build: Build, reference: Forward) -> Self {
        Self {
            operands: Vec::new(),
            outputs: vec![""],
            build,
            reference,
            smooth: None,
            stand_in: None,
            kink: None,
            transcendental: false,
            longest_sum: 1,
            cancellation: 1.0,
            work: 0,
        }
    }

    /// Adds an operand; its values are rounded to `dtype` first.
    pub(super) fn with(mut self, name: &'static str, shape: &[usize], values: Vec<f64>, dtype: DType, kind: Kind, gradient: bool) -> Self {
        let values = values.into_iter().map(|v| round(v, dtype)).collect();
        self.operands.push(Operand { name, shape: shape.to_vec(), values, dtype, kind, gradient });
        self
    }

    /// Adds an uploaded operand with a gradient.
    pub(super) fn input(self, name: &'static str, shape: &[usize], values: Vec<f64>, dtype: DType) -> Self {
        self.with(name, shape, values, dtype, Kind::Input, true)
    }

    /// Adds an uploaded f32 operand without a gradient.
    pub(super) fn fixed(self, name: &'static str, shape: &[usize], values: Vec<f64>) -> Self {
        self.with(name, shape, values, DType::F32, Kind::Input, false)
    }

    /// Adds an f32 variable.
    pub(super) fn variable(self, name: &'static str, shape: &[usize], values: Vec<f64>) -> Self {
        self.with(name, shape, values, DType::F32, Kind::Variable, false)
    }

    /// States what is summed and how much work the reference is.
    pub(super) fn sized(mut self, longest_sum: usize, work: usize) -> Self {
        (self.longest_sum, self.work) = (longest_sum, work);
        self
    }

    pub(super) fn transcendental(mut self) -> Self {
        self.transcendental = true;
        self
    }

    pub(super) fn outputs(mut self, names: &[&'static str]) -> Self {
        self.outputs = names.to_vec();
        self
    }
}

#[expect(clippy::cast_possible_truncation, reason = "rounding is the purpose")]
fn round(value: f64, dtype: DType) -> f64 {
    match dtype {
        DType::F16 => half::f16::from_f64(value).to_f64(),
        DType::F32 => f64::from(value as f32),
        DType::U32 => value,
    }
}

/// A case that is made when its turn comes.
pub(super) struct Entry {
    pub(super) op: &'static str,
    pub(super) shape: String,
    pub(super) dtype: DType,
    /// Whether the case, whose operands then are exact in f16, is for kernels that round f32 factors to f16: others are not run.
    pub(super) rounding: bool,
    pub(super) make: Box<dyn Fn(&mut Random) -> Case>,
}

impl Entry {
    pub(super) fn new(op: &'static str, shape: String, dtype: DType, make: impl Fn(&mut Random) -> Case + 'static) -> Self {
        Self { op, shape, dtype, rounding: false, make: Box::new(make) }
    }

    /// The same for kernels that round f32 factors to f16.
    pub(super) fn rounding(self) -> Self {
        let make = move |random: &mut Random| {
            let mut case = (self.make)(random);
            case.operands.iter_mut().flat_map(|o| &mut o.values).for_each(|v| *v = round(*v, DType::F16));
            case
        };
        Self { op: self.op, shape: self.shape, dtype: self.dtype, rounding: true, make: Box::new(make) }
    }
}
