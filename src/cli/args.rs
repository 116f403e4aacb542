//! Commands and flags.
//!
//! Promise: names, meanings and exit codes here are what scripts rely on; every command's help ends with an example; a value that
//! can be judged without looking at files is judged here, with exit code 2.

mod commands;
mod data;
mod data_check;
mod values;

pub use commands::{
    BenchArgs, CheckArgs, ClustersArgs, CompletionsArgs, ConvertArgs, DevicesArgs, EvalKnnArgs, EvalLinearArgs, FeaturesArgs, FinetuneArgs,
    ImageArgs, InfoArgs, PredictArgs, ReplayArgs, TrainArgs,
};
pub use data::{DataArgs, PartArg};
pub use data_check::{BadArgs, DataCacheArgs, DataCheckArgs, DataCommand, DataToolArgs};
pub use values::{Layout, OnBadImage, Shell, Tune, Weights};

use super::text::printable;
use crate::tune::Fusions;
use clap::{Args, Parser, Subcommand};

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 the run failed or a check did not hold; 2 wrong flag, configuration or weight file; 3 no usable adapter; 4 data; 5 output cannot be written;
6 NaN or infinity; 7 out of GPU memory; 8 device lost; 9 run folder in use; 75 stopped by a signal, with what was done kept; 130 stopped at once, or with
nothing to keep.

Environment: WGPU_BACKEND and WGPU_ADAPTER_NAME choose adapters as in any wgpu program; NO_COLOR turns colours and bars off;
SWAV_WGPU_CACHE is the folder for measured kernels, compiled pipelines and the index of shards, in place of the platform's for caches (empty: none).";

const FUSE: &str = "\
What one kernel may do together that several could: usual, none, all, or some of these between commas

Possible parts:
- activation:            Batch norm adds residuals and applies ReLUs
- activation-gradient:   So does its reverse pass
- statistics:            Convolutions note the moments that batch norm needs
- gradient-sums:         And the sums that its reverse pass needs
- sum-of-gradients:      And add gradients of the same tensor
- weight-gradient-input: The gradient of a weight normalises its input itself
- convolution-input:     So does the convolution; not usual";

/// SwAV self-supervised training of ResNets on any Vulkan, Metal or DX12 GPU
#[derive(Clone, Debug, Parser)]
#[command(name = "swav-wgpu", bin_name = "swav-wgpu", version, propagate_version = true, after_help = EXIT_CODES, max_term_width = 120)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
}

/// Flags of every command.
#[derive(Args, Clone, Debug, Default)]
pub struct Global {
    /// GPU to use: its index in `devices`, or a part of its name
    #[arg(long, global = true, value_name = "INDEX|NAME-PART", help_heading = "Global options")]
    pub adapter: Option<String>,
    /// How kernels are chosen where there are several for one job
    #[arg(long, global = true, value_enum, value_name = "HOW", default_value_t, help_heading = "Global options")]
    pub tune: Tune,
    /// The most time that --tune full may take, in seconds
    #[arg(long, global = true, value_name = "SECONDS", default_value = "120", value_parser = values::seconds, help_heading = "Global options")]
    pub tune_seconds: f64,
    /// What one kernel may do together that several could: usual, none, all, or names between commas
    #[arg(long, global = true, value_name = "WHAT", default_value = "usual", help_heading = "Global options", long_help = FUSE)]
    pub fuse: Fusions,
    /// Say more (-v: information, -vv: debugging)
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
    /// Say only warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Global options")]
    pub quiet: bool,
    /// Print JSON on stdout, and nothing else there
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
}

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// List every adapter with its driver, features and limits
    Devices(DevicesArgs),
    /// Run every kernel on this adapter and compare it with the CPU
    Check(CheckArgs),
    /// Say what a configuration is and needs: recipe, learning rates, parameters, FLOPs, memory
    Info(InfoArgs),
    /// Pre-train a backbone with SwAV or DeepCluster-v2
    Train(TrainArgs),
    /// Train and evaluate a linear classifier on the frozen backbone
    EvalLinear(EvalLinearArgs),
    /// Evaluate the backbone's features by weighted nearest neighbours
    EvalKnn(EvalKnnArgs),
    /// Fine-tune all layers on a part of the labels
    Finetune(FinetuneArgs),
    /// Write the features of images or tensors
    Features(FeaturesArgs),
    /// Say which prototype each image belongs to, and draw each prototype's closest images
    Clusters(ClustersArgs),
    /// Classify images with a backbone and a linear head
    Predict(PredictArgs),
    /// Look at a set of images before it is used
    Data(DataToolArgs),
    /// Convert weights between layouts and file formats
    Convert(ConvertArgs),
    /// Re-run a recorded training trajectory and compare
    Replay(ReplayArgs),
    /// Time kernels and whole training steps on this adapter
    Bench(BenchArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

/// Reads the process's arguments. Help, version and errors are printed; the error is the exit code then.
pub fn parse() -> Result<Cli, u8> {
    let shown = || Cli::try_parse_from(std::env::args_os().map(|argument| printable(argument.to_string_lossy()))).err();
    Cli::try_parse().map_err(|e| super::errors::report_usage(&e, shown))
}
