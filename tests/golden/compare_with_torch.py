#!/usr/bin/env python3
"""Runs swav-wgpu beside PyTorch, on full-size networks and real photographs.

    compare_with_torch.py photographs   features of a ResNet-50 with SwAV's head, against PyTorch in float64
    compare_with_torch.py convert       every layout PyTorch writes, converted to every layout, loaded strictly by PyTorch
    compare_with_torch.py fixtures DIR  writes the small files of tests/golden/ckpt that other programs' layouts need

Needs torch, torchvision, safetensors, and for the photographs scikit-learn, scikit-image and Pillow, whose sample pictures they are.
`--program` says how to start swav-wgpu, `--folder` where files may lie.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "..", "scripts")]

import check_pth_with_torch as checker  # noqa: E402
from generate import Network  # noqa: E402


def program(arguments, *line):
    ran = subprocess.run([*shlex.split(arguments.program), *line], capture_output=True, text=True)
    if ran.returncode != 0:
        sys.exit(f"{' '.join(line)} ended with {ran.returncode}: {ran.stderr}")
    return ran.stdout


def photographs():
    """Names and float pictures (3, H, W), 0 to 1."""
    import numpy
    import skimage.data
    import sklearn.datasets

    pictures = dict(zip(("china", "flower"), sklearn.datasets.load_sample_images().images))
    pictures.update({name: getattr(skimage.data, name)() for name in ("astronaut", "coffee", "chelsea", "rocket")})
    return {name: torch.from_numpy(numpy.array(picture)).permute(2, 0, 1).double() / 255 for name, picture in pictures.items()}


def normalised(pictures):
    mean, std = (torch.tensor(values).double().view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (pictures - mean) / std


def squares(pictures, size, short):
    """Centre squares after scaling the shorter side, as in evaluations."""
    import torchvision.transforms.functional as T

    return torch.stack([normalised(T.center_crop(T.resize(picture, short, antialias=True), [size, size])) for picture in pictures]).float()


def full_size(seed, images):
    """A ResNet-50 with SwAV's head as after some training: scales and shifts at random, running statistics of photographs."""
    network = Network("bottleneck", [3, 4, 6, 3], 64, 2048, 128, 3000)
    network.initialise(seed, False)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
                module.weight.uniform_(0.3, 1.2)
                module.bias.normal_(0, 0.2)
                module.momentum = None  # the mean of all passes
        network.train()
        for _ in range(3):
            # Grey levels and places differ from pass to pass; the head's norm needs more than one row.
            scaled = images * (0.6 + 0.8 * torch.rand(len(images), 1, 1, 1)) + 0.2 * torch.randn(len(images), 3, 1, 1)
            network([scaled.roll(int(torch.randint(224, ())), 3), scaled.flip(3)])
    return network.eval()


def off(ours, reference):
    """Largest difference over the largest value, and the norm's."""
    difference = ours.double() - reference
    return (difference.abs().max() / reference.abs().max()).item(), (difference.norm() / reference.norm()).item()


@torch.no_grad()
def outputs(network, images):
    """What `features` writes, in the network's own precision."""
    stages = network.stages(images)
    features = stages.mean((2, 3))
    z = network.projection_head(features)
    embeddings = z / z.norm(dim=1, keepdim=True)
    return {"features": features, "map": stages, "embeddings": embeddings, "scores": embeddings @ network.prototypes.weight.T}


def compare_photographs(arguments, folder):
    import torchvision

    torch.manual_seed(0)
    pictures = photographs()
    crops = squares(pictures.values(), 224, 256)
    network = full_size(1, crops)
    state = network.state_dict()
    weights = os.path.join(folder, "resnet50.pth.tar")
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, weights, _use_new_zipfile_serialization=False)
    wide = Network("bottleneck", [3, 4, 6, 3], 64, 2048, 128, 3000).double().eval()
    wide.load_state_dict(state)
    # The network of generate.py is torchvision's.
    theirs = torchvision.models.resnet50()
    theirs.fc = torch.nn.Identity()
    theirs.load_state_dict({name: tensor for name, tensor in state.items() if not name.startswith(("projection_head.", "prototypes."))}, strict=True)
    with torch.no_grad():
        worst, _ = off(theirs.double().eval()(crops[:1].double()), wide.backbone(crops[:1].double()))
    assert worst < 1e-12, worst
    whole = normalised(pictures["china"])[None].float()
    good = True
    for what, images in ((f"{', '.join(pictures)} at 224", crops), (f"china whole, {whole.shape[3]}x{whole.shape[2]}", whole)):
        source, target = (os.path.join(folder, name) for name in ("images.safetensors", "features.safetensors"))
        save_file({"images": images.contiguous()}, source)
        program(arguments, "features", "--weights", weights, "--input", source, "--out", target)
        ours, reference, narrow = load_file(target), outputs(wide, images.double()), outputs(network, images)
        for name, expected in reference.items():
            worst, norm = off(ours[name], expected)
            float32 = off(narrow[name], expected)[0]
            good &= worst <= arguments.limit
            print(f"{what}: {name} {tuple(expected.shape)}: worst {worst:.1e} of the largest, norm {norm:.1e} (float32 PyTorch: worst {float32:.1e})")
    print(f"limit {arguments.limit:.0e}:", "within" if good else "NOT within")
    return good


