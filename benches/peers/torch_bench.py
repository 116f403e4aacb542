#!/usr/bin/env python3
"""Times PyTorch under the names of `swav-wgpu bench`: one JSON line a case.

torch_bench.py [--device cpu|cuda] [--threads 1] [--seconds 3] [--channels-last] [--amp float16|bfloat16] [--tf32] [--compile] NAME...

Names without a twin here are passed over, and so are those that end in _f16 unless --amp says as what to compute them: kernels
on such tensors, steps under autocast, which computes head and prototypes so too (ours keeps them in f32). Needs torch, and torchvision for whole steps. `cpu_ms` is processor time of the process, all
threads: run it with one thread and OMP_WAIT_POLICY=passive, because OpenMP's waiting threads spin.
"""
import argparse
import json
import re
import time

import torch
import torch.nn.functional as F


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--amp", choices=["float16", "bfloat16"], help="autocast to this type, with a loss scale for float16")
    parser.add_argument("--tf32", action="store_true", help="let CUDA round to TF32")
    parser.add_argument("--compile", action="store_true", help="compile the networks of steps")
    parser.add_argument("names", nargs="+", metavar="NAME")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high" if args.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = args.tf32
    torch.backends.cudnn.benchmark = True
    bench = Bench(args)
    for name in args.names:
        for pattern, case in CASES:
            if (match := re.fullmatch(pattern, name)) and (args.amp or not name.endswith("_f16")):
                case(bench, name, *match.groups())


