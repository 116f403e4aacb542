//! Cross-entropy against distributions; a label is a distribution with a single 1.

use super::log_softmax;

/// `scale` times the sum over rows of −Σ target · log softmax(x / temperature).
pub(in crate::check) fn soft_cross_entropy(x: &[f64], targets: &[f64], columns: usize, temperature: f64, scale: f64) -> f64 {
    let scaled: Vec<f64> = x.iter().map(|v| v / temperature).collect();
    -scale * log_softmax(&scaled, columns).iter().zip(targets).map(|(l, t)| l * t).sum::<f64>()
}
