//! The flags of each command.

use super::data::{DataArgs, PartArg};
use super::data_check::BadArgs;
use super::values::{Layout, Shell, Weights, count, fraction, named, part, pixels, positive, some_seconds};
use crate::cli::fit::{data_said_once, said_once};
use crate::error::{Error, Result};
use crate::nn::Recompute;
use crate::swav::Precision;
use clap::Args;
use std::path::PathBuf;

/// What `info --batch` overrides.
const BATCH_KEY: &str = "train.batch";

/// `devices`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  swav-wgpu devices --json")]
pub struct DevicesArgs {}

/// `check`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  swav-wgpu check --adapter nvidia --filter '^(conv2d|linear) '\n\nExits 1 if any case is outside its tolerance.")]
pub struct CheckArgs {
    /// Only cases whose operation, shape and type (`conv2d 1x5x7x3 3x3x3x8 s1p1 f32`) match this regular expression
    #[arg(long, value_name = "RE")]
    pub filter: Option<String>,
}

/// `info`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  swav-wgpu info --config configs/digits.toml --batch 128
  swav-wgpu info --config configs/swav_800ep_pretrain.toml --lr-at 0,3119,100000
  swav-wgpu info --config configs/eval_linear.toml --images 50000 --json")]
pub struct InfoArgs {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Images per step to plan memory for, instead of the configuration's train.batch
    #[arg(long, value_name = "N", value_parser = count)]
    pub batch: Option<usize>,
    /// Training images, for the iterations of an epoch and the learning rates [default: counted in the data, ImageNet's 1,281,167 without]
    #[arg(long, value_name = "N", value_parser = count)]
    pub images: Option<usize>,
    /// Images to count
    #[command(flatten)]
    pub data: DataArgs,
    /// Steps whose learning rate is wanted, counted from 0 [default: first, end of the warm-up or milestones, middle, last]
    #[arg(long, value_name = "STEP,…", value_delimiter = ',')]
    pub lr_at: Vec<u64>,
    /// Override a key of the configuration; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl InfoArgs {
    /// `--set` with what `--batch` stands for.
    pub fn overrides(&self) -> Vec<String> {
        self.set.iter().cloned().chain(self.batch.map(|batch| format!("{BATCH_KEY}={batch}"))).collect()
    }

    /// Refuses what both a flag and `--set` give.
    pub fn said_once(&self) -> Result<()> {
        said_once("--batch", self.batch.is_some(), BATCH_KEY, &self.set)?;
        data_said_once(&self.data, &self.set)
    }

    /// An error about these overrides, which names `--batch` where that is to blame.
    pub fn named(&self, error: Error) -> Error {
        match error {
            Error::Config { key, message, .. } if self.batch.is_some() && key == BATCH_KEY => Error::config("--batch", key, message),
            other => other,
        }
    }
}

/// `train`.
#[derive(Args, Clone, Debug)]
#[command(group = clap::ArgGroup::new("run").args(["config", "out"]).multiple(true), after_help = "Examples:
  swav-wgpu train --config configs/sprites.toml --data data/sprites --out runs/sprites
  swav-wgpu train --config configs/digits.toml --set optimizer.lr=1.2 --set train.epochs=20
  swav-wgpu train --out runs/sprites --resume

