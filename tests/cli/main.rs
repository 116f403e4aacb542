//! The command line through its binary.

mod args;
mod deepcluster;
mod errors;
mod evaluate;
mod rig;
mod stops;
mod tools;
mod train;
