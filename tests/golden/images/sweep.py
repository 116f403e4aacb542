"""Makes JPEGs of every kind, and the pixels that Pillow reads from them, for `tests/data/images.rs`.

    python3 tests/golden/images/sweep.py FOLDER
    SWEEP=FOLDER cargo test --release --test data sweep -- --ignored --nocapture

The first line writes FOLDER/KIND/*.jpg and beside each what Pillow's convert("RGB") makes of it as PNG (none where Pillow refuses); the second prints the
table of docs/images.md. Needs Pillow, numpy and `cjpeg` (libjpeg-turbo-progs, for sampling factors and scan scripts that Pillow cannot write).
With `--small`, writes the few files that lie in tests/files/jpeg, and `right.json`: width, height and FNV-1a of the right pixels, or why a file is
refused.
"""
import io
import itertools
import json
import pathlib
import subprocess
import sys
import warnings

import numpy as np
from PIL import Image

warnings.simplefilter("ignore")

# Luma, then chroma, as cjpeg has it; at most ten blocks a unit.
SAMPLINGS = [
    "1x1", "2x1", "1x2", "2x2", "4x1", "1x4", "4x2", "2x4", "3x1", "1x3", "3x2", "2x3",
    "2x1,1x1,2x1", "1x2,1x1,1x2", "2x2,2x1,1x2", "2x2,1x1,2x2", "2x2,2x2,1x1", "2x2,1x2,1x2", "2x2,2x1,2x1", "4x2,2x1,1x1", "4x1,2x1,2x1",
    "1x1,2x2,2x2", "1x1,2x1,1x2", "1x2,2x1,1x1", "1x1,1x2,1x2", "2x1,1x2,1x1", "1x1,4x1,1x1",
]
SCANS = {
    "interleaved": None,
    "scan per component": "0;1;2;",
    "luma, then chroma": "0;1 2;",
    "chroma, then luma": "2;1;0;",
    "progressive": "-progressive",
    "progressive, spectral only": "0 1 2: 0-0, 0, 0; 0: 1-5, 0, 0; 1: 1-63, 0, 0; 2: 1-63, 0, 0; 0: 6-63, 0, 0;",
    "progressive, many refinements": "0 1 2: 0-0, 0, 2; 0: 1-63, 0, 3; 1: 1-63, 0, 1; 2: 1-63, 0, 1; 0 1 2: 0-0, 2, 1; 0: 1-63, 3, 2;"
    " 0 1 2: 0-0, 1, 0; 0: 1-63, 2, 1; 1: 1-63, 1, 0; 2: 1-63, 1, 0; 0: 1-63, 1, 0;",
    "arithmetic": "-arithmetic",
    "arithmetic, progressive": "-arithmetic -progressive",
}
SIZES = [(1, 1), (7, 1), (1, 9), (8, 8), (16, 16), (17, 15), (31, 33), (40, 24), (64, 48), (67, 43)]
FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)
RESTARTS = ["", "1B", "3B", "1", "2"]