Ctrl-C, SIGTERM or SIGUSR1 ends the step, writes a checkpoint and exits 75 (before the first step 130); --resume goes on from there. The last line of --json, then too, is
{steps, epochs, loss, images_per_second, checkpoint, stopped, bad_images, replaced_images}.")]
pub struct TrainArgs {
    /// Configuration file; with --resume the run folder's config.toml if not given
    #[arg(long, value_name = "FILE", required_unless_present = "resume")]
    pub config: Option<PathBuf>,
    /// Images.
    #[command(flatten)]
    pub data: DataArgs,
    /// Run folder: config.toml, metrics.jsonl, TensorBoard events, checkpoints, report.html [default: runs/ and the configuration's name]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Go on from the run folder's newest good checkpoint; start afresh if it has none at all
    #[arg(long, requires = "run")]
    pub resume: bool,
    /// With --resume: go on though images were removed or added since (what that changes: docs/bad-files.md)
    #[arg(long, requires = "resume")]
    pub allow_data_change: bool,
    /// Start from these weights instead of random ones
    #[arg(long, value_name = "WEIGHTS", conflicts_with = "resume")]
    pub init: Option<PathBuf>,
    /// Prefix of the backbone in a file with several, for example teacher or momentum_encoder [default: the one that is usually taken]
    #[arg(long, value_name = "PREFIX", requires = "init")]
    pub backbone: Option<String>,
    /// Stop after this many steps in all, with a checkpoint; the schedule stays that of the whole run
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_steps: Option<u64>,
    /// Override a key of the configuration; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// `eval-linear`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  swav-wgpu eval-linear --config configs/digits-linear.toml --weights runs/digits --data data/digits
  swav-wgpu eval-linear --config configs/digits-linear.toml --weights random:0 --json

Ctrl-C, SIGTERM or SIGUSR1 ends it after the step with the best epoch so far (partial-head.safetensors in --out) and exits 75,
before the end of the first epoch 130.")]
pub struct EvalLinearArgs {
    /// Configuration file of kind "linear"
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Backbone: a checkpoint, run folder, safetensors or PyTorch file, or `random[:SEED]` (architecture from the file's model table)
    #[arg(long, value_name = "FILE|random[:SEED]")]
    pub weights: Weights,
    /// Prefix of the backbone in a file with several, for example teacher or momentum_encoder [default: the one that is usually taken]
    #[arg(long, value_name = "PREFIX")]
    pub backbone: Option<String>,
    /// Images.
    #[command(flatten)]
    pub data: DataArgs,
    /// Part of the labelled images to hold out, in a set without a validation part: by the seed and the image's name; overrides data.val_fraction
    #[arg(long, value_name = "PART", value_parser = part)]
    pub val_fraction: Option<f64>,
    /// Run folder for the head, metrics and report [default: nothing is written]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Override a key of the configuration; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// How images are prepared where no linear configuration says so.
#[derive(Args, Clone, Debug)]
pub struct ImageArgs {
    /// Pre-training or linear configuration: normalisation and image size, and the architecture of random weights
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Side of the square the network sees, in pixels [default: from the weights or configuration, else 224]
    #[arg(long, value_name = "PIXELS", value_parser = pixels)]
    pub size: Option<usize>,
    /// Shorter side before the centre crop; 0 takes images as they are [default: from the configuration, else 256 / 224 of the size, and up to 64 pixels the size]
    #[arg(long, value_name = "PIXELS")]
    pub resize: Option<usize>,
}

/// `eval-knn`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  swav-wgpu eval-knn --weights runs/digits --data data/digits
  swav-wgpu eval-knn --weights random:0 --config configs/digits.toml --data data/digits --k 10,20,100,200

--json prints {top1, top5, mean_class, k}; for several k an array of these in their order. With --bad skip each has the images that were left
out as bad: [{path, reason}].")]
pub struct EvalKnnArgs {
    /// Backbone: a checkpoint, run folder, safetensors or PyTorch file, or `random[:SEED]` (architecture from --config)
    #[arg(long, value_name = "FILE|random[:SEED]")]
    pub weights: Weights,
    /// Prefix of the backbone in a file with several, for example teacher or momentum_encoder [default: the one that is usually taken]
    #[arg(long, value_name = "PREFIX")]
    pub backbone: Option<String>,
    /// Images.
    #[command(flatten)]
    pub data: DataArgs,
    /// Part of the labelled images to hold out, in a set without a validation part: by the seed and the image's name; overrides data.val_fraction
    #[arg(long, value_name = "PART", value_parser = part)]
    pub val_fraction: Option<f64>,
    /// Seed of --val-fraction
    #[arg(long, value_name = "N", default_value = "0")]
    pub seed: u64,
    /// Judge each labelled training image by all others, in place of a validation part
    #[arg(long, conflicts_with = "val_fraction")]
    pub leave_one_out: bool,
    /// Neighbours that vote; of several numbers, for example 10,20,100,200, each gives a result
    #[arg(long, value_name = "N,…", default_value = "20", value_delimiter = ',', value_parser = count)]
    pub k: Vec<usize>,
    /// Votes weigh exp(cosine / temperature)
    #[arg(long, value_name = "T", default_value = "0.07", value_parser = positive)]
    pub temperature: f64,
    /// Bad images.
    #[command(flatten)]
    pub bad: BadArgs,
    /// Image preparation.
    #[command(flatten)]
    pub image: ImageArgs,
}

/// `finetune`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:
  swav-wgpu finetune --config configs/digits-linear.toml --weights runs/digits --fraction 0.1 \\
    --set optimizer.lr=0.2 --set optimizer.backbone_lr=0.01 --set optimizer.weight_decay=0.0 --set train.epochs=20

Ctrl-C, SIGTERM or SIGUSR1 ends it after the step with the best epoch so far (partial-head.safetensors and
partial-model.safetensors in --out) and exits 75, before the end of the first epoch 130.")]
pub struct FinetuneArgs {
    /// Configuration file of kind "linear"; optimizer.backbone_lr is the backbone's learning rate
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Backbone to start from
    #[arg(long, value_name = "FILE|random[:SEED]")]
    pub weights: Weights,
    /// Prefix of the backbone in a file with several, for example teacher or momentum_encoder [default: the one that is usually taken]
    #[arg(long, value_name = "PREFIX")]
    pub backbone: Option<String>,
    /// Part of each class's training images to use; overrides train.fraction
    #[arg(long, value_name = "PART", value_parser = fraction)]
    pub fraction: Option<f64>,
    /// Images.
    #[command(flatten)]
    pub data: DataArgs,
    /// Part of the labelled images to hold out, in a set without a validation part: by the seed and the image's name; overrides data.val_fraction
    #[arg(long, value_name = "PART", value_parser = part)]
    pub val_fraction: Option<f64>,
    /// Run folder [default: nothing is written]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Override a key of the configuration; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// `features`.
#[derive(Args, Clone, Debug)]
#[command(group = clap::ArgGroup::new("source").args(["data", "input"]).required(true), after_help = "Examples:
  swav-wgpu features --weights runs/digits --data data/digits --out digits.safetensors
  swav-wgpu features --weights resnet50.pth --input images.safetensors --out features.safetensors

From --data: features (N, C), labels (N), metadata paths; with --bad skip N is without the images that cannot be read, which metadata bad names. From --input, which holds images (N, 3, H, W) normalised already: features (N, C),
map (N, C, h, w), and with a SwAV head in the weights embeddings (N, D) and scores (N, K; of the first head where there are several).")]
pub struct FeaturesArgs {
    /// Backbone: a checkpoint, run folder, safetensors or PyTorch file, or `random[:SEED]` (architecture from --config)
    #[arg(long, value_name = "FILE|random[:SEED]")]
    pub weights: Weights,
    /// Prefix of the backbone in a file with several, for example teacher or momentum_encoder [default: the one that is usually taken]
    #[arg(long, value_name = "PREFIX")]
    pub backbone: Option<String>,
    /// Images.
    #[command(flatten)]
    pub data: DataArgs,
    /// Which of the images
    #[arg(long, value_enum, value_name = "PART", default_value_t)]
    pub part: PartArg,
    /// Tensors: a safetensors file with `images`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "labels", "label_key", "data_layout", "part"])]
    pub input: Option<PathBuf>,
    /// File to write
    #[arg(long, value_name = "FILE.safetensors")]
    pub out: PathBuf,
    /// Bad images.
    #[command(flatten)]
    pub bad: BadArgs,
    /// Image preparation.
    #[command(flatten)]
    pub image: ImageArgs,
}

/// `clusters`.
#[derive(Args, Clone, Debug)]
#[command(group = clap::ArgGroup::new("images").args(["data"]).required(true), after_help = "Example:\n  swav-wgpu clusters --weights runs/sprites --data data/sprites --out clusters

With --bad skip an image that cannot be read is a line {path, error} behind the others.")]
pub struct ClustersArgs {
    /// Weights with a SwAV head
    #[arg(long, value_name = "FILE")]
    pub weights: PathBuf,
    /// Prefix of the backbone in a file with several, for example teacher or momentum_encoder [default: the one that is usually taken]
    #[arg(long, value_name = "PREFIX")]
    pub backbone: Option<String>,
    /// Images.
    #[command(flatten)]
    pub data: DataArgs,
    /// Which of the images
    #[arg(long, value_enum, value_name = "PART", default_value_t)]
    pub part: PartArg,
    /// Folder for the gallery
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Prototype head, counted from 0, of weights that have several (DeepCluster-v2)
    #[arg(long, value_name = "N", default_value = "0")]
    pub head: usize,
    /// Bad images.
    #[command(flatten)]
    pub bad: BadArgs,
    /// Image preparation.
    #[command(flatten)]
    pub image: ImageArgs,
}

/// `predict`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  swav-wgpu predict --weights runs/digits --head runs/digits-linear/head.safetensors 3.png 7.png --json

An image that cannot be read has an `error` in place of the prediction; the others are classified, and the exit code is 4.")]
pub struct PredictArgs {
    /// Backbone
    #[arg(long, value_name = "FILE")]
    pub weights: PathBuf,
    /// Prefix of the backbone in a file with several, for example teacher or momentum_encoder [default: the one that is usually taken]
    #[arg(long, value_name = "PREFIX")]
    pub backbone: Option<String>,
    /// Head that eval-linear or finetune wrote
    #[arg(long, value_name = "FILE")]
    pub head: PathBuf,
    /// Images
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// Image preparation.
    #[command(flatten)]
    pub image: ImageArgs,
}

/// `convert`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  swav-wgpu convert swav_800ep_pretrain.pth.tar resnet50.safetensors --to torchvision")]
pub struct ConvertArgs {
    /// A checkpoint, run folder, safetensors or PyTorch file
    #[arg(value_name = "IN")]
    pub input: PathBuf,
    /// File to write; its ending .safetensors or .pth says the format
    #[arg(value_name = "OUT")]
    pub output: PathBuf,
    /// Names of the tensors
    #[arg(long, value_enum, default_value = "torchvision")]
    pub to: Layout,
    /// Prefix of the backbone in a file with several, for example teacher or momentum_encoder [default: the one that is usually taken]
    #[arg(long, value_name = "PREFIX")]
    pub backbone: Option<String>,
}

/// `replay`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  swav-wgpu replay trajectory.safetensors --steps 1 --json\n\nExits 1 if the trajectory is not reproduced.")]
pub struct ReplayArgs {
    /// Recorded trajectory
    #[arg(value_name = "FILE.safetensors")]
    pub file: PathBuf,
    /// Largest error of any step's loss [default: 1e-3, in f16 0.1]
    #[arg(long, value_name = "LOSS", value_parser = positive)]
    pub tolerance: Option<f64>,
    /// Judge only the first steps [default: all]
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// f32 or f16: as what the backbone computes. In f16 only blunders are found, for the recording is of f32
    #[arg(long, default_value = "f32", value_parser = named::<Precision>)]
    pub precision: Precision,
}

/// `bench`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  swav-wgpu bench --filter '^matmul' --json")]
pub struct BenchArgs {
    /// Only cases whose name matches this regular expression
    #[arg(long, value_name = "RE")]
    pub filter: Option<String>,
    /// Only list the names
    #[arg(long)]
    pub list: bool,
    /// Images of every kernel and step, in place of each case's own
    #[arg(long, value_name = "N", value_parser = count)]
    pub batch: Option<usize>,
    /// Time to spend on each case after its first run
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = some_seconds)]
    pub seconds: f64,
    /// What steps compute again to save memory: train.recompute, none, norm, stage or block
    #[arg(long, value_name = "WHAT", default_value = "norm", value_parser = named::<Recompute>)]
    pub recompute: Recompute,
    /// Device time of every kernel instead of whole runs
    #[arg(long)]
    pub profile: bool,
}

/// `completions`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  swav-wgpu completions bash > ~/.local/share/bash-completion/completions/swav-wgpu")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}
