//! Central differences of a reference forward: the oracle of every backward.

use super::case::Forward;

/// Step of the differences. In f64 they are right to about 1e-10.
const STEP: f64 = 1e-5;

/// d/dx of Σ grad_output · forward(operands)[0], for the elements `coordinates` of operand `which`.
pub(super) fn central_differences(
    forward: &Forward,
    operands: &mut [Vec<f64>],
    which: usize,
    coordinates: &[usize],
    grad_output: &[f64],
) -> Vec<f64> {
    let at = |i: usize, step: f64, operands: &mut [Vec<f64>]| {
        let before = operands[which][i];
        operands[which][i] = before + step;
        let output = forward(operands).swap_remove(0);
        operands[which][i] = before;
        output
    };
    let difference = |&i: &usize| {
        let (above, below) = (at(i, STEP, operands), at(i, -STEP, operands));
        // Summing differences, not differencing sums, keeps the digits.
        above.iter().zip(&below).zip(grad_output).map(|((a, b), g)| (a - b) * g).sum::<f64>() / (2.0 * STEP)
    };
    coordinates.iter().map(difference).collect()
}
