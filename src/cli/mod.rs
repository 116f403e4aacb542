//! The command line: the only part that prints.

pub mod args;
mod bad;
mod bench;
mod check;
mod clusters;
mod common;
mod convert;
mod data;
mod devices;
pub mod errors;
mod evaluate;
mod features;
mod fit;
mod info;
mod knn;
mod output;
mod predict;
mod replay;
pub mod report;
pub mod signals;
mod text;
mod train;

use crate::error::Result;
use args::{Cli, Command, DataCommand};
use std::process::ExitCode;

/// Runs the program: arguments to exit code.
pub fn main() -> ExitCode {
    let cli = match args::parse() {
        Ok(cli) => cli,
        Err(code) => return ExitCode::from(code),
    };
    common::start_logging(&cli.global);
    match common::arm_faults().and_then(|()| run(&cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(errors::report(&error)),
    }
}

fn run(cli: &Cli) -> Result<()> {
    let global = &cli.global;
    match &cli.command {
        Command::Devices(_) => devices::run(global),
        Command::Info(args) => info::run(args, global),
        Command::Train(args) => train::run(args, global),
        Command::EvalLinear(args) => evaluate::linear(args, global),
        Command::EvalKnn(args) => knn::run(args, global),
        Command::Finetune(args) => evaluate::finetune(args, global),
        Command::Features(args) => features::run(args, global),
        Command::Clusters(args) => clusters::run(args, global),
        Command::Predict(args) => predict::run(args, global),
        Command::Data(args) => match &args.command {
            DataCommand::Check(args) => data::check(args, global),
            DataCommand::Cache(args) => data::cache(args, global),
        },
        Command::Convert(args) => convert::run(args, global),
        Command::Bench(args) => bench::run(args, global),
        Command::Check(args) => check::run(args, global),
        Command::Replay(args) => replay::run(args, global),
        Command::Completions(args) => convert::completions(args),
    }
}
