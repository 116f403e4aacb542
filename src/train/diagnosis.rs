//! Which layer spoilt a result: a pass is run once more with every layer looked at. It costs
//! nothing until then.

use crate::error::Result;
use crate::gpu::Gpu;
use crate::graph::{Graph, Program, Store, Tensor, Variants};
use crate::ops::watch;

/// The first result of `graph`, in the order in which they are made, that is not finite when it
/// runs on `inputs`: its layer and op. `None` where all are, as they may be here: other kernels may
/// round otherwise.
pub(super) fn first_nonfinite(gpu: &Gpu, store: &Store, graph: &Graph, variants: &dyn Variants, inputs: &[(&str, &[u8])]) -> Result<Option<String>> {
    let (graph, watched) = watch(graph);
    let outputs: Vec<(&str, &Tensor)> = watched.iter().map(|w| (w.output.as_str(), &w.found)).collect();
    let outputs = Program::new(gpu, store, &graph, &outputs, variants)?.call(gpu, inputs)?;
    Ok(watched.into_iter().find(|w| w.is_spoilt(&outputs)).map(|w| w.name))
}

/// What the features of all images have in common that they should not.
#[derive(Clone, Debug, Default)]
pub(super) struct Sameness {
    first: Vec<f32>,
    images: u64,
    differ: bool,
    zero: bool,
}

/// Features that differ by less than this share of the largest are told apart by rounding alone.
const SHARE: f32 = 1e-6;

impl Sameness {
    /// Takes note of the features of one more image.
    pub(super) fn add(&mut self, features: &[f32]) {
        self.images += 1;
        if self.images == 1 {
            self.first = features.to_vec();
            self.zero = true;
        }
        self.zero &= features.iter().all(|v| *v == 0.0);
        if !self.differ {
            let largest = self.first.iter().chain(features).fold(0.0_f32, |m, v| m.max(v.abs()));
            self.differ = self.first.iter().zip(features).any(|(a, b)| (a - b).abs() > SHARE * largest);
        }
    }

    /// What is to be said of them.
    pub(super) fn describe(&self) -> Option<String> {
        let images = self.images;
        match (self.zero, self.differ) {
            (true, _) if images > 0 => Some(format!("all features of all {images} images are 0: the network says nothing of them")),
            (false, false) if images > 1 => Some(format!("the features of all {images} images are the same: the network does not tell them apart")),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Sameness;

    fn said(rows: &[&[f32]]) -> Option<String> {
        let mut all = Sameness::default();
        rows.iter().for_each(|row| all.add(row));
        all.describe()
    }

    #[test]
    fn features_that_are_all_zero_or_all_the_same_are_said() {
        assert!(said(&[&[0.0, 0.0], &[0.0, -0.0]]).unwrap().contains("all 2 images are 0"));
        assert!(said(&[&[0.0, 0.0]]).unwrap().contains("are 0"));
        assert!(said(&[&[1.0, 2.0], &[1.0, 2.000_000_2]]).unwrap().contains("all 2 images are the same"));
        assert_eq!(said(&[&[1.0, 2.0]]), None, "a single image is like itself");
        assert_eq!(said(&[&[1.0, 2.0], &[1.0, 2.001]]), None);
        assert_eq!(said(&[&[0.0, 0.0], &[0.0, 1e-30]]), None);
        assert_eq!(said(&[]), None);
    }
}
