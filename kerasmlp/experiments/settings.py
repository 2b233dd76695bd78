"""What the plans of experiments have in common: what is checked of them, and what is recorded."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from kerasmlp.utils.checks import check_int, check_seed, reject


def check_drawing(seeds: Sequence[int], validation_share: float) -> None:
    """Rejects what no rows to keep back can be drawn by."""
    for seed in seeds:
        check_seed(check_int("seed", seed, minimum=0))
    if not 0 < validation_share < 1:
        reject("validation_share", "must be in (0, 1)", validation_share)


class Recorded:
    """Mixin of a dataclass of settings, which a run records."""

    def to_config(self) -> dict[str, Any]:
        """The settings as JSON gives them back: lists, no tuples."""
        target = getattr(self, "target", None)  # knows itself what it is
        own = {} if target is None else {"target": target.to_config()}
        return json.loads(json.dumps(asdict(self) | own))
