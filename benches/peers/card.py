#!/usr/bin/env python3
"""Everything to know of one graphics card, in one command: are the kernels right on it, how fast is the SwAV step beside PyTorch and burn,
and what limits it.

    cargo build --release
    cargo build --release --manifest-path benches/peers/Cargo.toml --features autotune
    benches/peers/card.py --python PYTHON-WITH-TORCH --out card.md

Reports the comparisons of `swav-wgpu check`, whole steps (images a second, TFLOP/s, GB/s, share of the floor), the graph fused and plain,
device time by kernel, and kernels alone. Times are wall times; the programs run in turn, a process each; figures are medians of the rounds.
What --raw holds already is not measured again, so a long run can be cut by --parts, or go on after a stop.

The floor of an image is what arithmetic or memory alone would take: a step's operations at the card's peak, or the bytes that a fused step
must move at its bandwidth, whichever is longer.
"""
import argparse
import json
import subprocess
import sys
from pathlib import Path

from compare import HERE, ROOT, run

# Dense peaks of data sheets: f32 TFLOP/s without tensor cores, f16 TFLOP/s with them, memory in GB/s. The first name that fits counts.
PEAKS = {
    "H200": (67, 990, 4800),
    "H100 PCIe": (51, 756, 2000),
    "H100": (67, 990, 3350),
    "A100": (19.5, 312, 2039),
    "RTX 4090": (82.6, 330, 1008),
}
# Bytes that a fused step moves for an image with 2x224 + 6x96 crops: what each convolution reads and writes forwards and backwards.
FUSED_BYTES = {"f32": 1.58e9, "f16": 0.79e9}
FULL_STEP = "resnet50_2x224_6x96"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ours", default=ROOT / "target/release/swav-wgpu", help="the program [target/release]")
    parser.add_argument("--burn", default=HERE / "target/release/burn-bench", help="burn-bench [benches/peers/target/release]")
    parser.add_argument("--python", default=sys.executable, help="a Python with torch and torchvision")
    parser.add_argument("--torch-device", default="cuda", help="PyTorch's device [cuda]")
    parser.add_argument("--adapter", help="our adapter: its index in `devices`, or a part of its name")
    parser.add_argument("--without", action="append", default=[], choices=["burn", "torch"], help="leave one out")
    parser.add_argument("--parts", default=",".join(PARTS), help="what to measure now [%(default)s]")
    parser.add_argument("--step", default=FULL_STEP, help="the SwAV step: network and crops [%(default)s]")
    parser.add_argument("--batch", type=int, default=64, help="images of a step and of a kernel [64]")
    parser.add_argument("--kernels", default="^(matmul_4096$|conv_(fwd|dgrad|wgrad)_|bnrelu_)", help="which kernels, a regular expression [%(default)s]")
    parser.add_argument("--check-filter", default="", help="only these comparisons of `check`")
    parser.add_argument("--tune-seconds", type=float, default=600.0, help="the most that choosing our kernels may take for a case [600]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="a case, round and program")
    parser.add_argument("--limit", type=float, default=900.0, help="the most a case may take, in seconds")
    parser.add_argument("--peaks", type=float, nargs=3, metavar=("F32", "F16", "GBPS"), help="the card's TFLOP/s in f32 and f16, and GB/s")
    parser.add_argument("--raw", type=Path, default=Path("card.jsonl"), help="every measurement [%(default)s]")
    parser.add_argument("--out", type=Path, help="the report [standard output]")
    args = parser.parse_args()
    parts = args.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--parts knows {', '.join(PARTS)}, not {', '.join(sorted(unknown))}")

    card = Card(args)
    for part in parts:
        PARTS[part](card)
    text = report(card)
    if args.out:
        args.out.write_text(text)
    else:
        print(text, end="")
    sys.exit(any(line["failed"] for line in card.taken if line["part"] == "check"))


class Card:
    """What was measured so far, and how to measure more."""

    def __init__(self, args):
        self.args = args
        self.taken = [json.loads(line) for line in args.raw.read_text().splitlines()] if args.raw.exists() else []
        self.flags = ["--adapter", args.adapter] if args.adapter else []
        # Every variant of a kernel is timed at its first use on this adapter; a table keeps the best.
        self.tuned = ["--tune", "full", "--tune-seconds", str(args.tune_seconds)]
        self.name = json.loads(self.ours("check", "--filter", "^relu", "--json"))["adapter"]
        known = [peaks for name, peaks in PEAKS.items() if name in self.name]
        self.peaks = args.peaks or (known[0] if known else None)

    def ours(self, *arguments):
        """What the program prints; a failed check is a result too."""
        done = subprocess.run([self.args.ours, *arguments, *self.flags, "-q"], capture_output=True, text=True)
        if done.returncode > 1 or not done.stdout:
            sys.exit(done.stderr.strip())
        return done.stdout

    def keep(self, **line):
        self.taken.append(line)
        with self.args.raw.open("a") as raw:
            raw.write(json.dumps(line) + "\n")

    def of(self, part, program, name):
        return [t for t in self.taken if (t["part"], t.get("program"), t.get("name")) == (part, program, name)]

    def in_turn(self, part, runs):
        """Runs [(program, name of the case, command)], one round after another."""
        for round_ in range(self.args.rounds):
            for program, name, command in runs:
                if len(self.of(part, program, name)) > round_:
                    continue
                result = run([*command, "--seconds", self.args.seconds], self.args.limit)
                print(f"{part}, round {round_ + 1}: {name} {program} " + (f"{result['median_ms']:.3f} ms" if result else "failed"), file=sys.stderr, flush=True)
                # A failure is kept too: what does not fit in memory will not fit the next time.
                self.keep(**{**(result or {"median_ms": None}), "part": part, "program": program, "name": name})

    def median(self, part, program, name):
        """The measurement in the middle, or None."""
        taken = sorted((t for t in self.of(part, program, name) if t["median_ms"]), key=lambda t: t["median_ms"])
        return taken[len(taken) // 2] if taken else None

    def our_bench(self, name, *flags):
        return [self.args.ours, "bench", "--filter", f"^{name}$", "--batch", self.args.batch, "--json", "-q", *self.flags, *flags]

    def torch(self, name, *flags):
        return [self.args.python, HERE / "torch_bench.py", "--device", self.args.torch_device, *flags, name]

    def step(self, precision):
        return f"swav_step_{self.args.step}_b{self.args.batch}" + ("_f16" if precision == "f16" else "")

    def leave_out(self, runs):
        left = [("PyTorch" if out == "torch" else out) for out in self.args.without]
        return [r for r in runs if not any(r[0].startswith(out) for out in left)]


def check(card):
    if any(t["part"] == "check" for t in card.taken):
        return
    filter_ = ["--filter", card.args.check_filter] if card.args.check_filter else []
    result = json.loads(card.ours("check", "--json", *filter_))
    failed = [f"{c['op']} {c['variant']} {c['shape']}" for c in result["cases"] if not c["pass"]]
    card.keep(part="check", passed=result["passed"], failed=result["failed"], cases=failed)


def steps(card):
    f32, f16 = card.step("f32"), card.step("f16")
    runs = [
        ("ours f32", f32, card.our_bench(f32, *card.tuned)),
        ("ours f16", f16, card.our_bench(f16, *card.tuned)),
        ("PyTorch f32", f32, card.torch(f32)),
        ("PyTorch TF32, channels_last", f32, card.torch(f32, "--tf32", "--channels-last")),
        ("PyTorch AMP float16, channels_last", f16, card.torch(f16, "--tf32", "--channels-last", "--amp", "float16")),
        ("burn f32", f32, [card.args.burn, f32]),
    ]
    card.in_turn("steps", card.leave_out(runs))


def fusion(card):
    selections = ["usual", "none", "all"]
    names = [card.step("f32"), card.step("f16"), f"resnet50_step_224_b{card.args.batch}"]
    card.in_turn("fusion", [(f"--fuse {s}", n, card.our_bench(n, *card.tuned, "--fuse", s)) for n in names for s in selections])


def profile(card):
    for name in (card.step("f32"), card.step("f16")):
        if not card.of("profile", None, name):
            text = card.ours("bench", "--filter", f"^{name}$", "--batch", str(card.args.batch), "--profile", *card.tuned)
            card.keep(part="profile", name=name, text=text)


def kernels(card):
    listed = card.ours("bench", "--list", "--batch", str(card.args.batch), "--filter", card.args.kernels).split()
    runs = []
    for name in listed:
        runs.append(("ours f32", name, card.our_bench(name, *card.tuned)))
        runs.append(("PyTorch f32", name, card.torch(name, "--channels-last")))
        runs.append(("PyTorch TF32", name, card.torch(name, "--tf32", "--channels-last")))
        if name.startswith(("matmul", "conv_fwd_", "bnrelu")):
            runs.append(("burn f32", name, [card.args.burn, name]))
    card.in_turn("kernels", card.leave_out(runs))


PARTS = {"check": check, "steps": steps, "fusion": fusion, "profile": profile, "kernels": kernels}


def report(card):
    batch, peaks = card.args.batch, card.peaks
    lines = [f"# {card.name}", ""]
    if peaks:
        lines += [f"Peaks: {peaks[0]} TFLOP/s in f32, {peaks[1]} in f16, {peaks[2]} GB/s. {batch} images a step.", ""]
    for t in card.taken:
        if t["part"] == "check":
            lines += [f"`swav-wgpu check`: {t['passed']} passed, {t['failed']} failed." + "".join(f"\n* {case}" for case in t["cases"]), ""]
    lines += step_table(card) + fusion_table(card)
    for t in card.taken:
        if t["part"] == "profile":
            lines += ["## Device time by kernel", "```", *t["text"].rstrip().splitlines()[:40], "```", ""]
    lines += kernel_table(card)
    return "\n".join(lines).rstrip() + "\n"


def rows(head, body):
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *body)]


