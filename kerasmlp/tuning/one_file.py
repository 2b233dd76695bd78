"""What our oracles change in Keras Tuner's, so that a killed search ends as one that was not."""

from __future__ import annotations

import json

import numpy as np
from keras_tuner.engine.trial import Trial

from kerasmlp.checks import reject_file
from kerasmlp.files import read_json, write_text


class OneFileState:
    """Mixin of an oracle whose state is one file, `path`, written whole.

    A process killed between the files of Keras Tuner leaves trials that the oracle
    does not know of; and a trial that has ended is not run again because its
    oracle was killed before anything else happened.
    """

    def completed(self) -> list[Trial]:
        return [t for t in list(self.trials.values()) if t.status == "COMPLETED"]

    def get_state(self) -> dict:
        # end_trial saves before it takes the trial out of those that are going on.
        ongoing = {k: t.trial_id for k, t in self.ongoing_trials.items() if t.status == "RUNNING"}
        trials = [trial.get_state() for trial in self.trials.values()]
        return super().get_state() | {"ongoing_trials": ongoing, "trials": trials}

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, json.dumps(self.get_state()))

    def _save_trial(self, trial: Trial) -> None:
        """Trials are saved with the rest."""

    def reload(self) -> None:
        state = read_json(self.path)
        try:
            self.trials = {t["trial_id"]: Trial.from_state(t) for t in state["trials"]}
            again = state["retry_queue"] + list(state["ongoing_trials"].values())
            self.set_state(state | {"ongoing_trials": {}, "retry_queue": again})
        except (AttributeError, KeyError, TypeError):
            reject_file(self.path, "must be the state of a search", "a damaged file")


def oracle_seed(seed: int) -> int:
    """A seed of an oracle: Keras Tuner takes 0 for none, and gives neighbouring seeds
    nearly the same trials."""
    return 1 + int(np.random.SeedSequence(seed).generate_state(1)[0] >> 2)
