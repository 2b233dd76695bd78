"""What the IC paper's experiments on CIFAR are: arrangements × seeds of one network."""

from dataclasses import dataclass
from typing import Any

from kerasmlp.experiments.image_plan import ImagePlan, ImageRun
from kerasmlp.models.arrangements import ARRANGEMENTS, units_per_group
from kerasmlp.utils.checks import check_bool, check_choice, check_each_once, check_int, check_rate

_RATE_FALLS_AT = (0.4, 0.6, 0.8)  # of the run: epochs 80, 120, 160 of 200


@dataclass(frozen=True, kw_only=True)
class CifarPlan(ImagePlan):
    """Arrangements × seeds, trained by Adam as in the paper where nothing is given.

    The learning rate falls to a tenth after 40%, 60% and 80% of the epochs.

    Attributes:
        depth: Of the `ICResNet`.
        bottleneck: Of it too.
        arrangements: Of `ARRANGEMENTS`.
        dropout_rate: Of all IC layers.

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
    epochs: int = 200
    batch_size: int = 64
    learning_rate: float = 1e-3
    dropout_rate: float = 0.05

    def __post_init__(self):
        units_per_group(self.depth, check_bool("bottleneck", self.bottleneck))
        for arrangement in self.arrangements:
            check_choice("arrangements", arrangement, ARRANGEMENTS)
        check_each_once("arrangements", self.arrangements)
        check_int("batch_size", self.batch_size, minimum=2)  # batch norm takes statistics
        check_rate("dropout_rate", self.dropout_rate)
        super().__post_init__()

    def runs(self) -> list[ImageRun]:
        # Seed by seed: killed early, all arrangements have got equally far.
        return [
            ImageRun(f"{arrangement}_seed{seed}", seed, {"arrangement": arrangement})
            for seed in self.seeds
            for arrangement in self.arrangements
        ]

    def network(self, run: ImageRun) -> dict[str, Any]:
        """Arguments of the `ICResNet` of a run."""
        shared = {k: getattr(self, k) for k in ("depth", "bottleneck", "dropout_rate")}
        return shared | run.about | {"seed": run.seed}

    def rates(self) -> dict[int, float]:
        """Learning rates by the epochs that they begin with."""
        begins = [0, *(max(1, round(share * self.epochs)) for share in _RATE_FALLS_AT)]
        return {epoch: self.learning_rate * 0.1**k for k, epoch in enumerate(begins)}