def columns(card, part):
    """(program, name) in the order of their first measurement."""
    return list(dict.fromkeys((t["program"], t["name"]) for t in card.taken if t["part"] == part))


def step_table(card):
    body = []
    for program, name in columns(card, "steps"):
        best = card.median("steps", program, name)
        if not best:
            body.append([program, "failed", *[""] * 6])
            continue
        image = best["median_ms"] / card.args.batch
        tflops, gbps = (best.get("gflops") or 0) / 1e3, best.get("gigabytes_per_second")
        precision = "f16" if name.endswith("_f16") else "f32"
        share = floor = "–"
        if card.peaks:
            peak = card.peaks[precision == "f16"]
            share = f"{100 * tflops / peak:.1f} %"
            arithmetic = tflops * image / peak
            memory = FUSED_BYTES[precision] / card.peaks[2] / 1e6 if card.args.step == FULL_STEP else 0.0
            floor = f"{100 * max(arithmetic, memory) / image:.0f} % of {max(arithmetic, memory):.3f} ms"
        cells = [f"{best['median_ms']:.1f}", f"{image:.3f}", f"{1e3 / image:.0f}", f"{tflops:.2f}", share, floor, f"{gbps:.0f}" if gbps else "–"]
        body.append([program, *cells])
    head = ["program", "ms", "ms an image", "images/s", "TFLOP/s", "share of peak", "share of the floor", "GB/s bound by dispatches"]
    return ["## The SwAV step", *rows(head, body), ""] if body else []


