#!/usr/bin/env python3
"""Writes the files of tests/golden/pickles: whatever torch.save can put beside tensors, in every protocol and container.

    generate_pickles.py [DIR]

Every file is loaded with torch.load again, and what it gives is written beside it as safetensors, under the names that the program gives:
keys, attributes and places in lists joined by dots. Needs torch, numpy, safetensors and omegaconf.
"""

import argparse
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import io
import operator
import os
import pathlib
import pickle
import struct
import sys
import tarfile
import types
import uuid
import warnings
import zipfile

import numpy
import torch
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
USABLE = {getattr(torch, f"{name}{bits}") for name in ("int", "uint", "float") for bits in (8, 16, 32, 64) if (name, bits) != ("float", 8)}
USABLE |= {torch.bool, torch.bfloat16}
# Types that the old container cannot keep.
NEW_TYPES = ("uint16", "uint32", "uint64", "float8")


class Colour(enum.Enum):
    RED = 1


class Plain:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


class Slots:
    __slots__ = ("weight", "other")

    def __init__(self, weight, other):
        self.weight, self.other = weight, other


class Reduced:
    def __init__(self, weight):
        self.weight = weight

    def __reduce__(self):
        return Reduced, (self.weight,)


class Named:
    """Made by keyword: NEWOBJ_EX from protocol 4 on."""

    def __new__(cls, *, size):
        made = super().__new__(cls)
        made.size = size
        return made

    def __getnewargs_ex__(self):
        return (), {"size": self.size}


class Stateful:
    def __getstate__(self):
        return [1, 2, 3]

    def __setstate__(self, state):
        self.state = state


class DictKind(dict):
    pass


class OrderedKind(collections.OrderedDict):
    pass


class ListKind(list):
    pass


class Text(str):
    pass


class Number(int):
    pass


Point = collections.namedtuple("Point", "x y")


@dataclasses.dataclass
class Record:
    lr: float
    steps: list


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 3, 1)
        self.norm = torch.nn.BatchNorm1d(3)
        self.layers = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
        self.register_parameter("absent", None)

    def forward(self, x):
        return self.layers(x)


class Scaled(torch.nn.Module):
    """For TorchScript, whose files hold the code of what they are."""

    def __init__(self, inner=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([1.5, 2.5]))
        self.inner = inner if inner is not None else torch.nn.Identity()

    def forward(self, x):
        return self.inner(x * self.weight)


def numbers(*shape, start=0):
    count = int(numpy.prod(shape, dtype=int))
    return (torch.arange(count, dtype=torch.float32) + start).reshape(shape) / 8


