"""From a file of images to the batches of a training: shuffled, shifted, mirrored."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kerasmlp.data.examples import Examples
from kerasmlp.data.images.cifar import is_cifar, store_of_cifar
from kerasmlp.data.images.image_arrays import store_of_arrays
from kerasmlp.data.stores.image_store import ImageStore
from kerasmlp.training.batches import epoch_batches
from kerasmlp.utils.checks import reject, reject_file
from kerasmlp.utils.files import what_is

PADDING = 4
_MOST_CLASSES = 1 << 16
_SHUFFLE, _CROP, _MIRROR = range(3)  # independent random streams of one seed
_MEAN_STD = {
    1: ((0.1307,), (0.3081,)),
    3: ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
}


@dataclass(frozen=True)
class ImageSet:
    """Images `(rows, 32, 32, channels)`, uint8, and classes `(rows,)`, int32, of both parts."""

    train: Examples
    test: Examples

    @property
    def channels(self) -> int:
        return self.train.inputs.shape[-1]

    @property
    def num_classes(self) -> int:
        return int(max(self.train.targets.max(), self.test.targets.max())) + 1

    def digest(self) -> str:
        """SHA-256 of all arrays."""
        hashed = hashlib.sha256()
        for part in (self.train, self.test):
            for values in (part.inputs, part.targets):
                hashed.update(f"{values.shape}".encode())
                hashed.update(np.ascontiguousarray(values))
        return hashed.hexdigest()

    def head(self, rows: int) -> ImageSet:
        """With the first so many images to train on."""
        if rows > len(self.train):
            reject("rows", f"must be at most {len(self.train)}", rows)
        return replace(self, train=self.train.subset(np.s_[:rows]))


def load_images(path: str | os.PathLike) -> ImageSet:
    """Reads images and classes, both parts; images of 28×28 are padded to 32×32.

    Args:
        path: An image store with the label `class` (`.h5`), or what becomes one: an
            `.npz` of `x_train`, `y_train`, `x_test` and `y_test`, or CIFAR's own
            binary version.

    Raises:
        InputError: if it holds no such images and classes of 32×32 or 28×28 pixels.
    """
    store = _open(Path(path))
    side = store.images.shape[1]
    if store.images.shape[1:3] != (side, side) or side not in (28, 32):
        requirement = "must hold images of 28×28 or 32×32 pixels"
        reject_file(path, requirement, f"images of shape {store.images.shape[1:]}")
    classes = store.labels.get("class")
    if classes is None or classes.dtype.kind not in "iu" or classes.min() < 0:
        came = f"labels {', '.join(sorted(store.labels))}"
        came = came if classes is None else f"{min(classes.tolist())!r} among them"
        reject_file(path, "must hold classes 0, 1, … as label 'class'", came)
    if classes.max() >= _MOST_CLASSES:
        requirement = f"must hold classes 0, 1, …, fewer than {_MOST_CLASSES}"
        reject_file(path, requirement, f"class {classes.max()}")
    pad = ((32 - side) // 2,) * 2

    def part(split: str) -> Examples:
        rows = store.rows(split)
        images = np.pad(store.images[rows], ((0, 0), pad, pad, (0, 0)))
        return Examples(images, classes[rows].astype(np.int32))

    data = ImageSet(part("train"), part("test"))
    trained_on = np.unique(data.train.targets)
    if len(trained_on) < 2:
        came = f"{len(trained_on)} in {len(data.train)} images"
        reject_file(path, "must hold 2 classes or more to train on", came)
    if not np.isin(data.test.targets, trained_on).any():
        came = f"none in {len(data.test)} images"
        reject_file(path, "must hold test images of classes that are trained on", came)
    return data


def _open(path: Path) -> ImageStore:
    if path.suffix.lower() in (".h5", ".hdf5"):
        return ImageStore.open(path, verify=True)
    if path.suffix.lower() == ".npz":
        return store_of_arrays(path)
    if not is_cifar(path):
        requirement = "must be an .npz, an image store (.h5), or a folder or .tar.gz of CIFAR"
        reject_file(path, requirement, what_is(path))
    return store_of_cifar(path)


def normalization(channels: int) -> keras.layers.Rescaling:
    """What `normalize` does to pixels, as a layer of a model.

    Example:

    >>> pixels = np.full((1, 2, 2, 3), 100, np.uint8)
    >>> bool(np.allclose(normalization(3)(pixels), normalize(tf.constant(pixels)), atol=1e-6))
    True
    """
    mean, std = map(np.array, _MEAN_STD[channels])
    numbers = {"scale": (1 / (255 * std)).tolist(), "offset": (-mean / std).tolist()}
    return keras.layers.Rescaling(**numbers, dtype="float32", name="normalization")


def normalize(images):
    """Pixels to zero mean and unit variance, by the data set's published numbers."""
    mean, std = _MEAN_STD[images.shape[-1]]
    return (tf.cast(images, tf.float32) / 255 - tf.constant(mean)) / tf.constant(std)


def plain_batches(
    x: np.ndarray, y: np.ndarray, *, batch_size: int = 500, normalized: bool = True
) -> tf.data.Dataset:
    """Images in their order, normalised, or else pixels 0 to 255."""
    prepare = _prepare(normalized)
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size)
    return batches.map(lambda images, labels: (prepare(images), labels))


def _prepare(normalized: bool):
    return normalize if normalized else lambda images: tf.cast(images, tf.float32)


def augmented_batches(
    x: np.ndarray,
    y: np.ndarray,
    *,
    batch_size: int,
    num_epochs: int,
    seed: int,
    first_epoch: int = 0,
    normalized: bool = True,
) -> tf.data.Dataset:
    """Batches of epochs `first_epoch`..`num_epochs - 1`, all of one shape.

    Images are padded by 4 pixels and cut back at a random place, mirrored with
    probability one half, and `normalized`, or else left as pixels 0 to 255. All of
    it depends on `seed` and the number of the step alone; rows that fill no batch
    are left out of an epoch.

    Example:

    >>> x, y = np.zeros((10, 32, 32, 1), "uint8"), np.arange(10)
    >>> batches = augmented_batches(x, y, batch_size=4, num_epochs=2, seed=0)
    >>> [tuple(images.shape) for images, labels in batches]
    [(4, 32, 32, 1), (4, 32, 32, 1), (4, 32, 32, 1), (4, 32, 32, 1)]
    """
    rows, steps, side = len(x), len(x) // batch_size, x.shape[1]
    data_x, data_y = tf.constant(x), tf.constant(y)
    prepare = _prepare(normalized)

    def gather(indices, number):
        pad = (PADDING, PADDING)
        images = tf.pad(tf.gather(data_x, indices), ((0, 0), pad, pad, (0, 0)))
        key = tf.stack([4 * seed + _CROP, number])
        corner = tf.random.stateless_uniform(
            (batch_size, 2, 1), key, 0, 2 * PADDING + 1, dtype=tf.int32
        )
        places = corner + tf.range(side)
        key = tf.stack([4 * seed + _MIRROR, number])
        mirrored = tf.random.stateless_uniform((batch_size, 1), key) < 0.5
        columns = tf.where(mirrored, places[:, 1, ::-1], places[:, 1])
        images = tf.gather(images, places[:, 0], axis=1, batch_dims=1)
        images = tf.gather(images, columns, axis=2, batch_dims=1)
        images = tf.ensure_shape(images, (batch_size, *x.shape[1:]))
        return prepare(images), tf.gather(data_y, indices)

    order_seed = 4 * seed + _SHUFFLE
    return epoch_batches(
        gather, rows, batch_size, steps, order_seed, range(first_epoch, num_epochs)
    )
