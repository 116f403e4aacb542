#!/usr/bin/env python3
"""Records SwAV training trajectories with PyTorch in float64, for `swav-wgpu replay`, and checks recordings made elsewhere.

    generate.py --verify FILE ...                                     re-run recordings and compare everything they hold
    generate.py --float32 FILE ...                                    how far float32 PyTorch is from them
    generate.py --network resnet18 --width 16 --variant mm_queue OUT  record one

Variants: `zi_*` is the official optimiser (LARC around SGD), `mm_*` mmpretrain's LARS, both with residual blocks that start at zero;
`queue` and `noqueue` alone are the official start, which is chaotic with small batches (judge its first step only). `*_queue` has a
queue of two batches and prototypes frozen for two steps; `*_stress` has lr 4.8, weight decay 1e-2, epsilon 0.03, temperature 0.2, a queue
of three batches and nothing frozen.

Everything is written down here from the paper and the published formulas, in the order in which they are computed; only the convolution, the
batch norm and autograd are PyTorch's. Needs torch and safetensors.
"""

import argparse
import json
import math
import sys
import time

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

BLOCKS = {"resnet18": ("basic", [2, 2, 2, 2]), "resnet34": ("basic", [3, 4, 6, 3]), "resnet50": ("bottleneck", [3, 4, 6, 3])}
# A batch norm follows it: its true gradient is 0, and layer-wise scaling turns rounding noise into a step of full length.
NOISE = "projection_head.0.bias"


class Network(torch.nn.Module):
    """A ResNet v1.5 with SwAV's head, every tensor under its official name."""

    def __init__(self, block, blocks, width, hidden, feat_dim, prototypes):
        super().__init__()
        self.block, self.blocks = block, blocks
        expansion = 4 if block == "bottleneck" else 1
        conv = lambda inputs, outputs, kernel, stride=1: torch.nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        norm = torch.nn.BatchNorm2d
        self.conv1, self.bn1 = conv(3, width, 7, 2), norm(width)
        channels = width
        for stage, count in enumerate(blocks):
            inner, outer = width << stage, (width << stage) * expansion
            layer = torch.nn.ModuleList()
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                part = torch.nn.Module()
                if block == "bottleneck":
                    part.conv1, part.conv2, part.conv3 = conv(channels, inner, 1), conv(inner, inner, 3, stride), conv(inner, outer, 1)
                    part.bn1, part.bn2, part.bn3 = norm(inner), norm(inner), norm(outer)
                else:
                    part.conv1, part.conv2 = conv(channels, inner, 3, stride), conv(inner, inner, 3)
                    part.bn1, part.bn2 = norm(inner), norm(inner)
                if stride != 1 or channels != outer:
                    part.downsample = torch.nn.Sequential(conv(channels, outer, 1, stride), norm(outer))
                layer.append(part)
                channels = outer
            setattr(self, f"layer{stage + 1}", layer)
        linear = torch.nn.Linear
        self.projection_head = torch.nn.Sequential(
            linear(channels, hidden), torch.nn.BatchNorm1d(hidden), torch.nn.ReLU(), linear(hidden, feat_dim)
        )
        self.prototypes = linear(feat_dim, prototypes, bias=False)

    def initialise(self, seed, zero_init_residual):
        """Kaiming normal (fan out) convolutions, unit batch norms, PyTorch's own linear layers: all drawn in float32."""
        torch.manual_seed(seed)
        for module in self.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, torch.nn.Linear):
                module.reset_parameters()
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            for part in layer:
                if zero_init_residual:
                    torch.nn.init.zeros_((part.bn3 if self.block == "bottleneck" else part.bn2).weight)

    def stages(self, x):
        """The last stage's map."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            for part in layer:
                y = F.relu(part.bn1(part.conv1(x)))
                y = part.bn2(part.conv2(y))
                if self.block == "bottleneck":
                    y = part.bn3(part.conv3(F.relu(y)))
                x = F.relu(y + (part.downsample(x) if hasattr(part, "downsample") else x))
        return x

    def backbone(self, x):
        return self.stages(x).mean((2, 3))

    def forward(self, crops):
        """Embeddings of all crops, crop after crop: one pass of the backbone for each run of equal sizes, one of the head over all rows."""
        features, start = [], 0
        for index in range(1, len(crops) + 1):
            if index == len(crops) or crops[index].shape[-1] != crops[start].shape[-1]:
                features.append(self.backbone(torch.cat(crops[start:index])))
                start = index
        z = self.projection_head(torch.cat(features))
        return z / z.norm(dim=1, keepdim=True).clamp_min(1e-12)


def sinkhorn(scores, epsilon, iterations):
    """Codes of (N, K) scores, in the log domain: rows sum to 1, and prototypes get equal shares before the last half step."""
    logits = scores / epsilon
    f, g = torch.zeros_like(logits[:1]), torch.zeros_like(logits[:, :1])
    for _ in range(iterations):
        f = -torch.logsumexp(logits + g, 0, keepdim=True)
        g = -torch.logsumexp(logits + f, 1, keepdim=True)
    return torch.exp(logits + f + g)


def lars(p, g, v, s, lr):
    """mmpretrain's: the rate is inside the momentum."""
    pn, gn = p.norm(), g.norm()
    trust = s["trust"] * pn / (gn + s["weight_decay"] * pn + 1e-8) if pn != 0 and gn != 0 else 1.0
    d = (g + s["weight_decay"] * p) * trust * lr
    v = d if v is None else s["momentum"] * v + d
    return p - v, v


