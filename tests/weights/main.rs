//! Weight files: layouts, round trips, hostile input.

mod choice;
mod files;
mod hostile;
#[path = "../support/hostile_files.rs"]
mod hostile_files;
mod layouts;
mod pickles;
