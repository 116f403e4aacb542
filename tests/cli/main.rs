//! The command line through its binary.

mod args;
