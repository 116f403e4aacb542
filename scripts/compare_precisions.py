#!/usr/bin/env python3
"""Does training in f16 lose anything? Trains the same steps in f32 and in f16 from several seeds and compares the mean losses.

    scripts/compare_precisions.py --seeds 12 [--config configs/sprites.toml] [--steps 200] [--out runs/precisions]

A single seed cannot tell: roundings alone part two runs after some tens of steps, as other seeds would, also two runs in f32 whose kernels sum
in another order (`--against none` compares f32 with `--fuse none`). So the differences are averaged over seeds, and their standard error says
how far that can be trusted. Exits 1 when the average is farther from 0 than --limit per cent. Runs that are there already are read, not made again.
"""
import argparse
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=ROOT / "target/release/swav-wgpu")
    parser.add_argument("--config", default="configs/sprites.toml")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=12, help="how many, from 1 [12]")
    parser.add_argument("--against", choices=["f16", "none"], default="f16", help="f16, or f32 with --fuse none [f16]")
    parser.add_argument("--limit", type=float, default=1.0, help="per cent [1]")
    parser.add_argument("--out", type=Path, default=Path("runs/precisions"))
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error("--seeds: two at least, for a standard error")

    differences = []
    for seed in range(1, args.seeds + 1):
        f32 = mean_loss(args, seed, "f32", "usual")
        other = mean_loss(args, seed, "f16", "usual") if args.against == "f16" else mean_loss(args, seed, "f32", "none")
        differences.append(100 * (other / f32 - 1))
        print(f"seed {seed}: f32 {f32:.4f}, {args.against} {other:.4f}, {differences[-1]:+.2f} %", flush=True)
    mean, deviation = statistics.fmean(differences), statistics.stdev(differences)
    error = deviation / math.sqrt(len(differences))
    print(f"mean of {len(differences)} seeds: {mean:+.2f} % +- {error:.2f} (one seed's standard deviation {deviation:.2f})")
    sys.exit(abs(mean) > args.limit)


def mean_loss(args, seed, precision, fuse):
    """Of all steps of a run."""
    out = args.out / f"{Path(args.config).stem}-{precision}-{fuse}-{seed}"
    losses = read(out, args.steps)
    if not losses:
        settings = ["--set", f"train.precision={precision}", "--set", f"seed={seed}", "--fuse", fuse]
        command = [args.program, "train", "--config", args.config, *settings, "--max-steps", args.steps, "--out", out, "--quiet"]
        if subprocess.run([str(part) for part in command], cwd=ROOT).returncode:
            sys.exit(f"{out}: not trained; where a part of a run is in the way, remove it")
        losses = read(out, args.steps)
    if not losses:
        sys.exit(f"{out}: not the losses of {args.steps} steps; remove it")
    return statistics.fmean(losses)


def read(out, steps):
    path = ROOT / out / "metrics.jsonl"
    losses = [json.loads(line)["loss"] for line in path.read_text().splitlines()] if path.exists() else []
    return losses if len(losses) == steps else None


if __name__ == "__main__":
    main()
