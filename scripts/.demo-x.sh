#!/usr/bin/env bash
# Builds the program, pre-trains a small network on the sprites with SwAV, and prints what its features are worth beside those of the
# untrained network. Needs Rust and a C compiler; installs a software Vulkan device where the machine has none.
#
#   scripts/demo.sh [FOLDER]          the run goes to FOLDER (default runs/demo), which is made anew
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/demo}

true
swav="/work/shared/bin/with-mesa /work/base/head2"
true

if [ -e "$out" ] && ! { [ -e "$out/lock" ] && [ -d "$out/checkpoints" ] && [ -e "$out/kernels.json" ]; }; then
    echo "$out exists and holds no run of swav-wgpu; name another folder" >&2
    exit 2
fi
rm -rf "$out"
started=$(date +%s)
$swav train --config configs/sprites.toml --out "$out"

value() { sed -nE "s/.*\"$1\":([0-9.]+).*/\1/p"; }
row() { # NAME WEIGHTS [FLAG ...]
    local name=$1 weights=$2 linear knn
    linear=$($swav eval-linear --quiet --json --config configs/sprites-linear.toml --weights "$weights")
    knn=$($swav eval-knn --quiet --json --weights "$weights" --config configs/sprites.toml)
    printf '%-22s %12.1f %14.1f %12.1f %14.1f\n' "$name" "$(value top1 <<<"$linear")" "$(value mean_class <<<"$linear")" \
        "$(value top1 <<<"$knn")" "$(value mean_class <<<"$knn")"
}
untrained=$(row "untrained backbone" random:0)
trained=$(row "SwAV" "$out")
echo
echo "Accuracy on the validation sprites, 16 classes, per cent (top-1, and the mean of the classes' own top-1):"
printf '%-22s %12s %14s %12s %14s\n' "features" "linear" "class mean" "k-NN" "class mean"
echo "$untrained"
echo "$trained"
echo
echo "$(($(date +%s) - started)) s after building. The run is in $out: report.html shows its curves."
