//! The command line through its binary.

mod args;
mod errors;
mod evaluate;
mod info;
mod rig;
mod stops;
mod tools;
mod train;
