"""What the IC paper's experiments on CIFAR are: arrangements × seeds of one network."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from kerasmlp.models.arrangements import ARRANGEMENTS, units_per_group
from kerasmlp.training.precision import PRECISIONS
from kerasmlp.utils.checks import (
    check_bool,
    check_choice,
    check_each_once,
    check_int,
    check_positive,
    check_rate,
)

_RATE_FALLS_AT = (0.4, 0.6, 0.8)  # of the run: epochs 80, 120, 160 of 200


@dataclass(frozen=True, kw_only=True)
class CifarRun:
    """One training."""

    arrangement: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arrangement}_seed{self.seed}"


@dataclass(frozen=True, kw_only=True)
class CifarPlan:
    """Arrangements × seeds, trained by Adam as in the paper where nothing is given.

    Attributes:
        depth: Of the `ICResNet`.
        bottleneck: Of it too.
        arrangements: Of `ARRANGEMENTS`.
        seeds: Each decides initial weights, order, augmentation and dropout.
        epochs: Of each run. The learning rate falls to a tenth after 40%, 60% and 80%.
        batch_size: Rows per step.
        learning_rate: At the start.
        dropout_rate: Of all IC layers.
        precision: Of `PRECISIONS`, in training.

    Raises:
        InputError: if a value is out of range.

    Example:

    >>> plan = CifarPlan(arrangements=("relu-ic-conv", "baseline"))
    >>> [run.name for run in plan.runs()], list(plan.rates())
    (['relu-ic-conv_seed0', 'baseline_seed0'], [0, 80, 120, 160])
    """

    depth: int = 110
    bottleneck: bool = False
    arrangements: tuple[str, ...] = tuple(ARRANGEMENTS)
    seeds: tuple[int, ...] = (0,)
    epochs: int = 200
    batch_size: int = 64
    learning_rate: float = 1e-3
    dropout_rate: float = 0.05
    precision: str = "float32"

    def __post_init__(self):
        units_per_group(self.depth, check_bool("bottleneck", self.bottleneck))
        for arrangement in self.arrangements:
            check_choice("arrangements", arrangement, ARRANGEMENTS)
        check_each_once("arrangements", self.arrangements)
        check_each_once("seeds", self.seeds)
        for seed in self.seeds:
            check_int("seeds", seed, minimum=0)
        check_int("epochs", self.epochs, minimum=1)
        check_int("batch_size", self.batch_size, minimum=2)  # batch norm takes statistics
        check_positive("learning_rate", self.learning_rate)
        check_rate("dropout_rate", self.dropout_rate)
        check_choice("precision", self.precision, PRECISIONS)

    def runs(self) -> list[CifarRun]:
        # Seed by seed: killed early, all arrangements have got equally far.
        return [
            CifarRun(arrangement=arrangement, seed=seed)
            for seed in self.seeds
            for arrangement in self.arrangements
        ]

    def network(self, run: CifarRun) -> dict[str, Any]:
        """Arguments of the `ICResNet` of a run."""
        shared = {k: getattr(self, k) for k in ("depth", "bottleneck", "dropout_rate")}
        return shared | {"arrangement": run.arrangement, "seed": run.seed}

    def rates(self) -> dict[int, float]:
        """Learning rates by the epochs that they begin with."""
        begins = [0, *(max(1, round(share * self.epochs)) for share in _RATE_FALLS_AT)]
        return {epoch: self.learning_rate * 0.1**k for k, epoch in enumerate(begins)}

    def to_config(self) -> dict[str, Any]:
        return asdict(self) | {"arrangements": list(self.arrangements), "seeds": list(self.seeds)}
