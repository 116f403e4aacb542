//! Sinkhorn-Knopp as the paper's algorithm has it, with exponentials: a different computation than the kernel's logarithms.

/// Codes of all rows of scores (rows, columns).
pub(in crate::check) fn sinkhorn(scores: &[f64], columns: usize, epsilon: f64, iterations: usize) -> Vec<f64> {
    let largest = scores.iter().fold(f64::NEG_INFINITY, |m, v| m.max(*v));
    let mut q: Vec<f64> = scores.iter().map(|v| ((v - largest) / epsilon).exp()).collect();
    for _ in 0..iterations {
        for k in 0..columns {
            let share: f64 = q.iter().skip(k).step_by(columns).sum();
            q.iter_mut().skip(k).step_by(columns).for_each(|v| *v /= share);
        }
        for row in q.chunks_exact_mut(columns) {
            let mass: f64 = row.iter().sum();
            row.iter_mut().for_each(|v| *v /= mass);
        }
    }
    q
}
