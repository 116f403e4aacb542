//! Spherical k-means over a memory bank: assignment on the device in tiles, means on the host.

use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::{Choices, DType, Graph, Pending, Program, Store, Variables, Variants, pad_rows, pad4};
use crate::nn::architecture::{TensorKind, TensorSpec};
use crate::nn::layout::to_device;
use std::borrow::Cow;

/// Result of a clustering.
#[derive(Clone, Debug, PartialEq)]
pub struct Clusters {
    /// Unit-length centroids (K, D).
    pub centroids: Vec<f32>,
    /// The nearest centroid of every row.
    pub labels: Vec<u32>,
}

/// Clusters `rows` (N, D) from `centroids` (K, D) on: `iterations` times every row is assigned by `assign` to the centroid of largest dot
/// product, and every centroid becomes the mean of its rows, scaled to length 1; one without rows stays where it is. Then one last
/// assignment. Sums are formed in f64 in the order of the rows.
pub fn spherical_kmeans(
    rows: &[f32],
    dim: usize,
    mut centroids: Vec<f32>,
    iterations: u32,
    mut assign: impl FnMut(&[f32]) -> Result<Vec<u32>>,
) -> Result<Clusters> {
    for _ in 0..iterations {
        let labels = assign(&centroids)?;
        update(rows, dim, &labels, &mut centroids);
    }
    let labels = assign(&centroids)?;
    Ok(Clusters { centroids, labels })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "centroids are f32")]
fn update(rows: &[f32], dim: usize, labels: &[u32], centroids: &mut [f32]) {
    let mut sums = vec![0.0_f64; centroids.len()];
    let mut counts = vec![0_u64; centroids.len() / dim];
    for (row, &label) in rows.chunks_exact(dim).zip(labels) {
        let label = label as usize;
        counts[label] += 1;
        for (sum, value) in sums[label * dim..(label + 1) * dim].iter_mut().zip(row) {
            *sum += f64::from(*value);
        }
    }
    for ((centroid, sum), count) in centroids.chunks_exact_mut(dim).zip(sums.chunks_exact_mut(dim)).zip(counts) {
        if count == 0 {
            sum.iter_mut().zip(&*centroid).for_each(|(s, c)| *s = f64::from(*c));
        } else {
            sum.iter_mut().for_each(|s| *s /= count as f64);
        }
        let norm = sum.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-12);
        centroid.iter_mut().zip(sum).for_each(|(c, s)| *c = (*s / norm) as f32);
    }
}

/// Bytes of one tile's products.
const TILE_BYTES: usize = 32 << 20;

/// Finds the centroid of largest dot product for every row of a bank; of equal ones the first. The bank stays in host memory; tiles of it
/// visit the device.
pub struct Assigner {
    program: Program,
    _store: Store,
    /// Rows of a tile.
    tile: usize,
    centroids: TensorSpec,
}

impl Assigner {
    /// For banks of `rows` rows of `dim` numbers and `centroids` centroids.
    pub fn new(gpu: &Gpu, variants: &dyn Variants, rows: usize, dim: usize, centroids: usize) -> Result<Self> {
        let tile = (TILE_BYTES / (4 * pad4(centroids).max(pad4(dim)))).clamp(1, rows.max(1));
        let graph = Graph::new();
        let bank = graph.input("rows", &[tile, dim], DType::F32);
        let weight = graph.input("centroids", &[1, 1, pad4(dim), centroids], DType::F32);
        let nearest = bank.linear(&weight, None).argmax_rows();
        let store = Store::new(gpu, Variables::new())?;
        let program = Program::new(gpu, &store, &graph, &[("nearest", &nearest)], variants)?;
        let centroids = TensorSpec { name: "centroids".into(), shape: vec![centroids, dim], kind: TensorKind::LinearWeight };
        Ok(Self { program, _store: store, tile, centroids })
    }

    /// Kernel variants that it uses, where there was a choice.
    pub fn choices(&self) -> Choices {
        self.program.choices()
    }

    /// The nearest of `centroids` (K, D) for each of `rows` (N, D). [`Error::NonFinite`] when a product is not a number.
    pub fn assign(&mut self, gpu: &Gpu, rows: &[f32], centroids: &[f32]) -> Result<Vec<u32>> {
        let (prototypes, dim) = (self.centroids.shape[0], self.centroids.shape[1]);
        let weight = to_device(&self.centroids, centroids);
        let mut labels = Vec::with_capacity(rows.len() / dim);
        let mut running: Option<(Pending, usize)> = None;
        for (i, part) in rows.chunks(self.tile * dim).enumerate() {
            let tile = self.stored(part);
            let mut inputs: Vec<(&str, &[u8])> = vec![("rows", bytemuck::cast_slice(&tile))];
            if i == 0 {
                inputs.push(("centroids", bytemuck::cast_slice(&weight)));
            }
            let pending = self.program.run(gpu, &inputs)?;
            // The device works on this tile while the last one's labels are read.
            if let Some(last) = running.replace((pending, part.len() / dim)) {
                self.take(gpu, last, &mut labels)?;
            }
        }
        if let Some(last) = running {
            self.take(gpu, last, &mut labels)?;
        }
        if labels.iter().any(|&l| l as usize >= prototypes) {
            return Err(Error::NonFinite { what: "a product of embedding and centroid".into(), step: 0 });
        }
        Ok(labels)
    }

