//! How far f32 on a GPU may be from f64, relative to the largest value of a tensor.
//!
//! The rule, for all ops: 3e-6, or 3e-5 where `exp` or `log` come in, whose errors WGSL allows to be a few units; a sum of n terms
//! in f32 in some fixed order drifts like √n roundings, for which 2e-7·√n is allowed; results rounded to f16 may be off by 2e-3, two
//! roundings of 11 bits. Where values cancel to 1/c of their size, as deviations from a large mean do, an f32 leaves c units of
//! 1.2e-7: c is stated by the case. Minimal filtering (`winograd-*`) multiplies sums and differences of up to 36 numbers and is allowed 4 times as much.

use crate::graph::DType;

/// The tolerance of a case under a variant.
pub(super) fn tolerance(transcendental: bool, longest_sum: usize, cancellation: f64, dtype: DType, variant: &str) -> f64 {
    let floor: f64 = if transcendental { 3e-5 } else { 3e-6 };
    #[expect(clippy::cast_precision_loss, reason = "a count of terms")]
    let f32_limit = floor.max(2e-7 * (longest_sum as f64).sqrt()).max(1.2e-7 * cancellation);
    let f32_limit = if variant.starts_with("winograd") { 4.0 * f32_limit } else { f32_limit };
    if dtype == DType::F16 { f32_limit.max(2e-3) } else { f32_limit }
}
