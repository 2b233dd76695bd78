"""Reading all images of a store against decoding the files it was built from.

    python tests/benchmarks/image_store.py

8,874 grey JPEGs of 91×91 pixels (UTKFace, or as many made ones where it is not
there) are decoded one after the other by OpenCV and by Pillow, and read whole
from the store, with all checks and labels. Rounds alternate, results are medians,
files are in the page cache, all pixels are compared. The last line is one JSON
object.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

from face_images import write_faces

from kerasmlp import ImageStore
from kerasmlp.data.images.image_building import build_images

UTKFACE = Path(os.environ.get("UTKFACE91", ROOT.parent / "shared" / "data" / "utkface91.zip"))
ROUNDS = 7


def by_pillow(paths: list[str]) -> np.ndarray:
    images = []
    for path in paths:
        with Image.open(path) as image:
            images.append(np.asarray(image))
    return np.stack(images)[..., None]


def by_opencv(paths: list[str]) -> np.ndarray:
    return np.stack([cv2.imread(path, cv2.IMREAD_GRAYSCALE) for path in paths])[..., None]


def alternating(ways: dict[str, Callable[[], np.ndarray]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each way."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            result = way()
            times[name].append((time.perf_counter() - start) * 1e3)
            del result
    return times


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, path = Path(name) / "faces", Path(name) / "faces.h5"
        if UTKFACE.is_file():
            with zipfile.ZipFile(UTKFACE) as archive:
                archive.extractall(folder)
        else:
            write_faces(folder, rows=8874, side=91)
        store, _ = build_images(folder)
        store.save(path)
        paths = [str(folder / p) for p in store.labels["path"]]
        ways = {
            "store": lambda: ImageStore.open(path).images,
            "OpenCV": lambda: by_opencv(paths),
            "Pillow": lambda: by_pillow(paths),
        }
        read = {name: way() for name, way in ways.items()}
        equal = {name: bool(np.array_equal(read["store"], read[name])) for name in ways}
        times = alternating(ways, ROUNDS)
        megabytes = {
            "store": path.stat().st_size / 1e6,
            "files": sum(os.path.getsize(p) for p in paths) / 1e6,
        }
    print(f"{len(paths):,} images of {store.images.shape[1:]}, medians of {ROUNDS} rounds")
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, values in times.items():
        print(f"{name:8} {medians[name]:9.1f} ms   ({min(values):.1f} to {max(values):.1f})")
    result = {
        "images": len(paths),
        "milliseconds": {name: round(value, 1) for name, value in medians.items()},
        "faster_than_opencv": round(medians["OpenCV"] / medians["store"], 1),
        "faster_than_pillow": round(medians["Pillow"] / medians["store"], 1),
        "equal_to_opencv": equal["OpenCV"],
        "equal_to_pillow": equal["Pillow"],
        "megabytes": {name: round(value, 1) for name, value in megabytes.items()},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
