"""What our oracles change in Keras Tuner's, so that a killed search ends as one that was not."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from keras_tuner import HyperParameters
from keras_tuner.engine.trial import Trial

from kerasmlp.experiments.tuning.space import Choice, LogRange, rounded
from kerasmlp.utils.checks import is_number, reject_file, shown
from kerasmlp.utils.files import read_json, write_json
from kerasmlp.utils.schema import (
    check_object,
    dict_of,
    fields,
    kind,
    list_of,
    one_of,
    optional,
    text,
    whole,
)
from kerasmlp.utils.strict_json import spelled, unspelled

_MOST_TRIALS = 100_000
_ID = kind("the number of a trial", lambda v: isinstance(v, str) and v.isdecimal() and len(v) < 9)
_ROUND = whole(0, _MOST_TRIALS)
_SPACE = list_of(fields({"config": fields({"name": text(100)})}), 100)
_SCORE = kind("a number", lambda v: is_number(v) and not math.isnan(v))
_OBSERVATION = fields({"value": list_of(_SCORE, 1000), "step": whole(0, 10**9)})
_METRIC = fields({"observations": list_of(_OBSERVATION, 1000)})
_TRIAL = {
    "trial_id": _ID,
    "hyperparameters": fields({
        "space": _SPACE,
        "values": dict_of(kind("a number or a text", lambda v: is_number(v) or _ID("", v) is None)),
    }),
    "metrics": fields({"metrics": dict_of(_METRIC)}),
    "score": optional(_SCORE),
    "status": one_of("RUNNING", "IDLE", "INVALID", "STOPPED", "COMPLETED", "FAILED"),
    "message": optional(text()),
}  # fmt: skip
_STATE = {
    "trials": list_of(fields(_TRIAL), _MOST_TRIALS),
    "ongoing_trials": dict_of(_ID),
    "retry_queue": list_of(_ID, _MOST_TRIALS),
    "start_order": list_of(_ID, _MOST_TRIALS),
    "end_order": list_of(_ID, _MOST_TRIALS),
    "hyperparameters": fields({"space": _SPACE}),
    "run_times": dict_of(whole(0, _MOST_TRIALS)),
    "seed": whole(0, 1 << 64),
    "seed_state": whole(0, 1 << 64),
    "tried_so_far": list_of(text(1000), _MOST_TRIALS),
}


class OneFileState:
    """Mixin of an oracle whose state is one file, written whole.

    A process killed between the files of Keras Tuner leaves trials that the oracle
    does not know of; and a trial that has ended is not run again because its
    oracle was killed before anything else happened.

    Attributes:
        path: Of the file.
        dimensions: What is searched.
        places: Names of a trial's values that are no hyperparameters: where it stands.
        measures: Names of what is measured of a trial.
    """

    path: Path
    dimensions: Mapping[str, LogRange | Choice]
    places: tuple[str, ...] = ()
    measures: tuple[str, ...] = ()

    def completed(self) -> list[Trial]:
        return [t for t in list(self.trials.values()) if t.status == "COMPLETED"]

    def in_order(self) -> list[Trial]:
        """Completed trials as they were begun."""
        return sorted(self.completed(), key=lambda trial: int(trial.trial_id))

    def get_state(self) -> dict:
        # end_trial saves before it takes the trial out of those that are going on.
        ongoing = {k: t.trial_id for k, t in self.ongoing_trials.items() if t.status == "RUNNING"}
        trials = [trial.get_state() for trial in self.trials.values()]
        return super().get_state() | {"ongoing_trials": ongoing, "trials": trials}

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, spelled(self.get_state()))  # diverged trials have an infinite score

    def _save_trial(self, trial: Trial) -> None:
        """Trials are saved with the rest."""

    def reload(self) -> None:
        """Takes up what `save` wrote.

        Raises:
            InputError: naming the file, if it is damaged or of another space.
        """
        what = "the state of a search"
        state = unspelled(read_json(self.path, infinite=True))
        check_object(self.path, state, _STATE, what)
        space, trials = self.hyperparameters.get_config()["space"], state["trials"]
        for held in (state, *trials):
            names = [k["config"]["name"] for k in held["hyperparameters"]["space"]]
            if names != [k["config"]["name"] for k in space]:
                reject_file(self.path, f"must be {what} over the same values", shown(names))
            held["hyperparameters"]["space"] = space  # what is drawn next is drawn from our own
        ids = {trial["trial_id"] for trial in trials}
        again = state["retry_queue"] + list(state["ongoing_trials"].values())
        if len(ids) < len(trials) or not {*again, *state["start_order"]} <= ids:
            reject_file(self.path, f"must be {what}", "trials that are not there, or there twice")
        for trial in trials:
            values = trial["hyperparameters"]["values"]
            known = trial["status"] != "COMPLETED" or self._is_measured(trial)
            if not known or not self._holds(values, ids):
                came = f"trial {trial['trial_id']} with {shown(values)}"
                reject_file(self.path, f"must be {what} whose trials lie in its space", came)
        try:
            self.trials = {t["trial_id"]: Trial.from_state(t) for t in trials}
            self.set_state(state | {"ongoing_trials": {}, "retry_queue": again})
        except Exception as error:  # of Keras Tuner, on what it has not written
            came = " ".join(f"{error}".split())[:100]
            reject_file(self.path, f"must be {what}", came or type(error).__name__)

    def _holds(self, values: dict, ids: set[str]) -> bool:
        """Whether a trial's values are of the space, and what is beside them is the oracle's."""
        kinds = self.dimensions
        if not kinds.keys() <= values.keys() or not all(is_number(values[name]) for name in kinds):
            return False
        inside = all(kind.holds(rounded(values[name])) for name, kind in kinds.items())
        rest = {k: v for k, v in values.items() if k not in kinds}
        good = rest.pop("tuner/trial_id", None) in (*ids, None) and rest.keys() == {*self.places}
        return inside and good and all(_ROUND(k, v) is None for k, v in rest.items())

    def _is_measured(self, trial: dict) -> bool:
        columns = trial["metrics"]["metrics"]
        measured = [columns.get(name, {"observations": []}) for name in self.measures]
        values = [o["value"] for column in measured for o in column["observations"]]
        return trial["score"] is not None and len(values) >= len(measured) and all(values)


def oracle_seed(seed: int) -> int:
    """A seed of an oracle: Keras Tuner takes 0 for none, and gives neighbouring seeds
    nearly the same trials."""
    return 1 + int(np.random.SeedSequence(seed).generate_state(1)[0] >> 2)


def hyperparameters(dimensions: Mapping[str, LogRange | Choice]) -> HyperParameters:
    """A space in Keras Tuner's terms."""
    space = HyperParameters()
    for name, of in dimensions.items():
        if isinstance(of, LogRange):
            space.Float(name, of.low, of.high, sampling="log")
        else:
            space.Choice(name, list(of.values))
    return space