def mmpretrain_names(state):
    names = {}
    for name, tensor in state.items():
        if name.startswith("projection_head."):
            names[name.replace("projection_head.", "neck.projection_neck.")] = tensor
            if name.startswith("projection_head.1."):
                names[name.replace("projection_head.1.", "neck.norm.")] = tensor
        elif name.startswith("prototypes."):
            names[f"head.loss_module.{name}"] = tensor
        else:
            names[f"head.{name}" if name.startswith("fc.") else f"backbone.{name}"] = tensor
    return names


def compare_convert(arguments, folder):
    import torchvision

    torch.manual_seed(0)
    network = Network("bottleneck", [3, 4, 6, 3], 64, 2048, 128, 3000)
    network.initialise(1, False)
    swav = network.state_dict()
    supervised = torchvision.models.resnet50().state_dict()
    for state in (swav, supervised):
        for name, tensor in state.items():
            if "running_" in name:
                tensor.uniform_(0.5, 2.0)
            elif "num_batches" in name:
                tensor.fill_(1234)
    module = {f"module.{name}": tensor for name, tensor in swav.items()}
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    sources = {
        "released.pth.tar": (module, swav),
        "training.pth.tar": ({"epoch": 7, "state_dict": module, "optimizer": optimizer.state_dict(), "amp": {"loss_scale": 65536.0}}, swav),
        "mmpretrain.pth": ({"meta": {"epoch": 200}, "state_dict": mmpretrain_names(swav)}, swav),
        "torchvision.pth": (supervised, supervised),
        "mmpretrain_linear.pth": ({"meta": {}, "state_dict": mmpretrain_names(supervised)}, supervised),
    }
    for name, (data, state) in sources.items():
        for zipped in (True, False):
            source = os.path.join(folder, name)
            torch.save(data, source, _use_new_zipfile_serialization=zipped)
            reference = os.path.join(folder, "reference.safetensors")
            save_file({key: tensor.contiguous() for key, tensor in state.items()}, reference)
            for target in ("torchvision", "swav", "mmpretrain"):
                for end in ("pth", "safetensors"):
                    out = os.path.join(folder, f"out.{end}")
                    said = json.loads(program(arguments, "convert", source, out, "--to", target, "--json"))
                    assert said["unmatched"] == [] and said["remarks"] == [], said
                    line = checker.check(out, values_of=reference)
                    whole = len([key for key in state if target != "torchvision" or not key.startswith(("projection_head.", "prototypes."))])
                    found = len(checker.official(checker.read(out)[0]))
                    assert found == whole, f"{found} tensors of {whole}"
                    print(f"{name} ({'zip' if zipped else 'legacy'}, {said['source_layout']}) -> {line.replace(folder + os.sep, '')}", flush=True)
    return True


