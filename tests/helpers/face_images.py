"""Small grey pictures for tests, whose brightness tells the age, in UTKFace's naming."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from kerasmlp import ImageStore

SIDE = 12
TINY = [
    {"kind": "conv", "filters": 4, "kernel": 3, "batch_norm": True, "regularizer": "l2"},
    {"kind": "pool", "mode": "max"},
    {"kind": "flatten"},
    {"kind": "dropout", "rate": 0.1},
    {"kind": "dense", "units": 1, "regularizer": "l2"},
]


def make_faces(rows, *, side=SIDE, channels=1, seed=0):
    """Images and ages."""
    rng = np.random.default_rng(seed)
    ages = rng.integers(1, 80, rows)
    noise = rng.integers(0, 40, (rows, side, side, channels))
    return (noise + 2 * ages[:, None, None, None]).astype(np.uint8), ages


def make_store(rows=(64, 24, 16), **options) -> ImageStore:
    images, ages = make_faces(sum(rows), **options)
    split = np.repeat(["train", "validation", "test"], rows)
    return ImageStore(images, {"age_years": ages.astype("float32"), "split": split})


def encoded(image: np.ndarray, kind: str = "jpeg") -> bytes:
    file = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(file, kind)
    return file.getvalue()


def write_faces(folder: Path, rows=12, splits=("train", "validation", "test"), **options) -> list:
    """Writes JPEGs, by turns into the folders of splits; returns their paths."""
    images, ages = make_faces(rows, **options)
    paths = []
    for k, (image, age) in enumerate(zip(images, ages, strict=True)):
        path = (
            folder / (splits[k % len(splits)] if splits else "") / f"{age}_{k % 2}_{k % 5}_{k}.jpg"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(image))
        paths.append(path)
    return paths