def fusion_table(card):
    names = list(dict.fromkeys(name for _, name in columns(card, "fusion")))
    programs = list(dict.fromkeys(program for program, _ in columns(card, "fusion")))
    body = []
    for name in names:
        times = [best["median_ms"] if (best := card.median("fusion", p, name)) else None for p in programs]
        ratio = f"{times[1] / times[0]:.2f}" if len(times) > 1 and times[0] and times[1] else "–"
        body.append([f"`{name}`", *(f"{t:.1f}" if t else "failed" for t in times), ratio])
    head = ["case", *(f"`{p}`, ms" for p in programs), "none / usual"]
    return ["## Fused and plain", *rows(head, body), ""] if body else []


def kernel_table(card):
    programs = list(dict.fromkeys(program for program, _ in columns(card, "kernels")))
    body = []
    for name in dict.fromkeys(name for _, name in columns(card, "kernels")):
        best = [card.median("kernels", p, name) for p in programs]
        cells = [f"{b['median_ms']:.3f}" + (f" ({b['gflops'] / 1e3:.1f})" if b.get("gflops") else "") if b else "–" for b in best]
        body.append([f"`{name}`", *cells])
    return ["## Kernels alone, ms (TFLOP/s)", *rows(["case", *programs], body), ""] if body else []


if __name__ == "__main__":
    main()
