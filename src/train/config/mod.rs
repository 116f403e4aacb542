//! Configuration files: every number of a run in one TOML file.
//!
//! Promise: a file that loads has only known keys with values inside their allowed ranges; anything else is one [`Error::Config`]
//! that names file, key, value and what is allowed. `extends = ["base.toml"]` inherits (paths relative to the file that says it, later
//! files win), `--set a.b=VALUE` overrides. What was read can be written back with `to_toml` and gives the same run.

mod advice;
mod check;
mod deepcluster;
mod linear;
mod load;
mod normalize_std;
mod pretrain;
mod pretrain_check;
mod suggest;
mod unused;

pub use deepcluster::{DeepclusterConfig, Method};
pub use linear::{
    HeadConfig, HeadInit, ImageConfig, LinearAugment, LinearConfig, LinearOptimizer, LinearOptimizerKind, LinearSchedule, LinearTrain, Per,
    ScheduleKind,
};
pub use load::{Origins, differences, kind_of};
pub use pretrain::{
    AugmentConfig, AugmentOrder, CheckpointConfig, CropsConfig, LossConfig, ModelConfig, OptimizerConfig, OptimizerKind, PretrainConfig, QueueConfig,
    ScheduleConfig, TrainConfig,
};

pub use crate::nn::architecture::{Block, Stem};
pub use crate::swav::SinkhornScope;

use crate::data::{Contents, Layout, Places, ScanOptions, Split};
use crate::error::{Error, Result};
use crate::nn::architecture::Backbone;
use crate::train::event::Warning;
use crate::tune::cache_folder;
use check::Check;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Which program part a file is for: its top-level key `kind`, or guessed from its tables when that is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Pre-training: `train`.
    #[default]
    Pretrain,
    /// A linear head on a frozen backbone, or fine-tuning: `eval-linear`, `finetune`.
    Linear,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pretrain => "pretrain",
            Self::Linear => "linear",
        })
    }
}

/// `[data]`: where the images are and how they are normalised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// Image folder or place of the tar shards, a pattern with braces or globs (`shard-{000..099}.tar`), or a list of these; `--data` overrides it.
    pub path: Places,
    /// What names of folders and shards mean: `"auto"`, the default, takes `train`, `val` and the like for parts of the set unless they are classes;
    /// `"parts"` and `"classes"` decide what is ambiguous; `--data-layout` overrides it.
    #[serde(skip_serializing_if = "Layout::is_auto")]
    pub layout: Layout,
    /// File that says which class each image has, where no folder does: lines `name class`, CSV, or a class number a line; `--labels` overrides it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<PathBuf>,
    /// What the class is called in `.json` members of shards (else `label`, `cls` or `class`), in `metadata.jsonl`, and in tables with a header (else `label`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_key: Option<String>,
    /// Part of the labelled images that evaluations hold out, in a set without a validation part: by `seed` and the image's name. `--val-fraction` overrides it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_fraction: Option<f64>,
    /// Loader threads; default one per core.
    pub workers: usize,
    /// Subtracted per channel R, G, B, as a fraction of 255.
    pub mean: [f64; 3],
    /// Divided by per channel R, G, B, as a fraction of 255: three numbers, or whose they are, `"mmpretrain"` (.229/.224/.225) or
    /// `"official"` (.228 for red). Files may also call the key `normalize_std`.
    #[serde(deserialize_with = "normalize_std::deserialize")]
    pub std: [f64; 3],
    /// What becomes of an image that cannot be read: with `replace`, the default of pre-training, another one takes its place, chosen by the seed; with
    /// `stop`, the default of evaluations, it ends the run. An evaluation that is told to replace does so in training, and leaves bad validation images
    /// out of the score.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bad: Option<BadFiles>,
    /// Part of the set that may be bad, from 0 to 1: above it the run ends, for then a disk is missing rather than that files are bad. By default 0.001,
    /// but at least 3 images in sets of 30 and more, and a tenth of smaller ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bad_limit: Option<f64>,
}

