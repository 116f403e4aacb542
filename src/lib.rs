//! SwAV (Caron et al. 2020) trained on any Vulkan, Metal or DX12 GPU.
//!
//! The modules, lowest layer first; each uses only those above it in this list (a test holds that). ARCHITECTURE.md tells more.

// rustfmt would sort the list, which is in layer order.
#![cfg_attr(rustfmt, rustfmt_skip)]

pub mod error;
pub mod fault;
pub mod atomic;
pub mod data;
pub mod gpu;
pub mod graph;
pub mod ops;
pub mod tune;
pub mod check;
pub mod nn;
pub mod optim;
pub mod swav;
pub mod weights;
pub mod train;
pub mod bench;
pub mod cli;

pub use error::{Error, Result};
