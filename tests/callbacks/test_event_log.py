"""What epochs log reaches TensorBoard's files, and a user's callbacks, also over a break."""

import csv

import keras
import numpy as np
import pytest
from data_sets import make_store

from kerasmlp import choose_target, train
from kerasmlp.callbacks.event_log import event_logs
from kerasmlp.models.presets import Recipe

needs_tensorboard = pytest.mark.skipif(not event_logs("x"), reason="TensorBoard is not installed")


class Told(keras.callbacks.Callback):
    def __init__(self, stop_after=None):
        super().__init__()
        self.logs, self.stop_after = [], stop_after

    def on_epoch_end(self, epoch, logs=None):
        self.logs.append((epoch, dict(logs)))

    def on_epoch_begin(self, epoch, logs=None):
        if self.stop_after is not None and epoch > self.stop_after:
            raise KeyboardInterrupt


def history(run):
    with open(run / "history.csv", encoding="utf-8") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def test_callbacks_are_told_what_the_history_holds(tmp_path):
    store, recipe = make_store(rows=200), Recipe(epochs=3)
    target, plain, told = choose_target(store, "gender"), tmp_path / "plain", Told()
    how = {"pictures": False, "seed": 4}
    train(store, target, recipe, plain, **how)
    train(store, target, recipe, tmp_path / "told", callbacks=[told], **how)
    assert (plain / "model.keras").exists() and [epoch for epoch, _ in told.logs] == [0, 1, 2]
    for row, (epoch, logs) in zip(history(tmp_path / "told"), told.logs, strict=True):
        expected = {k: pytest.approx(v, rel=1e-5) for k, v in logs.items()}
        assert expected | {"epoch": epoch} == row
        assert "val_accuracy" in logs
    # nothing of the training hangs on them
    assert history(plain) == history(tmp_path / "told")


@needs_tensorboard
def test_events_are_the_history_also_of_a_run_that_was_stopped(tmp_path):
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    store, recipe, run = make_store(rows=200), Recipe(epochs=4), tmp_path / "run"
    target = choose_target(store, "gender")
    with pytest.raises(KeyboardInterrupt):
        train(store, target, recipe, run, callbacks=[Told(stop_after=1)], pictures=False)
    train(store, target, recipe, run, resume=True, pictures=False)
    events = EventMultiplexer({"run": str(run / "tensorboard")}).Reload()
    for name in ("loss", "val_loss"):
        found = [
            (e.step, float(np.squeeze(e.tensor_proto.float_val)))
            for e in events.Tensors("run", name)
        ]
        expected = [row[name] for row in history(run)]
        assert [step for step, _ in found] == [0, 1, 2, 3]
        assert [value for _, value in found] == pytest.approx(expected, rel=1e-5)
    train(store, target, recipe, run, force=True, pictures=False)  # the folder is the run's own
