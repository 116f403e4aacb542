#!/usr/bin/env python3
"""Runs the cases of `swav-wgpu bench` on swav-wgpu, burn and PyTorch in turn, and writes one table.

    cargo build --release
    cargo build --release --manifest-path benches/peers/Cargo.toml
    benches/peers/compare.py --python python3 --filter '^matmul' --out peers.md

Each case runs once a round in each program, in a process of its own, one program after the other, so that all of them see the same
machine. The figure is processor time of the whole process for one run of the case, the median of the rounds; PyTorch has one thread.
"""
import argparse
import json
import math
import os
import re
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# What the three programs have in common.
TWINS = r"(matmul_|(conv_(fwd|fwdbwd)|bnrelu|resnet(18|50)_step|swav_step_resnet(18|50))_.*_b)\d+"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ours", default=ROOT / "target/release/swav-wgpu", help="the program [target/release]")
    parser.add_argument("--burn", default=HERE / "target/release/burn-bench", help="burn-bench [benches/peers/target/release]")
    parser.add_argument("--python", default=sys.executable, help="a Python with torch and torchvision")
    parser.add_argument("--launcher", default="", help="command to start ours and burn's with, for another Vulkan driver")
    parser.add_argument("--without", action="append", default=[], choices=["ours", "burn", "torch"], help="leave one out")
    parser.add_argument("--filter", default="", help="only cases that match this regular expression")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="a case, round and program")
    parser.add_argument("--limit", type=float, default=600.0, help="the most a case may take, in seconds")
    parser.add_argument("--flags", default="", help="more flags for swav-wgpu, for example '--tune off'")
    parser.add_argument("--raw", type=Path, help="also write every measurement, JSON lines")
    parser.add_argument("--out", type=Path, help="the table [standard output]")
    args = parser.parse_args()

    launcher, seconds = shlex.split(args.launcher), ["--seconds", str(args.seconds)]
    listed = subprocess.run([args.ours, "bench", "--list"], check=True, capture_output=True, text=True).stdout.split()
    names = [n for n in listed if re.fullmatch(TWINS, n) and re.search(args.filter, n)]
    if not names:
        sys.exit(f"no case that all have matches {args.filter!r}")
    programs = {
        "ours": lambda n: [*launcher, args.ours, "bench", "--filter", f"^{n}$", "--json", "-q", *seconds, *shlex.split(args.flags)],
        "burn": lambda n: [*launcher, args.burn, *seconds, n],
        "torch": lambda n: [args.python, HERE / "torch_bench.py", "--threads", "1", *seconds, n],
    }
    programs = {tool: command for tool, command in programs.items() if tool not in args.without}

    taken = {}
    for round_ in range(args.rounds):
        for name in names:
            for tool, command in programs.items():
                result = run(command(name), args.limit)
                print(f"round {round_ + 1} {name} {tool}: " + (f"{result['cpu_ms']:.2f} ms" if result else "failed"), file=sys.stderr, flush=True)
                if result:
                    taken.setdefault((name, tool), []).append(result)
                    if args.raw:
                        with args.raw.open("a") as raw:
                            raw.write(json.dumps({**result, "tool": tool, "round": round_}) + "\n")
    text = table(names, list(programs), taken)
    if args.out:
        args.out.write_text(text)
    else:
        print(text, end="")


def run(command, limit):
    """What the program measured, or None when it failed or took too long."""
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=limit, env=environment)
    except subprocess.TimeoutExpired:
        return None
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not lines:
        print(done.stderr[-2000:], file=sys.stderr)
        return None
    return json.loads(lines[-1])


def table(names, tools, taken):
    """Markdown: processor time of each program, how many times ours is faster, geometric means of that."""
    peers = [tool for tool in tools if tool != "ours"]
    head = ["case", *(f"{tool}, processor ms" for tool in tools), *(f"{peer} / ours" for peer in peers), "first run, s"]
    rows, ratios = [], {peer: [] for peer in peers}
    for name in names:
        median = {tool: statistics.median(r["cpu_ms"] for r in taken[name, tool]) for tool in tools if (name, tool) in taken}
        cells = [f"`{name}`", *(f"{median[tool]:.2f}" if tool in median else "–" for tool in tools)]
        for peer in peers:
            if peer in median and "ours" in median:
                ratios[peer].append(median[peer] / median["ours"])
                cells.append(f"{ratios[peer][-1]:.2f}")
            else:
                cells.append("–")
        first = [r["first_ms"] / 1e3 for r in taken.get((name, "ours"), [])]
        rows.append([*cells, f"{max(first):.2f}" if first else "–"])
    mean = [f"{math.exp(statistics.fmean(map(math.log, all_))):.2f}" if (all_ := ratios[peer]) else "–" for peer in peers]
    least = [f"{min(all_):.2f}" if (all_ := ratios[peer]) else "–" for peer in peers]
    for title, cells in ((f"geometric mean of {len(names)}", mean), ("least", least)):
        rows.append([f"**{title}**", *("" for _ in tools), *(f"**{cell}**" for cell in cells), ""])
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
