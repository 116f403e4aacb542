//! The command line through its binary.

mod args;
mod errors;
mod evaluate;
mod rig;
mod stops;
mod tools;
mod train;
mod tune;
