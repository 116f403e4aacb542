#!/usr/bin/env bash
# Runs every test. Needs Rust and a C compiler; installs a software Vulkan device where the machine has none.
#
#   scripts/test.sh [ARGUMENT-OF-CARGO-TEST ...]
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --release
scripts/ensure-vulkan.sh target/release/swav-wgpu
target/release/swav-wgpu devices
exec cargo test --release "$@"
