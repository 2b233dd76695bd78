"""What a training learns from, what measures it, and what it is tested on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasmlp.data.examples import Examples
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.targets import Target
from kerasmlp.utils.checks import reject


@dataclass(frozen=True)
class Rows:
    """Rows with their labels, divided.

    Attributes:
        whole: All of them but the test.
        training: To learn from.
        part: Kept back.
        test: Measured on once, or None.
    """

    whole: Examples
    training: Examples
    part: Examples
    test: Examples | None

    @classmethod
    def of(
        cls,
        store: EmbeddingStore,
        target: Target,
        test: EmbeddingStore | None,
        settings: Mapping[str, Any],
    ) -> Rows:
        """Divides a store as the settings of `train` say.

        Raises:
            InputError: if it cannot be divided so.
        """
        for name in ("validation_share", "test_share"):
            if settings[name] is not None and not 0 < settings[name] < 1:
                reject(name, "must be in (0, 1)", settings[name])
        whole = Examples.of(store, target)
        held_out = None if test is None else Examples.of(test, target)
        seed, group = settings["seed"], settings["group"]
        if settings["test_share"] is not None:
            whole, held_out = whole.hold_out(settings["test_share"], seed, group)
        return cls(whole, *whole.split(settings["validation_share"], seed, group), held_out)

    def learned_from(self) -> np.ndarray:
        """The embeddings that decide the weights, and those that decide when to stop."""
        return np.concatenate([self.training.inputs, self.part.inputs])
