"""Hyperband as an oracle of Keras Tuner: the same search however it is interrupted or spread."""

import copy
import time
from pathlib import Path

from keras_tuner import Objective, Oracle, synchronized
from keras_tuner.engine.trial import Trial

from kerasmlp.experiments.tuning.one_file import OneFileState, hyperparameters, oracle_seed
from kerasmlp.experiments.tuning.plan import TuningPlan
from kerasmlp.experiments.tuning.space import place_of, rounded

OBJECTIVE = "val_loss"


class SearchOracle(OneFileState, Oracle):
    """Decides what is tried next, by the trials that there are and nothing else.

    Its brackets are those of Keras Tuner's own Hyperband, from which it differs in
    what a search needs to be repeated:

    - A round is taken on when all of it is measured, not when enough is, so that
      the speed of workers decides nothing. Meanwhile they begin the next bracket.
    - Its state is one file, see `OneFileState`.
    - Every seed is a seed, see `oracle_seed`.
    - The first configuration is that of the base recipe, where the space holds it.
    - It can have a deadline, on `time.monotonic()`. Then nothing is begun any more, and a
      trial that is asked for and still goes on has the status `"STOPPED"`.
    - It knows when it last heard of a trial, so that another worker can take over
      from one that is gone: see `take_back`.
    - A state that cannot be saved is kept as `failure`: the worker whose request it
      was hears only that something went wrong.

    Reference: Li et al., "Hyperband", Journal of Machine Learning Research 18, 2018.
    """

    places = ("tuner/epochs", "tuner/initial_epoch", "tuner/bracket", "tuner/round")
    measures = (OBJECTIVE, "seconds")

    def __init__(self, plan: TuningPlan, folder: Path, *, deadline: float | None = None):
        self.plan = plan
        self.dimensions = plan.dimensions
        self.folder = Path(folder)
        self.path = self.folder / "search.json"
        self.deadline = deadline
        self.failure: OSError | None = None
        self._heard: dict[str, float] = {}
        super().__init__(
            Objective(OBJECTIVE, "min"),
            hyperparameters=hyperparameters(self.dimensions),
            seed=oracle_seed(plan.seed),
            max_consecutive_failed_trials=1,
        )
        self.verbose = 0

    @property
    def time_is_up(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    @property
    def finished(self) -> bool:
        return len(self.completed()) == self.plan.num_trials

    @property
    def num_epochs(self) -> int:
        """Of the completed trials, each without those of the trial it continues."""
        return sum(_epochs_of(trial) for trial in self.completed())

    @property
    def longest_epoch(self) -> float:
        """Seconds of the slowest epoch so far, with its share of tracing."""
        means = (t.metrics.get_best_value("seconds") / _epochs_of(t) for t in self.completed())
        return max(means, default=0.0)

    def rows(self) -> list[dict]:
        """One per completed trial: where it stands in the search, its values, its loss."""
        rows = []
        for trial in self.in_order():
            values = trial.hyperparameters.values
            rows.append({
                "trial": int(trial.trial_id),
                "continues": int(values["tuner/trial_id"]) if "tuner/trial_id" in values else None,
                "bracket": values["tuner/bracket"],
                "round": values["tuner/round"],
                "first_epoch": values["tuner/initial_epoch"],
                "epochs": values["tuner/epochs"],
                **{name: rounded(values[name]) for name in self.dimensions},
                "val_loss": trial.score,
                "seconds": trial.metrics.get_best_value("seconds"),
            })  # fmt: skip
        return rows

    def checkpoint_of(self, trial_id: str) -> Path:
        return self.folder / f"trial_{trial_id}" / "checkpoint.npz"

    def create_trial(self, tuner_id: str) -> Trial:
        if self.time_is_up:
            self.tuner_ids.discard(tuner_id)
            return Trial(self.get_space(), status="STOPPED")
        trial = super().create_trial(tuner_id)
        self._heard[trial.trial_id] = time.monotonic()
        return trial

    def get_trial(self, trial_id: str) -> Trial:
        self._heard[trial_id] = time.monotonic()
        trial = super().get_trial(trial_id)
        if self.time_is_up and trial.status == "RUNNING":
            trial = copy.copy(trial)  # its own status says that a resumed search goes on with it
            trial.status = "STOPPED"
        return trial

    def save(self) -> None:
        try:
            super().save()
        except OSError as error:
            self.failure = error
            raise

    def silent_for(self, seconds: float) -> list[str]:
        """Workers that have not been heard of for so long, although they have a trial."""
        now = time.monotonic()
        return [
            name
            for name, trial in list(self.ongoing_trials.items())
            if now - self._heard.get(trial.trial_id, now) > seconds  # else it begins right now
        ]

    @synchronized
    def take_back(self, tuner_id: str) -> None:
        """Gives the trial of a worker that is gone to the next one that asks, with its checkpoint.

        Should it come back and finish before that, nothing is done twice.
        """
        trial = self.ongoing_trials.pop(tuner_id, None)
        if trial is not None:
            self._retry_queue.append(trial.trial_id)
            self._heard.pop(trial.trial_id, None)
        self.tuner_ids.discard(tuner_id)

    @synchronized
    def end_trial(self, trial: Trial) -> None:
        if trial.trial_id in self._retry_queue:
            self._retry_queue.remove(trial.trial_id)
        super().end_trial(trial)

    def populate_space(self, trial_id: str) -> dict:
        brackets = self.plan.brackets
        for number, rounds in zip(reversed(range(len(brackets))), brackets, strict=True):
            before, first_epoch = [], 0
            for k, (size, epochs) in enumerate(rounds):
                begun = self._begun(number, k)
                if len(begun) < size:
                    if any(trial.status != "COMPLETED" for trial in before):
                        break
                    values = self._taken_on(before, len(begun), size) if k else self._drawn()
                    places = zip(self.places, (epochs, first_epoch, number, k), strict=True)
                    return {"status": "RUNNING", "values": values | dict(places)}
                before, first_epoch = begun, epochs
        return {"status": "IDLE" if self.ongoing_trials else "STOPPED"}

    def _holds(self, values: dict, ids: set[str]) -> bool:
        if not super()._holds(values, ids):
            return False
        epochs, first, number, k = (values[name] for name in self.places)
        brackets = self.plan.brackets
        if number >= len(brackets) or k >= len(brackets[-1 - number]):
            return False
        ends = [0, *(end for _, end in brackets[-1 - number])]
        return (first, epochs) == (ends[k], ends[k + 1])

    def _begun(self, bracket: int, k: int) -> list[Trial]:
        place = {"tuner/bracket": bracket, "tuner/round": k}.items()
        return [t for t in self.trials.values() if place <= t.hyperparameters.values.items()]

    def _drawn(self) -> dict:
        drawn = sum(t.hyperparameters.values["tuner/round"] == 0 for t in self.trials.values())
        start = place_of(self.plan.base, self.plan.dimensions)
        if drawn == 0 and start is not None:
            return start
        space = self.hyperparameters.space
        seeds = range(self.seed + drawn * len(space), self.seed + (drawn + 1) * len(space))
        return {kind.name: kind.random_sample(s) for kind, s in zip(space, seeds, strict=True)}

    def _taken_on(self, before: list[Trial], rank: int, size: int) -> dict:
        ranked = sorted(before, key=lambda trial: trial.score)
        if rank == size - 1:
            for trial in ranked[size:]:
                self.checkpoint_of(trial.trial_id).unlink(missing_ok=True)
        return ranked[rank].hyperparameters.values | {"tuner/trial_id": ranked[rank].trial_id}


def _epochs_of(trial: Trial) -> int:
    values = trial.hyperparameters.values
    return values["tuner/epochs"] - values["tuner/initial_epoch"]
