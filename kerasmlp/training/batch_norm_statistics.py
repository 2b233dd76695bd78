"""Moving statistics of batch norm, taken anew from rows that need no labels."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np

from kerasmlp.models.presets import Recipe
from kerasmlp.training.columns import noise_units
from kerasmlp.utils.checks import reject

_BATCH_ROWS = 512
_LEAST_ROWS = 8192
"""Fewer are gone through several times, mixed with others each time."""


def renew_batch_norm(
    model: keras.Model, rows: np.ndarray, recipe: Recipe, *, seed: int = 0
) -> None:
    """Sets the moving statistics of a model to those of rows, as it has seen rows in training.

    They become the mean of those of batches, with the dropout, mixup and noise that they were
    learned with. Weights stay what they are.

    Args:
        model: With batch norm.
        rows: `(rows, width)`.
        recipe: By which the model was trained.
        seed: Of the batches.

    Raises:
        InputError: if there is no batch norm in it.

    Example:

    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.BatchNormalization()])
    >>> rows, plain = np.arange(5, dtype=np.float32)[:, None], Recipe(mixup_alpha=0, noise_std=0)
    >>> renew_batch_norm(model, rows, plain)
    >>> [round(float(v[0]), 4) for v in model.layers[-1].get_weights()[2:]]
    [2.0, 2.0]

    Reference: Li et al., "Revisiting Batch Normalization For Practical Domain Adaptation", 2016.
    """
    norms = list(_norms(model, set()))
    if not norms:
        reject("batch_norm", "must be left out for a model without batch norm", True)
    before, rng = [norm.momentum for norm in norms], np.random.default_rng(seed)
    batches = [
        batch
        for _ in range(max(round(_LEAST_ROWS / len(rows)), 1))
        for batch in np.array_split(rng.permutation(len(rows)), max(len(rows) // _BATCH_ROWS, 1))
    ]
    try:
        for number, batch in enumerate(batches):
            for norm in norms:
                norm.momentum = number / (number + 1)  # so that all batches count alike
            model(as_trained_on(rows[batch], recipe, noise_units(model), rng), training=True)
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum


def as_trained_on(
    rows: np.ndarray, recipe: Recipe, units: np.ndarray | None, rng: np.random.Generator
) -> np.ndarray:
    """Rows mixed with each other and with noise on top, as the batches of `training_chunks`.

    Args:
        rows: In random order, `(rows, width)`.
        recipe: With `mixup_alpha` and `noise_std`.
        units: Of the noise, as of `noise_units`.
        rng: Draws shares and noise.
    """
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if recipe.mixup_alpha:
        shares = rng.beta(recipe.mixup_alpha, recipe.mixup_alpha, size=(len(rows), 1))
        rows = shares * rows + (1 - shares) * np.roll(rows, 1, axis=0)
    if recipe.noise_std:
        stds = rng.uniform(0, recipe.noise_std, size=(len(rows), 1))
        rows = rows + stds * (norms if units is None else units) * rng.normal(size=rows.shape)
        if units is None:
            rows = rows * norms / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32)


def _norms(layer: keras.layers.Layer, found: set[int]) -> Iterator[keras.layers.BatchNormalization]:
    """Those of a model, also inside of layers."""
    if isinstance(layer, keras.layers.BatchNormalization):
        yield layer
        return
    inner = layer.layers if isinstance(layer, keras.Model) else vars(layer).values()
    for part in inner:
        if isinstance(part, keras.layers.Layer) and id(part) not in found:
            found.add(id(part))
            yield from _norms(part, found)
