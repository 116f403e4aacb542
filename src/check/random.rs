//! Repeatable test data.

/// The SplitMix64 generator (Steele, Lea, Flood 2014).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let a = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let b = (a ^ (a >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        b ^ (b >> 31)
    }

    /// A position below `n`.
    #[expect(clippy::cast_possible_truncation, reason = "below n, which is a usize")]
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// Between -1 and 1, exact in f32.
    #[expect(clippy::cast_precision_loss, reason = "24 bits")]
    pub(super) fn signed(&mut self) -> f64 {
        (self.next() >> 40) as f64 / f64::from(1 << 23) - 1.0
    }

    /// `count` values of [`Random::signed`] times `scale`.
    pub(super) fn values(&mut self, count: usize, scale: f64) -> Vec<f64> {
        (0..count).map(|_| self.signed() * scale).collect()
    }

    /// `count` different values, neighbours at least 2/`count` apart, between -1 and 1.
    #[expect(clippy::cast_precision_loss, reason = "test sizes")]
    pub(super) fn distinct(&mut self, count: usize) -> Vec<f64> {
        let mut values: Vec<f64> = (0..count).map(|i| (2 * i + 1) as f64 / count as f64 - 1.0).collect();
        for i in (1..count).rev() {
            values.swap(i, self.below(i + 1));
        }
        values
    }
}
