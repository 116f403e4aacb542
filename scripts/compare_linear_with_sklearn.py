#!/usr/bin/env python3
"""Holds eval-linear's recipes against scikit-learn's logistic regression on the same features. Needs numpy, safetensors, scikit-learn.

    compare_linear_with_sklearn.py WEIGHTS... [--program target/release/swav-wgpu] [--margin 1.5]

WEIGHTS are digits runs, made by `swav-wgpu train --config configs/digits.toml --set seed=0 --out runs/d0`. `swav-wgpu features` writes what both see.

Logistic regression minimises |W|^2 / 2 + C * (sum of the losses), a linear recipe the mean loss + wd * |W|^2 / 2: the same problem for
wd = 1 / (C * images). The recipes' wd of 1e-6 is C = 0.8 on ImageNet's 1,281,167 images, but C = 835 on the digits' 1,198: hardly any
regularisation. So a recipe as written is held against C = 1 / (wd * images) on raw features, and the recipe with wd = 1 / images, and as many
steps at batch 256 as at 32, against the usual logistic regression: standardised features, C = 1. Exits 1 if the mean over WEIGHTS of an SGD recipe's
top-1 (of the best epoch, as the official code counts) is farther than the margin from its reference. LARS is reported, not judged.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors import safe_open
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

ROOT = Path(__file__).resolve().parent.parent
DECAY = 1e-6  # of both SGD recipes
USUAL = "regression, standardised, C 1"


def run(program, *arguments):
    """Standard output of the program."""
    return subprocess.run([program, *map(str, arguments), "-q"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def load_features(program, weights, config, data):
    """Features and labels of the training and the validation images."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "features.safetensors"
        run(program, "features", "--weights", weights, "--config", config, "--data", data, "--out", file)
        with safe_open(str(file), "np") as tensors:
            features, labels = tensors.get_tensor("features").astype(np.float64), tensors.get_tensor("labels")
            # Below the data's own folder: those above may be called anything.
            inside = [os.path.relpath(path, data) for path in json.loads(tensors.metadata()["paths"])]
            validation = np.array(["-val" in path or path.startswith("val/") for path in inside])
    return (features[~validation], labels[~validation]), (features[validation], labels[validation])


def regression(train, val, c, standardise):
    """Top-1 of logistic regression, per cent."""
    model = LogisticRegression(C=c, max_iter=20000)
    model = make_pipeline(StandardScaler(), model) if standardise else model
    return 100 * model.fit(*train).score(*val)


def compare(program, weights, data):
    """Name to (best top-1, last top-1, reference's name or None), in order."""
    linear = {name: ROOT / f"configs/digits-linear{name}.toml" for name in ("", "-b256", "-lars")}
    train, val = load_features(program, weights, linear[""], data)
    images = len(train[1])
    steps = 100 * -(-images // 32)
    epochs = steps // -(-images // 256)
    written = f"regression, raw features, C {1 / (DECAY * images):.0f}"
    result = {
        written: (regression(train, val, 1 / (DECAY * images), False),) * 2 + (None,),
        USUAL: (regression(train, val, 1.0, True),) * 2 + (None,),
    }
    decay = f"optimizer.weight_decay={1 / images}"
    for name, config, sets, reference in [
        ("SGD 0.3, batch 32, as written", "", [], written),
        ("SGD 0.3, batch 256, as written", "-b256", [], written),
        ("LARS 1.6, as written", "-lars", [], None),
        ("SGD 0.3, batch 32, wd 1/images", "", [decay], USUAL),
        (f"SGD 0.3, batch 256, wd 1/images, {epochs} epochs", "-b256", [decay, f"train.epochs={epochs}"], USUAL),
        (f"LARS 1.6, {steps} epochs", "-lars", [f"train.epochs={steps}"], None),
    ]:
        flags = [flag for value in sets for flag in ("--set", value)]
        said = json.loads(run(program, "eval-linear", "--config", linear[config], "--weights", weights, "--data", data, "--json", *flags))
        result[name] = (said["top1"], said["last_top1"], reference)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="+", type=Path)
    parser.add_argument("--program", default=ROOT / "target/release/swav-wgpu", type=Path)
    parser.add_argument("--data", default=ROOT / "data/digits", type=Path)
    parser.add_argument("--margin", default=1.5, type=float, help="points of top-1")
    arguments = parser.parse_args()
    program = arguments.program.resolve()
    runs = [compare(program, weights.resolve() if weights.exists() else weights, arguments.data.resolve()) for weights in arguments.weights]

    columns = "".join(f"{weights.name:>16}" for weights in arguments.weights)
    print(f"{'top-1 of the best epoch (of the last), per cent':50}{columns}{'mean':>8}  off its reference, and the usual regression")
    far = False
    for name, (_, _, reference) in runs[0].items():
        mean = np.mean([run[name][0] for run in runs])
        line = f"{name:50}" + "".join(f"{run[name][0]:8.2f} ({run[name][1]:5.2f})" for run in runs) + f"{mean:8.2f}"
        if reference:
            off, from_usual = (mean - np.mean([run[other][0] for run in runs]) for other in (reference, USUAL))
            far |= abs(off) > arguments.margin
            line += f"  {off:+.2f} {from_usual:+.2f}" + ("  TOO FAR" if abs(off) > arguments.margin else "")
        print(line)
    sys.exit(1 if far else 0)


if __name__ == "__main__":
    main()
