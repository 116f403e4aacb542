//! Memory banks, and the labels that clustering them gives the images.

/// Label of an image that has none. PyTorch's `ignore_index`.
pub const IGNORED: i64 = -100;

/// Embeddings of the images of the last epoch's whole batches, in the order of the batches.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    dim: usize,
    /// One (rows, D) array per assigned crop.
    banks: Vec<Vec<f32>>,
    /// Each row's image.
    images: Vec<u32>,
    /// Rows that hold something, from the first on.
    filled: usize,
}

impl Memory {
    /// Banks of zeros.
    pub fn new(banks: usize, rows: usize, dim: usize) -> Self {
        Self { dim, banks: vec![vec![0.0; rows * dim]; banks], images: vec![0; rows], filled: 0 }
    }

    /// Full banks with these contents.
    ///
    /// # Panics
    /// When a bank has not `dim` numbers for every image.
    pub fn full(banks: Vec<Vec<f32>>, images: Vec<u32>, dim: usize) -> Self {
        assert!(banks.iter().all(|b| b.len() == images.len() * dim), "banks of another length");
        Self { dim, banks, filled: images.len(), images }
    }

    /// Number of banks.
    pub fn banks(&self) -> usize {
        self.banks.len()
    }

    /// Rows of each.
    pub fn rows(&self) -> usize {
        self.images.len()
    }

    /// D.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Whether every row has been stored at least once.
    pub fn is_full(&self) -> bool {
        self.filled == self.rows()
    }

    /// Bank `bank`, (rows, D).
    pub fn bank(&self, bank: usize) -> &[f32] {
        &self.banks[bank]
    }

    /// One row of a bank.
    pub fn row(&self, bank: usize, row: usize) -> &[f32] {
        &self.banks[bank][row * self.dim..(row + 1) * self.dim]
    }

    /// The image of every row.
    pub fn images(&self) -> &[u32] {
        &self.images
    }

    /// Overwrites the rows from `row` on with the embeddings (B, D) of `images`, one array per bank.
    ///
    /// # Panics
    /// When they do not fit.
    pub fn store(&mut self, row: usize, images: &[u32], embeddings: &[Vec<f32>]) {
        assert_eq!(embeddings.len(), self.banks.len(), "an array for every bank");
        self.images[row..row + images.len()].copy_from_slice(images);
        for (bank, rows) in self.banks.iter_mut().zip(embeddings) {
            bank[row * self.dim..(row + images.len()) * self.dim].copy_from_slice(rows);
        }
        self.filled = self.filled.max(row + images.len());
    }

    pub(super) fn same_shape(&self, other: &Self) -> bool {
        (self.dim, self.banks(), self.rows()) == (other.dim, other.banks(), other.rows())
    }
}

/// The label of every image of the data set, for every head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels(Vec<Vec<i64>>);

impl Labels {
    /// Nobody has a label.
    pub fn none(heads: usize, images: usize) -> Self {
        Self(vec![vec![IGNORED; images]; heads])
    }

    /// These labels, a list over the images for each head; [`IGNORED`] where there is none.
    pub fn new(labels: Vec<Vec<i64>>) -> Self {
        Self(labels)
    }

    /// Whether each is a cluster below `clusters` or [`IGNORED`].
    pub fn valid(labels: &[i64], clusters: usize) -> bool {
        labels.iter().all(|l| *l == IGNORED || usize::try_from(*l).is_ok_and(|l| l < clusters))
    }

    /// Number of heads.
    pub fn heads(&self) -> usize {
        self.0.len()
    }

    /// The labels of a head, by image.
    pub fn head(&self, head: usize) -> &[i64] {
        &self.0[head]
    }

    /// `images[i]` gets `labels[i]`; every other image loses its label.
    pub fn set(&mut self, head: usize, images: &[u32], labels: &[u32]) {
        self.0[head].fill(IGNORED);
        for (&image, &label) in images.iter().zip(labels) {
            self.0[head][image as usize] = i64::from(label);
        }
    }

