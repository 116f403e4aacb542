//! Log-softmax of rows.

pub(in crate::check) fn log_softmax(x: &[f64], columns: usize) -> Vec<f64> {
    let row = |row: &[f64]| {
        let largest = row.iter().fold(f64::NEG_INFINITY, |m, v| m.max(*v));
        let normalizer = largest + row.iter().map(|v| (v - largest).exp()).sum::<f64>().ln();
        row.iter().map(|v| v - normalizer).collect::<Vec<f64>>()
    };
    x.chunks_exact(columns).flat_map(row).collect()
}
