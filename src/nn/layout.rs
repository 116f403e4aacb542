//! Between PyTorch's tensor layouts and the engine's.
//!
//! A convolution weight (O, I, R, S) is stored (R, S, I padded to a multiple of 4, O padded); a linear weight (O, I) is a 1x1 convolution's;
//! vectors are padded. Padding is zero and stays zero in training.

use super::architecture::{TensorKind, TensorSpec};
use crate::graph::{pad_rows, pad4, stored_elements, unpad_rows};

/// Logical shape of `spec` on the device.
pub fn device_shape(spec: &TensorSpec) -> Vec<usize> {
    match (spec.kind, spec.shape.as_slice()) {
        (TensorKind::ConvWeight, &[o, i, r, s]) => vec![r, s, pad4(i), o],
        (TensorKind::LinearWeight, &[o, i]) => vec![1, 1, pad4(i), o],
        (_, shape) => shape.to_vec(),
    }
}

/// `[outputs, inputs, height, width]` of a weight, `None` for what is not turned.
fn window(spec: &TensorSpec) -> Option<[usize; 4]> {
    match (spec.kind, spec.shape.as_slice()) {
        (TensorKind::ConvWeight, &[o, i, r, s]) => Some([o, i, r, s]),
        (TensorKind::LinearWeight, &[o, i]) => Some([o, i, 1, 1]),
        _ => None,
    }
}

/// Pairs of (index in PyTorch's layout, index in the engine's stored layout).
fn pairs([o, i, r, s]: [usize; 4]) -> impl Iterator<Item = (usize, usize)> {
    (0..o * i * r * s).map(move |at| {
        let (x, rest) = (at % s, at / s);
        let (y, rest) = (rest % r, rest / r);
        let (input, output) = (rest % i, rest / i);
        (at, ((y * s + x) * pad4(i) + input) * pad4(o) + output)
    })
}

/// PyTorch's `values` in the engine's stored form.
///
/// # Panics
/// When their number does not fit the shape.
pub fn to_device(spec: &TensorSpec, values: &[f32]) -> Vec<f32> {
    assert_eq!(values.len(), spec.elements(), "{} of shape {:?}", spec.name, spec.shape);
    let Some(window) = window(spec) else { return pad_rows(values, &spec.shape) };
    let mut stored = vec![0.0; stored_elements(&device_shape(spec))];
    for (from, to) in pairs(window) {
        stored[to] = values[from];
    }
    stored
}

/// The inverse of [`to_device`].
pub fn from_device(spec: &TensorSpec, stored: &[f32]) -> Vec<f32> {
    let Some(window) = window(spec) else { return unpad_rows(stored, &spec.shape) };
    let mut values = vec![0.0; spec.elements()];
    for (to, from) in pairs(window) {
        values[to] = stored[from];
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::cast_precision_loss, reason = "small test values")]
    fn layouts_round_trip() {
        for (kind, shape) in [(TensorKind::ConvWeight, vec![5, 3, 2, 3]), (TensorKind::LinearWeight, vec![7, 6]), (TensorKind::LinearBias, vec![7])] {
            let spec = TensorSpec { name: "t".into(), shape, kind };
            let values: Vec<f32> = (0..spec.elements()).map(|v| v as f32 + 1.0).collect();
            let stored = to_device(&spec, &values);
            assert_eq!(stored.len(), stored_elements(&device_shape(&spec)));
            assert_eq!(stored.iter().filter(|v| **v == 0.0).count(), stored.len() - values.len());
            assert_eq!(from_device(&spec, &stored), values);
        }
    }

    #[test]
    fn output_channels_are_neighbours() {
        let spec = TensorSpec { name: "w".into(), shape: vec![2, 1, 1, 2], kind: TensorKind::ConvWeight };
        // w[o][0][0][s]: output 0 has taps 1, 2 and output 1 has taps 3, 4.
        let stored = to_device(&spec, &[1.0, 2.0, 3.0, 4.0]);
        assert_eq!((stored[0], stored[1]), (1.0, 3.0));
        assert_eq!((stored[16], stored[17]), (2.0, 4.0));
    }
}
