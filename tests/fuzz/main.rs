//! Parsers fed with damaged input: each case is a valid file of the tests with a few mutations.
//!
//! A case fails when the parser panics, takes longer than [`harness::SLOWEST`], or makes the process
//! take more than [`harness::MOST_MEMORY`] beyond what it had. The cases of a normal run are few and
//! always the same. For a long run:
//!
//! ```sh
//! SWAV_FUZZ_SECONDS=1800 cargo test --release --test fuzz -- --nocapture --test-threads 1 images
//! ```
//!
//! begins at another case each time, prints how many it tried, and leaves a failing input in
//! `target/fuzz/`. `SWAV_FUZZ_FIRST=CASE` begins at a given one.

mod bombs;
mod data;
mod harness;
#[path = "../support/hostile_files.rs"]
#[expect(dead_code, reason = "what is hostile already is for other tests")]
mod hostile_files;
mod labels;
mod mutate;
mod shards;
mod text;
mod weights;