    /// Labels of a batch for a head, once for each of the `views` crops; 0 where there is none.
    pub fn of(&self, head: usize, images: &[u32], views: usize) -> Vec<u32> {
        let one: Vec<u32> = images.iter().map(|&i| u32::try_from(self.0[head][i as usize]).unwrap_or(0)).collect();
        one.repeat(views)
    }

    /// Weight of every crop of a batch in the sum over rows and heads that makes the loss: the mean over heads and over the rows that have
    /// a label. An image has a label for every head or for none.
    pub fn weights(&self, images: &[u32], views: usize) -> Vec<f32> {
        let known: Vec<bool> = images.iter().map(|&i| self.0[0][i as usize] != IGNORED).collect();
        let count = known.iter().filter(|k| **k).count() * views * self.heads();
        #[expect(clippy::cast_precision_loss, reason = "a count of rows")]
        let weight = 1.0 / count.max(1) as f32;
        let one: Vec<f32> = known.iter().map(|k| if *k { weight } else { 0.0 }).collect();
        one.repeat(views)
    }

    /// Clusters of a head that have images, and the entropy of their sizes in nats.
    #[expect(clippy::cast_precision_loss, reason = "counts of images")]
    pub fn usage(&self, head: usize) -> (u64, f64) {
        let mut labels: Vec<i64> = self.0[head].iter().copied().filter(|l| *l != IGNORED).collect();
        labels.sort_unstable();
        let sizes: Vec<usize> = labels.chunk_by(|a, b| a == b).map(<[i64]>::len).collect();
        let shares = sizes.iter().map(|s| *s as f64 / labels.len() as f64);
        (sizes.len() as u64, -shares.map(|p| p * p.ln()).sum::<f64>())
    }

    pub(super) fn same_shape(&self, other: &Self) -> bool {
        self.0.iter().map(Vec::len).eq(other.0.iter().map(Vec::len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_overwritten_in_the_order_of_the_batches() {
        let mut memory = Memory::new(2, 4, 2);
        memory.store(0, &[7, 3], &[vec![1.0, 2.0, 3.0, 4.0], vec![-1.0, -2.0, -3.0, -4.0]]);
        assert!(!memory.is_full());
        memory.store(2, &[1, 0], &[vec![5.0; 4], vec![6.0; 4]]);
        assert!(memory.is_full());
        assert_eq!(memory.images(), [7, 3, 1, 0]);
        memory.store(0, &[5, 6], &[vec![8.0; 4], vec![9.0; 4]]);
        assert_eq!((memory.bank(0), memory.row(1, 3)), ([8.0, 8.0, 8.0, 8.0, 5.0, 5.0, 5.0, 5.0].as_slice(), [6.0, 6.0].as_slice()));
        assert_eq!(memory.images(), [5, 6, 1, 0]);
    }

    #[test]
    fn images_outside_the_bank_have_no_label_and_no_weight() {
        let mut labels = Labels::none(2, 5);
        labels.set(0, &[4, 0, 2], &[9, 8, 8]);
        labels.set(1, &[4, 0, 2], &[1, 1, 1]);
        assert_eq!(labels.head(0), [8, IGNORED, 8, IGNORED, 9]);
        // A later epoch forgets the earlier one's.
        labels.set(0, &[3, 0, 2], &[7, 8, 6]);
        labels.set(1, &[3, 0, 2], &[1, 0, 1]);
        assert_eq!(labels.head(0), [8, IGNORED, 6, 7, IGNORED]);
        assert_eq!(labels.of(0, &[2, 4, 3], 2), [6, 0, 7, 6, 0, 7]);
        // Two of three images, two crops, two heads.
        assert_eq!(labels.weights(&[2, 4, 3], 2), [0.125, 0.0, 0.125, 0.125, 0.0, 0.125]);
        assert_eq!(labels.usage(0).0, 3);
        assert!((labels.usage(0).1 - 3_f64.ln()).abs() < 1e-12 && labels.usage(1).0 == 2);
    }
}