def objects():
    """Tensors among everything that is none."""
    cyclic = [1, numbers(2, start=40)]
    cyclic.append(cyclic)
    child, parent = Plain(name="child"), Plain(weight=numbers(3, start=50))
    child.parent, parent.child = parent, child
    shared = {"weight": numbers(2, start=60)}
    grouped = collections.defaultdict(list)
    grouped["a"] += [1, 2]
    grouped[3] += ["x"]
    nested = collections.defaultdict(dict, {"run": {"weight": numbers(2, start=70)}})
    return {
        "state_dict": Small().state_dict(),
        "tensor": numbers(2, 3),
        "grouped": grouped,
        "nested": nested,
        "counter": collections.Counter("swav"),
        "deque": collections.deque([0.5, numbers(2, start=10), "x"], maxlen=3),
        (1, "pair"): numbers(2, start=20),
        None: {"weight": numbers(1, start=25)},
        7: [numbers(1, start=26), {"weight": numbers(1, start=27)}],
        2.5: numbers(1, start=28),
        True and "flag": True,
        frozenset({1}): 1,
        b"bytes": 2,
        "set": {1, "two", (3, 4)},
        "empty": [{}, [], (), set(), frozenset(), b"", "", collections.OrderedDict(), collections.deque(), collections.defaultdict(int)],
        "namespace": argparse.Namespace(lr=0.1, betas=(0.9, 0.999), inner=argparse.Namespace(weight=numbers(1, start=29))),
        "simple": types.SimpleNamespace(a=1, weight=numbers(1, start=30)),
        "torch": [torch.Size([2, 3]), torch.float16, torch.device("cuda:1"), torch.strided, torch.contiguous_format, torch.nn.functional.relu],
        "numpy": [numpy.float64(1.5), numpy.int64(3), numpy.bool_(True), numpy.dtype("float32"), numpy.datetime64("2026-01-01")],
        "big": [2**31, -(2**31), 2**63, -(2**63), 2**200, -1, 255, 65535, 1e300, float("inf"), float("nan"), 1j],
        "bytes": [b"\x00" * 3, bytearray(b"ab"), b"x" * 300],
        "text": ["Größe", "日本", "x" * 300, "x" * 5000, "line\nline", "back\\slash", "tab\t", "quote'\""],
        "python": [
            pathlib.PurePosixPath("a/b"),
            datetime.datetime(2026, 1, 2, 3),
            datetime.timedelta(3),
            decimal.Decimal("1.5"),
            fractions.Fraction(1, 3),
            uuid.UUID(int=5),
            range(3),
            slice(1, 2),
            Ellipsis,
            functools.partial(operator.mul, 3),
            operator.itemgetter(1),
            len,
            int,
        ],
        "classes": [Colour.RED, Plain(a=1), Stateful(), Text("a"), Number(3), Point(1, 2), Record(0.1, [1]), Named(size=3)],
        "kinds": [
            Reduced(numbers(1, start=32)),
            DictKind(weight=numbers(1, start=33)),
            OrderedKind(weight=numbers(1, start=34)),
            ListKind([numbers(1, start=35)]),
            Point(numbers(1, start=36), 0),
            Record(0.2, [numbers(1, start=37)]),
        ],
        "slots": Slots(numbers(1, start=31), None),
        "cyclic": cyclic,
        "family": child,
        "shared": [shared, shared],
        "optimizer": {"state": {0: {"momentum_buffer": numbers(2, start=80)}}, "param_groups": [{"lr": 0.1, "params": [0, 1]}]},
    }


def kinds():
    """Tensors of every kind that a pickle holds."""
    base = numbers(4, 6)
    parameter = torch.nn.Parameter(numbers(2))
    marked = torch.nn.Parameter(numbers(3))
    marked.note = "attribute"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = {
            "quantised": torch.quantize_per_tensor(numbers(4), 0.1, 0, torch.qint8),
            "quantised_channels": torch.quantize_per_channel(numbers(2, 2), torch.tensor([0.1, 0.2]), torch.tensor([0, 0]), 0, torch.qint8),
        }
        csr = numbers(2, 2).to_sparse_csr()
    usable = {
        **{str(dtype).removeprefix("torch."): numbers(3).to(dtype) for dtype in sorted(USABLE, key=str)},
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
        "empty_scalar": torch.empty(0),
        "transposed": base.t(),
        "part": base[1:3, 2:5],
        "steps": base[::2, ::3],
        "last": base.flatten()[-1:],
        "expanded": torch.tensor([1.5]).expand(2, 3),
        "channels_last": numbers(2, 3, 2, 2).contiguous(memory_format=torch.channels_last),
        "permuted": numbers(2, 3, 4).permute(2, 0, 1),
        "parameter": parameter,
        "marked": marked,
        "buffer": torch.nn.Buffer(numbers(2)) if hasattr(torch.nn, "Buffer") else numbers(2),
        "again": parameter,
    }
    unusable = {
        **quantised,
        "sparse": numbers(2, 2).to_sparse(),
        "sparse_csr": csr,
        "complex64": torch.tensor([1 + 2j]),
        "complex128": torch.tensor([1 + 2j], dtype=torch.complex128),
        "conjugate": torch.tensor([1 + 2j, 3j]).conj(),
        "negative": torch.tensor([1 + 2j, 3j]).conj().imag,
        "meta": torch.empty(2, 3, device="meta"),
        "float8": numbers(3).to(torch.float8_e4m3fn),
        "array": numpy.arange(3),
    }
    return {"usable": usable, "unusable": unusable}


def key_name(key):
    if isinstance(key, tuple):
        return f"({', '.join(map(key_name, key))})"
    return str(key)


