"""What decides the training of an age CNN, apart from data and seed."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kerasmlp.experiments.settings import Recorded
from kerasmlp.models.age_cnn import PAPER
from kerasmlp.models.layer_specification import check_specification
from kerasmlp.models.presets import MAX_BATCH_SIZE, MAX_EPOCHS
from kerasmlp.utils.checks import check_int, check_optional_int, check_positive, reject, reject_file
from kerasmlp.utils.manifest import read_preset_json


@dataclass(frozen=True, kw_only=True)
class AgeCNNRecipe(Recorded):
    """Network and hyperparameters; the paper's by default.

    Attributes:
        specification: Layers of `AgeCNN`.
        epochs: At most.
        batch_size: Rows per step.
        learning_rate: Of Adam.
        regularization: Factor of the penalties on kernels.
        patience: Epochs without a better validation MAE until training stops; None
            trains to the end. The best weights are taken either way.

    Raises:
        InputError: if a value is out of range.

    Example:

    >>> AgeCNNRecipe(epochs=5).learning_rate
    0.0001

    Reference: Dalva and Altındış, "Age Estimation" (CS 559, Bilkent University), section IV.
    """

    specification: tuple[Mapping[str, Any], ...] = PAPER
    epochs: int = 600
    batch_size: int = 32
    learning_rate: float = 1e-4
    regularization: float = 1e-4
    patience: int | None = None

    def __post_init__(self):
        object.__setattr__(self, "specification", tuple(check_specification(self.specification)))
        check_int("epochs", self.epochs, minimum=1, maximum=MAX_EPOCHS)
        check_int("batch_size", self.batch_size, minimum=1, maximum=MAX_BATCH_SIZE)
        check_positive("learning_rate", self.learning_rate)
        check_positive("regularization", self.regularization, zero=True)
        check_optional_int("patience", self.patience, minimum=1, maximum=MAX_EPOCHS)

    def replace(self, **changes: Any) -> AgeCNNRecipe:
        return dataclasses.replace(self, **changes)

    def require_batch(self, rows: int) -> None:
        """Rejects a batch size that these rows do not fill."""
        if self.batch_size > rows:
            reject("batch_size", f"must be at most the {rows} images to train on", self.batch_size)

    @classmethod
    def from_file(cls, path: str | os.PathLike) -> AgeCNNRecipe:
        """Reads a recipe from a JSON file; what it does not say is the paper's.

        Raises:
            InputError: if it cannot be read or a value in it is bad.
        """
        values = read_preset_json(path)
        known = {f.name for f in dataclasses.fields(cls)}
        if not isinstance(values, dict) or not set(values) <= known:
            bad = sorted(set(values) - known) if isinstance(values, dict) else type(values).__name__
            reject_file(path, f"must hold values of {', '.join(sorted(known))}", f"{bad}")
        return cls(**values)
