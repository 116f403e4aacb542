//! Flags about images that cannot be used: `data check`, and `--bad` of commands that look at each once.

use super::values::{OnBadImage, count, named};
use crate::data::Layout;
use clap::Args;
use std::path::PathBuf;

/// What becomes of images that cannot be read, where each is looked at once.
#[derive(Args, Clone, Debug)]
pub struct BadArgs {
    /// What becomes of images that cannot be read
    #[arg(long, value_enum, value_name = "stop|skip", default_value_t)]
    pub bad: OnBadImage,
}

/// `data`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  swav-wgpu data check data/sprites --decode")]
pub struct DataToolArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: DataCommand,
}

/// What can be done with a set of images.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum DataCommand {
    /// Say what a set holds and which of its images cannot be used
    Check(DataCheckArgs),
    /// Say what is kept of shards in the cache folder, or delete it
    Cache(DataCacheArgs),
}

/// `data check`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  swav-wgpu data check data/sprites
  swav-wgpu data check /data/imagenet --decode --json

--json prints {summary, data: {pictures, parts, passed_over, …}, images, classes: [{class, images}], without_class, decoded, width: {min, median, max}, height, duplicates: [[path]], bad: [{path, reason}]}.
Exits 4 when an image cannot be used.")]
pub struct DataCheckArgs {
    /// Images: a folder, tar shards (train-{000..099}.tar), CIFAR or STL-10
    #[arg(required = true, value_name = "PATH|PATTERN")]
    pub paths: Vec<PathBuf>,
    /// File that says which class each image has: lines `name class`, CSV, or a class number a line
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// What the class is called in .json members of shards, metadata and tables [default: label]
    #[arg(long, value_name = "KEY")]
    pub label_key: Option<String>,
    /// Read and decode every image, as a run would, and find those of the same content
    #[arg(long)]
    pub decode: bool,
    /// What names of folders and shards mean: auto (train, val, … are parts unless they are classes), parts, classes
    #[arg(long, value_name = "HOW", value_parser = named::<Layout>, default_value = "auto")]
    pub data_layout: Layout,
    /// Threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = count)]
    pub workers: Option<usize>,
}

/// `data cache`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  swav-wgpu data cache
  swav-wgpu data cache --clear

--json prints {folder, copies, copy_bytes, indexes, index_bytes, cleared}; folder is null where nothing is kept.")]
pub struct DataCacheArgs {
    /// Delete unpacked copies of compressed shards and indexes of shards; not while a command reads
    /// them
    #[arg(long)]
    pub clear: bool,
}