class Bench:
    def __init__(self, args):
        self.device, self.seconds = torch.device(args.device), args.seconds
        self.amp = getattr(torch, args.amp) if args.amp else None
        self.scaler = torch.amp.GradScaler(args.device, enabled=args.amp == "float16")
        self.format = torch.channels_last if args.channels_last else torch.contiguous_format
        self.compile = args.compile
        flags = [f for f, on in (("cl", args.channels_last), (args.amp, args.amp), ("tf32", args.tf32), ("compiled", args.compile)) if on]
        self.tool = "-".join(["torch", args.device, *flags])

    def normal(self, *shape, half=False):
        tensor = torch.randn(*shape, device=self.device, dtype=self.amp if half else None)
        return tensor.to(memory_format=self.format) if len(shape) == 4 else tensor

    def network(self, module):
        module = module.to(self.device).to(memory_format=self.format).train()
        return torch.compile(module) if self.compile else module

    def run(self, name, flops, work):
        def once():
            cpu, wall = time.process_time(), time.perf_counter()
            with torch.autocast(self.device.type, self.amp, enabled=self.amp is not None):
                work()
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            return (time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3

        first = once()[0]
        warm = once()[0]
        started = time.perf_counter()
        while time.perf_counter() - started < self.seconds / 4:
            warm = once()[0]
        repeats = int(min(max(self.seconds * 1e3 / 9 / warm, 1), 1000))
        samples = int(min(max(self.seconds * 1e3 / (warm * repeats), 3), 9))
        taken = [[sum(part) / repeats for part in zip(*(once() for _ in range(repeats)))] for _ in range(samples)]
        wall, cpu = (sorted(sample[i] for sample in taken)[samples // 2] for i in (0, 1))
        gflops = round(flops / wall / 1e6, 3) if flops else None
        line = {"tool": self.tool, "name": name, "median_ms": round(wall, 3), "cpu_ms": round(cpu, 3), "first_ms": round(first), "gflops": gflops}
        print(json.dumps(line), flush=True)


def matmul(bench, name, n):
    n = int(n)
    x, y = bench.normal(n, n), bench.normal(n, n)
    bench.run(name, 2.0 * n**3, lambda: x @ y)


def conv(bench, name, which, kernel, stride, inputs, outputs, size, batch, half):
    kernel, stride, inputs, outputs, size, batch = (int(v or 1) for v in (kernel, stride, inputs, outputs, size, batch))
    out = -(-size // stride)
    flops = 2.0 * batch * out * out * outputs * inputs * kernel**2
    x, w = (bench.normal(*shape, half=half) for shape in ((batch, inputs, size, size), (outputs, inputs, kernel, kernel)))
    padding = kernel // 2

    def forward():
        return F.conv2d(x, w, stride=stride, padding=padding)

    if which == "fwd":
        with torch.no_grad():
            bench.run(name, flops, forward)
    elif which == "fwdbwd":
        x.requires_grad_()
        w.requires_grad_()
        bench.run(name, 3 * flops, lambda: torch.autograd.grad(forward().sum(), (x, w)))
    else:
        dy, mask = bench.normal(batch, outputs, out, out, half=half), [which == "dgrad", which == "wgrad", False]
        backward = torch.ops.aten.convolution_backward
        window = ([stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1)
        bench.run(name, flops, lambda: backward(dy, x, w, None, *window, mask))


def batch_norm(bench, name, channels, size, batch, half):
    channels, size, batch = int(channels), int(size), int(batch)
    module = torch.nn.BatchNorm2d(channels).to(bench.device)
    x = bench.normal(batch, channels, size, size, half=half).requires_grad_()
    bench.run(name, None, lambda: torch.autograd.grad(F.relu(module(x)).sum(), (x, module.weight, module.bias)))


def step(bench, name, depth, size, batch):
    """Supervised training: SGD with momentum 0.9 and weight decay 1e-4, 1000 classes. The rate is 0: trained on one batch for long,
    gradients would become subnormal numbers, which processors are slow at."""
    import torchvision

    size, batch = int(size), int(batch)
    model = bench.network(getattr(torchvision.models, f"resnet{depth}")())
    sgd = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9, weight_decay=1e-4)
    x = bench.normal(batch, 3, size, size)
    labels = torch.tensor([(i * 37 + 11) % 1000 for i in range(batch)], device=bench.device)

    def work():
        sgd.zero_grad(set_to_none=True)
        F.cross_entropy(model(x), labels).backward()
        sgd.step()

    bench.run(name, 3 * forward_flops(model, x), work)


def swav(bench, name, depth, globals_, global_size, locals_, local_size, batch):
    """The step of the official code: crops of one size together through the network, a projection of two layers, codes of the two
    global crops by three rounds of Sinkhorn, swapped prediction, LARC over SGD, prototypes of unit length. As many prototypes as our case has."""
    prototypes = {"18": 300, "50": 3000}[depth]
    globals_, global_size, locals_, local_size, batch = (int(v) for v in (globals_, global_size, locals_, local_size, batch))
    model = bench.network(SwAV(depth, prototypes))
    larc = Larc(model.parameters(), momentum=0.9, weight_decay=1e-6)
    groups = [bench.normal(n * batch, 3, size, size) for n, size in ((globals_, global_size), (locals_, local_size))]

    def work():
        larc.sgd.zero_grad(set_to_none=True)
        with torch.no_grad():
            model.prototypes.weight.copy_(F.normalize(model.prototypes.weight))
        scores = model(groups).float().chunk(globals_ + locals_)
        log_p = [F.log_softmax(s / 0.1, dim=1) for s in scores]
        loss = 0.0
        for assign in range(globals_):
            codes = sinkhorn(scores[assign].detach())
            others = [log_p[v] for v in range(len(log_p)) if v != assign]
            loss = loss - sum((codes * p).sum(dim=1).mean() for p in others) / len(others)
        bench.scaler.scale(loss / globals_).backward()
        bench.scaler.unscale_(larc.sgd)
        larc.scale_gradients()
        bench.scaler.step(larc.sgd)
        bench.scaler.update()

    bench.run(name, 3 * forward_flops(model, groups), work)


class SwAV(torch.nn.Module):
    def __init__(self, depth, prototypes):
        import torchvision

        super().__init__()
        self.backbone = getattr(torchvision.models, f"resnet{depth}")()
        features = self.backbone.fc.in_features
        self.backbone.fc = torch.nn.Identity()
        hidden = [torch.nn.Linear(features, features), torch.nn.BatchNorm1d(features), torch.nn.ReLU(inplace=True)]
        self.projection = torch.nn.Sequential(*hidden, torch.nn.Linear(features, 128))
        self.prototypes = torch.nn.Linear(128, prototypes, bias=False)

    def forward(self, groups):
        features = torch.cat([self.backbone(images) for images in groups])
        return self.prototypes(F.normalize(self.projection(features)))


@torch.no_grad()
def sinkhorn(scores, epsilon=0.05, iterations=3):
    """Codes (B, K) of scores (B, K): the paper's appendix A.1."""
    q = torch.exp(scores / epsilon).t()
    q /= q.sum()
    for _ in range(iterations):
        q /= q.sum(dim=1, keepdim=True) * q.shape[0]
        q /= q.sum(dim=0, keepdim=True) * q.shape[1]
    return (q * q.shape[1]).t()


class Larc:
    """SGD whose gradients are scaled tensor by tensor before (You et al., 2017), without clipping, all tensors in a few
    calls. The rate is 0, as in the supervised step."""

    def __init__(self, parameters, momentum, weight_decay, trust=0.001, eps=1e-8):
        self.parameters, self.weight_decay, self.trust, self.eps = list(parameters), weight_decay, trust, eps
        self.sgd = torch.optim.SGD(self.parameters, lr=0.0, momentum=momentum)

    @torch.no_grad()
    def scale_gradients(self):
        gradients = [p.grad for p in self.parameters]
        weights, slopes = (torch.stack(torch._foreach_norm(tensors)) for tensors in (self.parameters, gradients))
        rates = self.trust * weights / (slopes + self.weight_decay * weights + self.eps)
        rates = torch.where((weights > 0) & (slopes > 0), rates, torch.ones_like(rates))
        torch._foreach_add_(gradients, self.parameters, alpha=self.weight_decay)
        torch._foreach_mul_(gradients, list(rates.unbind()))


def forward_flops(model, x):
    """Of convolutions and classifier, counted while a batch passes through."""
    total = 0.0

    def count(module, inputs, output):
        nonlocal total
        total += 2.0 * output.numel() * module.weight[0].numel()

    model = getattr(model, "_orig_mod", model)  # hooks are not for compiled networks
    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return total


CASES = [
    (r"matmul_(\d+)", matmul),
    (r"conv_(fwd|dgrad|wgrad|fwdbwd)_c(\d+)(?:s(\d+))?_(\d+)_(\d+)_(\d+)_b(\d+)(_f16)?", conv),
    (r"bnrelu_fwdbwd_(\d+)_(\d+)_b(\d+)(_f16)?", batch_norm),
    (r"resnet(18|50)_step_(\d+)_b(\d+)", step),
    (r"swav_step_resnet(18|50)_(\d+)x(\d+)_(\d+)x(\d+)_b(\d+)(?:_f16)?", swav),
]

if __name__ == "__main__":
    main()
