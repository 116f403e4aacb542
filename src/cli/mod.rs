//! The command line: the only part that prints.

pub mod args;
pub mod errors;
mod output;
mod replay;
pub mod report;
pub mod signals;

use args::Command;
use std::process::ExitCode;

/// Runs the program: arguments to exit code.
pub fn main() -> ExitCode {
    let cli = match args::parse() {
        Ok(cli) => cli,
        Err(code) => return ExitCode::from(code),
    };
    let outcome = match &cli.command {
        Command::Replay(args) => replay::run(args, &cli.global),
        _ => Ok(()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(errors::report(&error)),
    }
}
