#!/usr/bin/env python3
"""Reports on one graphics card: are the kernels right on it, how fast is the SwAV step beside PyTorch and burn, what limits it.

    cargo build --release
    cargo build --release --manifest-path benches/peers/Cargo.toml --features autotune,vulkan
    benches/peers/card.py --python PYTHON-WITH-TORCH --burn-device vulkan --out card.md

The report has the comparisons of `swav-wgpu check`, whole steps (images a second, TFLOP/s, GB/s, share of the floor), the graph fused and plain,
device time by kernel, and kernels alone. All but the profile are wall times; the programs run in turn, and figures are medians of the rounds.
The kernels alone are many, and burn tunes itself for each.

Every measurement is kept in --raw as soon as it is made and not made again, so that a run may be cut by --parts, by --deadline or by a signal and go
on later; what failed is tried again. A program that is not there is left out, and the report says so.

The floor of an image is what arithmetic or memory alone would take: a step's operations at the card's peak, or the bytes of a fused step at
its bandwidth, whichever is longer.
"""
import argparse
import json
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from compare import HERE, ROOT

# Dense peaks of data sheets: TFLOP/s in f32 without tensor cores, in TF32, in f16 with f32 sums; memory in GB/s. The first name that fits counts.
PEAKS = {
    "H200": (67, 495, 990, 4800),
    "H100 PCIe": (51, 378, 756, 2000),
    "H100 NVL": (60, 418, 835, 3900),
    "H100": (67, 495, 990, 3350),
    "A100-SXM4-40GB": (19.5, 156, 312, 1555),
    "A100-PCIE-40GB": (19.5, 156, 312, 1555),
    "A100": (19.5, 156, 312, 2039),
    "GeForce RTX 4090": (82.6, 82.6, 165, 1008),
}
PRECISIONS = ["f32", "TF32", "f16"]
# Bytes that a step moves for an image of 2x224 + 6x96 crops when batch norm has no pass of its own: what convolutions read and write.
FUSED_BYTES = {"f32": 1.58e9, "TF32": 1.58e9, "f16": 0.79e9}
FULL_STEP = "resnet50_2x224_6x96"
STEPS = [FULL_STEP, "resnet18_2x64_4x32"]
PROFILE_LINES = 40
# Comparisons in shares that take about as long as each other, because each builds its pipelines one after another.
CHECKS = ["^conv2d 1.* f32$", "^conv2d [2-9].* f32$", "^conv2d 1.* f16$", "^conv2d [2-9].* f16$", "^block .* f32$", "^block .* f16$", "^batch_norm", "^([ad-km-z]|ca|cl|conc|coo|cr|l)"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ours", default=ROOT / "target/release/swav-wgpu", help="the program [target/release]")
    parser.add_argument("--burn", default=HERE / "target/release/burn-bench", help="burn-bench [benches/peers/target/release]")
    parser.add_argument("--burn-device", default="wgpu", help="wgpu, or vulkan where that is built in; CUBECL_WGPU_DEFAULT_DEVICE chooses the adapter [wgpu]")
    parser.add_argument("--python", default=sys.executable, help="a Python with torch and torchvision")
    parser.add_argument("--torch-device", default="cuda", help="PyTorch's device [cuda]")
    parser.add_argument("--adapter", help="our adapter: its index in `devices`, or a part of its name")
    parser.add_argument("--without", action="append", default=[], choices=["burn", "PyTorch"], help="leave one out")
    parser.add_argument("--parts", default=",".join(PARTS), help="what to measure now [%(default)s]")
    parser.add_argument("--step", default=FULL_STEP, choices=STEPS, help="the SwAV step: network and crops [%(default)s]")
    parser.add_argument("--batch", type=int, default=64, help="images of a step and of a kernel [64]")
    parser.add_argument("--kernels", default=r"^(matmul_4096$|conv_(fwd|dgrad|wgrad)_.*_(224|56|28|14|7)_b|bnrelu_)", help="which, a regular expression [%(default)s]")
    parser.add_argument("--check-filter", default="", help="only these comparisons of `check`")
    parser.add_argument("--tune-seconds", type=float, default=300.0, help="the most that choosing our kernels may take for a part [300]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="a step, round and program [3]")
    parser.add_argument("--kernel-seconds", type=float, default=0.3, help="a kernel, round and program [0.3]")
    parser.add_argument("--limit", type=float, default=600.0, help="the most a process may take, in seconds [600]")
    parser.add_argument("--deadline", type=float, default=float("inf"), help="start nothing more after so many seconds in all")
    parser.add_argument("--software", action="store_true", help="go on where there is no card")
    parser.add_argument("--peaks", type=float, nargs=4, metavar=("F32", "TF32", "F16", "GBPS"), help="the card's TFLOP/s and GB/s")
    parser.add_argument("--raw", type=Path, default=Path("runs/card.jsonl"), help="every measurement [%(default)s]")
    parser.add_argument("--out", type=Path, help="the report [standard output]")
    args = parser.parse_args()
    parts = args.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--parts knows {', '.join(PARTS)}, not {', '.join(sorted(unknown))}")

    card = Card(args)

    def stop(*_):
        # So that what was measured is reported when time is up.
        card.end = 0.0
        for process in list(card.running):
            process.kill()
        sys.exit(143)

    signal.signal(signal.SIGTERM, stop)
    try:
        for part in parts:
            PARTS[part](card)
    finally:
        text = report(card)
        if args.out:
            args.out.write_text(text)
        else:
            print(text, end="")
    sys.exit(bool(card.failures) or any(line["failed"] for line in card.taken if line["part"] == "check"))


class Card:
    """What was measured so far, and how to measure more."""

    def __init__(self, args):
        self.args, self.failures, self.end, self.running = args, {}, time.monotonic() + args.deadline, set()
        self.flags = ["-q", *(["--adapter", args.adapter] if args.adapter else [])]
        # Any comparison says which adapter it was made on.
        card = json.loads(self.need([args.ours, "check", "--filter", "^relu", "--json", *self.flags], "--ours") or sys.exit(self.failures["--ours"]))["adapter"]
        if "llvmpipe" in card and not args.software:
            sys.exit(f"{card} is no graphics card: look after its driver (VK_DRIVER_FILES names it), or give --software")
        code = f"import torch, torchvision; torch.zeros(1, device={args.torch_device!r}); print(torch.__version__)"
        for peer, command, flag in (("PyTorch", [args.python, "-c", code], "--python"), ("burn", [args.burn, "--device", args.burn_device], "--burn")):
            if peer not in args.without and self.need(command, flag) is None:
                args.without.append(peer)
        args.raw.parent.mkdir(parents=True, exist_ok=True)
        self.taken = [json.loads(line) for line in args.raw.read_text().splitlines()] if args.raw.exists() else []
        settings = {"part": "settings", "card": card, "step": args.step, "batch": args.batch, "check": args.check_filter}
        if not self.taken:
            self.keep(settings)
        elif self.taken[0] != settings:
            sys.exit(f"{args.raw} is of {self.taken[0]}, not of {settings}: choose another --raw, or remove it")
        self.name = card
        known = [peaks for name, peaks in PEAKS.items() if name in card]
        self.peaks = args.peaks or (known[0] if known else None)

    def need(self, command, flag):
        """What a program prints, or None and a failure."""
        try:
            done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=self.args.limit)
            if done.returncode == 0 or (done.returncode == 1 and done.stdout):
                return done.stdout
            said = done.stderr[-1000:]
        except (OSError, subprocess.TimeoutExpired) as error:
            said = str(error)
        self.failures[flag] = f"{' '.join(map(str, command))} fails: {said.strip()}"
        print(f"{flag}: {self.failures[flag]}", file=sys.stderr, flush=True)
        return None

    def call(self, command, what, on_line=lambda line: None):
        """(What a program prints, its exit code); each line is told when it comes. A failure is reported, and not the end."""
        limit = min(self.args.limit, self.end - time.monotonic())
        if limit <= 0:
            self.failures[what] = "not started: --deadline"
            return "", -1
        process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.running.add(process)
        late = threading.Event()
        timer = threading.Timer(limit, lambda: (late.set(), process.kill()))
        said = []
        reader = threading.Thread(target=lambda: said.extend(process.stderr))
        timer.start()
        reader.start()
        try:
            printed = []
            for line in process.stdout:
                printed.append(line)
                on_line(line)
            code = process.wait()
            reader.join()
        finally:
            timer.cancel()
            process.kill()
            self.running.discard(process)
        if code:
            self.failures[what] = f"not done after {limit:.0f} s" if late.is_set() else (said or ["nothing said"])[-1].strip()
            print(f"{what}: {self.failures[what]}", file=sys.stderr, flush=True)
        return "".join(printed), code

    def keep(self, line):
        self.taken.append(line)
        with self.args.raw.open("a") as raw:
            raw.write(json.dumps(line) + "\n")

    def of(self, part, program, name):
        return [t for t in self.taken if (t["part"], t.get("program"), t.get("name")) == (part, program, name)]

    def median(self, part, program, name):
        """The measurement in the middle, or None."""
        taken = sorted(self.of(part, program, name), key=lambda t: t["median_ms"])
        return taken[len(taken) // 2] if taken else None

    def in_turn(self, part, runs, seconds):
        """Runs {program: (command of some names, names)} in turn, a process each, round after round."""
        for round_ in range(self.args.rounds):
            for program, (command, names) in runs.items():
                missing = [name for name in names if len(self.of(part, program, name)) <= round_]
                what = f"{part}, {program}"
                if not missing or what in self.failures or program.split()[0] in self.args.without:
                    continue

                def keep(line, program=program, round_=round_):
                    if line.startswith("{"):
                        result = json.loads(line)
                        self.keep({**result, "part": part, "program": program, "round": round_})
                        print(f"{part}, round {round_ + 1}: {result['name']} {program} {result['median_ms']:.3f} ms", file=sys.stderr, flush=True)

                self.call([*command(missing), *([] if program.startswith("burn") else ["--seconds", seconds])], what, keep)

    def ours(self, *flags):
        def command(names):
            exactly = "^(" + "|".join(map(re.escape, names)) + ")$"
            return [self.args.ours, "bench", "--batch", self.args.batch, "--json", *self.flags, *flags, "--filter", exactly]

        return command

    def torch(self, *flags):
        return lambda names: [self.args.python, HERE / "torch_bench.py", "--device", self.args.torch_device, *flags, *names]

    def burn(self, seconds):
        return lambda names: [self.args.burn, "--device", self.args.burn_device, "--seconds", seconds, *names]

    def step(self, precision):
        return f"swav_step_{self.args.step}_b{self.args.batch}" + ("_f16" if precision == "f16" else "")

    def supervised(self):
        return f"resnet50_step_224_b{self.args.batch}"

    def kernel_names(self):
        listed = self.call([self.args.ours, "bench", "--list", "--batch", self.args.batch, "--filter", self.args.kernels], "kernels, list")[0].split()
        return [n for n in listed if not n.endswith("_f16")], [n for n in listed if n.endswith("_f16")]


def check(card):
    filters = [card.args.check_filter] if card.args.check_filter else CHECKS
    missing = [share for share in filters if not any(t["part"] == "check" and t["share"] == share for t in card.taken)]

    def run(share):
        printed, _ = card.call([card.args.ours, "check", "--json", *card.flags, "--filter", share], f"check, {share}")
        if printed:
            result = json.loads(printed)
            failed = [f"{c['op']} {c['variant']} {c['shape']}" for c in result["cases"] if not c["pass"]]
            card.keep({"part": "check", "share": share, "passed": result["passed"], "failed": result["failed"], "cases": failed})

    with ThreadPoolExecutor(len(CHECKS)) as pool:
        list(pool.map(run, missing))


def tune(card):
    """Times every variant of our kernels at the shapes that follow; a table on disk keeps the best."""
    full = card.ours("--tune", "full", "--tune-seconds", card.args.tune_seconds, "--seconds", "0.05")
    for what, names in (("steps", [card.step("f32"), card.step("f16"), card.supervised()]), ("kernels", sum(card.kernel_names(), []))):
        card.call(full(names), f"tune, {what}")


def steps(card):
    f32, f16 = [card.step("f32")], [card.step("f16")]
    amp = ["--tf32", "--channels-last", "--amp", "float16"]
    runs = {
        "ours f32": (card.ours(), f32),
        "ours f16": (card.ours(), f16),
        "PyTorch f32": (card.torch(), f32),
        "PyTorch f32, channels_last": (card.torch("--channels-last"), f32),
        "PyTorch TF32, channels_last": (card.torch("--tf32", "--channels-last"), f32),
        "PyTorch AMP f16, channels_last": (card.torch(*amp), f16),
        "PyTorch AMP f16, channels_last, compiled": (card.torch(*amp, "--compile"), f16),
        "burn f32": (card.burn(card.args.seconds), f32),
    }
    card.in_turn("steps", runs, card.args.seconds)


FUSIONS = ["usual", "none", "all"]
KEPT = "usual, all activations kept"


def fusion(card):
    names = [card.step("f32"), card.step("f16"), card.supervised()]
    runs = {selection: (card.ours("--fuse", selection), names) for selection in FUSIONS}
    card.in_turn("fusion", {**runs, KEPT: (card.ours("--recompute", "none"), names)}, card.args.seconds)


def profile(card):
    for name in (card.step("f32"), card.step("f16")):
        if not card.of("profile", None, name):
            command = [card.args.ours, "bench", "--batch", card.args.batch, "--profile", *card.flags, "--filter", f"^{name}$"]
            printed, code = card.call(command, f"profile, {name}")
            if code == 0:
                card.keep({"part": "profile", "name": name, "text": printed})


def kernels(card):
    f32, f16 = card.kernel_names()
    twins = [n for n in f32 if n.startswith(("matmul", "conv_fwd_", "bnrelu"))]
    runs = {
        "ours f32": (card.ours(), f32),
        "ours f16": (card.ours(), f16),
        "PyTorch f32": (card.torch(), f32),
        "PyTorch TF32, channels_last": (card.torch("--tf32", "--channels-last"), f32),
        "PyTorch f16, channels_last": (card.torch("--tf32", "--channels-last", "--amp", "float16"), f16),
        "burn f32": (card.burn(card.args.kernel_seconds), twins),
    }
    card.in_turn("kernels", runs, card.args.kernel_seconds)


PARTS = {"check": check, "tune": tune, "steps": steps, "fusion": fusion, "profile": profile, "kernels": kernels}


def report(card):
    lines = [f"# {card.name}", "", f"{card.args.batch} images a step."]
    if card.peaks:
        lines[-1] += " Peaks: {} TFLOP/s in f32, {} in TF32, {} in f16, {} GB/s.".format(*card.peaks)
    lines.append("")
    checked = [t for t in card.taken if t["part"] == "check"]
    if checked:
        which = f" --filter '{card.args.check_filter}'" if card.args.check_filter else ""
        part = "" if card.args.check_filter or len(checked) == len(CHECKS) else f" (of {len(CHECKS)} shares {len(checked)} ended)"
        passed, failed = (sum(t[key] for t in checked) for key in ("passed", "failed"))
        lines += [f"`swav-wgpu check{which}`{part}: {passed} passed, {failed} failed.", *(f"* {case}" for t in checked for case in t["cases"]), ""]
    lines += step_table(card) + fusion_table(card)
    for t in card.taken:
        if t["part"] == "profile":
            lines += [f"## Device time by kernel, the first {PROFILE_LINES}", "```", *t["text"].rstrip().splitlines()[: PROFILE_LINES + 1], "```", ""]
    lines += kernel_table(card)
    if card.failures:
        lines += ["## Failed", *(f"* {what}: {why}" for what, why in card.failures.items())]
    return "\n".join(lines).rstrip() + "\n"


def rows(head, body):
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *body)]


