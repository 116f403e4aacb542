//! Randomness that depends on what it is for and on nothing else.
//!
//! Every choice is drawn from ChaCha8 keyed by (seed, epoch, image, view): no state is carried from one image to the next, so any worker
//! can make any crop and a resumed run needs no saved generator. Streams of different keys are independent. The values are pinned by
//! tests: changing them would change every run that ever used a seed.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A stream of random numbers for one view of one image in one epoch.
#[derive(Clone, Debug)]
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream of crop number `view` of image number `image` (its index in the dataset).
    pub fn new(seed: u64, epoch: u64, image: u64, view: u32) -> Self {
        Self::keyed(seed, epoch, image, view, *b"view")
    }

    /// `purpose` keeps streams for different ends apart where their numbers are the same.
    fn keyed(seed: u64, epoch: u64, image: u64, view: u32, purpose: [u8; 4]) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&epoch.to_le_bytes());
        key[16..24].copy_from_slice(&image.to_le_bytes());
        key[24..28].copy_from_slice(&view.to_le_bytes());
        key[28..].copy_from_slice(&purpose);
        Self(ChaCha8Rng::from_seed(key))
    }

    /// Uniform in `[0, 1)`, a multiple of 2^-53.
    pub fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in `[low, high)`; `low` where both are the same.
    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// Uniform integer in `0..n`, without bias; 0 for `n` = 0.
    pub fn below(&mut self, n: u64) -> u64 {
        // Multiply-shift maps 2^64 values onto n; the few low products that would favour some results are drawn again.
        let surplus = if n == 0 { 0 } else { n.wrapping_neg() % n };
        loop {
            let product = u128::from(self.0.next_u64()) * u128::from(n);
            if product as u64 >= surplus {
                return (product >> 64) as u64;
            }
        }
    }

    /// Standard normal, by Box and Muller's transform (the second value is not kept).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Shuffles in place (Fisher and Yates), every order equally likely.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

/// The stream that chooses what takes the place of an image that cannot be read, for the `attempt`-th time in an epoch.
pub fn replacement(seed: u64, epoch: u64, image: u64, attempt: u32) -> Stream {
    Stream::keyed(seed, epoch, image, attempt, *b"swap")
}

/// The order in which epoch `epoch` visits `n` images.
pub fn permutation(seed: u64, epoch: u64, n: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n).collect();
    Stream::keyed(seed, epoch, 0, 0, *b"perm").shuffle(&mut order);
    order
}

/// `count` different numbers below `n` (all of them when there are fewer), drawn without order: draw number `draw` of epoch `epoch`.
pub fn sample(seed: u64, epoch: u64, draw: u64, n: u32, count: usize) -> Vec<u32> {
    let mut all: Vec<u32> = (0..n).collect();
    let mut stream = Stream::keyed(seed, epoch, draw, 0, *b"some");
    let count = count.min(all.len());
    for place in 0..count {
        let left = all.len() - place;
        all.swap(place, place + stream.below(left as u64) as usize);
    }
    all.truncate(count);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_never_change() {
        // Computed by an independent implementation of ChaCha8 and of the mappings.
        let mut s = Stream::new(1, 2, 3, 4);
        let raw: Vec<u64> = (0..3).map(|_| s.0.next_u64()).collect();
        assert_eq!(raw, [9_196_201_162_628_191_590, 9_837_588_580_749_013_089, 13_229_074_894_528_308_908]);
        let mut s = Stream::new(1, 2, 3, 4);
        assert_eq!(s.uniform(), 0.4985270639567603);
        assert_eq!((0..8).map(|_| s.below(10)).collect::<Vec<_>>(), [5, 7, 8, 4, 5, 5, 8, 4]);
        assert_eq!((s.normal() * 1e9).round(), 972_271_158.0);
        assert_eq!(permutation(7, 0, 10), [4, 8, 3, 5, 9, 0, 7, 2, 1, 6]);
        assert_eq!(permutation(7, 1, 10), [3, 4, 0, 1, 7, 6, 2, 9, 8, 5]);
    }

    #[test]
    fn samples_are_distinct_and_fair() {
        let mut counts = [0; 10];
        for epoch in 0..2000 {
            let mut some = sample(3, epoch, 1, 10, 4);
            some.iter().for_each(|&i| counts[i as usize] += 1);
            some.sort_unstable();
            some.dedup();
            assert_eq!(some.len(), 4);
        }
        assert!(counts.iter().all(|c| (720..880).contains(c)), "{counts:?}");
        assert_ne!(sample(3, 0, 1, 1000, 8), sample(3, 0, 2, 1000, 8));
        assert_ne!(sample(3, 0, 1, 1000, 8), sample(3, 1, 1, 1000, 8));
        let mut all = sample(0, 0, 0, 5, 9);
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn each_part_of_the_key_matters() {
        let base = Stream::new(1, 2, 3, 4).uniform();
        for other in [Stream::new(0, 2, 3, 4), Stream::new(1, 0, 3, 4), Stream::new(1, 2, 0, 4), Stream::new(1, 2, 3, 0)] {
            assert_ne!(base, other.clone().uniform());
        }
    }

    #[test]
    fn distributions_have_their_moments() {
        let mut s = Stream::new(0, 0, 0, 0);
        let n = 100_000;
        let mut counts = [0; 7];
        let (mut sum, mut square, mut uniform) = (0.0, 0.0, 0.0);
        for _ in 0..n {
            counts[s.below(7) as usize] += 1;
            let v = s.normal();
            (sum, square) = (sum + v, square + v * v);
            let u = s.range(-3.0, 5.0);
            assert!((-3.0..5.0).contains(&u));
            uniform += u;
        }
        let n = f64::from(n);
        assert!(counts.iter().all(|&c| (f64::from(c) / n - 1.0 / 7.0).abs() < 0.005), "{counts:?}");
        assert!((sum / n).abs() < 0.015 && (square / n - 1.0).abs() < 0.02 && (uniform / n - 1.0).abs() < 0.03);
        // All 6 orders of 3 items, about equally often.
        let mut orders = std::collections::HashMap::new();
        for epoch in 0..6000 {
            *orders.entry(permutation(0, epoch, 3)).or_insert(0) += 1;
        }
        assert!(orders.len() == 6 && orders.values().all(|c| (850..1150).contains(c)), "{orders:?}");
        assert!(permutation(0, 0, 0).is_empty() && Stream::new(0, 0, 0, 0).below(0) == 0 && Stream::new(0, 0, 0, 0).below(1) == 0);
    }
}
