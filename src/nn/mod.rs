//! Networks: what tensors they have ([`architecture`]), where those live on a device ([`Parameters`]), and what they compute ([`ResNet`]).
//!
//! Names are torchvision's (backbone) and the official SwAV code's (head). Files keep PyTorch's layouts; [`layout`] turns them.

pub mod architecture;
mod images;
mod init;
pub mod layout;
mod parameters;
mod resnet;

pub use images::Images;
pub use init::{Init, initial_values};
pub use parameters::{Arena, Parameters, Values};
pub use resnet::{Recompute, ResNet, Working};
