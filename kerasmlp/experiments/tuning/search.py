"""A Keras Tuner search whose trials are trained by `TrialRunner`."""

import contextlib
import os
import time
from collections.abc import Callable

from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial
from keras_tuner.errors import FatalError

from kerasmlp.experiments.tuning.oracle import SearchOracle
from kerasmlp.experiments.tuning.plan import TuningPlan
from kerasmlp.experiments.tuning.search_files import project_name
from kerasmlp.experiments.tuning.space import recipe_of
from kerasmlp.experiments.tuning.trial import TrialRunner
from kerasmlp.runs.run_folder import RunFolder

_IDLE_SECONDS = 0.2


class _OutOfTime(Exception):
    pass


class Search(BaseTuner):
    """Runs the trials of an oracle, its own or (by environment variables) a chief's.

    A promoted trial takes over the checkpoint of the one it continues: weights,
    optimiser, random generators and the place in the schedule.

    Args:
        folder: Of the run, for the state and the checkpoints.
        config: Its settings, which name the search; what lies there under another name is no
            part of it.
        runner: Of the trials; None where this process only answers workers.
        deadline: On `time.monotonic()`, or None; a worker's is that of its chief.
        on_progress: Called after each epoch with the oracle and the epochs of its trials so far.
    """

    def __init__(
        self,
        plan: TuningPlan,
        folder: RunFolder,
        config: dict,
        runner: TrialRunner | None,
        *,
        deadline: float | None = None,
        on_progress: Callable[[SearchOracle, int], None] | None = None,
    ):
        self._plan, self._runner, self._on_progress = plan, runner, on_progress
        self._busy = True
        searches, project = folder / "search", project_name(config)
        self.state = SearchOracle(plan, searches / project, deadline=deadline)
        super().__init__(self.state, directory=str(searches), project_name=project)
        # Keras Tuner has put a client of the chief's oracle in the place of a worker's own.
        self._is_workers = self.oracle is not self.state
        if not self._is_workers and self.state.path.is_file():
            self.state.reload()

    def run(self) -> None:
        """Runs trials until the oracle has no more, or until the deadline.

        Raises:
            InputError: if the data cannot be trained on.
        """
        try:
            self.search()
        except FatalError as error:
            if not isinstance(error.__cause__, _OutOfTime):
                raise error.__cause__ or error from None
            if self._is_workers:  # the chief waits until all have heard that there is no next
                self.oracle.create_trial(self.tuner_id)

    def run_trial(self, trial: Trial) -> dict[str, float]:
        try:
            return self._run_trial(trial)
        except Exception as error:
            # Keras Tuner would go on after anything else, with the next trial.
            raise FatalError from error

    def _run_trial(self, trial: Trial) -> dict[str, float]:
        values = trial.hyperparameters.values
        own = self.state.checkpoint_of(trial.trial_id)
        own.parent.mkdir(exist_ok=True)
        if "tuner/trial_id" in values:
            past = self.state.checkpoint_of(values["tuner/trial_id"])
            with contextlib.suppress(FileNotFoundError):  # moved before a kill, or diverged at once
                os.replace(past, own)
        before = self.state.num_epochs - values["tuner/initial_epoch"]

        def on_epoch(done: int) -> None:
            if self._on_progress:
                self._on_progress(self.state, before + done)
            last = done == values["tuner/epochs"]
            if not last and self.oracle.get_trial(trial.trial_id).status == "STOPPED":
                raise _OutOfTime

        return self._runner.run(
            recipe_of(self._plan.recipe, values),
            own,
            stop_after=values["tuner/epochs"],
            on_epoch=on_epoch,
        )

    def pre_create_trial(self) -> None:
        if not self._busy:  # Keras Tuner asks again at once
            time.sleep(_IDLE_SECONDS)
        self._busy = False

    def on_trial_begin(self, trial: Trial) -> None:
        self._busy = True

    def save(self) -> None:
        if not self._is_workers:
            self.state.save()
