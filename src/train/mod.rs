//! What a training run is made of besides the arithmetic: its configuration, its events, its folder on disk.

pub mod atomic;
pub mod checkpoint;
pub mod config;
pub mod event;
pub mod metrics_log;
pub mod replay;
pub mod run_folder;
