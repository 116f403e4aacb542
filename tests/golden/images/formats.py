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
        # A first frame smaller than the screen or beyond it, and a background of another colour.
        for options in ({}, {"transparency": 3}, {"interlace": 0}):
            gif = bytearray(saved(paletted, "GIF", **options))
            gif[11] = 5
            frame = 13 + 3 * (2 << (gif[10] & 7)) + (8 if "transparency" in options else 0)
            assert gif[frame] == 0x2C
            for screen, left, top in [((width + 9, height + 6), 0, 0), ((width + 9, height + 6), 2, 3), ((width, height), 2, 3), ((1, 1), 0, 0)]:
                gif[6:10] = struct.pack("<HH", *screen)
                gif[frame + 1:frame + 5] = struct.pack("<HH", left, top)
                name = f"{size}-{screen[0]}-{left}" + "".join("-" + key for key in options)
                yield "GIF, first frame unlike its screen", "gif", name, bytes(gif)
        for tag in range(1, 9):
            info = TiffImagePlugin.ImageFileDirectory_v2()
            info[274] = tag
            for compression in (None, "tiff_lzw"):
                data = saved(Image.fromarray(rgb), "TIFF", tiffinfo=info, compression=compression)
                yield "TIFF with orientation", "tif", f"{size}-{tag}-{compression}", data
        for bits, colours in ((16, 1), (16, 3), (16, 4), (8, 3), (8, 1), (8, 4), (32, 3)):
            for order in "<>":
                for planar in (False, True):
                    for tiles in (False, True):
                        name = f"{size}-{'be' if order == '>' else 'le'}"
                        kind = f"TIFF of {bits} bits, {colours} colours" + ", planar" * planar + ", tiled" * tiles
                        yield kind, "tif", name, tiff(width, height, bits, colours, order, planar, tiles)
        yield "APNG", "png", size, saved(Image.fromarray(rgb), "PNG", save_all=True, append_images=more)
        yield "APNG, another default image", "png", size, saved(Image.fromarray(rgb), "PNG", save_all=True, append_images=more, default_image=True)
        for colour, bits in ((2, 8), (0, 8), (6, 8), (0, 1), (0, 2), (0, 4), (3, 1), (3, 2), (3, 4), (3, 8), (2, 16), (6, 16)):
            yield f"PNG, interlaced, colour {colour} of {bits} bits", "png", size, adam7(width, height, colour, bits)
        for masks in ((0xF800, 0x7E0, 0x1F), (0x7C00, 0x3E0, 0x1F)):
            yield "BMP of 16 bits", "bmp", f"{size}-{masks[0]:x}", bmp_masks(width, height, 16, masks)
        for masks in ((0xFF0000, 0xFF00, 0xFF), (0xFF000000, 0xFF0000, 0xFF00), (0xFF, 0xFF00, 0xFF0000)):
            yield "BMP of 32 bits with masks", "bmp", f"{size}-{masks[0]:x}", bmp_masks(width, height, 32, masks)
        for bits in (1, 4, 8, 24):
            yield f"BMP of OS2, {bits} bits", "bmp", size, bmp_os2(width, height, bits)
        for bits in (4, 8):
            for delta in (False, True):
                yield f"BMP, RLE of {bits} bits" + (", with skips" if delta else ""), "bmp", size, bmp_rle(width, height, bits, delta)
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


def tiff(width, height, bits, colours, order, planar, tiles):
    """A TIFF in strips of three rows or tiles of 16x16, in one plane or one for each colour."""
    samples = np.concatenate([picture(width, height, s) for s in (1, 2)], 2)[:, :, :colours].astype(np.uint32)
    if bits == 16:
        samples = samples << 8 | samples[:, :, ::-1]
    kind = {8: "u1", 16: order + "u2", 32: order + "f4"}[bits]
    samples = samples.astype(kind)
    planes = [samples[:, :, i:i + 1] for i in range(colours)] if planar else [samples]
    parts = []
    for plane in planes:
        if tiles:
            padded = np.pad(plane, ((0, -height % 16), (0, -width % 16), (0, 0)), mode="edge")
            parts += [padded[y:y + 16, x:x + 16].tobytes() for y in range(0, height, 16) for x in range(0, width, 16)]
        else:
            parts += [plane[y:y + 3].tobytes() for y in range(0, height, 3)]
    offsets = [8 + sum(map(len, parts[:i])) for i in range(len(parts))]
    tags = {256: (4, [width]), 257: (4, [height]), 258: (3, [bits] * colours), 259: (3, [1]), 262: (3, [1 if colours == 1 else 2]), 277: (3, [colours]),
            284: (3, [2 if planar else 1])}
    if colours == 4:
        tags[338] = (3, [2])
    if bits == 32:
        tags[339] = (3, [3] * colours)
    if tiles:
        tags |= {322: (4, [16]), 323: (4, [16]), 324: (4, offsets), 325: (4, list(map(len, parts)))}
    else:
        tags |= {273: (4, offsets), 278: (4, [3]), 279: (4, list(map(len, parts)))}
    data = b"".join(parts)
    data += b"\0" * (len(data) % 2)
    at = 8 + len(data) + 2 + 12 * len(tags) + 4
    entries, behind = b"", b""
    for tag, (kind, values) in sorted(tags.items()):
        packed = b"".join(struct.pack(order + {3: "H", 4: "I"}[kind], value) for value in values)
        if len(packed) > 4:
            field, behind = struct.pack(order + "I", at + len(behind)), behind + packed
        else:
            field = packed.ljust(4, b"\0")
        entries += struct.pack(order + "HHI", tag, kind, len(values)) + field
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(order + "HI", 42, 8 + len(data)) + data + struct.pack(order + "H", len(tags)) + entries + b"\0" * 4 + behind


