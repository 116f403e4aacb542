"""Makes images of every format but JPEG, and the pixels that Pillow reads from them, as sweep.py does for JPEGs.

    python3 tests/golden/images/formats.py FOLDER      for the sweep of tests/data/images.rs
    python3 tests/golden/images/formats.py --small     writes tests/files/formats and its right.json
"""
import io
import json
import pathlib
import struct
import sys
import warnings
import zlib

import numpy as np
from PIL import Image, TiffImagePlugin

from sweep import fnv, picture, pillow

warnings.simplefilter("ignore")
SIZES = [(1, 1), (7, 5), (16, 16), (17, 15), (67, 43)]


def saved(image, form, **options):
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def images(width, height):
    """Pictures in each of Pillow's modes."""
    rgb = picture(width, height, 1)
    alpha = picture(width, height, 2)[:, :, :1]
    yield "RGB", Image.fromarray(rgb)
    yield "L", Image.fromarray(rgb[:, :, 0])
    yield "RGBA", Image.fromarray(np.concatenate([rgb, alpha], 2))
    yield "LA", Image.fromarray(np.concatenate([rgb[:, :, :1], alpha], 2))
    yield "P", Image.fromarray(rgb).quantize(60)
    yield "P16", Image.fromarray(rgb).quantize(13)
    yield "P4", Image.fromarray(rgb).quantize(4)
    yield "1", Image.fromarray(rgb[:, :, 1]).convert("1")
    yield "CMYK", Image.fromarray(rgb).convert("CMYK")
    yield "YCbCr", Image.fromarray(rgb).convert("YCbCr")
    yield "LAB", Image.merge("LAB", Image.fromarray(rgb).split())
    wide = (rgb[:, :, 0].astype(np.uint16) << 8) | rgb[:, :, 1]
    yield "I;16", Image.fromarray(wide)
    yield "I;16 of 12 bits", Image.fromarray(wide >> 4)
    yield "F", Image.fromarray(rgb[:, :, 0].astype(np.float32) / 255)


