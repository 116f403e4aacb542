//! Naive forwards in f64: plain loops that are there to be believed. Images are NHWC, matrices (rows, columns), all without padding.

mod batch_norm;
mod conv2d;
mod cross_entropy;
mod normalize;
mod pool;
mod sinkhorn;
mod softmax;

pub(super) use batch_norm::{Normalized, batch_norm_evaluation, batch_norm_training, running};
pub(super) use conv2d::conv2d;
pub(super) use cross_entropy::soft_cross_entropy;
pub(super) use normalize::normalize;
pub(super) use pool::{global_avg_pool2d, max_pool2d};
pub(super) use sinkhorn::sinkhorn;
pub(super) use softmax::log_softmax;
