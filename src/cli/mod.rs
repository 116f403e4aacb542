//! The command line: the only part that prints.

pub mod args;
pub mod errors;
pub mod report;
pub mod signals;