def picture(width, height, seed):
    """Shades, edges and noise, so that every upsampler and every coefficient shows."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    a, b, c = random.uniform(0.02, 0.4, 3)
    image = 128 + 110 * np.stack([np.sin(a * x + b * y), np.cos(b * x - c * y), np.sin(c * (x + y))], 2)
    image[(x // 5 + y // 3) % 4 == 0] = random.uniform(0, 255, 3)
    return np.clip(image + random.normal(0, 12, image.shape), 0, 255).astype(np.uint8)


def cjpeg(pixels, *options):
    """What cjpeg makes of (height, width, 3) or (height, width) pixels; None where it refuses the options."""
    kind = "P6" if pixels.ndim == 3 else "P5"
    ppm = f"{kind} {pixels.shape[1]} {pixels.shape[0]} 255\n".encode() + pixels.tobytes()
    done = subprocess.run(["cjpeg", *options], input=ppm, capture_output=True)
    return done.stdout if done.returncode == 0 else None


def encode(pixels, sampling="1x1", scans=None, restart="", quality=85, extra=()):
    """A JPEG by cjpeg, with a scan script written to a file where one is given."""
    options = ["-quality", str(quality), "-sample", sampling, *extra]
    if restart:
        options += ["-restart", restart]
    if scans and scans.startswith("-"):
        options += scans.split()
    elif scans:
        script = pathlib.Path("/tmp/sweep.scans")
        script.write_text(scans)
        options += ["-scans", str(script)]
    return cjpeg(pixels, *options)


def segments(jpeg):
    """(marker, whole segment) up to the first scan, then (None, the rest)."""
    at, found = 2, []
    while jpeg[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(jpeg[at + 2:at + 4], "big")
        found.append((jpeg[at + 1], jpeg[at:end]))
        at = end
    return found + [(None, jpeg[at:])]


def adobe(transform):
    return b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])


def marked(jpeg, jfif, transform=None, ids=None):
    """The same data under other markers and component identifiers."""
    out = [b"\xff\xd8"]
    parts = segments(jpeg)
    old = [part[10 + 3 * i] for marker, part in parts if marker in FRAMES for i in range(part[9])]
    if jfif:
        out.append(b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00")
    if transform is not None:
        out.append(adobe(transform))
    for marker, data in parts:
        data = bytearray(data)
        if marker in (0xE0, 0xEE):
            continue
        if ids and marker in FRAMES:
            for i in range(data[9]):
                data[10 + 3 * i] = ids[i]
        if ids and marker is None:
            # Scan headers are found by their marker; entropy-coded bytes never hold 0xFF before 0xDA.
            at = data.find(b"\xff\xda")
            while at >= 0:
                for i in range(data[at + 4]):
                    data[at + 5 + 2 * i] = ids[old.index(data[at + 5 + 2 * i])]
                at = data.find(b"\xff\xda", at + 2)
        out.append(bytes(data))
    return b"".join(out)


def four(width, height, seed, transform, **options):
    """Four components by Pillow (CMYK); with transform 2 the first three are read as YCC."""
    data = np.concatenate([picture(width, height, seed), picture(width, height, seed + 1)[:, :, :1]], 2)
    out = io.BytesIO()
    Image.fromarray(data, "CMYK").save(out, "JPEG", quality=90, **options)
    return marked(out.getvalue(), False, transform)


def kinds():
    """(kind, name, JPEG) of the whole sweep."""
    for sampling, (scan, script), (at, (w, h)) in itertools.product(SAMPLINGS, SCANS.items(), enumerate(SIZES)):
        pixels = picture(w, h, at)
        name = f"{sampling}-{scan}-{w}x{h}".replace(" ", "_").replace(",", "+")
        kind = "4:2:0" if sampling == "2x2" else "4:4:4" if sampling == "1x1" else "4:2:2" if sampling == "2x1" else "4:4:0" if sampling == "1x2" else \
            "luma below chroma" if int(sampling[0]) * int(sampling[2]) < max(int(s[0]) * int(s[2]) for s in sampling.split(",")) else "other factors"
        kind = f"{kind}, {scan}"
        restarts = RESTARTS if (w, h) in [(67, 43), (31, 33)] else ["", "1"]
        for restart in restarts:
            if jpeg := encode(pixels, sampling, script, restart, [75, 92, 100][at % 3]):
                yield kind, f"{name}-r{restart or 0}", jpeg
    for (scan, script), (w, h), quality in itertools.product(SCANS.items(), [(500, 375), (333, 222)], [60, 94]):
        for sampling in ["1x1", "2x1", "1x2", "2x2"]:
            yield "photographs", f"{sampling}-{scan}-{w}x{h}-{quality}".replace(" ", "_").replace(",", "+"), encode(picture(w, h, 9), sampling, script, "", quality)
    for (w, h), sampling, restart in itertools.product(SIZES, ["1x1", "2x1", "2x2", "1x2"], RESTARTS):
        grey = picture(w, h, 7)[:, :, 0]
        for scan in ["interleaved", "progressive", "arithmetic"]:
            if jpeg := encode(grey, sampling, SCANS[scan], restart, 90, ["-grayscale"]):
                yield f"grey, {scan}", f"{sampling}-{w}x{h}-r{restart or 0}", jpeg
    for (w, h), (scan, script), sampling in itertools.product(SIZES, SCANS.items(), ["1x1", "2x1", "2x2"]):
        rgb = encode(picture(w, h, 5), sampling, script, "", 90, ["-rgb"])
        ycc = encode(picture(w, h, 6), sampling, script, "", 90)
        name = f"{sampling}-{scan}-{w}x{h}".replace(" ", "_").replace(",", "+")
        if not rgb or not ycc:
            continue
        for transform in [0, 1, 2]:
            yield f"JFIF and Adobe {transform}", name, marked(ycc, True, transform)
            yield f"Adobe {transform}", name, marked(rgb if transform == 0 else ycc, False, transform)
        yield "no marker, components 1 2 3", name, marked(ycc, False, None, [1, 2, 3])
        yield "no marker, components R G B", name, marked(rgb, False, None, [82, 71, 66])
        yield "JFIF, components R G B", name, marked(ycc, True, None, [82, 71, 66])
        yield "no marker, components 0 1 2", name, marked(ycc, False, None, [0, 1, 2])
    for (w, h), transform in itertools.product(SIZES, [None, 0, 2]):
        for options in [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 2}]:
            named = "+".join(options) or "plain"
            yield {None: "CMYK without Adobe's marker", 0: "CMYK", 2: "YCCK"}[transform], f"{named}-{w}x{h}", four(w, h, 3, transform, **options)


def pillow(jpeg):
    """The right pixels, or None where Pillow refuses the file."""
    try:
        return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))
    except Exception:
        return None


def small():
    """A few of each kind, of few bytes, and what is wrong with some files that must be refused."""
    seen = {}
    for kind, name, jpeg in kinds():
        size = name.rsplit("-r", 1)[0].rsplit("-", 1)[1] if "x" in name else ""
        wanted = ["17x15"] if seen.get(kind, 0) == 0 else ["31x33"] if seen[kind] == 1 and ("other" in kind or "luma below" in kind) else []
        if size in wanted:
            seen[kind] = seen.get(kind, 0) + 1
            yield kind, jpeg


# Kinds that are refused though Pillow reads them: a part of the kind's or file's name, and of the message.
REFUSED = {
    "arithmetic": "arithmetic coding",
    "luma, then chroma": "sequential scans of some components",
    "luma below chroma, chroma, then luma": "in a scan for each",
    "luma below chroma, scan per component": "in a scan for each",
}


def fnv(data):
    """FNV-1a of 64 bits."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def main():
    arguments = [a for a in sys.argv[1:] if not a.startswith("--")]
    if "--small" in sys.argv:
        folder = pathlib.Path(__file__).parents[2] / "files" / "jpeg"
        folder.mkdir(parents=True, exist_ok=True)
        right = {}
        for number, (kind, jpeg) in enumerate(small()):
            name = f"{number:03} {kind}.jpg".replace(" ", "_").replace(",", "").replace(":", "")
            pixels = pillow(jpeg)
            (folder / name).write_bytes(jpeg)
            reason = next((reason for part, reason in REFUSED.items() if part in kind), None)
            right[name] = reason or [pixels.shape[1], pixels.shape[0], f"{fnv(pixels.tobytes()):016x}"]
        (folder / "right.json").write_text(json.dumps(right, indent=0) + "\n")
        return
    root = pathlib.Path(arguments[0])
    for kind, name, jpeg in kinds():
        folder = root / kind
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.jpg").write_bytes(jpeg)
        if (pixels := pillow(jpeg)) is not None:
            Image.fromarray(pixels).save(folder / f"{name}.jpg.right.png", compress_level=1)


if __name__ == "__main__":
    main()
