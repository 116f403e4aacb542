"""Sample inputs of PyTorch's OpInfo and ONNX's node tests for the ops here, and such with special values.

    python tests/golden/samples.py

writes tests/golden/ops/samples.json and .safetensors: inputs float32, results and gradients float64, recorded by running PyTorch in float64 (results of ONNX's
tests are ONNX's own). Under `left out` the file lists what no op here computes, with a reason each. Needs torch, numpy, onnx, safetensors, expecttest, pytest.
"""

import json
import math
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

HERE = Path(__file__).parent
# Elements of the largest tensor of a case.
MOST = 2500
cases, tensors, left_out = {}, {}, Counter()
generator = torch.Generator().manual_seed(5)


class LeftOut(Exception):
    pass


def need(condition, reason):
    if not condition:
        raise LeftOut(reason)


def scalar(value, reason):
    """The one number of a pair of equal ones."""
    values = {int(v) for v in value} if isinstance(value, (tuple, list, torch.Size)) else {int(value)}
    need(len(values) == 1, reason)
    return values.pop()


def record(name, params, inputs, compute, differentiable=(), outputs=None):
    """`compute` maps the inputs in float64 to named results, the first of which is differentiated."""
    for key, tensor in inputs.items():
        need(tensor.numel() > 0, "without elements: refused where it is written")
        need(tensor.numel() <= MOST, f"more than {MOST} elements")
        inputs[key] = tensor.detach() if tensor.dtype == torch.int64 else tensor.detach().float().contiguous()
    wide = {k: t if t.dtype == torch.int64 else t.double().requires_grad_(k in differentiable) for k, t in inputs.items()}
    results = compute(**wide)
    first = next(iter(results))
    assert all(t.numel() <= 2 * MOST for t in results.values()), name
    if differentiable:
        gy = torch.randn(results[first].shape, generator=generator, dtype=torch.float32)
        tensors[f"{name}/gy"] = gy
        gradients = torch.autograd.grad(results[first], [wide[k] for k in differentiable], gy.double(), allow_unused=True)
        results |= {f"g{k}": g for k, g in zip(differentiable, gradients) if g is not None}
    for key, tensor in inputs.items():
        tensors[f"{name}/{key}"] = tensor
    for key, tensor in results.items():
        if outputs is not None and key in outputs:
            tensor = outputs[key]
        # Only finite float32 numbers are given, and only such are held against.
        tensors[f"{name}/{key}"] = tensor.detach().contiguous()
    cases[name] = {"params": params, "torch_fp32_error": {}}


def batch(x):
    """Images with a batch, be it of one."""
    need(x.dim() in (3, 4), "other than two dimensions of pixels")
    return x if x.dim() == 4 else x[None]


def conv2d(name, x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, outputs=None):
    need(bias is None, "conv2d: a bias")
    x = batch(x)
    need(scalar(dilation, "conv2d: dilation") == 1, "conv2d: dilation")
    need(groups == 1, "conv2d: groups")
    need(not isinstance(padding, str), "conv2d: padding by name")
    stride = scalar(stride, "conv2d: stride of two numbers")
    padding = scalar(padding, "conv2d: padding of two numbers")
    run = lambda x, w: {"y": F.conv2d(x, w, None, stride, padding)}
    record(name, {"stride": stride, "padding": padding}, {"x": x, "w": weight}, run, ("x", "w"), outputs)


def linear(name, x, weight, bias=None, outputs=None):
    need(weight.dim() == 2, "linear: a weight that is no matrix")
    need(x.numel() > 0, "without elements: refused where it is written")
    x = x.reshape(-1, x.shape[-1])
    inputs = {"x": x, "w": weight} | ({} if bias is None else {"b": bias})
    need(bias is None or bias.shape == weight.shape[:1], "linear: a bias of another shape")
    record(name, {}, inputs, lambda x, w, b=None: {"y": F.linear(x, w, b)}, tuple(inputs), outputs)


def batch_norm(name, x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5, outputs=None):
    need(x.dim() in (2, 4), "batch_norm: neither images nor a matrix")
    need(None not in (running_mean, running_var, weight, bias), "batch_norm: without weights or running statistics")
    need(momentum is not None, "batch_norm: without momentum")
    need(abs(eps - 1e-5) < 1e-9, "batch_norm: another eps than 1e-5")
    need(training is False or x.numel() > x.shape[1], "batch_norm: a single value")

    def run(x, weight, bias, mean, var):
        mean, var = mean.clone(), var.clone()
        y = F.batch_norm(x, mean, var, weight, bias, training, momentum, eps)
        return {"y": y, "new_mean": mean, "new_var": var}

    inputs = {"x": x, "weight": weight, "bias": bias, "mean": running_mean, "var": running_var}
    record(name, {"training": bool(training), "momentum": momentum}, inputs, run, ("x", "weight", "bias"), outputs)