def write_fixtures(arguments, _):
    """The tiny network of tests/golden/ckpt in the layouts of programs that are not at hand: only their names and nesting are theirs."""
    tiny = load_file(os.path.join(HERE, "ckpt", "tiny.official.safetensors"))
    order = Network("bottleneck", [1, 1, 1, 1], 2, 6, 5, 7).state_dict()
    tiny = {name: tiny[name] for name in order}
    head = ("projection_head.", "prototypes.")
    trunk = {name: tensor for name, tensor in tiny.items() if not name.startswith(head)}
    path = lambda name: os.path.join(arguments.out, name)
    torch.save(
        {
            "phase_idx": 3,
            "iteration": 77,
            "loss": 2.5,
            "type": "phase",
            "classy_state_dict": {
                "train_phase_idx": 3,
                "base_model": {
                    "model": {
                        "trunk": {f"_feature_blocks.{name}": tensor for name, tensor in trunk.items()},
                        "heads": {
                            f"0.{name.replace('prototypes.', 'prototypes0.')}": tensor for name, tensor in tiny.items() if name.startswith(head)
                        },
                    },
                    "meta": {"input_shape": [3, 224, 224]},
                },
            },
        },
        path("tiny.vissl.torch"),
        _use_new_zipfile_serialization=False,
    )
    # lightly's first linear layer has no bias, its prototypes have one; the running mean before the norm takes the bias up.
    lightly = {f"backbone.{name}": tensor for name, tensor in trunk.items()}
    lightly.update({name.replace("head.", "head.layers."): tensor for name, tensor in tiny.items() if name.startswith("projection_head.")})
    bias = lightly.pop("projection_head.layers.0.bias")
    lightly["projection_head.layers.1.running_mean"] = lightly["projection_head.layers.1.running_mean"] - bias
    lightly["prototypes.heads.0.weight"] = tiny["prototypes.weight"]
    lightly["prototypes.heads.0.bias"] = torch.linspace(-0.1, 0.1, 7)
    frame = {"epoch": 4, "global_step": 99, "pytorch-lightning_version": "2.1.0", "callbacks": {}, "optimizer_states": [], "lr_schedulers": []}
    torch.save({**frame, "state_dict": lightly}, path("tiny.lightly.ckpt"))
    solo = {f"backbone.{name}": tensor for name, tensor in trunk.items()}
    solo.update({name.replace("projection_head.", "projector."): tensor for name, tensor in tiny.items() if name.startswith("projection_head.")})
    norms = tiny["prototypes.weight"].norm(dim=1, keepdim=True)
    solo.update({"prototypes.weight_g": norms, "prototypes.weight_v": 3 * tiny["prototypes.weight"], "queue": torch.zeros(2, 4, 5)})
    torch.save({**frame, "state_dict": solo, "hyper_parameters": {"method": "swav", "lr": 0.6}}, path("tiny.solo.ckpt"))
    fc = load_file(os.path.join(HERE, "ckpt", "tiny.torchvision.safetensors"))
    linear = {"module.linear.weight": fc["fc.weight"], "module.linear.bias": fc["fc.bias"]}
    rest = {"optimizer": {"state": {}, "param_groups": [{"lr": 0.3}]}, "scheduler": {"T_max": 100}, "best_acc": torch.tensor(75.3)}
    torch.save({"epoch": 100, "state_dict": linear, **rest}, path("linear.official.pth.tar"), _use_new_zipfile_serialization=False)
    torch.manual_seed(5)
    features = linear["module.linear.weight"].shape[1]
    norm = torch.nn.BatchNorm1d(features)
    with torch.no_grad():
        for tensor in (norm.weight, norm.running_var):
            tensor.uniform_(0.5, 2)
        for tensor in (norm.bias, norm.running_mean):
            tensor.normal_()
        inputs = torch.randn(3, features, dtype=torch.float64)
        classifier = torch.nn.Linear(features, len(linear["module.linear.bias"]))
        classifier.load_state_dict({name[14:]: tensor for name, tensor in linear.items()})
        logits = classifier.double()(norm.eval().double()(inputs))
    linear.update({f"module.bn.{name}": tensor.float() if tensor.is_floating_point() else tensor for name, tensor in norm.state_dict().items()})
    torch.save({"epoch": 100, "state_dict": linear, **rest}, path("linear.official_bn.pth.tar"))
    save_file({"inputs": inputs, "logits": logits}, path("linear.official_bn.expected.safetensors"))
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["photographs", "convert", "fixtures"])
    parser.add_argument("out", nargs="?", default=os.path.join(HERE, "ckpt"), help="folder of the fixtures")
    parser.add_argument("--program", default="target/release/swav-wgpu")
    parser.add_argument("--folder", help="for what is written meanwhile, 0.5 GB; else a temporary one")
    parser.add_argument("--limit", type=float, default=1e-4)
    arguments = parser.parse_args()
    run = {"photographs": compare_photographs, "convert": compare_convert, "fixtures": write_fixtures}[arguments.what]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        sys.exit(0 if run(arguments, folder) else 1)


if __name__ == "__main__":
    main()
