"""How much a Hyperband search trains, before it begins."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from kerasmlp.data.other_targets import AnyTarget, target_from_config
from kerasmlp.experiments.settings import Recorded, check_drawing
from kerasmlp.experiments.tuning.space import SPACES
from kerasmlp.models.presets import Recipe
from kerasmlp.training.xla import XLA_PAYS_STEPS
from kerasmlp.utils.checks import check_int, reject

MAX_EPOCHS = 10
LONGEST_EPOCHS = 100
_XLA_PAYS_BLOCKS = 4
"""Residual blocks up to which XLA compiles in seconds; a deep network takes minutes."""


@dataclass(frozen=True, kw_only=True)
class TuningPlan(Recorded):
    """The settings of a search; two searches of equal plans and data find the same.

    Attributes:
        target: What to predict.
        base: Recipe whose values hold for all that the space does not vary.
        space: Name of one of `SPACES`.
        max_epochs: Of the longest trials; learning-rate schedules end there.
        factor: Of each round, one in `factor` trials is taken on, for `factor` times the epochs.
        seed: Of the search, and of every training.
        validation_share: Of the groups of rows.
        group: As for `train`.
        leave_out_fold: Rows of this fold of the store are not seen by the search.

    Example:

    >>> from kerasmlp.data.targets import age_target
    >>> years = age_target("age_years", "years", by_years=True)
    >>> plan = TuningPlan(target=years, base=Recipe(), space="paper", max_epochs=10)
    >>> plan.num_trials, plan.num_epochs
    (46, 170)
    """

    target: AnyTarget
    base: Recipe
    space: str
    max_epochs: int = MAX_EPOCHS
    factor: int = 2
    seed: int = 0
    validation_share: float = 0.1
    group: str | None = None
    leave_out_fold: int | None = None

    @property
    def dimensions(self) -> dict:
        return SPACES[self.space]

    def check(self, width: int) -> None:
        """Rejects a search of which a trial could not be built, or a value decides nothing."""
        check_drawing([self.seed], self.validation_share)
        check_int("factor", self.factor, minimum=2)
        check_int("max_epochs", self.max_epochs, minimum=1, maximum=LONGEST_EPOCHS)
        if "gamma" in self.dimensions and self.base.schedule != "exponential":
            requirement = f"must be 'exponential' for the space {self.space!r}, which varies gamma"
            reject("schedule", requirement, self.base.schedule)
        deepest = max(self.dimensions["num_blocks"].values)
        if width < 2**deepest:
            requirement = f"must be at least {2**deepest} for the space {self.space!r}"
            reject("width", f"{requirement}, whose networks halve it {deepest} times", width)

    @property
    def recipe(self) -> Recipe:
        """The base with schedules laid out for the longest trials."""
        return self.base.replace(epochs=self.max_epochs)

    @cached_property
    def brackets(self) -> list[list[tuple[int, int]]]:
        """Rounds of each bracket as (trials, epochs of a trial in all), as Keras Tuner has them."""
        number, epochs = 0, float(self.max_epochs)
        while epochs >= 1:
            epochs, number = epochs / self.factor, number + 1
        ends = math.ceil(1 + math.log(self.max_epochs, self.factor))
        return [
            [
                (
                    math.ceil(ends / (bracket + 1) * self.factor ** (bracket - k)),
                    math.ceil(self.max_epochs / self.factor ** (bracket - k)),
                )
                for k in range(bracket + 1)
            ]
            for bracket in reversed(range(number))
        ]

    @property
    def num_trials(self) -> int:
        return sum(trials for rounds in self.brackets for trials, _ in rounds)

    @property
    def num_configurations(self) -> int:
        return sum(rounds[0][0] for rounds in self.brackets)

    @property
    def num_epochs(self) -> int:
        """Epochs in all: a trial that is taken on adds those that it has not had."""
        total = 0
        for rounds in self.brackets:
            before = 0
            for trials, epochs in rounds:
                total += trials * (epochs - before)
                before = epochs
        return total

    def uses_xla(self, rows: int) -> bool:
        """Whether a configuration takes so many steps that compiling it by XLA pays."""
        deepest = max(self.dimensions["num_blocks"].values)
        if deepest * max(self.dimensions["residuals_per_block"].values) > _XLA_PAYS_BLOCKS:
            return False
        steps = self.num_epochs / self.num_configurations * self.base.steps(rows)
        return steps >= XLA_PAYS_STEPS

    @classmethod
    def from_config(cls, config: dict) -> TuningPlan:
        known = {k: config[k] for k in cls.__dataclass_fields__ if k in config}
        target, base = target_from_config(config["target"]), Recipe(**config["base"])
        return cls(**known | {"target": target, "base": base})


@dataclass(frozen=True)
class Cost:
    """Seconds of a network in the middle of the space: to trace it, and of an epoch."""

    trace_seconds: float
    epoch_seconds: float

    def seconds(self, plan: TuningPlan, workers: int = 1) -> float:
        """About how long a search takes: every configuration traced once."""
        traced = plan.num_configurations * self.trace_seconds
        shared = (traced + plan.num_epochs * self.epoch_seconds) / workers
        # Trials are promoted one round after the other, however many workers there are.
        chain = len(plan.brackets) * self.trace_seconds + plan.max_epochs * self.epoch_seconds
        return max(shared, chain)


def describe(plan: TuningPlan, cost: Cost, workers: int = 1) -> str:
    """The plan and its cost in words."""
    lines = [
        f"space {plan.space!r}: {', '.join(plan.dimensions)}",
        f"{plan.num_trials} trials, {plan.num_epochs} epochs, at most {plan.max_epochs} each:",
    ]
    for rounds in plan.brackets:
        lines.append("  " + " → ".join(f"{n} × {epochs}" for n, epochs in rounds))
    minutes = cost.seconds(plan, workers) / 60
    lines.append(
        f"about {minutes:.1f} min: {cost.trace_seconds:.1f} s to trace a network, "
        f"{cost.epoch_seconds:.2f} s an epoch (measured in the middle of the space)"
    )
    return "\n".join(lines)


def longest_within(
    plan: TuningPlan,
    rows: int,
    cost_of: Callable[[bool], Cost],
    seconds: float,
    workers: int = 1,
) -> TuningPlan:
    """The plan with the largest number of epochs that fits into some seconds.

    The number of epochs decides whether it is the cost with XLA or without.

    Raises:
        InputError: if not even one epoch fits.
    """
    for epochs in range(LONGEST_EPOCHS, 0, -1):
        longest = replace(plan, max_epochs=epochs)
        needed = cost_of(longest.uses_xla(rows)).seconds(longest, workers)
        if needed <= seconds:
            return longest
    least = math.ceil(needed / 60)
    reject("--budget-minutes", f"must be at least {least} for these data", seconds / 60)