def columns(card, part):
    """Programs and names in the order of their first measurement."""
    taken = [t for t in card.taken if t["part"] == part]
    return list(dict.fromkeys(t["program"] for t in taken)), list(dict.fromkeys(t["name"] for t in taken))


def step_table(card):
    body = []
    for program in columns(card, "steps")[0]:
        name = card.step("f16" if "f16" in program else "f32")
        best = card.median("steps", program, name)
        image, tflops = best["median_ms"] / card.args.batch, (best["gflops"] or 0) / 1e3
        precision = next(p for p in reversed(PRECISIONS) if p in program)
        share = floor = of_floor = "–"
        if card.peaks:
            peak = card.peaks[PRECISIONS.index(precision)]
            memory = FUSED_BYTES[precision] / card.peaks[3] / 1e6 if card.args.step == FULL_STEP else 0.0
            least = max(tflops * image / peak, memory)
            share, floor, of_floor = f"{100 * tflops / peak:.1f} %", f"{least:.3f}", f"{100 * least / image:.0f} %"
        gbps = best.get("gigabytes_per_second")
        cells = [f"{best['median_ms']:.1f}", f"{image:.3f}", f"{1e3 / image:.0f}", f"{tflops:.2f}", share, floor, of_floor, f"{gbps:.0f}" if gbps else "–"]
        body.append([program, *cells])
    head = ["program", "ms", "ms an image", "images/s", "TFLOP/s", "share of peak", "floor, ms an image", "floor / time", "GB/s of bindings"]
    return [f"## The SwAV step {card.args.step}", *rows(head, body), ""] if body else []


def fusion_table(card):
    body = []
    for name in columns(card, "fusion")[1]:
        times = {s: best["median_ms"] for s in [*FUSIONS, KEPT] if (best := card.median("fusion", s, name))}
        ratio = f"{times['none'] / times['usual']:.2f}" if {"none", "usual"} <= times.keys() else "–"
        body.append([f"`{name}`", *(f"{times[s]:.1f}" if s in times else "–" for s in [*FUSIONS, KEPT]), ratio])
    head = ["case", *(f"`--fuse {s}`, ms" for s in FUSIONS), "`--recompute none`, ms", "none / usual"]
    return ["## Fused and plain", *rows(head, body), ""] if body else []


def kernel_table(card):
    programs, names = columns(card, "kernels")
    body = []
    for name in names:
        best = [card.median("kernels", p, name) for p in programs]
        cells = [f"{b['median_ms']:.3f}" + (f" ({b['gflops'] / 1e3:.1f})" if b.get("gflops") else "") if b else "–" for b in best]
        body.append([f"`{name}`", *cells])
    return ["## Kernels alone, ms (TFLOP/s)", *rows(["case", *programs], body), ""] if body else []


if __name__ == "__main__":
    main()
