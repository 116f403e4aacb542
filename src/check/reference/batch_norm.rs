//! Batch normalisation over the rows of a matrix.

/// Output and the statistics it used: mean and biased variance of each channel.
pub(in crate::check) struct Normalized {
    /// Before any ReLU.
    pub(in crate::check) y: Vec<f64>,
    pub(in crate::check) mean: Vec<f64>,
    pub(in crate::check) variance: Vec<f64>,
}

const EPS: f64 = 1e-5;

/// With the batch's own statistics.
pub(in crate::check) fn batch_norm_training(x: &[f64], weight: &[f64], bias: &[f64], residual: Option<&[f64]>) -> Normalized {
    let channels = weight.len();
    #[expect(clippy::cast_precision_loss, reason = "test sizes")]
    let rows = (x.len() / channels) as f64;
    let mut mean = vec![0.0; channels];
    for (i, v) in x.iter().enumerate() {
        mean[i % channels] += v / rows;
    }
    let mut variance = vec![0.0; channels];
    for (i, v) in x.iter().enumerate() {
        variance[i % channels] += (v - mean[i % channels]).powi(2) / rows;
    }
    let y = batch_norm_evaluation(x, weight, bias, &mean, &variance, residual);
    Normalized { y, mean, variance }
}

/// Running mean and unbiased variance after a batch of `rows`, of which they take `momentum`.
pub(in crate::check) fn running([mean, variance]: [&[f64]; 2], batch: &Normalized, rows: usize, momentum: f32) -> [Vec<f64>; 2] {
    let share = f64::from(momentum);
    let blend = |old: &[f64], new: &[f64], factor: f64| old.iter().zip(new).map(|(old, new)| (1.0 - share) * old + share * factor * new).collect();
    #[expect(clippy::cast_precision_loss, reason = "test sizes")]
    let unbiased = if rows > 1 { rows as f64 / (rows - 1) as f64 } else { 1.0 };
    [blend(mean, &batch.mean, 1.0), blend(variance, &batch.variance, unbiased)]
}

/// With given statistics.
pub(in crate::check) fn batch_norm_evaluation(
    x: &[f64],
    weight: &[f64],
    bias: &[f64],
    mean: &[f64],
    variance: &[f64],
    residual: Option<&[f64]>,
) -> Vec<f64> {
    let channels = weight.len();
    let one = |(i, v): (usize, &f64)| {
        let c = i % channels;
        (v - mean[c]) / (variance[c] + EPS).sqrt() * weight[c] + bias[c] + residual.map_or(0.0, |r| r[i])
    };
    x.iter().enumerate().map(one).collect()
}
