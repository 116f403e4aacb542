//! How far results are off, where what is not a number must not pass for equal.

/// Largest difference of two lists of one length; infinite where any is not finite.
///
/// # Panics
/// When their lengths differ.
pub fn worst<A: Copy + Into<f64>, B: Copy + Into<f64>>(got: &[A], want: &[B]) -> f64 {
    assert_eq!(got.len(), want.len(), "values of both");
    let off = got.iter().zip(want).map(|(&a, &b)| (a.into() - b.into()).abs());
    off.fold(0.0, |worst, off| if off.is_finite() { off.max(worst) } else { f64::INFINITY })
}
