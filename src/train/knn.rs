//! Weighted k-nearest-neighbour classification of features (Wu et al. 2018; mmselfsup's `test_knn.py`): cosine similarity, the k nearest
//! training images vote for their class with weight exp(similarity / T).

use crate::error::Result;
use crate::gpu::Gpu;
use crate::graph::{DType, Graph, Program, Store, Variables, Variants, pad_rows, pad4};
use serde::Serialize;

/// Result of an evaluation, per cent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct KnnAccuracy {
    /// Images whose first class is right.
    pub top1: f64,
    /// Images whose first five classes hold the right one.
    pub top5: f64,
    /// Mean over classes of each class's own top-1.
    pub mean_class: f64,
    /// Neighbours that voted.
    pub k: usize,
}

/// Labelled features, row by row.
#[derive(Clone, Copy)]
pub struct Labelled<'a> {
    /// (N, C)
    pub features: &'a [f32],
    /// (N)
    pub labels: &'a [usize],
}

/// Training columns and validation rows of one product on the device.
const COLUMNS: usize = 4096;
const ROWS: usize = 256;

/// Who is asked for which images.
#[derive(Clone, Copy)]
pub enum Judged<'a> {
    /// The bank judges others.
    Others(Labelled<'a>),
    /// Each image of the bank is judged by all others of it (leave one out).
    EachByTheRest,
}

/// Classifies images by those of `train` for every k in `neighbours`. Similarities are computed on the device in tiles; ties go to the earlier image.
pub fn knn(
    gpu: &Gpu,
    variants: &dyn Variants,
    train: Labelled<'_>,
    judged: Judged<'_>,
    classes: usize,
    neighbours: &[usize],
    temperature: f64,
) -> Result<Vec<KnnAccuracy>> {
    let (val, itself) = match judged {
        Judged::Others(val) => (val, false),
        Judged::EachByTheRest => (train, true),
    };
    let channels = train.features.len() / train.labels.len().max(1);
    let most = neighbours.iter().copied().max().unwrap_or(1).min(train.labels.len());
    let (columns, rows) = (COLUMNS.min(train.labels.len()), ROWS.min(val.labels.len()));
    let graph = Graph::new();
    let queries = graph.input("queries", &[rows, channels], DType::F32);
    let bank = graph.input("bank", &[1, 1, pad4(channels), columns], DType::F32);
    let products = queries.linear(&bank, None);
    let store = Store::new(gpu, Variables::new())?;
    let mut program = Program::new(gpu, &store, &graph, &[("products", &products)], variants)?;
    let (train_rows, val_rows) = (unit_rows(train.features, channels), unit_rows(val.features, channels));
    let mut best: Vec<Vec<(f32, usize)>> = vec![Vec::new(); val.labels.len()];
    for (tile, keys) in train_rows.chunks(columns * channels).enumerate() {
        let bank = transposed(keys, channels, columns);
        for (block, queries) in val_rows.chunks(rows * channels).enumerate() {
            let mut padded = queries.to_vec();
            padded.resize(rows * channels, 0.0);
            let padded = pad_rows(&padded, &[rows, channels]);
            let inputs: [(&str, &[u8]); 2] = [("queries", bytemuck::cast_slice(&padded)), ("bank", bytemuck::cast_slice(&bank))];
            let outputs = program.call(gpu, &inputs)?.f32("products");
            for (row, (of, near)) in outputs.chunks_exact(columns).zip(best.iter_mut().enumerate().skip(block * rows)) {
                let own = if itself { of } else { usize::MAX };
                near.extend(row[..keys.len() / channels].iter().enumerate().map(|(i, s)| (*s, tile * columns + i)).filter(|(_, i)| *i != own));
                keep_best(near, most);
            }
        }
    }
    Ok(neighbours.iter().map(|k| vote(&best, train.labels, val.labels, classes, *k, temperature)).collect())
}

fn keep_best(near: &mut Vec<(f32, usize)>, most: usize) {
    let order = |a: &(f32, usize), b: &(f32, usize)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    if near.len() > most {
        near.select_nth_unstable_by(most - 1, order);
        near.truncate(most);
    }
    near.sort_by(order);
}

