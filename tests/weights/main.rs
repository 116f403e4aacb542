//! Weight files: layouts, round trips, hostile input.

mod files;
mod hostile;
mod layouts;