def walk(value, name, found, seen):
    """All usable tensors below a value, as the program names them."""
    if isinstance(value, torch.Tensor):
        plain = value.layout == torch.strided and not value.is_quantized and value.device.type == "cpu" and value.dtype in USABLE
        if plain and not value.is_neg():
            found[name] = value.detach().contiguous().clone()
        return
    if id(value) in seen or isinstance(value, (type, types.ModuleType, types.FunctionType, functools.partial, str, bytes, numpy.ndarray)):
        return
    seen = seen | {id(value)}
    below = lambda part: f"{name}.{part}" if name else str(part)
    if isinstance(value, torch.nn.Module):
        for key, tensor in value.state_dict().items():
            found[below(key)] = tensor.detach().clone()
    elif isinstance(value, dict):
        for key, part in value.items():
            walk(part, below(key_name(key)), found, seen)
    elif isinstance(value, (list, tuple, collections.deque)):
        for index, part in enumerate(value):
            walk(part, below(index), found, seen)
    elif isinstance(value, Reduced):
        walk([value.weight], name, found, seen)
    elif isinstance(value, Slots):
        walk(value.weight, below("weight"), found, seen)
    elif hasattr(value, "__dict__") and not isinstance(value, enum.Enum):
        for key, part in vars(value).items():
            walk(part, below(key), found, seen)


def tensors_of(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = torch.load(path, map_location="cpu", weights_only=False)
    found = {}
    walk(value, "", found, frozenset())
    return found


def same(one, other):
    assert one.keys() == other.keys(), (one.keys() ^ other.keys())
    for name in one:
        assert one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]), name


def picklable(value, protocol):
    """The same without what Python cannot pickle in this protocol: `None` stands for it."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, found):
            return "storage" if torch.is_storage(found) or isinstance(found, torch.storage.TypedStorage) else None

    def fits(part):
        try:
            Pickler(io.BytesIO(), max(protocol, 1)).dump(part)
            return True
        except Exception:
            return False

    if fits(value):
        return value
    if type(value) is list:
        return [picklable(part, protocol) for part in value]
    if type(value) is dict:
        return {key: picklable(part, protocol) for key, part in value.items()}
    return None


def save(value, path, protocol, zipped):
    """Whether torch.save can write it and torch.load reads it back."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.save(value, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
        tensors_of(path)
        return True
    except Exception as error:
        print(f"{os.path.basename(path)}: {type(error).__name__}: {str(error).splitlines()[0][:100]}")
        if os.path.exists(path):
            os.remove(path)
        return False


def every_protocol(folder, name, value):
    """One file for each protocol and container, and what all of them hold."""
    expected = {}
    for zipped, ending in ((True, "zip"), (False, "legacy")):
        for protocol in range(6):
            path = os.path.join(folder, f"{name}.{ending}{protocol}.pth")
            kept = picklable(value, protocol)
            if not zipped and name == "kinds":
                kept = {group: {key: part for key, part in parts.items() if key not in NEW_TYPES} for group, parts in kept.items()}
            if save(kept, path, protocol, zipped):
                found = tensors_of(path)
                expected = {**found, **expected}
                # Objects with slots need protocol 2, and some types the zip container.
                left_out = lambda key: protocol < 2 and key.startswith("slots.") or not zipped and key.split(".")[-1] in NEW_TYPES
                same(found, {key: tensor for key, tensor in expected.items() if not left_out(key)})
    save_file(expected, os.path.join(folder, f"{name}.expected.safetensors"))