    /// A tile in stored form, the last one filled up with zeros; without a copy where it is that already.
    fn stored<'a>(&self, part: &'a [f32]) -> Cow<'a, [f32]> {
        let dim = self.centroids.shape[1];
        if part.len() == self.tile * dim && dim == pad4(dim) {
            return Cow::Borrowed(part);
        }
        let mut whole = part.to_vec();
        whole.resize(self.tile * dim, 0.0);
        Cow::Owned(pad_rows(&whole, &[self.tile, dim]))
    }

    fn take(&mut self, gpu: &Gpu, (pending, rows): (Pending, usize), labels: &mut Vec<u32>) -> Result<()> {
        labels.extend_from_slice(&self.program.finish(gpu, pending)?.u32("nearest")[..rows]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::rng::Stream;

    /// Plain assignment in f64, ties to the first.
    fn nearest(rows: &[f32], centroids: &[f32], dim: usize) -> Vec<u32> {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
        let one = |row: &[f32]| {
            let products: Vec<f64> = centroids.chunks_exact(dim).map(|c| dot(row, c)).collect();
            (0..products.len()).fold(0, |best, k| if products[k] > products[best] { k } else { best }) as u32
        };
        rows.chunks_exact(dim).map(one).collect()
    }

    fn run(rows: &[f32], dim: usize, centroids: &[f32], iterations: u32) -> Clusters {
        spherical_kmeans(rows, dim, centroids.to_vec(), iterations, |c| Ok(nearest(rows, c, dim))).unwrap()
    }

    #[test]
    fn means_on_the_circle() {
        let rows = [1.0, 0.0, 0.0, 1.0, 0.6, 0.8, -1.0, 0.0];
        let first = run(&rows, 2, &[1.0, 0.0, 0.0, 1.0], 0);
        assert_eq!((first.labels.as_slice(), first.centroids.as_slice()), ([0, 1, 1, 1].as_slice(), [1.0, 0.0, 0.0, 1.0].as_slice()));
        // (0, 1), (0.6, 0.8), (-1, 0): the last product with (1, 0) is -1 and with (0, 1) is 0. Their mean points to (-0.4, 1.8).
        let once = run(&rows, 2, &[1.0, 0.0, 0.0, 1.0], 1);
        let norm = (0.4_f32 * 0.4 + 1.8 * 1.8).sqrt();
        assert!((once.centroids[2] + 0.4 / norm).abs() < 1e-6 && (once.centroids[3] - 1.8 / norm).abs() < 1e-6, "{once:?}");
        // (0.6, 0.8) is nearer to the new second centroid (0.645) than to the first (0.6).
        assert_eq!(once.labels, [0, 1, 1, 1]);
    }

    #[test]
    fn an_empty_cluster_stays_and_equals_go_to_the_first() {
        let rows = [1.0, 0.0, 1.0, 0.0, 0.0, 1.0];
        // Centroids 0 and 1 are the same: all of their rows go to 0, and 1 stays where it is.
        let got = run(&rows, 2, &[1.0, 0.0, 1.0, 0.0, 0.0, 1.0], 3);
        assert_eq!((got.labels, got.centroids), (vec![0, 0, 2], vec![1.0, 0.0, 1.0, 0.0, 0.0, 1.0]));
        // A centroid that nobody is near keeps its direction while the others move.
        let rows = [0.8, 0.6, 0.6, 0.8];
        let got = run(&rows, 2, &[-1.0, 0.0, 1.0, 0.0], 2);
        assert_eq!((got.labels, &got.centroids[..2]), (vec![1, 1], [-1.0, 0.0].as_slice()));
        let half = std::f32::consts::FRAC_1_SQRT_2;
        assert!((got.centroids[2] - half).abs() < 1e-6 && (got.centroids[3] - half).abs() < 1e-6);
    }

    #[test]
    fn well_separated_groups_are_found_whatever_the_order() {
        let mut stream = Stream::new(1, 0, 0, 0);
        let (dim, groups, each) = (8, 5, 20);
        let mut rows: Vec<f32> = Vec::new();
        for i in 0..groups * each {
            let row: Vec<f64> = (0..dim).map(|d| if d == i % groups { 1.0 } else { 0.1 * stream.normal() }).collect();
            let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
            rows.extend(row.iter().map(|v| (v / norm) as f32));
        }
        let got = run(&rows, dim, &rows[..groups * dim], 10);
        assert!(got.labels.iter().enumerate().all(|(i, &l)| l as usize == i % groups));
        let lengths = got.centroids.chunks_exact(dim).map(|c| c.iter().map(|v| v * v).sum::<f32>().sqrt());
        assert!(lengths.into_iter().all(|l| (l - 1.0).abs() < 1e-6));
    }
}
