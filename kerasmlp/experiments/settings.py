"""What the plans of experiments have in common: what is checked of them, and what is recorded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kerasmlp.utils.checks import check_int, check_seed, reject

if TYPE_CHECKING:
    from kerasmlp.data.stores.embedding_store import EmbeddingStore


def check_drawing(seeds: Sequence[int], validation_share: float) -> None:
    """Rejects what no rows to keep back can be drawn by."""
    for seed in seeds:
        check_seed(check_int("seed", seed, minimum=0))
    if not 0 < validation_share < 1:
        reject("validation_share", "must be in (0, 1)", validation_share)


def as_json(plan: Any) -> dict[str, Any]:
    """The fields of a dataclass as JSON gives them back: lists, no tuples.

    Example:

    >>> from kerasmlp.data.targets import Target
    >>> as_json(Target("gender", ("male", "female")))["class_names"]
    ['male', 'female']
    """
    return json.loads(json.dumps(asdict(plan)))


class Recorded:
    """Mixin of a dataclass of settings, which a run records."""

    def to_config(self) -> dict[str, Any]:
        """The settings as JSON gives them back."""
        return as_json(self)


def facts_of(store: EmbeddingStore) -> dict[str, Any]:
    """What a run records of the embeddings that it is on, beside their digest."""
    info = store.info
    return {
        "width": store.width,
        "embedder": info.embedder,
        "embedder_sha256": info.embedder_sha256,
        "normalized": info.normalized,
    }