def repack(source, target, change):
    """Copies the members of a zip file as change(name, bytes) gives them."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for member in old.namelist():
            new.writestr(member, change(member, old.read(member)))


def big_endian(folder, value):
    """As a machine of the other byte order writes it: all tensors are float32."""
    path, target = os.path.join(folder, "little.pth"), os.path.join(folder, "big_endian.pth")
    torch.save(value, path)

    def change(member, content):
        if member.endswith("/byteorder"):
            return b"big"
        return numpy.frombuffer(content, "<f4").astype(">f4").tobytes() if "/data/" in member else content

    repack(path, target, change)
    os.remove(path)
    same(tensors_of(target), {name: tensor for name, tensor in value.items()})


class Reference:
    """Something that a pickle names and does not hold."""

    def __init__(self, number):
        self.number = number


def tar(folder, value):
    """As PyTorch before 0.1.10 wrote it."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, found):
            return found.number if isinstance(found, Reference) else None

    def dumped(*parts):
        return b"".join(pickle.dumps(part, 2) if not isinstance(part, bytes) else part for part in parts)

    storages, tensors, references = [], [], {}
    for index, (name, tensor) in enumerate(value.items()):
        tensor = tensor.contiguous()
        storages += [dumped((100 + index, "cpu", torch.FloatStorage)), struct.pack("<q", tensor.numel()), tensor.numpy().tobytes()]
        tensors += [
            dumped((200 + index, 100 + index, torch.FloatTensor)),
            struct.pack("<ii", tensor.dim(), 0),
            struct.pack(f"<{tensor.dim()}q", *tensor.shape),
            struct.pack(f"<{tensor.dim()}q", *tensor.stride()),
            struct.pack("<q", 0),
        ]
        references[name] = Reference(200 + index)
    # A view of the first storage: its last two elements.
    views = [(150, 100, next(iter(value.values())).numel() - 2, 2)]
    tensors += [dumped((250, 150, torch.FloatTensor)), struct.pack("<iiqqq", 1, 0, 2, 1, 0)]
    references["view"] = Reference(250)
    main = io.BytesIO()
    Pickler(main, 2).dump({"epoch": 3, "state_dict": collections.OrderedDict(references)})
    members = {
        "sys_info": dumped({"protocol_version": 1000, "little_endian": True}),
        "pickle": main.getvalue(),
        "tensors": dumped(len(value) + 1) + b"".join(tensors),
        "storages": dumped(len(value)) + b"".join(storages) + dumped(views),
    }
    path = os.path.join(folder, "old.tar.pth")
    with tarfile.open(path, "w:", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    view = next(iter(value.values())).flatten()[-2:]
    same(tensors_of(path), {f"state_dict.{name}": tensor for name, tensor in {**value, "view": view}.items()})


def lightning(folder):
    """A checkpoint of Lightning with omegaconf's settings, as solo-learn writes them."""
    import omegaconf

    settings = omegaconf.OmegaConf.create({"method": "swav", "optimizer": {"lr": 0.6, "classifier_lr": "${optimizer.lr}"}, "layers": [1, 2], "none": None})
    value = {
        "epoch": 3,
        "global_step": 99,
        "pytorch-lightning_version": "2.1.2",
        "state_dict": collections.OrderedDict({"backbone.conv1.weight": numbers(2, 3, 3, 3), "projector.0.weight": numbers(2, 2)}),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"current": {"ready": 4}}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.5), "best_k_models": {}, "kth_value": torch.tensor(1.0)}},
        "optimizer_states": [{"state": {0: {"momentum_buffer": numbers(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}],
        "lr_schedulers": [{"last_epoch": 3, "lr_lambdas": [None, {}], "base_lrs": [0.6]}],
        "MixedPrecision": {"scale": 65536.0},
        "hparams_name": "cfg",
        "hyper_parameters": {**settings},
        "cfg": settings,
    }
    path = os.path.join(folder, "lightning.ckpt")
    torch.save(value, path)
    found = {}
    walk({key: part for key, part in torch.load(path, weights_only=False).items() if key not in ("cfg", "hyper_parameters")}, "", found, frozenset())
    save_file(found, os.path.join(folder, "lightning.expected.safetensors"))


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "pickles")
    os.makedirs(folder, exist_ok=True)
    torch.manual_seed(0)
    # Modules' sources, which the old container keeps beside their classes: a text of their length in their place.
    torch.serialization.get_source_lines_and_file = lambda found: ([f"class {found.__name__}:\n"] + ["    pass\n"] * 200, "source.py", 1)
    every_protocol(folder, "objects", objects())
    every_protocol(folder, "kinds", kinds())
    plain = {"conv.weight": numbers(2, 3, 1, 1), "conv.bias": numbers(2, start=9), "shared.part": numbers(5)[1:4].clone()}
    every_protocol(folder, "module", torch.nn.DataParallel(Small()))
    torch.save(plain, os.path.join(folder, "stem_of_21_characters.pth"))
    save_file(plain, os.path.join(folder, "plain.expected.safetensors"))
    torch.serialization.set_crc32_options(False)
    torch.save(plain, os.path.join(folder, "no_checksums.pth"))
    torch.serialization.set_crc32_options(True)
    big_endian(folder, plain)
    tar(folder, plain)
    lightning(folder)
    scripted = torch.jit.script(Scaled(Scaled()))
    torch.jit.save(scripted, os.path.join(folder, "script.pth"))
    save_file({name: tensor.clone() for name, tensor in scripted.state_dict().items()}, os.path.join(folder, "script.expected.safetensors"))


if __name__ == "__main__":
    main()