def relu(name, x, outputs=None, **other):
    need(x.dim() > 0, "relu: a scalar")
    record(name, {}, {"x": x}, lambda x: {"y": F.relu(x)}, ("x",), outputs)


def max_pool2d(name, x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False, outputs=None):
    x = batch(x)
    need(scalar(dilation, "max_pool2d: dilation") == 1, "max_pool2d: dilation")
    need(not ceil_mode, "max_pool2d: ceil_mode")
    kernel = scalar(kernel_size, "max_pool2d: a window that is no square")
    stride = scalar(kernel if stride in (None, ()) else stride, "max_pool2d: stride of two numbers")
    padding = scalar(padding, "max_pool2d: padding of two numbers")
    need(2 * padding <= kernel, "max_pool2d: padding of more than half a window, which PyTorch refuses too")
    params = {"kernel": kernel, "stride": stride, "padding": padding}
    record(name, params, {"x": x}, lambda x: {"y": F.max_pool2d(x, kernel, stride, padding)}, ("x",), outputs)


def adaptive_avg_pool2d(name, x, output_size, outputs=None):
    x = batch(x)
    size = output_size if isinstance(output_size, (tuple, list)) else (output_size,)
    need(set(size) == {1}, "adaptive_avg_pool2d: to more than one pixel")
    record(name, {}, {"x": x}, lambda x: {"y": x.mean((2, 3))}, ("x",), outputs)


def normalize(name, x, p=2.0, dim=1, eps=1e-12, outputs=None):
    need(x.dim() == 2 and dim in (1, -1), "normalize: not along the rows of a matrix")
    need(p == 2 and abs(eps - 1e-12) < 1e-15, "normalize: another norm or eps")
    record(name, {}, {"x": x}, lambda x: {"y": F.normalize(x)}, ("x",), outputs)


def log_softmax(name, x, dim=-1, outputs=None, dtype=None):
    need(x.dim() == 2 and dim in (1, -1), "log_softmax: not along the rows of a matrix")
    record(name, {}, {"x": x}, lambda x: {"y": F.log_softmax(x, 1)}, ("x",), outputs)


def cross_entropy(name, x, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0, outputs=None):
    need(x.dim() == 2, "cross_entropy: logits that are no matrix")
    need(weight is None, "cross_entropy: weights of classes")
    need(label_smoothing == 0, "cross_entropy: smoothed labels")
    if target.dtype == torch.int64:
        need(reduction == "mean", "cross_entropy: a sum or no reduction against labels")
        need(bool((target >= 0).all()), "cross_entropy: ignored labels")
        record(name, {"soft": False}, {"x": x, "t": target}, lambda x, t: {"y": F.cross_entropy(x, t)[None]}, ("x",), outputs)
    else:
        need(reduction != "none", "cross_entropy: no reduction against distributions")
        run = lambda x, t: {"y": F.cross_entropy(x, t, reduction=reduction)[None]}
        scale = 1.0 if reduction == "sum" else 1.0 / x.shape[0]
        record(name, {"soft": True, "scale": scale}, {"x": x, "t": target}, run, ("x",), outputs)


def argmax(name, x, dim=None, keepdim=False, outputs=None):
    need(x.dim() == 2 and dim in (1, -1), "argmax: not along the rows of a matrix")
    record(name, {}, {"x": x}, lambda x: {"y": x.argmax(1)}, (), outputs)


def add(name, x, other, alpha=1, outputs=None, **rest):
    need(isinstance(other, torch.Tensor) and x.shape == other.shape, "add: broadcast")
    need(x.dim() > 0 and alpha == 1, "add: a scalar, or a factor")
    record(name, {}, {"x": x, "other": other}, lambda x, other: {"y": x + other}, ("x", "other"), outputs)


def sum_columns(name, x, dim=None, keepdim=False, outputs=None, dtype=None):
    need(x.dim() == 2 and dim in (0, (0,), [0], -2, (-2,)), "sum: not over the rows of a matrix")
    record(name, {}, {"x": x}, lambda x: {"y": x.sum(0)}, (), outputs)


def attempt(op, name, *args, **kwargs):
    try:
        op(f"{op.__name__}/{name}", *args, **kwargs)
    except LeftOut as reason:
        left_out[str(reason)] += 1