def adam7(width, height, colour, bits):
    """An interlaced PNG."""
    channels = {0: 1, 2: 3, 3: 1, 6: 4}[colour]
    samples = np.concatenate([picture(width, height, s) for s in (1, 2)], 2)[:, :, :channels].astype(np.int64)
    samples = samples << 8 | samples[:, :, ::-1] if bits == 16 else samples >> (8 - bits)
    rows = b""
    for x0, y0, dx, dy in [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]:
        part = samples[y0::dy, x0::dx]
        if part.size == 0:
            continue
        for row in part.reshape(part.shape[0], -1):
            if bits >= 8:
                packed = row.astype(">u2" if bits == 16 else "u1").tobytes()
            else:
                packed = np.packbits(np.concatenate([(row[:, None] >> np.arange(bits - 1, -1, -1)) & 1]).ravel().astype(np.uint8)).tobytes()
            rows += b"\0" + packed
    chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    palette = chunk(b"PLTE", picture(1 << bits, 1, 5).tobytes()) if colour == 3 else b""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 1))
    return b"\x89PNG\r\n\x1a\n" + header + palette + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def bmp(header, palette, rows):
    at = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", at + len(rows), 0, 0, at) + header + palette + rows


def bmp_masks(width, height, bits, masks):
    rgb = picture(width, height, 1).astype(np.uint32)
    packed = np.zeros((height, width), np.uint32)
    for i, mask in enumerate(masks):
        count, shift = bin(mask).count("1"), (mask & -mask).bit_length() - 1
        packed |= (rgb[:, :, i] >> (8 - count)) << np.uint32(shift)
    rows = b"".join(row.astype(f"<u{bits // 8}").tobytes().ljust((bits // 8 * width + 3) // 4 * 4, b"\0") for row in packed[::-1])
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 3, len(rows), 0, 0, 0, 0)
    return bmp(header, struct.pack("<III", *masks), rows)


def bmp_os2(width, height, bits):
    rgb = picture(width, height, 1)
    rows = b""
    for row in rgb[::-1]:
        if bits == 24:
            packed = row[:, ::-1].tobytes()
        else:
            packed = np.packbits(((row[:, 0, None] >> (8 - bits)) >> np.arange(bits - 1, -1, -1) & 1).ravel().astype(np.uint8)).tobytes()
        rows += packed.ljust((len(packed) + 3) // 4 * 4, b"\0")
    palette = picture(1 << bits, 1, 5).tobytes() if bits < 24 else b""
    return bmp(struct.pack("<IHHHH", 12, width, height, 1, bits), palette, rows)


def bmp_rle(width, height, bits, delta):
    """Runs, literals, ends of lines; and, with skips, a step over pixels that nothing sets."""
    random = np.random.default_rng(width + height)
    rows = b""
    for y in range(height):
        x = 0
        while x < width:
            count = int(min(random.integers(1, 9), width - x))
            if delta and random.random() < 0.2 and count < width - x:
                rows += bytes([0, 2, count, 0])
            elif count >= 3 and random.random() < 0.5:
                body = random.integers(0, 256, count if bits == 8 else (count + 1) // 2, dtype=np.uint8).tobytes()
                rows += bytes([0, count]) + body + b"\0" * (len(body) % 2)
            else:
                rows += bytes([count, int(random.integers(0, 256))])
            x += count
        rows += b"\0\0"
    rows += b"\0\1"
    palette = b"".join(bytes(c) + b"\0" for c in picture(1 << bits, 1, 5)[0])
    return bmp(struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 1 if bits == 8 else 2, len(rows), 0, 0, 1 << bits, 0), palette, rows)


# Kinds that are refused though Pillow reads them, in the words of the message; and kinds that are off (docs/images.md).
REFUSED = [("TIFF of 32 bits", "floats"), ("TIFF P", "RGBPalette"), ("TIFF YCbCr", "cannot be decoded"), ("TIFF LA", "cannot be decoded"), ("TIFF F", "cannot be decoded"),
           ("PPM F", "PFM"), (", zstd", "unsupported"), (", lzma", "unsupported"), (", group3", "unsupported")]
OFF = [", jpeg", "PGM of 12 bits", "planar"]


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
            grey16 = "I;16" in kind and kind[:4] in ("PNG ", "TIFF", "PPM ") or kind in ("PNG of 16 bits, grey", "PGM of 16 bits") or "TIFF of 16 bits, 1" in kind
            pixels = high_bytes(data) if grey16 else pillow(data)
            reason = next((reason for part, reason in REFUSED if part in kind), None)
            if pixels is None and reason is None:
                continue
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
