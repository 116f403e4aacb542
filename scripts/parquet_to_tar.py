#!/usr/bin/env python3
"""Parquet files with pictures in them, as on the Hugging Face hub, to tar shards that swav-wgpu reads.

    pip install pyarrow
    python scripts/parquet_to_tar.py data/train-*.parquet --out shards --prefix train
    python scripts/parquet_to_tar.py data/validation-*.parquet --out shards --prefix val

Column `image` is a struct of `bytes` and `path`, or bytes; column `label` (--label names another, --no-label takes none) is a number or a name. Numbers stay
what they are; with --names the names that the file's own metadata gives to them are written. Nothing is encoded anew.
"""

import argparse
import io
import json
import pathlib
import sys
import tarfile

import pyarrow.parquet as parquet

KINDS = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"GIF8": "gif", b"BM": "bmp", b"II*\0": "tif", b"MM\0*": "tif"}


def extension(data):
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return next((name for start, name in KINDS.items() if data.startswith(start)), None)


def names_of(schema, label):
    """Class names in the metadata that the `datasets` library writes."""
    about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    return about.get("info", {}).get("features", {}).get(label, {}).get("names")


def add(shard, name, data):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    shard.addfile(member, io.BytesIO(data))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--prefix", required=True, help="train, val or unlabelled: what the shards are for")
    parser.add_argument("--image", default="image", help="column of the pictures")
    parser.add_argument("--label", default="label", help="column of the classes")
    parser.add_argument("--no-label", action="store_true", help="the pictures have no classes")
    parser.add_argument("--names", action="store_true", help="write class names, not numbers")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    count = 0
    for number, path in enumerate(sorted(args.files)):
        file = parquet.ParquetFile(path)
        columns = [args.image] if args.no_label else [args.image, args.label]
        missing = [column for column in columns if column not in file.schema_arrow.names]
        if missing:
            sys.exit(f"{path}: no column {missing[0]}: there are {', '.join(file.schema_arrow.names)}")
        names = names_of(file.schema_arrow, args.label) if args.names else None
        if args.names and names is None:
            sys.exit(f"{path}: its metadata has no names for {args.label}")
        final = args.out / f"{args.prefix}-{number:06}.tar"
        partial = final.with_suffix(".partial")
        with tarfile.open(partial, "w") as shard:
            for batch in file.iter_batches(batch_size=64, columns=columns):
                for row in batch.to_pylist():
                    image = row[args.image]
                    data = image["bytes"] if isinstance(image, dict) else image
                    kind = extension(data or b"")
                    if kind is None:
                        sys.exit(f"{path}: row {count} has no picture of a kind that is known")
                    add(shard, f"{count:09}.{kind}", data)
                    label = None if args.no_label else row[args.label]
                    if label is not None:
                        text = names[label] if names and label >= 0 else str(label)
                        add(shard, f"{count:09}.cls", text.encode())
                    count += 1
        partial.rename(final)
    print(f"{count} pictures in {len(args.files)} shards: {args.out}/{args.prefix}-*.tar")


if __name__ == "__main__":
    main()