def png16(width, height, colour):
    """A PNG of 16 bits a sample: Pillow writes grey ones alone."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    data = np.concatenate([picture(width, height, s) for s in (1, 2, 3)], 2)[:, :, :2 * channels].tobytes()
    rows = b"".join(b"\0" + data[y * width * channels * 2:(y + 1) * width * channels * 2] for y in range(height))
    chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def kinds():
    """(kind, extension, name, file)."""
    for width, height in SIZES:
        size = f"{width}x{height}"
        modes = dict(images(width, height))
        for mode, image in modes.items():
            tries = [("PNG", "png", {}), ("BMP", "bmp", {}), ("PPM", "ppm", {}), ("GIF", "gif", {}), ("GIF", "gif", {"interlace": 0}),
                     ("WEBP", "webp", {"lossless": True}), ("WEBP", "webp", {"quality": 80}), ("WEBP", "webp", {"quality": 30, "method": 6})]
            tries += [("TIFF", "tif", {"compression": c}) for c in (None, "packbits", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "group3", "group4", "zstd", "lzma")]
            tries += [("TIFF", "tif", {"compression": "tiff_lzw", "tiffinfo": {317: 2}})]
            for number, (form, extension, options) in enumerate(tries):
                try:
                    yield f"{form} {mode}" + (f", {options.get('compression')}" if form == "TIFF" else ""), extension, f"{size}-{number}", saved(image, form, **options)
                except (OSError, ValueError, KeyError, RuntimeError, TypeError, SystemError):
                    pass
        for colour, name in [(0, "grey"), (2, "RGB"), (4, "grey and alpha"), (6, "RGBA")]:
            yield f"PNG of 16 bits, {name}", "png", size, png16(width, height, colour)
        rgb = picture(width, height, 1)
        text = f"P3 {width} {height}\n# a comment\n255\n" + " ".join(map(str, rgb.ravel())) + "\n"
        yield "PPM as text", "ppm", size, text.encode()
        yield "PGM as text", "pgm", size, (f"P2 {width} {height} 255\n" + " ".join(map(str, rgb[:, :, 0].ravel()))).encode()
        yield "PBM as text", "pbm", size, (f"P1 {width} {height}\n" + " ".join(map(str, rgb[:, :, 0].ravel() & 1))).encode()
        yield "PGM of maximum 100", "pgm", size, f"P5 {width} {height} 100\n".encode() + (rgb[:, :, 0] % 101).tobytes()
        yield "PPM of maximum 31", "ppm", size, f"P6 {width} {height} 31\n".encode() + (rgb % 32).tobytes()
        wide = rgb.astype(">u2") << 8 | rgb[:, :, ::-1]
        yield "PPM of 16 bits", "ppm", size, f"P6 {width} {height} 65535\n".encode() + wide.tobytes()
        yield "PGM of 16 bits", "pgm", size, f"P5 {width} {height} 65535\n".encode() + wide[:, :, 0].tobytes()
        yield "PGM of 12 bits", "pgm", size, f"P5 {width} {height} 4095\n".encode() + (wide[:, :, 0] >> 4).astype(">u2").tobytes()
        paletted = Image.fromarray(rgb).quantize(30)
        yield "GIF with a transparent colour", "gif", size, saved(paletted, "GIF", transparency=3)
        yield "PNG with a transparent colour", "png", size, saved(paletted, "PNG", transparency=3)
        yield "PNG with a transparent colour", "png", size + "-rgb", saved(Image.fromarray(rgb), "PNG", transparency=tuple(map(int, rgb[0, 0])))
        more = [Image.fromarray(picture(width, height, s)) for s in (2, 3)]
        yield "GIF, animated", "gif", size, saved(Image.fromarray(rgb), "GIF", save_all=True, append_images=more, duration=50)
        yield "WebP, animated", "webp", size, saved(Image.fromarray(rgb), "WEBP", save_all=True, append_images=more, duration=50, lossless=True)
        yield "TIFF, several pages", "tif", size, saved(Image.fromarray(rgb), "TIFF", save_all=True, append_images=more)
        # A first frame smaller than the screen, and a background of another colour.
        gif = bytearray(saved(paletted, "GIF"))
        gif[6:10] = struct.pack("<HH", width + 9, height + 6)
        gif[11] = 5
        yield "GIF, first frame smaller than the screen", "gif", size, bytes(gif)
        for photometric in (0, 1):
            info = TiffImagePlugin.ImageFileDirectory_v2()
            info[262] = photometric
            for mode in ("L", "1"):
                try:
                    yield f"TIFF {mode}, " + ["white is zero", "black is zero"][photometric], "tif", size, saved(modes[mode], "TIFF", tiffinfo=info)
                except (OSError, ValueError):
                    pass
        yield "BMP, top down", "bmp", size, top_down(rgb)
        yield "BMP of 16 bits", "bmp", size, bmp16(rgb)


def top_down(rgb):
    height, width, _ = rgb.shape
    rows = b"".join(rgb[y, :, ::-1].tobytes().ljust((3 * width + 3) // 4 * 4, b"\0") for y in range(height))
    return b"BM" + struct.pack("<IHHI", 54 + len(rows), 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, width, -height, 1, 24, 0, len(rows), 0, 0, 0, 0) + rows


def bmp16(rgb):
    height, width, _ = rgb.shape
    v = rgb.astype("<u2") >> 3
    packed = (v[:, :, 0] << 10 | v[:, :, 1] << 5 | v[:, :, 2]).astype("<u2")
    rows = b"".join(packed[y].tobytes().ljust((2 * width + 3) // 4 * 4, b"\0") for y in reversed(range(height)))
    return b"BM" + struct.pack("<IHHI", 54 + len(rows), 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 16, 0, len(rows), 0, 0, 0, 0) + rows


# Kinds that are refused though Pillow reads them, in the words of the message; and kinds that are off (docs/images.md).
REFUSED = [("TIFF P", "RGBPalette"), ("TIFF YCbCr", "cannot be decoded"), ("TIFF LA", "cannot be decoded"), ("TIFF F", "cannot be decoded"),
           ("PPM F", "PFM"), (", zstd", "unsupported"), (", lzma", "unsupported"), (", group3", "unsupported")]
OFF = ["smaller than the screen", "BMP of 16 bits", "PGM of maximum", "PPM of 16 bits", ", jpeg", "PGM of 12 bits"]


def high_bytes(data):
    """What grey of 16 bits becomes: Pillow clips it at 255, which leaves nothing of it."""
    grey = (np.asarray(Image.open(io.BytesIO(data))).astype(np.int64) >> 8).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, 2)


def main():
    if "--small" in sys.argv:
        folder = pathlib.Path(__file__).parents[2] / "files" / "formats"
        folder.mkdir(parents=True, exist_ok=True)
        right = {}
        for kind, extension, name, data in kinds():
            if not name.startswith("7x5") or len(data) > 2500:
                continue
            name = f"{kind} {name}.{extension}".replace(" ", "_").replace(",", "").replace(";", "")
            if any(part in kind for part in OFF):
                continue
            grey16 = "I;16" in kind and kind[:4] in ("PNG ", "TIFF", "PPM ") or kind in ("PNG of 16 bits, grey", "PGM of 16 bits")
            pixels = high_bytes(data) if grey16 else pillow(data)
            reason = next((reason for part, reason in REFUSED if part in kind), None)
            (folder / name).write_bytes(data)
            right[name] = reason or [pixels.shape[1], pixels.shape[0], f"{fnv(pixels.tobytes()):016x}"]
        (folder / "right.json").write_text(json.dumps(right, indent=0) + "\n")
        return
    root = pathlib.Path(sys.argv[1])
    for kind, extension, name, data in kinds():
        folder = root / kind
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.{extension}").write_bytes(data)
        if (pixels := pillow(data)) is not None:
            Image.fromarray(pixels).save(folder / f"{name}.{extension}.right.png")


if __name__ == "__main__":
    main()