def opinfo():
    from torch.testing._internal.common_methods_invocations import op_db

    names = {
        "nn.functional.conv2d": conv2d, "nn.functional.linear": linear, "nn.functional.batch_norm": batch_norm, "nn.functional.relu": relu,
        "nn.functional.max_pool2d": max_pool2d, "nn.functional.adaptive_avg_pool2d": adaptive_avg_pool2d, "nn.functional.normalize": normalize,
        "log_softmax": log_softmax, "nn.functional.cross_entropy": cross_entropy, "argmax": argmax, "add": add, "sum": sum_columns,
    }
    for info in op_db:
        op = names.get(info.name)
        if op is None or info.variant_test_name:
            continue
        for i, sample in enumerate(info.sample_inputs("cpu", torch.float64, requires_grad=False)):
            if i < 60:
                attempt(op, f"opinfo {i}", sample.input, *sample.args, **sample.kwargs)
        # What a wrong call says is no matter of ours; that the shapes are refused is tested where
        # they are.
        for i, _ in enumerate(info.error_inputs("cpu")) if info.error_inputs_func else ():
            left_out[f"{op.__name__}: calls that are errors"] += 1


def onnx():
    from onnx.backend.test.case.node import collect_testcases
    from onnx import helper, numpy_helper

    everything = collect_testcases(None)

    def take(op_type, op, arrange):
        for case in everything:
            node = case.model.graph.node
            if len(node) != 1 or node[0].op_type != op_type:
                continue
            attributes = {a.name: helper.get_attribute_value(a) for a in node[0].attribute}
            present = lambda values: [np.asarray(v) if isinstance(v, (np.ndarray, np.generic)) else numpy_helper.to_array(v) for v in values]
            try:
                given, got = (present(v) for v in case.data_sets[0])
                given, got = ([torch.from_numpy(np.array(v)) for v in values] for values in (given, got))
                need(all(t.dtype in (torch.float32, torch.int64) for t in given), f"{op.__name__}: other types than float32")
                args, kwargs = arrange(given, got, attributes)
                op(f"{op.__name__}/onnx {case.name.removeprefix('test_')}", *args, **kwargs)
            except LeftOut as reason:
                left_out[str(reason)] += 1

    def pads(attributes):
        need(attributes.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID"), "onnx: padding by name")
        return scalar(attributes.get("pads", [0]), "onnx: padding of several numbers")

    def pixels(given):
        # Here images always come in batches.
        need(given[0].dim() == 4, "other than two dimensions of pixels")

    def convolution(given, got, a):
        pixels(given)
        args = given + [None] * (3 - len(given))
        return args, {"stride": a.get("strides", [1]), "padding": pads(a), "dilation": a.get("dilations", [1]), "groups": a.get("group", 1), "outputs": {"y": got[0]}}

    def pool(given, got, a):
        pixels(given)
        need(a.get("storage_order", 0) == 0, "onnx: order of columns")
        return given, {"kernel_size": a["kernel_shape"], "stride": a.get("strides", [1]), "padding": pads(a), "dilation": a.get("dilations", [1]), "ceil_mode": bool(a.get("ceil_mode", 0)), "outputs": {"y": got[0]}}

    def norm(given, got, a):
        x, weight, bias, mean, var = given
        training, momentum = bool(a.get("training_mode", 0)), 1 - a.get("momentum", 0.9)
        # ONNX blends the biased variance where PyTorch takes the unbiased one: PyTorch's own
        # running statistics are kept.
        outputs = {"y": got[0]} | ({"new_mean": got[1]} if training else {})
        return [x, mean, var, weight, bias], {"training": training, "momentum": momentum, "eps": a.get("epsilon", 1e-5), "outputs": outputs}

    def gemm(given, got, a):
        need(a.get("alpha", 1) == 1 and a.get("beta", 1) == 1, "linear: factors")
        need(not a.get("transA", 0), "linear: the input transposed")
        weight = given[1] if a.get("transB", 0) else given[1].T
        bias = given[2] if len(given) > 2 else None
        bias = bias[0] if bias is not None and bias.dim() == 2 and bias.shape[0] == 1 and bias.shape[1] == weight.shape[0] else bias
        return [given[0], weight, bias], {"outputs": {"y": got[0]}}

    def loss(given, got, a):
        need(len(got) == 1, "cross_entropy: with log-probabilities")
        need("ignore_index" not in a, "cross_entropy: ignored labels")
        need(got[0].numel() == 1, "cross_entropy: a sum or no reduction against labels")
        args = given + [None] * (3 - len(given))
        return args, {"reduction": a.get("reduction", b"mean").decode(), "outputs": {"y": got[0].reshape(1)}}

    same = lambda given, got, a: (given, {"outputs": {"y": got[0]}})
    take("Conv", conv2d, convolution)
    take("MaxPool", max_pool2d, pool)
    take("BatchNormalization", batch_norm, norm)
    take("Gemm", linear, gemm)
    take("Relu", relu, same)
    take("Add", add, same)
    take("GlobalAveragePool", adaptive_avg_pool2d, lambda given, got, a: ([given[0], 1], {"outputs": {"y": got[0].flatten(1)}}))
    take("LogSoftmax", log_softmax, lambda given, got, a: (given, {"dim": a.get("axis", -1), "outputs": {"y": got[0]}}))
    take("LpNormalization", normalize, lambda given, got, a: (given, {"p": a.get("p", 2), "dim": a.get("axis", -1), "outputs": {"y": got[0]}}))
    take("ArgMax", argmax, lambda given, got, a: (given, {"dim": a.get("axis", 0), "outputs": {"y": got[0].flatten()}} if not a.get("select_last_index", 0) else no("argmax: the last of equal ones")))
    take("SoftmaxCrossEntropyLoss", cross_entropy, loss)


def no(reason):
    raise LeftOut(reason)


def special():
    """NaN, infinities, zeros of both signs and the least normal number, a few of them in random data."""
    values = [math.nan, math.inf, -math.inf, -0.0, 0.0, 2.0**-126]
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float32)

    def spoilt(x, which):
        x = x.clone()
        at = torch.randperm(x.numel(), generator=generator)[:2]
        x.view(-1)[at] = torch.tensor([which, values[(values.index(which) + 3) % 6]], dtype=torch.float32) if which == which else math.nan
        return x

    for which in values:
        of = f"special {which}"
        attempt(conv2d, f"{of} in x", spoilt(draw(2, 3, 5, 6), which), draw(5, 3, 3, 3), None, 1, 1)
        attempt(conv2d, f"{of} in w", draw(2, 3, 5, 6), spoilt(draw(5, 3, 3, 3), which), None, 1, 0)
        attempt(conv2d, f"{of}, stride", spoilt(draw(2, 4, 7, 7), which), draw(8, 4, 3, 3), None, 2, 1)
        attempt(linear, f"{of} in x", spoilt(draw(3, 6), which), draw(5, 6), draw(5))
        attempt(linear, f"{of} in w", draw(3, 8), spoilt(draw(4, 8), which), draw(4))
        mean, var = draw(3), draw(3).abs() + 0.5
        for training in (True, False):
            mode = "training" if training else "evaluation"
            attempt(batch_norm, f"{of}, {mode}", spoilt(draw(2, 3, 3, 4), which), mean, var, draw(3), draw(3), training)
        attempt(relu, of, spoilt(draw(3, 7), which))
        attempt(max_pool2d, of, spoilt(draw(1, 3, 6, 5), which), 3, 2, 1)
        attempt(adaptive_avg_pool2d, of, spoilt(draw(2, 3, 3, 4), which), 1)
        attempt(normalize, of, spoilt(draw(3, 5), which))
        attempt(log_softmax, of, spoilt(draw(3, 5), which))
        attempt(cross_entropy, of, spoilt(draw(3, 5), which), torch.tensor([0, 3, 4]))
        attempt(cross_entropy, f"{of}, soft", spoilt(draw(3, 5), which), draw(3, 5).softmax(1))
        attempt(argmax, of, spoilt(draw(3, 6), which), 1)
        attempt(add, of, spoilt(draw(3, 5), which), draw(3, 5))
        attempt(sum_columns, of, spoilt(draw(7, 5), which), 0)
    for size in (1e3, 1e5, 1e7, 1e30):
        attempt(cross_entropy, f"special logits of {size:g}", draw(3, 5) * size, torch.tensor([0, 3, 4]))
        attempt(cross_entropy, f"special logits of {size:g}, soft", draw(3, 5) * size, draw(3, 5).softmax(1))
        attempt(cross_entropy, f"special logits around {size:g}", draw(3, 5) + size, torch.tensor([0, 3, 4]))
        attempt(log_softmax, f"special logits of {size:g}", draw(3, 5) * size)
    lowest = torch.finfo(torch.float32).min
    attempt(argmax, "special lowest", torch.full((2, 5), lowest), 1)
    attempt(argmax, "special least", torch.full((2, 5), -math.inf), 1)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.manual_seed(5)
    np.random.seed(5)
    opinfo()
    onnx()
    special()
    cases["left out"] = dict(sorted(left_out.items()))
    folder = HERE / "ops"
    (folder / "samples.json").write_text(json.dumps(cases, separators=(",", ":")) + "\n")
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / "samples.safetensors")
    print(len(cases) - 1, "cases,", sum(left_out.values()), "left out")
    print(Counter(name.split("/")[0] + " " + name.split("/")[1].split()[0] for name in cases if "/" in name))
    print(json.dumps(cases["left out"], indent=1))
