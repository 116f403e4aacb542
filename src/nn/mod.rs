//! Networks. This part is pure data: what a network is made of, not how it is computed.

pub mod architecture;
