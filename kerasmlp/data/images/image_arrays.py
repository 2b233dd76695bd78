"""`.npz` arrays → image store, never by pickle."""

import os

import numpy as np

from kerasmlp.data.images.image_decoding import as_uint8
from kerasmlp.data.sources.source_arrays import read_source
from kerasmlp.data.stores.image_store import ImageStore
from kerasmlp.utils.checks import reject_file

_PARTS = ("train", "test")


def store_of_arrays(path: str | os.PathLike) -> ImageStore:
    """Reads `x_train`, `y_train`, `x_test`, `y_test` of an `.npz`; the label is `class`.

    Images of 16 bits and floats from 0 to 1 become 0 to 255.

    Raises:
        InputError: if it does not hold images and classes.
    """
    source = read_source(path)
    columns = source.columns
    names = [f"{kind}_{part}" for part in _PARTS for kind in "xy"]
    for name in names:
        if name not in columns:
            why = f" ({source.left_out[name]})" if name in source.left_out else ""
            reject_file(path, f"must hold {', '.join(names)}", f"no {name}{why}")
    images = [columns[f"x_{part}"] for part in _PARTS]
    images = [x[..., None] if x.ndim == 3 else x for x in images]
    for part, x in zip(_PARTS, images, strict=True):
        if as_uint8(x) is None:
            requirement = f"must hold uint8 images, or 16 bits or floats from 0 to 1, in x_{part}"
            came = f"dtype {x.dtype}, {x.min()} to {x.max()}" if x.size else f"shape {x.shape}"
            reject_file(path, requirement, came)
    images = [as_uint8(x) for x in images]
    classes = [columns[f"y_{part}"].reshape(-1) for part in _PARTS]
    for part, x, y in zip(_PARTS, images, classes, strict=True):
        if len(x) != len(y) or y.dtype.kind not in "iu" or (len(y) and y.min() < 0):
            requirement = f"must hold a class 0, 1, … for each of the {len(x)} images in y_{part}"
            reject_file(path, requirement, f"{len(y)} values, dtype {y.dtype}")
    if images[0].shape[1:] != images[1].shape[1:]:
        came = f"{images[0].shape[1:]} in x_train, {images[1].shape[1:]} in x_test"
        reject_file(path, "must hold images of one shape", came)
    split = np.repeat(_PARTS, [len(y) for y in classes])
    labels = {"class": np.concatenate(classes), "split": split}
    return ImageStore(np.concatenate(images), labels, name=path)
