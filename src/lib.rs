//! SwAV (Caron et al. 2020) trained on any Vulkan, Metal or DX12 GPU.
//!
//! The modules, lowest layer first; each imports only from those above it in this list.

pub mod error;
pub mod gpu;
pub mod graph;
pub mod ops;
pub mod tune;
pub mod check;
pub mod nn;
pub mod optim;
pub mod data;
pub mod weights;
pub mod train;
pub mod cli;

pub use error::{Error, Result};
