#!/usr/bin/env python3
"""Loads a .pth written by `swav-wgpu convert` the way PyTorch users do, and fails if anything is off.

    check_pth_with_torch.py FILE [--same-as OTHER]

The file must open with weights_only=True. With --same-as, both must hold the same names in the same order, with the same bits.
Where torchvision is installed and the network is a ResNet-18, 34 or 50, the backbone must also load strictly into it.
"""

import argparse

import torch


def state_dict(path):
    data = torch.load(path, map_location="cpu", weights_only=True)
    data = data.get("state_dict", data)
    return {name[len("module.") :] if name.startswith("module.") else name: tensor for name, tensor in data.items()}


def torchvision_names(state):
    if any(name.startswith("backbone.") for name in state):
        names = {name[len("backbone.") :]: tensor for name, tensor in state.items() if name.startswith("backbone.")}
        names.update({name[len("head.") :]: tensor for name, tensor in state.items() if name.startswith("head.fc.")})
        return names
    return {name: tensor for name, tensor in state.items() if not name.startswith(("projection_head.", "prototypes."))}


def check_torchvision(state):
    try:
        from torchvision.models import resnet
    except ImportError:
        return "torchvision is not installed"
    names = torchvision_names(state)
    if names["conv1.weight"].shape[0] != 64:
        return "torchvision has no network of this width"
    blocks = [len({name.split(".")[1] for name in names if name.startswith(f"layer{stage}.")}) for stage in range(1, 5)]
    kind = resnet.Bottleneck if "layer1.0.conv3.weight" in names else resnet.BasicBlock
    classes = names["fc.weight"].shape[0] if "fc.weight" in names else 1
    model = resnet.ResNet(kind, blocks, num_classes=classes)
    if "fc.weight" not in names:
        model.fc = torch.nn.Identity()
    model.load_state_dict(names, strict=True)
    with torch.no_grad():
        output = model.eval()(torch.zeros(1, 3, 64, 64))
    return f"loaded strictly into torchvision's ResNet {blocks}, output {tuple(output.shape)}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--same-as", metavar="OTHER")
    arguments = parser.parse_args()
    state = state_dict(arguments.file)
    if arguments.same_as:
        other = state_dict(arguments.same_as)
        assert list(state) == list(other), "names or their order differ"
        for name, tensor in state.items():
            assert tensor.dtype == other[name].dtype and torch.equal(tensor, other[name]), f"{name} differs"
    for name, tensor in state.items():
        twin = state.get(name.replace("neck.norm.", "neck.projection_neck.1."))
        assert twin.data_ptr() == tensor.data_ptr(), f"{name} is stored twice"
    print(f"{arguments.file}: {len(state)} tensors, torch {torch.__version__}; {check_torchvision(state)}")


if __name__ == "__main__":
    main()
