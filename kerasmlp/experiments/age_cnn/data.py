"""From an image store to the images and ages of a training."""

import numpy as np
import tensorflow as tf

from kerasmlp.data.examples import Examples
from kerasmlp.data.labels import is_unknown
from kerasmlp.data.stores.image_store import ImageStore
from kerasmlp.training.batches import epoch_batches
from kerasmlp.utils.checks import check_int, reject, reject_file


def faces_of(store: ImageStore, split: str) -> Examples:
    """Grey images `(rows, height, width, 1)` and ages of one split, where the age is known.

    Raises:
        InputError: if there are none, or the images are not grey.
    """
    if store.images.shape[3] != 1:
        requirement = "must hold grey images, of 1 channel (`build-images --gray` makes them)"
        reject_file(store.name, requirement, f"images of {store.images.shape[3]} channels")
    if "age_years" not in store.labels:
        there = ", ".join(store.labels) or "no labels"
        reject_file(store.name, "must hold label 'age_years'", there)
    rows = store.rows(split)
    rows = rows[~is_unknown(store.labels["age_years"][rows])]
    if not len(rows):
        reject_file(store.name, f"must hold ages of split {split!r}", "unknown ones only")
    return Examples(store.images[rows], store.labels["age_years"][rows])


def some_faces(faces: Examples, count: int, name: str, seed: int) -> Examples:
    """As many faces, drawn at random."""
    if check_int(name, count, minimum=1) > len(faces):
        reject(name, f"must be at most the {len(faces)} images to train on", count)
    return faces.subset(np.sort(np.random.default_rng(seed).permutation(len(faces))[:count]))


def shuffled_batches(
    faces: Examples, *, batch_size: int, steps: int, epochs: range, seed: int
) -> tf.data.Dataset:
    """Batches of some epochs, each in an order that depends on `seed` and its number alone.

    Example:

    >>> faces = Examples(np.zeros((5, 8, 8, 1), np.uint8), np.arange(5, dtype=np.float32))
    >>> batches = shuffled_batches(faces, batch_size=2, steps=2, epochs=range(1, 3), seed=0)
    >>> [(tuple(images.shape), tuple(ages.shape)) for images, ages in batches][:2]
    [((2, 8, 8, 1), (2, 1)), ((2, 8, 8, 1), (2, 1))]
    """
    images, ages = tf.constant(faces.inputs), tf.constant(faces.targets[:, None])

    def gather(indices, number):
        batch = tf.ensure_shape(tf.gather(images, indices), (batch_size, *faces.inputs.shape[1:]))
        return batch, tf.ensure_shape(tf.gather(ages, indices), (batch_size, 1))

    return epoch_batches(gather, len(faces), batch_size, steps, seed, epochs)
