//! L2 normalisation of rows.

pub(in crate::check) fn normalize(x: &[f64], columns: usize) -> Vec<f64> {
    let row = |row: &[f64]| {
        let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-12);
        row.iter().map(|v| v / norm).collect::<Vec<f64>>()
    };
    x.chunks_exact(columns).flat_map(row).collect()
}
