"""What the plans of the experiments on images share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kerasmlp.experiments.settings import Recorded
from kerasmlp.training.precision import PRECISIONS
from kerasmlp.utils.checks import check_choice, check_each_once, check_int, check_positive, reject

if TYPE_CHECKING:
    from kerasmlp.training.image_batches import ImageSet


@dataclass(frozen=True)
class ImageRun:
    """One training of a plan.

    Attributes:
        name: Of its folder.
        seed: Of all that is random.
        about: What else tells it from the others, as its files say it.
    """

    name: str
    seed: int
    about: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ImagePlan(Recorded):
    """Many trainings on the same images.

    Attributes:
        seeds: Each decides initial weights, order, augmentation and all else that is random.
        epochs: Of each run.
        batch_size: Rows per step.
        learning_rate: The largest of a run.
        precision: Of `PRECISIONS`, in training.

    Raises:
        InputError: if a value is out of range.
    """

    seeds: tuple[int, ...] = (0,)
    epochs: int
    batch_size: int
    learning_rate: float
    precision: str = "float32"

    def __post_init__(self):
        check_each_once("seeds", self.seeds)
        for seed in self.seeds:
            check_int("seeds", seed, minimum=0)
        check_int("epochs", self.epochs, minimum=1)
        check_int("batch_size", self.batch_size, minimum=1)
        check_positive("learning_rate", self.learning_rate)
        check_choice("precision", self.precision, PRECISIONS)

    def check(self, data: ImageSet) -> None:
        """Rejects images that the plan does not suit."""
        if self.batch_size > len(data.train):
            requirement = f"must be at most the {len(data.train)} images to train on"
            reject("batch_size", requirement, self.batch_size)