fn vote(best: &[Vec<(f32, usize)>], train: &[usize], val: &[usize], classes: usize, k: usize, temperature: f64) -> KnnAccuracy {
    let mut score = Accuracy::new(classes);
    for (near, &label) in best.iter().zip(val) {
        let mut votes = vec![0.0_f64; classes];
        // Relative to the nearest, which changes no vote and cannot overflow.
        let nearest = near.first().map_or(0.0, |(similarity, _)| f64::from(*similarity));
        for (similarity, i) in near.iter().take(k) {
            votes[train[*i]] += ((f64::from(*similarity) - nearest) / temperature).exp();
        }
        score.add(&votes, label);
    }
    KnnAccuracy { top1: score.top1(), top5: score.top5(), mean_class: score.mean_class(), k }
}

/// Counts right answers.
#[derive(Clone, Debug)]
pub struct Accuracy {
    right: Vec<u64>,
    seen: Vec<u64>,
    within5: u64,
}

impl Accuracy {
    /// Nothing seen yet.
    pub fn new(classes: usize) -> Self {
        Self { right: vec![0; classes], seen: vec![0; classes], within5: 0 }
    }

    /// Adds one image's class scores. Of equal scores the lower class comes first; a score that is not a number is right of nothing.
    pub fn add(&mut self, scores: &[f64], label: usize) {
        let own = scores[label];
        let ahead = scores.iter().enumerate().filter(|(c, s)| **s > own || (**s == own && *c < label)).count();
        self.seen[label] += 1;
        self.right[label] += u64::from(ahead == 0 && !own.is_nan());
        self.within5 += u64::from(ahead < 5 && !own.is_nan());
    }

    /// Per cent right.
    pub fn top1(&self) -> f64 {
        percent(self.right.iter().sum(), self.seen.iter().sum())
    }

    /// Per cent within the first five.
    pub fn top5(&self) -> f64 {
        percent(self.within5, self.seen.iter().sum())
    }

    /// Mean of the classes' own top-1, over classes that were seen.
    #[expect(clippy::cast_precision_loss, reason = "a count of classes")]
    pub fn mean_class(&self) -> f64 {
        let each: Vec<f64> = self.right.iter().zip(&self.seen).filter(|(_, n)| **n > 0).map(|(r, n)| percent(*r, *n)).collect();
        each.iter().sum::<f64>() / (each.len() as f64).max(1.0)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of images")]
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

/// Rows scaled to length 1.
#[expect(clippy::cast_possible_truncation, reason = "features are f32")]
fn unit_rows(features: &[f32], channels: usize) -> Vec<f32> {
    let mut rows = features.to_vec();
    for row in rows.chunks_exact_mut(channels.max(1)) {
        let norm = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt().max(1e-12) as f32;
        row.iter_mut().for_each(|v| *v /= norm);
    }
    rows
}

/// Rows as columns of a stored (1, 1, C padded, columns) weight.
fn transposed(rows: &[f32], channels: usize, columns: usize) -> Vec<f32> {
    let width = pad4(columns);
    let mut out = vec![0.0; pad4(channels) * width];
    for (i, row) in rows.chunks_exact(channels).enumerate() {
        for (c, value) in row.iter().enumerate() {
            out[c * width + i] = *value;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_not_right() {
        let mut accuracy = Accuracy::new(2);
        accuracy.add(&[f64::NAN, f64::NAN], 0);
        accuracy.add(&[0.0, 1.0], 1);
        assert_eq!((accuracy.top1(), accuracy.top5()), (50.0, 50.0));
    }

    #[test]
    fn accuracy_counts() {
        let mut a = Accuracy::new(7);
        a.add(&[0.1, 0.9, 0.0, 0.0, 0.0, 0.0, 0.0], 1);
        a.add(&[0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1], 5);
        a.add(&[0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1], 4);
        assert!((a.top1() - 100.0 / 3.0).abs() < 1e-9 && (a.top5() - 200.0 / 3.0).abs() < 1e-9 && (a.mean_class() - 100.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn neighbours_vote_with_their_similarity() {
        let best = vec![vec![(0.9, 0), (0.8, 1), (0.8, 2)]];
        // One near neighbour of class 0 against two slightly farther ones of class 1.
        assert!(vote(&best, &[0, 1, 1], &[0], 2, 3, 0.07).top1 == 100.0);
        assert!(vote(&best, &[0, 1, 1], &[0], 2, 3, 1.0).top1 == 0.0);
        // In the limit of small temperatures the nearest decides.
        assert!(vote(&best, &[1, 0, 0], &[1], 2, 3, 1e-4).top1 == 100.0);
    }
}
