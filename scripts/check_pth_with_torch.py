#!/usr/bin/env python3
"""Loads a weight file written by `swav-wgpu convert` the way PyTorch users do, and fails if anything is off.

    check_pth_with_torch.py FILE ... [--same-as OTHER] [--values-of SOURCE]

A .pth must open with weights_only=True, hold the names of one layout in its order, share the storage of mmpretrain's two names for the neck's
norm, and every part must load strictly (load_state_dict(strict=True)) into a module built here: the backbone into torchvision's ResNet
where torchvision is installed and the width is 64, SwAV's head and the classifier into plain PyTorch layers. A .safetensors is checked in the same
way. With --same-as, OTHER must hold the same names in the same order with the same bits; with --values-of, every tensor of FILE must have
the bits that SOURCE, in any of the three layouts, has for it.
"""

import argparse

import torch


def read(path):
    """Names and tensors of a file, without `module.`; and what lies beside the state_dict."""
    if path.endswith(".safetensors"):
        from safetensors.torch import load_file

        return load_file(path), {}
    data = torch.load(path, map_location="cpu", weights_only=True)
    state = data.get("state_dict", data)
    beside = {key: value for key, value in data.items() if key != "state_dict"} if state is not data else {}
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}, beside


def layout_of(state):
    if "backbone.conv1.weight" in state:
        return "mmpretrain"
    return "swav" if any(name.startswith(("projection_head.", "prototypes.")) for name in state) else "torchvision"


def official(state):
    """The same tensors under the official names, `fc` for a classifier."""
    renames = [
        ("backbone.", ""),
        ("neck.norm.", "projection_head.1."),
        ("neck.projection_neck.", "projection_head."),
        ("head.loss_module.prototypes.", "prototypes."),
        ("head.fc.", "fc."),
    ]
    if layout_of(state) != "mmpretrain":
        return dict(state)
    names = {}
    for name, tensor in state.items():
        old, new = next((old, new) for old, new in renames if name.startswith(old))
        names[new + name[len(old) :]] = tensor
    return names


def part(state, prefix):
    return {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}


def check_backbone(state, ordered):
    heads = ("projection_head.", "prototypes.", "fc.")
    names = {name: tensor for name, tensor in state.items() if not name.startswith(heads)}
    blocks = [len({name.split(".")[1] for name in names if name.startswith(f"layer{stage}.")}) for stage in range(1, 5)]
    try:
        from torchvision.models import resnet
    except ImportError:
        return "torchvision is not installed"
    if names["conv1.weight"].shape[0] != 64:
        return "torchvision has no network of this width"
    kind = resnet.Bottleneck if "layer1.0.conv3.weight" in names else resnet.BasicBlock
    model = resnet.ResNet(kind, blocks)
    model.fc = torch.nn.Identity()
    model.load_state_dict(names, strict=True)
    # safetensors files have no order.
    assert not ordered or list(names) == list(model.state_dict()), "the order is not torchvision's"
    with torch.no_grad():
        output = model.eval()(torch.zeros(1, 3, 64, 64))
    return f"loaded strictly into torchvision's ResNet {blocks}, output {tuple(output.shape)}"


def check_heads(state):
    """Strict loads of what is beside the backbone; says what there was."""
    found = []
    if projection := part(state, "projection_head."):
        hidden, features = projection["0.weight"].shape
        outputs = projection["3.weight"].shape[0]
        nn = torch.nn
        module = nn.Sequential(nn.Linear(features, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, outputs))
        module.load_state_dict(projection, strict=True)
        prototypes = part(state, "prototypes.")
        torch.nn.Linear(outputs, prototypes["weight"].shape[0], bias=False).load_state_dict(prototypes, strict=True)
        found.append(f"head {features}-{hidden}-{outputs} with {prototypes['weight'].shape[0]} prototypes")
    if classifier := part(state, "fc."):
        torch.nn.Linear(classifier["weight"].shape[1], classifier["weight"].shape[0]).load_state_dict(classifier, strict=True)
        found.append(f"classifier of {classifier['weight'].shape[0]}")
    return ", ".join(found) or "no head"


def check(path, same_as=None, values_of=None):
    """All checks of one file; gives a line about it."""
    state, beside = read(path)
    layout = layout_of(state)
    if same_as:
        other, _ = read(same_as)
        assert list(state) == list(other), "names or their order differ"
        for name, tensor in state.items():
            assert tensor.dtype == other[name].dtype and torch.equal(tensor, other[name]), f"{name} differs"
    names = official(state)
    if values_of:
        source = official(read(values_of)[0])
        for name, tensor in names.items():
            there = source[name]
            assert tensor.dtype == there.dtype and tensor.shape == there.shape, f"{name} has another type or shape"
            assert torch.equal(tensor.reshape(-1).view(torch.uint8), there.reshape(-1).view(torch.uint8)), f"{name} has other bits"
    torch_file = not path.endswith(".safetensors")
    if torch_file:
        assert (layout == "mmpretrain") == ("meta" in beside), "mmpretrain files have a meta, others a flat dictionary"
        for name, tensor in state.items():
            twin = state.get(name.replace("neck.norm.", "neck.projection_neck.1."))
            assert twin.data_ptr() == tensor.data_ptr(), f"{name} is stored twice"
    norms = [name for name in state if name.startswith("neck.norm.")]
    assert all(torch.equal(state[name], state[name.replace("neck.norm.", "neck.projection_neck.1.")]) for name in norms)
    return f"{path}: {layout}, {len(state)} tensors; {check_backbone(names, torch_file)}; {check_heads(names)}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--same-as", metavar="OTHER")
    parser.add_argument("--values-of", metavar="SOURCE")
    arguments = parser.parse_args()
    for path in arguments.files:
        print(check(path, arguments.same_as, arguments.values_of))
    print(f"torch {torch.__version__}")


if __name__ == "__main__":
    main()
