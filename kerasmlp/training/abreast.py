"""Trainings of one shape in one program, each to the checkpoint that it would have alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import keras
import numpy as np

from kerasmlp.callbacks.checkpoint import Checkpoint
from kerasmlp.callbacks.event_log import event_logs, is_generator, state_of
from kerasmlp.runs.run_folder import EVENTS, RunFolder
from kerasmlp.training.embedding_training import EmbeddingTraining
from kerasmlp.training.fit import drawn_abreast, watchers
from kerasmlp.utils.checks import DivergedError


def train_abreast(prepared: Iterable[tuple[Callable[[], EmbeddingTraining], RunFolder]]) -> None:
    """Takes unfinished runs to the checkpoints of their last epochs, from which `train` ends them.

    The networks share no weight, and each learns what it would alone, but for the rounding of
    products that are computed at once. Runs that were killed go on with those that have come as
    far; one that is alone at its epoch is left as it is. What diverges is left at the epoch
    before, and in half precision all are.

    Args:
        prepared: What makes the training of each run, of one network, workbench and number of
            steps for all; and its folder.

    Raises:
        InputError: if a training cannot be made, or its folder not used.
    """
    with ExitStack() as stack:
        lanes = []
        for make, run in prepared:
            training = make()
            how = {"resume": True, "force": False, "files": training.files}
            stack.enter_context(run.working(training.config, **how))
            if not run.done:
                lanes.append(_Lane.of(training, run))
        lanes = sorted((lane for lane in lanes if not lane.ended), key=_alike)
        for (done, _), group in groupby(lanes, key=_alike):
            if len(together := list(group)) > 1:
                _train(together, done)


@dataclass
class _Lane:
    """One of the trainings.

    Attributes:
        training: That it is, whose model all lanes have in turn.
        callbacks: Of its epochs; the last one keeps them.
        drawn: As of `EmbeddingTraining`.
        state: Of model and optimiser, after the epochs that are done.
        ended: Whether there is no epoch left for it.
    """

    training: EmbeddingTraining
    callbacks: keras.callbacks.CallbackList
    checkpoint: Checkpoint
    drawn: Callable[[int], Callable[[range], Any]]
    state: list[np.ndarray]
    ended: bool = field(default=False)

    @classmethod
    def of(cls, training: EmbeddingTraining, run: RunFolder) -> _Lane:
        model = training.model
        course = training.course(model)
        watching = watchers(course)
        stopper = watching[1] if course.patience else None
        path, history = run / "checkpoint.npz", run / "history.csv"
        checkpoint = Checkpoint(path, stopper, history_path=history)
        done = checkpoint.restore(model)
        callbacks = keras.callbacks.CallbackList(
            [*course.callbacks, *event_logs(run / EVENTS), *watching, checkpoint], model=model
        )
        state = [np.array(v) for v in state_of(model)]
        ended = checkpoint.stopped or done >= course.epochs
        return cls(training, callbacks, checkpoint, training.drawn(), state, ended)

    def end_epoch(self, epoch: int, loss: float) -> None:
        """Has the model, in the state of this lane, measured and kept."""
        model = self.training.model
        model.stop_training = False
        try:
            self.callbacks.on_epoch_end(epoch, {"loss": loss})
        except DivergedError:
            self.ended = True
        self.ended |= model.stop_training


def _alike(lane: _Lane) -> tuple[int, int]:
    """Of lanes that can go on together: epochs done, and the model of their shape."""
    return len(lane.checkpoint.history), id(lane.training.model)


def _train(lanes: Sequence[_Lane], first_epoch: int) -> None:
    first, number = lanes[0].training, len(lanes)
    joint = first.joint_model(number)
    pairs = _counterparts(joint, first.model, number)
    _join(pairs, lanes)
    for lane in lanes:
        lane.callbacks.on_train_begin()
    batches = drawn_abreast([lane.drawn(number) for lane in lanes])
    epochs = range(first_epoch, first.recipe.epochs)
    joint.fit(
        batches(epochs),
        epochs=epochs.stop,
        initial_epoch=epochs.start,
        steps_per_epoch=first.chunks_of_epoch(number),
        shuffle=False,
        verbose=0,
        callbacks=[_EachLane(pairs, lanes)],
    )


class _EachLane(keras.callbacks.Callback):
    """Ends every epoch for each lane that has not ended, as if it had been alone."""

    def __init__(self, pairs: Sequence[list], lanes: Sequence[_Lane]):
        super().__init__()
        self.pairs, self.lanes = pairs, lanes

    def on_epoch_end(self, epoch, logs=None):
        losses = np.asarray(logs["each_loss"])
        if hasattr(self.model.optimizer, "inner_optimizer") and not np.isfinite(losses).all():
            # In half precision what is not finite in one holds up all: each goes on alone, from
            # the epoch before.
            self.model.stop_training = True
            return
        state = [[np.asarray(each) for each in variables] for variables in self.pairs]  # once
        for number, lane in enumerate(self.lanes):
            if not lane.ended:
                _take(state, self.lanes, number)
                lane.end_epoch(epoch, float(losses[number]))
        self.model.stop_training = all(lane.ended for lane in self.lanes)


def _counterparts(joint: keras.Model, model: keras.Model, number: int) -> list[list]:
    """For each variable of a single network that of the joint one, of generators one for each."""
    left = iter(state_of(joint))
    return [
        [next(left) for _ in range(number if is_generator(variable) else 1)]
        for variable in state_of(model)
    ]


def _join(pairs: Sequence[list], lanes: Sequence[_Lane]) -> None:
    """Puts the states of single networks side by side into those of several."""
    states = zip(*(lane.state for lane in lanes), strict=True)
    for variables, values in zip(pairs, states, strict=True):
        if len(variables) > 1:
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        elif variables[0].shape != values[0].shape:
            variables[0].assign(np.stack(values).reshape(variables[0].shape))
        elif values[0].ndim == 0:  # steps that are done; columns are standardised before
            variables[0].assign(values[0])


def _take(state: Sequence[list[np.ndarray]], lanes: Sequence[_Lane], number: int) -> None:
    """Puts the state of one of several networks into the model of one."""
    lane = lanes[number]
    for variable, own, shared in zip(state_of(lane.training.model), lane.state, state, strict=True):
        value = shared[number % len(shared)]
        if value.shape != own.shape:
            value = value.reshape(len(lanes), *own.shape)[number]
        elif own.ndim and len(shared) == 1:
            value = own
        variable.assign(value)
