import os
import zipfile
from pathlib import Path

import keras
import numpy as np

from kerasmlp.utils import strict_json
from kerasmlp.utils.checks import InputError, is_number, reject_file
from kerasmlp.utils.files import atomic_path, full_disk_names, write_text
from kerasmlp.utils.schema import (
    check_object,
    dict_of,
    fields,
    flag,
    kind,
    list_of,
    optional,
    whole,
)
from kerasmlp.utils.strict_json import spelled, unspelled
from kerasmlp.utils.tables import csv_of


class Checkpoint(keras.callbacks.Callback):
    """Saves all that the rest of a run depends on after every epoch, in one file.

    Weights, moving statistics, the state of random generators, the optimiser,
    early stopping and the history: a run that goes on from it ends with the
    same bits as one that was never interrupted. Keras' `BackupAndRestore`
    keeps neither generators nor early stopping.

    Put it after the callbacks whose state it saves.

    Args:
        path: Of the checkpoint, an `.npz` without pickles.
        early_stopping: The `EarlyStopping` whose state is saved too, or None.
        history_path: CSV to which the numbers of each epoch are added, for
            those who watch the training, or None.

    Attributes:
        history: List of one dict per epoch so far.
        stopped: Whether early stopping has ended the run.

    Example:

    >>> import tempfile
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> checkpoint = Checkpoint(tempfile.mkdtemp() + "/checkpoint.npz")
    >>> x, y = np.ones((8, 2), "float32"), np.ones((8, 1), "float32")
    >>> _ = model.fit(x, y, epochs=2, verbose=0, callbacks=[checkpoint])
    >>> checkpoint.restore(model)
    2
    """

    def __init__(
        self,
        path: str | os.PathLike,
        early_stopping: keras.callbacks.EarlyStopping | None = None,
        *,
        history_path: str | os.PathLike | None = None,
    ):
        super().__init__()
        self.path = Path(path)
        self.early_stopping = early_stopping
        self.history_path = history_path
        self.history: list[dict] = []
        self.stopped = False
        self._stopper_state: dict | None = None

    def restore(self, model: keras.Model) -> int:
        """Loads the checkpoint into a compiled model; returns the number of epochs done."""
        if not self.path.exists():
            return 0
        if not model.optimizer.built:  # a LossScaleOptimizer would get its variables twice
            model.optimizer.build(model.trainable_variables)
        variables = state_of(model)
        try:
            with np.load(self.path, allow_pickle=False) as saved:
                entries = saved.zip.infolist()
                if sum(entry.file_size for entry in entries) > self.path.stat().st_size:
                    raise ValueError("arrays that are larger than the file")
                text = unspelled(strict_json.loads(str(saved["meta"])))
                meta = check_object(self.path, text, _META, "a checkpoint")
                values = [saved[f"variable_{i}"] for i in range(len(variables))]
                best = [saved[f"best_{i}"] for i in range(meta["num_best"])]
                if any(v.shape != w.shape for v, w in zip(values, variables, strict=True)):
                    raise ValueError("weights of other shapes")
        except InputError:
            raise
        except (OSError, ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile) as error:
            reject_file(self.path, "must be a checkpoint of this run", f"{error}")
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        self.history = meta["history"]
        self.stopped = meta["stopped"]
        self._stopper_state = {**meta["stopper"], "best_weights": best or None}
        self._restore_stopper()
        return len(self.history)

    def on_train_begin(self, logs=None):
        # EarlyStopping forgets everything when training begins.
        self._restore_stopper()
        self._watched = False

    def _restore_stopper(self):
        if self.early_stopping is not None and self._stopper_state is not None:
            for name in (*_STOPPER_STATE, "best_weights"):
                if name in self._stopper_state:
                    setattr(self.early_stopping, name, self._stopper_state[name])

    def on_epoch_end(self, epoch, logs=None):
        self.history.append({"epoch": epoch, **{k: float(v) for k, v in (logs or {}).items()}})
        self.stopped = bool(self.model.stop_training)
        stopper, best = {}, []
        if self.early_stopping is not None:
            stopper = {k: _plain(getattr(self.early_stopping, k)) for k in _STOPPER_STATE}
            best = self.early_stopping.best_weights or []
        meta = {
            "history": self.history,
            "stopped": self.stopped,
            "stopper": stopper,
            "num_best": len(best),
        }
        arrays = {f"variable_{i}": v.numpy() for i, v in enumerate(state_of(self.model))}
        arrays |= {f"best_{i}": np.asarray(w) for i, w in enumerate(best)}
        with atomic_path(self.path) as temporary, open(temporary, "wb") as file:
            np.savez(file, meta=np.array(strict_json.dumps(spelled(meta))), **arrays)
        if self.history_path is not None:
            self._write_history()

    def _write_history(self):
        if self._watched:
            _, line = csv_of(self.history[-1:]).splitlines(keepends=True)
            path = self.history_path
            with full_disk_names(path), open(path, "a", encoding="utf-8") as file:
                file.write(line)
        else:  # what an earlier process left may end in the middle of a line
            write_text(self.history_path, csv_of(self.history))
        self._watched = True


_STOPPER_STATE = ("wait", "best", "best_epoch", "stopped_epoch")
_NUMBER = kind("a number", is_number)
_META = {
    "history": list_of(dict_of(_NUMBER)),
    "stopped": flag,
    "stopper": fields({name: optional(_NUMBER) for name in _STOPPER_STATE}),
    "num_best": whole(0, 100_000),
}


def state_of(model: keras.Model) -> list:
    """All variables of a model, random generators included, then those of its optimiser."""
    seeds = [v for v in model.variables if is_generator(v)]
    return [*model.weights, *seeds, *model.optimizer.variables]


def is_generator(variable: keras.Variable) -> bool:
    """Whether it is the state of a random generator."""
    return variable.path.endswith("seed_generator_state")


def _plain(value):
    return value if value is None else float(value)