def larc(p, g, v, s, lr):
    """apex' without clipping, around SGD: the rate is outside; a tensor or gradient of norm 0 has no weight decay either."""
    pn, gn = p.norm(), g.norm()
    if pn != 0 and gn != 0:
        g = (g + s["weight_decay"] * p) * (s["trust"] * pn / (gn + s["weight_decay"] * pn + 1e-8))
    v = g if v is None else s["momentum"] * v + g
    return p - lr * v, v


class Swav:
    """A training run: network, queue, momentum."""

    def __init__(self, network, settings):
        self.network, self.settings, self.momentum = network, settings, {}
        rows = settings["queue"] * settings["batch"]
        dtype = network.prototypes.weight.dtype
        self.queue = torch.zeros(len(settings["crops_for_assign"]), rows, settings["feat_dim"], dtype=dtype) if rows else None

    def step(self, step, crops):
        s, network, batch = self.settings, self.network, self.settings["batch"]
        prototypes = network.prototypes.weight
        with torch.no_grad():
            prototypes.copy_(prototypes / prototypes.norm(dim=1, keepdim=True).clamp_min(1e-12))
        network.zero_grad(set_to_none=True)
        z = network(crops)
        scores = z @ prototypes.T
        views = [scores[v * batch : (v + 1) * batch] for v in range(len(crops))]
        loss, codes = 0.0, []
        for slot, c in enumerate(s["crops_for_assign"]):
            with torch.no_grad():
                pool = views[c]
                if self.queue is not None:
                    queue = self.queue[slot]
                    if queue[-1].count_nonzero():  # full
                        pool = torch.cat([queue @ prototypes.T, pool])
                    self.queue[slot] = torch.cat([z[c * batch : (c + 1) * batch], queue[:-batch]])
                q = sinkhorn(pool, s["epsilon"], s["sinkhorn_iterations"])[-batch:]
                codes.append(q)
            others = [v for v in range(len(crops)) if v != c]
            terms = [-(q * F.log_softmax(views[v] / s["temperature"], 1)).sum(1).mean() for v in others]
            loss = loss + sum(terms) / len(terms)
        loss = loss / len(s["crops_for_assign"])
        loss.backward()
        if step < s["freeze"]:
            prototypes.grad = None
        gradients = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
        rule = {"lars": lars, "larc": larc}[s["optimizer"]]
        with torch.no_grad():
            for name, p in network.named_parameters():
                if p.grad is not None:
                    value, self.momentum[name] = rule(p, p.grad, self.momentum.get(name), s, s["lr"][step])
                    p.copy_(value)
        return loss.item(), gradients, scores.detach(), torch.stack(codes)


def run(settings, initial, crops_of, dtype=torch.float64):
    """Trains from a state; gives the tensors of a recording except `init` and `crops`."""
    keys = ("block", "depth_blocks", "width", "hidden", "feat_dim", "prototypes")
    block, blocks, *sizes = (settings[key] for key in keys)
    network = Network(block, blocks, *sizes).to(dtype).train()
    network.load_state_dict(initial, strict=True)
    swav, losses, out = Swav(network, settings), [], {}
    for step in range(settings["steps"]):
        start = time.time()
        loss, gradients, scores, codes = swav.step(step, [crop.to(dtype) for crop in crops_of(step)])
        losses.append(loss)
        out[f"scores/{step}"], out[f"q/{step}"] = scores, codes
        if step == 0:
            out.update({f"grad0/{name}": value for name, value in gradients.items()})
        print(f"  step {step}: loss {loss:.6f}, {time.time() - start:.1f} s", file=sys.stderr, flush=True)
    out.update({f"final/{name}": value.detach() for name, value in network.state_dict().items()})
    out["loss"] = torch.tensor(losses, dtype=torch.float64)
    if swav.queue is not None:
        out["queue"] = swav.queue
    return out


