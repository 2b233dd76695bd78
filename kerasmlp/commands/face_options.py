"""Which models look at photos: for all commands that take some."""

import argparse
import os
from pathlib import Path
from typing import Any

from kerasmlp.utils.checks import reject

_MAX_PIXELS = 1 << 26


def add_face_arguments(group: argparse._ActionsContainer, text: str) -> None:
    """Adds where the detector and the embedder are.

    Args:
        group: Of options.
        text: For the help of `--model-dir`.
    """
    group.add_argument("--model-dir", type=Path, metavar="DIR", help=text)
    add_embedder_arguments(group)


def add_embedder_arguments(group: argparse._ActionsContainer) -> None:
    text = "folder of another embedder, .onnx or .keras, with its embedder.json"
    group.add_argument("--embedder", type=Path, metavar="DIR", help=text)
    text = "none takes every picture whole; default: auto, that of --model-dir"
    group.add_argument("--detector", choices=("auto", "none"), default="auto", help=text)


def takes_photos(args: argparse.Namespace) -> bool:
    """Whether there is who looks at photos; rejects how to look without that."""
    found = args.model_dir is not None or args.embedder is not None
    if not found and args.detector != "auto":
        reject("--detector", "must come with --embedder or --model-dir", args.detector)
    return found


def finder_of(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `FaceFinder` beside its `model_dir`."""
    detector = None if args.detector == "none" else args.detector
    return {"embedder": args.embedder, "detector": detector}


def limit_pixels() -> None:
    """Of photos that come from others: a file of some kilobytes may hold gigabytes.

    Read by OpenCV when it is loaded.
    """
    os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(_MAX_PIXELS)
