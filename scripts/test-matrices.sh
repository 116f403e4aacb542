#!/usr/bin/env bash
# Runs the tests of kernels, graphs and training steps on a device with cooperative matrices, which scripts/test.sh could not use where
# the machine's own device has none. Does nothing where it has them, and on other systems than Debian on x86-64; there it fails without a
# network the first time.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --release
if target/release/swav-wgpu devices --json | grep -q '"cooperative_matrix_status":"in use"'; then
    echo "The machine's own device has cooperative matrices: scripts/test.sh tests them."
    exit 0
fi
scripts/with-matrices.sh --install || {
    [ $? = 3 ] || exit 1
    echo "Kernels on cooperative matrices are NOT tested here."
    exit 0
}
# A driver whose matrices fail the self-test would let every test fall back to other kernels: that is a failure here.
scripts/with-matrices.sh target/release/swav-wgpu devices
scripts/with-matrices.sh target/release/swav-wgpu devices --json | grep -q '"cooperative_matrix_status":"in use"' || {
    echo "The device brought for its cooperative matrices does not use them." >&2
    exit 1
}
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER=scripts/with-matrices.sh
exec cargo test --release --test cooperative_matrix --test ops --test fusion --test engine --test optimizer --test swav --test deepcluster
