//! The command line through its binary.

mod advice;
mod args;
mod bad;
mod data_line;
mod deepcluster;
mod errors;
mod evaluate;
mod faults;
mod files;
#[cfg(unix)]
mod folder;
#[path = "../support/hostile_files.rs"]
mod hostile_files;
mod info;
#[cfg(unix)]
mod kills;
mod labels;
mod names;
mod nonfinite;
mod rig;
#[cfg(target_os = "linux")]
mod soak;
mod stops;
#[cfg(unix)]
mod stops_early;
mod tools;
mod train;
mod tune;
#[cfg(target_os = "linux")]
mod vulkan;
mod weights;
#[path = "../support/worst.rs"]
mod worst;