/// What becomes of images that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BadFiles {
    /// Another one takes its place.
    Replace,
    /// The run ends.
    Stop,
}

/// Loader threads for each core that are more than help, and threads that are never too many.
const THREADS_PER_CORE: usize = 4;
const FEW_WORKERS: usize = 32;
/// Most loader threads.
const MOST_WORKERS: usize = 1024;

impl Default for DataConfig {
    fn default() -> Self {
        let workers = std::thread::available_parallelism().map_or(1, |n| n.get().min(MOST_WORKERS));
        Self {
            path: "data".into(),
            layout: Layout::Auto,
            labels: None,
            label_key: None,
            val_fraction: None,
            workers,
            mean: [0.485, 0.456, 0.406],
            std: normalize_std::MMPRETRAIN,
            bad: None,
            bad_limit: None,
        }
    }
}

impl DataConfig {
    /// Scans the set, to open `splits` of it: lists files and reads tar headers, but no image. What is found out of shards is kept in the cache folder.
    pub fn scan(&self, splits: &[Split]) -> Result<Contents> {
        let options = ScanOptions {
            layout: self.layout,
            cache: cache_folder(),
            labels: self.labels.clone(),
            label_key: self.label_key.clone(),
            only: splits.to_vec(),
        };
        Contents::scan_all(&self.path, &options)
    }

    /// What is allowed of it but unwise.
    fn advice(&self) -> Option<Warning> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let most = FEW_WORKERS.max(THREADS_PER_CORE * cores);
        let message = || {
            format!(
                "is {}, and this machine has {cores} cores: more threads than it can run take memory and turns from each other; {cores} are the default",
                self.workers
            )
        };
        (self.workers > most).then(|| Warning::new("data.workers", message()))
    }

    fn validate(&self, c: &Check) -> Result<()> {
        let shown = if self.path.patterns().is_empty() { "[]" } else { "\"\"" };
        c.that("data.path", !self.path.is_blank(), shown, "must name a folder or tar shards")?;
        c.that("data.labels", self.labels.as_ref().is_none_or(|path| !path.as_os_str().is_empty()), "\"\"", "must name a file")?;
        c.that("data.label_key", self.label_key.as_ref().is_none_or(|key| !key.is_empty()), "\"\"", "must not be empty")?;
        if let Some(part) = self.val_fraction {
            c.that("data.val_fraction", part > 0.0 && part < 1.0, part, "must be > 0 and < 1")?;
        }
        c.count("data.workers", self.workers as u64, 1, MOST_WORKERS as u64)?;
        for i in 0..3 {
            c.range(&format!("data.mean[{i}]"), self.mean[i], 0.0, 1.0)?;
            c.positive(&format!("data.std[{i}]"), self.std[i])?;
        }
        self.bad_limit.map_or(Ok(()), |limit| c.range("data.bad_limit", limit, 0.0, 1.0))?;
        Ok(())
    }
}

/// Backbone architecture, from either kind of file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackboneConfig {
    /// 18, 34 or 50; not beside `blocks`. Neither means 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth: Option<u32>,
    /// Blocks in each of the four stages, with `block`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocks: Option<[usize; 4]>,
    /// Kind of block, with `blocks`: `basic` or `bottleneck`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<Block>,
    /// Channels after the stem; 64, the default, in the ResNets of the paper, 128 in RN50w2.
    pub width: usize,
    /// First layers: `standard` (7x7 with stride 2, then pooling), the default, or `small` (3x3, for images of 32 pixels or so).
    pub stem: Stem,
    /// The last batch norm of each block starts with weight 0 (mmpretrain yes, the default; official code no).
    pub zero_init_residual: bool,
}

impl Default for BackboneConfig {
    fn default() -> Self {
        Self { depth: None, blocks: None, block: None, width: 64, stem: Stem::Standard, zero_init_residual: true }
    }
}

impl BackboneConfig {
    /// The network these keys describe.
    pub fn architecture(&self) -> Backbone {
        let (blocks, block) = self.stages();
        Backbone { block, blocks: blocks.to_vec(), width: self.width, stem: self.stem }
    }

