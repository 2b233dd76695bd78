"""Keras Tuner's Hyperband oracle, whose search is the same however it is interrupted or spread."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from keras_tuner import HyperParameters, Objective
from keras_tuner.oracles import HyperbandOracle

from kerasmlp.tuning.one_file import OneFileState, oracle_seed
from kerasmlp.tuning.plan import TuningPlan
from kerasmlp.tuning.space import LogRange, rounded

OBJECTIVE = "val_loss"


class SearchOracle(OneFileState, HyperbandOracle):
    """Decides what is tried next.

    Differs from Keras Tuner's own in what a search needs to be repeated:

    - A round is taken on when all of it is measured, not when enough is, so that
      the speed of workers decides nothing. Meanwhile they begin the next bracket.
    - Its state is one file, see `OneFileState`.
    - Every seed is a seed, see `oracle_seed`.

    Args:
        plan: Space, epochs, factor and seed.

    Reference: Li et al., "Hyperband", Journal of Machine Learning Research 18, 2018.
    """

    def __init__(self, plan: TuningPlan):
        self.plan = plan
        super().__init__(
            Objective(OBJECTIVE, "min"),
            max_epochs=plan.max_epochs,
            factor=plan.factor,
            hyperparameters=hyperparameters(plan),
            seed=oracle_seed(plan.seed),
            max_consecutive_failed_trials=1,
        )
        self.verbose = 0

    @property
    def path(self) -> Path:
        return Path(self._project_dir) / "search.json"

    @property
    def num_epochs(self) -> int:
        """Of the completed trials, each without those of the trial it continues."""
        values = [trial.hyperparameters.values for trial in self.completed()]
        return sum(v["tuner/epochs"] - v["tuner/initial_epoch"] for v in values)

    @property
    def finished(self) -> bool:
        return len(self.completed()) == self.plan.num_trials

    def checkpoint_of(self, trial_id: str) -> Path:
        return Path(self._project_dir) / f"trial_{trial_id}" / "checkpoint.npz"

    def populate_space(self, trial_id: str) -> dict:
        self._remove_completed_brackets()
        for bracket in self._brackets:
            number, rounds = bracket["bracket_num"], bracket["rounds"]
            if len(rounds[0]) < self._get_size(number, 0):
                return self._random_trial(trial_id, bracket)
            for k in range(1, len(rounds)):
                before = [self.trials[info["id"]] for info in rounds[k - 1]]
                whole = len(before) == self._get_size(number, k - 1)
                if not whole or any(t.status != "COMPLETED" for t in before):
                    break
                size = self._get_size(number, k)
                if len(rounds[k]) < size:
                    ranked = sorted(before, key=lambda trial: trial.score)
                    best = ranked[len(rounds[k])]
                    rounds[k].append({"past_id": best.trial_id, "id": trial_id})
                    if len(rounds[k]) == size:
                        for trial in ranked[size:]:
                            self.checkpoint_of(trial.trial_id).unlink(missing_ok=True)
                    values = best.hyperparameters.values | {
                        "tuner/trial_id": best.trial_id,
                        "tuner/epochs": self._get_epochs(number, k),
                        "tuner/initial_epoch": self._get_epochs(number, k - 1),
                        "tuner/bracket": number,
                        "tuner/round": k,
                    }
                    return {"status": "RUNNING", "values": values}
        if self._current_bracket == 0:
            return {"status": "IDLE" if self.ongoing_trials else "STOPPED"}
        self._increment_bracket_num()
        self._start_new_bracket()
        return self._random_trial(trial_id, self._brackets[-1])

    def _compute_values_hash(self, values: Mapping) -> str:
        return super()._compute_values_hash({k: rounded(v) for k, v in values.items()})


def hyperparameters(plan: TuningPlan) -> HyperParameters:
    """The space of a plan in Keras Tuner's terms."""
    space = HyperParameters()
    for name, kind in plan.dimensions.items():
        if isinstance(kind, LogRange):
            space.Float(name, kind.low, kind.high, sampling="log")
        else:
            space.Choice(name, list(kind.values))
    return space
