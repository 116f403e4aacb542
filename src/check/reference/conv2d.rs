//! Convolution.

/// `x` (n, h, w, c) with `weight` (r, s, c, o) to (n, p, q, o).
pub(in crate::check) fn conv2d(
    x: &[f64],
    [n, h, w, c]: [usize; 4],
    weight: &[f64],
    [r, s, o]: [usize; 3],
    stride: usize,
    padding: usize,
) -> Vec<f64> {
    let (p, q) = ((h + 2 * padding - r) / stride + 1, (w + 2 * padding - s) / stride + 1);
    let mut y = vec![0.0; n * p * q * o];
    for (at, out) in y.chunks_exact_mut(o).enumerate() {
        let (image, row, column) = (at / (p * q), at / q % p, at % q);
        for dr in 0..r {
            for ds in 0..s {
                let (Some(i), Some(j)) = ((row * stride + dr).checked_sub(padding), (column * stride + ds).checked_sub(padding)) else {
                    continue;
                };
                if i >= h || j >= w {
                    continue;
                }
                for channel in 0..c {
                    let value = x[((image * h + i) * w + j) * c + channel];
                    let from = ((dr * s + ds) * c + channel) * o;
                    for (sum, weight) in out.iter_mut().zip(&weight[from..from + o]) {
                        *sum += value * weight;
                    }
                }
            }
        }
    }
    y
}
