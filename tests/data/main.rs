//! The data layer: augmentation against PyTorch and Pillow, datasets, loaders.

mod augment;
mod bad;
mod dataset;
mod images;
mod labels;
mod layouts;
mod loader;
mod members;
mod shards;
