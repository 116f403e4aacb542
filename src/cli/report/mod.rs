//! Observers that show and record a run: progress on stderr, JSON lines, TensorBoard events, an HTML report.

pub mod html;
pub mod metrics;
pub mod progress;
pub mod svg;
pub mod tensorboard;
