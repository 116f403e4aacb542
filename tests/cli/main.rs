//! The command line through its binary.

mod args;
mod bad;
mod deepcluster;
mod errors;
mod evaluate;
mod files;
#[path = "../support/hostile_files.rs"]
mod hostile_files;
mod info;
mod rig;
mod stops;
mod tools;
mod train;
mod tune;
mod weights;
#[path = "../support/worst.rs"]
mod worst;
