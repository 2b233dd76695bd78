"""Makes an image store: one HDF5 file that is read in one go, lossless.

SOURCE is a folder or a zip archive of images named <age>_<gender>_<race>_<n>.jpg as in
UTKFace, or what another --layout says. Splits are folders train, validation (or val) and
test, a column `split` of a table, or drawn (--split). Or it is an .npz of x_train,
y_train, x_test, y_test, or CIFAR's binary version, folder or .tar.gz.
Images that cannot be read are left out and counted; STORE.removal.json lists them.
"""

import argparse
import sys
from pathlib import Path

from kerasmlp.data.layouts import LAYOUTS
from kerasmlp.utils.checks import reject, reject_file
from kerasmlp.utils.files import require_file_place


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="SOURCE")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="STORE")
    parser.add_argument("--force", action="store_true", help="replace an existing STORE")
    images = parser.add_argument_group("image files")
    images.add_argument(
        "--layout", choices=tuple(LAYOUTS), help="as of `extract-embeddings`; default: utkface"
    )
    images.add_argument(
        "--size", type=int, metavar="N", help="crop and scale to N×N (default: as they are)"
    )
    images.add_argument("--gray", action="store_true", help="one channel")
    images.add_argument(
        "--split", type=float, nargs=3, metavar=("TRAIN", "VALIDATION", "TEST"),
        help="draw the splits in this proportion, such as 5400 2315 1159",
    )  # fmt: skip
    images.add_argument("--seed", type=int, default=0, help="of the drawing; default: 0")


def run(args: argparse.Namespace) -> None:
    from kerasmlp.data.datasets.removal import removal_table, write_removals
    from kerasmlp.data.images.cifar import is_cifar, store_of_cifar
    from kerasmlp.data.images.image_arrays import store_of_arrays
    from kerasmlp.data.stores.store_file import require_no_table

    require_file_place(args.output)
    require_no_table(args.output)
    if args.output.exists() and not args.force:
        reject_file(args.output, "must not exist yet (or --force)", "an existing file")
    arrays = args.source.suffix.lower() == ".npz"
    if arrays or (args.layout is None and is_cifar(args.source)):
        for option in ("layout", "size", "gray", "split"):
            if getattr(args, option):
                reject(f"--{option}", "must be left out for arrays", getattr(args, option))
        store = store_of_arrays(args.source) if arrays else store_of_cifar(args.source)
        store.save(args.output, overwrite=args.force)
    else:
        from kerasmlp.data.images.image_building import (
            build_images,
            what_was_assumed,
        )

        store, entries = build_images(
            args.source,
            layout=args.layout or "utkface",
            size=args.size,
            gray=args.gray,
            split=args.split,
            seed=args.seed,
            progress=True,
        )
        store.save(args.output, overwrite=args.force)
        write_removals(args.output, entries)
        for sentence in what_was_assumed(store, entries):
            print(f"note: {sentence}", file=sys.stderr)
        print(removal_table(store.info.removal_report))
    height, width, channels = store.images.shape[1:]
    splits = store.labels["split"].tolist()
    counts = ", ".join(f"{splits.count(s):,} {s}" for s in dict.fromkeys(splits))
    print(f"{args.output}: {len(store):,} images of {height}×{width}×{channels}: {counts}")