def relative(ours, theirs):
    ours, theirs = ours.double(), theirs.double()
    scale = theirs.norm().item()
    return (ours - theirs).norm().item() / (scale if scale > 0 else 1.0)


def again(path, dtype):
    """Re-runs a recording: what it holds, its initial state, what comes out now."""
    with safe_open(path, "pt") as file:
        settings = json.loads(file.metadata()["swav"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    initial = {name[5:]: value for name, value in tensors.items() if name.startswith("init/")}
    views = sum(count for count, _ in settings["crops"])
    return tensors, initial, run(settings, initial, lambda step: [tensors[f"crops/{step}/{index}"] for index in range(views)], dtype)


def float32(path):
    """How far PyTorch in float32 is from a recording, measured as `replay` measures this program."""
    tensors, initial, ours = again(path, torch.float32)

    def together(prefix, start=lambda name: 0.0):
        names = [name for name in tensors if name.startswith(prefix) and not name.endswith((NOISE, "num_batches_tracked")) and "running_" not in name]
        join = lambda source: torch.cat([(source[name].double() - start(name[len(prefix) :])).flatten() for name in names])
        return relative(join(ours), join(tensors))

    losses = (ours["loss"].double() - tensors["loss"].double()).abs()
    print(
        f"{path}: float32 PyTorch: loss off by {', '.join(f'{error:.1e}' for error in losses.tolist())}; gradients of step 0 by "
        f"{together('grad0/'):.1e}, updates by {together('final/', lambda name: initial[name].double()):.1e} of their norm",
        flush=True,
    )
    return losses.max().item()


def verify(path, limit):
    """Re-runs a recording and compares every tensor of it. What is stored as float32 is known to 6e-8 only."""
    tensors, initial, ours = again(path, torch.float64)
    errors, dtypes = {}, {}
    for name, value in tensors.items():
        group = name.split("/")[0]
        if group in ("init", "crops"):
            continue
        mine, theirs = ours.pop(name), value
        if name.endswith((NOISE, "projection_head.1.running_mean")):
            continue
        if group == "final" and mine.is_floating_point() and "running_" not in name:
            # The update is what training made; the weights before it are the same by construction.
            group, start = "update", initial[name[6:]].double()
            mine, theirs = (mine.to(value.dtype).double() - start), value.double() - start
        elif mine.is_floating_point():
            mine = mine.to(value.dtype)
        dtypes[group] = str(value.dtype)
        errors[group] = max(errors.get(group, 0.0), relative(mine, theirs))
    print(f"{path}: worst relative error of a tensor:", ", ".join(f"{group} {error:.1e}" for group, error in sorted(errors.items())))
    good = all(error <= limit for error in errors.values()) and not any(name.startswith("grad0/") for name in ours)
    print("  reproduced" if good else "  NOT reproduced")
    return good


def cosine(base, final, steps):
    return [final + (base - final) * (1 + math.cos(math.pi * t / steps)) / 2 for t in range(steps)]


def settings_of(arguments):
    block, blocks = BLOCKS[arguments.network]
    family, stress = arguments.variant[:3], arguments.variant.endswith("stress")
    if stress:
        # The official schedule warms up; mmpretrain's here does not.
        rates = cosine(4.8, 0.05, arguments.steps)
        if family != "mm_":
            rates = [0.3, 4.8, *cosine(4.8, 0.05, max(arguments.steps - 2, 1))][: arguments.steps]
    else:
        rates = cosine(0.6, 6e-4, arguments.steps)
    queue = 0 if arguments.variant.endswith("noqueue") else 3 if stress else 2
    return {
        "block": block,
        "depth_blocks": arguments.blocks or blocks,
        "width": arguments.width,
        "hidden": arguments.hidden,
        "feat_dim": arguments.feat_dim,
        "prototypes": arguments.prototypes,
        "crops": arguments.crops,
        "batch": arguments.batch,
        "steps": arguments.steps,
        "temperature": 0.2 if stress else 0.1,
        "epsilon": 0.03 if stress else 0.05,
        "sinkhorn_iterations": 3,
        "crops_for_assign": arguments.assign,
        "lr": rates,
        "weight_decay": 1e-2 if stress else 1e-6,
        "momentum": 0.9,
        "trust": 0.001,
        "freeze": 0 if stress else min(2, arguments.steps - 1),
        "queue": queue if arguments.queue is None else arguments.queue,
        "optimizer": "lars" if family == "mm_" else "larc",
    }


def draw_crops(settings, step, seed):
    """Blotches of a scene for each sample, seen differently by each crop: what crops of one image share, they share here."""
    generator = torch.Generator().manual_seed(1000 * seed + step)
    batch = settings["batch"]
    scene = torch.randn(batch, 3, 6, 6, generator=generator)
    crops = []
    for count, size in settings["crops"]:
        for _ in range(count):
            view = scene + 0.5 * torch.randn(batch, 3, 6, 6, generator=generator)
            view = F.interpolate(view, size=(size, size), mode="bilinear", align_corners=False)
            crops.append(view + 0.3 * torch.randn(batch, 3, size, size, generator=generator))
    return crops


def record(arguments):
    settings = settings_of(arguments)
    network = Network(*(settings[key] for key in ("block", "depth_blocks", "width", "hidden", "feat_dim", "prototypes")))
    network.initialise(arguments.seed, arguments.variant[:3] in ("zi_", "mm_"))
    initial = {name: value.clone() for name, value in network.state_dict().items()}
    crops = [draw_crops(settings, step, arguments.seed) for step in range(settings["steps"])]
    print(f"{arguments.out}: {sum(p.numel() for p in network.parameters())} parameters", file=sys.stderr)
    out = run(settings, initial, lambda step: crops[step])
    # float32 holds what a float32 program is compared with; losses, scores and codes stay exact.
    narrow = lambda name, value: value.float() if value.is_floating_point() and name.startswith(("grad0/", "final/", "queue")) else value
    tensors = {name: narrow(name, value) for name, value in out.items()}
    if arguments.lean:
        tensors = {name: value for name, value in tensors.items() if not name.startswith(("scores/", "queue"))}
    tensors.update({f"init/{name}": value for name, value in initial.items()})
    tensors.update({f"crops/{step}/{index}": crop for step, views in enumerate(crops) for index, crop in enumerate(views)})
    save_file({name: value.contiguous() for name, value in tensors.items()}, arguments.out, metadata={"swav": json.dumps(settings)})
    if float32(arguments.out) > 3e-4:
        print("  not sharp: a rounding decided a step of it (a ReLU at its bend); choose another --seed")


def crops_argument(text):
    return [[int(part) for part in group.split("x")] for group in text.split("+")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", help="file to write")
    parser.add_argument("--verify", nargs="+", metavar="FILE", help="re-run recordings instead")
    parser.add_argument("--float32", nargs="+", metavar="FILE", help="re-run recordings in float32 instead, and say how far off that is")
    parser.add_argument("--limit", type=float, default=1e-6, help="largest relative error of a tensor that --verify accepts")
    parser.add_argument("--variant", default="mm_queue", choices=[f"{f}{v}" for f in ("", "zi_", "mm_") for v in ("queue", "noqueue", "stress")])
    parser.add_argument("--network", default="resnet18", choices=BLOCKS)
    parser.add_argument("--blocks", type=lambda text: [int(part) for part in text.split(",")], help="four numbers of blocks instead of the usual")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--feat-dim", type=int, default=16)
    parser.add_argument("--prototypes", type=int, default=30)
    parser.add_argument("--crops", type=crops_argument, default=[[2, 32], [4, 16]], help="2x32+4x16")
    parser.add_argument("--assign", type=lambda text: [int(part) for part in text.split(",")], default=[0, 1], help="crops that give codes")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--queue", type=int, help="length in batches instead of the variant's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lean", action="store_true", help="leave scores and the queue out")
    arguments = parser.parse_args()
    if arguments.verify:
        # A list, so that every file is tried.
        sys.exit(0 if all([verify(path, arguments.limit) for path in arguments.verify]) else 1)
    if arguments.float32:
        return [float32(path) for path in arguments.float32]
    if not arguments.out:
        parser.error("give a file to write, --verify or --float32")
    record(arguments)


if __name__ == "__main__":
    main()
