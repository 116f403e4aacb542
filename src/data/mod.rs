//! From files to crops: finding and decoding images, augmenting them as the reference implementations do, and handing out batches.
//!
//! Everything here runs on the CPU and depends only on (files, configuration, seed, step): neither the number of worker threads nor an
//! interruption changes a single bit of what a training step sees.

pub mod augment;
pub mod bad;
mod braces;
pub mod dataset;
mod decode;
mod folder;
mod hold_out;
mod labels;
pub mod loader;
mod pattern;
mod reading;
mod records;
pub mod rng;
mod shards;
pub mod survey;

pub use augment::{AugmentConfig, CropGroup, EvalTransform, MultiCrop, Order, Scratch, TrainTransform, crop_bytes};
pub use bad::{Bad, BadImages, Notice, OnBad};
pub use dataset::{Contents, Dataset, Layout, Part, PartSummary, ScanOptions, Split, Stamp, Summary};
pub use decode::{DECODERS, Rgb8, read_image};
pub use hold_out::{HeldOut, hold_out, is_held_out};
pub use loader::{Batch, Loader, steps_per_epoch};
pub use pattern::Places;
pub use shards::{KeptShards, kept_shards};
