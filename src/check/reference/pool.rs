//! Pooling.

/// Maximum over windows of (n, h, w, c). `preference` is taken off a value once for each place it comes later in its window: 0 for the
/// values themselves, a little to differentiate where values tie, since the first of equals takes the gradient.
pub(in crate::check) fn max_pool2d(x: &[f64], [n, h, w, c]: [usize; 4], kernel: usize, stride: usize, padding: usize, preference: f64) -> Vec<f64> {
    let (p, q) = ((h + 2 * padding - kernel) / stride + 1, (w + 2 * padding - kernel) / stride + 1);
    let mut y = vec![f64::NEG_INFINITY; n * p * q * c];
    for (at, best) in y.iter_mut().enumerate() {
        let (image, row, column, channel) = (at / (p * q * c), at / (q * c) % p, at / c % q, at % c);
        let mut place = 0.0;
        for i in row * stride..row * stride + kernel {
            for j in column * stride..column * stride + kernel {
                if (padding..h + padding).contains(&i) && (padding..w + padding).contains(&j) {
                    let value = x[((image * h + i - padding) * w + j - padding) * c + channel];
                    *best = best.max(value - place * preference);
                }
                place += 1.0;
            }
        }
    }
    y
}

/// Mean over the pixels of (n, pixels, c).
pub(in crate::check) fn global_avg_pool2d(x: &[f64], [n, pixels, c]: [usize; 3]) -> Vec<f64> {
    let mut y = vec![0.0; n * c];
    for (i, v) in x.iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "test sizes")]
        let share = v / pixels as f64;
        y[i / (pixels * c) * c + i % c] += share;
    }
    y
}