    /// Blocks of each stage and their kind.
    pub fn stages(&self) -> ([usize; 4], Block) {
        match (self.blocks, self.depth) {
            (Some(blocks), _) => (blocks, self.block.unwrap_or(Block::Basic)),
            (None, Some(18)) => ([2, 2, 2, 2], Block::Basic),
            (None, Some(34)) => ([3, 4, 6, 3], Block::Basic),
            (None, _) => ([3, 4, 6, 3], Block::Bottleneck),
        }
    }

    /// C, channels of the pooled features: 2048 for ResNet-50.
    pub fn features(&self) -> usize {
        self.width * 8 * self.stages().1.expansion()
    }

    fn validate(&self, c: &Check) -> Result<()> {
        if let Some(depth) = self.depth {
            c.that("model.depth", [18, 34, 50].contains(&depth), depth, "allowed: 18, 34, 50 (others by model.blocks and model.block)")?;
            c.that("model.depth", self.blocks.is_none(), depth, "cannot stand beside model.blocks: give one of them")?;
        }
        match (self.blocks, self.block) {
            (Some(blocks), Some(_)) => (0..4).try_for_each(|i| c.count(&format!("model.blocks[{i}]"), blocks[i] as u64, 1, 1000))?,
            (Some(_), None) => return Err(c.error("model.block", "missing beside model.blocks; allowed: basic, bottleneck")),
            (None, Some(_)) => return Err(c.error("model.block", "needs model.blocks beside it, for example [2, 2, 2, 2]")),
            (None, None) => {}
        }
        c.count("model.width", self.width as u64, 1, 8192)?;
        c.parameters(&self.architecture().tensors(), "model.width and the number of blocks")
    }
}

/// Backbone architecture that a configuration file of either kind describes, for `--weights random`. A linear-evaluation file must have
/// a `[model]` table for that.
pub fn backbone_of(path: &Path, sets: &[String]) -> Result<BackboneConfig> {
    match kind_of(path, sets)? {
        Kind::Pretrain => Ok(PretrainConfig::load(path, sets)?.0.model.backbone()),
        Kind::Linear => LinearConfig::load(path, sets)?
            .0
            .model
            .ok_or_else(|| Error::config(path.display().to_string(), "model", "missing: random weights need the architecture in a [model] table")),
    }
}

fn to_toml<T: Serialize>(config: &T) -> Result<String> {
    let failed = |e: toml::ser::Error| Error::Failed(format!("the configuration cannot be written as TOML: {e}"));
    let text = toml::to_string(config).map_err(failed)?;
    if !["\"\"\"", "'''"].iter().any(|quotes| text.contains(quotes)) {
        return Ok(text);
    }
    // A path with a line's end in it would look like lines of the file's own. Control characters are always escaped: one stands for it.
    let mut whole = toml::Value::try_from(config).map_err(failed)?;
    mark_line_ends(&mut whole);
    Ok(toml::to_string(&whole).map_err(failed)?.replace(WRITTEN_LINE_END, "\\n"))
}

/// What stands for a line's end in a string while it is written, and how it is written then.
const LINE_END: &str = "\u{b}line\u{b}";
const WRITTEN_LINE_END: &str = "\\u000Bline\\u000B";

fn mark_line_ends(value: &mut toml::Value) {
    match value {
        toml::Value::String(text) => *text = text.replace('\n', LINE_END),
        toml::Value::Array(all) => all.iter_mut().for_each(mark_line_ends),
        toml::Value::Table(all) => all.iter_mut().for_each(|(_, value)| mark_line_ends(value)),
        _ => {}
    }
}

/// Learning rate after the linear scaling rule, when `scale_lr_by_batch` asks for it.
fn scaled(lr: f64, batch: usize, by: Option<usize>) -> f64 {
    by.map_or(lr, |by| lr * batch as f64 / by as f64)
}

#[cfg(test)]
mod recipes;
#[cfg(test)]
mod tests;
