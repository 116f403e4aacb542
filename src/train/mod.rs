//! What the commands do: plans made from configurations, and the loops that run them.
//!
//! Promise: nothing here prints; loops say what happens through [`event`]s.

pub mod checkpoint;
pub mod classifier;
pub mod config;
mod diagnosis;
pub mod event;
mod extract;
pub mod finetune;
pub mod knn;
pub mod linear;
pub mod log_file;
pub mod memory;
pub mod metrics_log;
mod network;
pub mod plan;
pub mod pretrain;
pub mod replay;
pub mod run_folder;

pub use extract::{Extracted, Extractor, after, nhwc4};
pub use network::{FINETUNED, Network, fingerprint, weight_file};
