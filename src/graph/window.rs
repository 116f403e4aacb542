//! Windows: a tensor larger than an adapter's binding limit is visited piece by piece, each piece a binding of its own.

use super::TensorId;

/// A contiguous run of a tensor's pieces: of its images, or of its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// First piece.
    pub first: usize,
    /// Pieces.
    pub count: usize,
    /// Pieces of the whole tensor.
    pub of: usize,
}

/// What a launch binds: a tensor, or a window of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// The tensor.
    pub tensor: TensorId,
    /// The part of it; `None` for all.
    pub window: Option<Window>,
}

impl From<TensorId> for View {
    fn from(tensor: TensorId) -> Self {
        Self { tensor, window: None }
    }
}

impl From<&TensorId> for View {
    fn from(tensor: &TensorId) -> Self {
        (*tensor).into()
    }
}

impl View {
    /// First byte and bytes of the view of a tensor of `bytes` bytes.
    pub fn range(&self, bytes: u64) -> (u64, u64) {
        match self.window {
            None => (0, bytes),
            Some(w) => {
                let piece = bytes / w.of as u64;
                (piece * w.first as u64, piece * w.count as u64)
            }
        }
    }
}

impl Window {
    /// All of `of` pieces.
    pub fn whole(of: usize) -> Self {
        Self { first: 0, count: of, of }
    }

    /// The part of `tensor` that lies within.
    pub fn of(self, tensor: TensorId) -> View {
        View { tensor, window: (self.count < self.of).then_some(self) }
    }

    /// Cuts `of` pieces into windows of which none binds more than `limit` bytes of tensors with the given bytes a piece. Every window
    /// starts at a multiple of `multiple` pieces and, in bytes, of `alignment`. Windows are as even as that allows. Where a single piece
    /// does not fit, or none can be aligned, windows are as small as they can be.
    pub fn cut(of: usize, multiple: usize, alignment: u64, limit: u64, piece_bytes: &[u64]) -> Vec<Self> {
        let largest = piece_bytes.iter().copied().max().unwrap_or(0).max(1);
        if largest * of as u64 <= limit || of == 0 {
            return vec![Self::whole(of)];
        }
        let unit = piece_bytes.iter().filter(|b| **b > 0).fold(multiple as u64, |unit, bytes| lcm(unit, alignment / gcd(alignment, *bytes)));
        let unit = usize::try_from(unit).unwrap_or(of);
        let most = (usize::try_from(limit / largest).unwrap_or(of) / unit * unit).max(unit);
        let windows = of.div_ceil(most);
        let even = of.div_ceil(windows).next_multiple_of(unit);
        (0..of).step_by(even).map(|first| Self { first, count: even.min(of - first), of }).collect()
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn lcm(a: u64, b: u64) -> u64 {
    a / gcd(a, b) * b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_every_piece_once_aligned_and_within_the_limit() {
        for (of, multiple, limit, pieces) in [
            (64, 1, 1 << 20, vec![112 * 112 * 64, 16]),
            (37, 1, 4_000, vec![784, 48]),
            (100_000, 45, 1 << 16, vec![16]),
            (7, 1, 10, vec![4]),
            (1, 1, 4, vec![1 << 30]),
            (10, 1, 1 << 30, vec![3]),
        ] {
            let cut = Window::cut(of, multiple, 256, limit, &pieces);
            let mut next = 0;
            for w in &cut {
                assert_eq!((w.first, w.of), (next, of));
                assert!(cut.len() == 1 || w.first.is_multiple_of(multiple));
                assert!(pieces.iter().all(|b| (b * w.first as u64).is_multiple_of(256)), "{of} {w:?}");
                next += w.count;
            }
            assert_eq!(next, of);
            // The fewest pieces that are aligned: more bytes than the limit only where these have.
            let largest = pieces.iter().max().unwrap();
            let unit = (multiple..).step_by(multiple).find(|n| pieces.iter().all(|b| (b * *n as u64).is_multiple_of(256))).unwrap();
            let most = (limit / largest).max(unit as u64);
            assert!(cut.len() == 1 && largest * of as u64 <= limit || cut.iter().all(|w| w.count as u64 <= most), "{of}: {cut:?}");
        }
        assert_eq!(Window::cut(64, 1, 256, 1 << 27, &[112 * 112 * 64 * 4]).len(), 2, "ResNet-50's first activation at batch 32");
    }

    #[test]
    fn a_view_is_a_range_of_bytes() {
        let t = TensorId(0);
        assert_eq!(View::from(t).range(4096), (0, 4096));
        assert_eq!(Window { first: 4, count: 3, of: 8 }.of(t).range(4096), (2048, 1536));
    }
}
