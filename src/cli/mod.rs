//! The command line: the only part that prints.

pub mod args;
pub mod errors;
pub mod report;
pub mod signals;

/// Runs the program: arguments to exit code.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
