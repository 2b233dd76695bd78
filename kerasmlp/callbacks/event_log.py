import importlib.util
import os
import re

import keras


class EventLog(keras.callbacks.Callback):
    """Writes what every epoch logs for TensorBoard, by its own writer; no TensorFlow is needed.

    Args:
        path: Folder of the event files; epochs that go on after a break are added to it.

    Example:

    >>> import tempfile
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse", jit_compile=False)
    >>> x = keras.ops.ones((4, 2))
    >>> with tempfile.TemporaryDirectory() as folder:  # where TensorBoard is installed
    ...     _ = model.fit(x, x[:, :1], verbose=0, callbacks=event_logs(folder))
    """

    def __init__(self, path: str | os.PathLike):
        super().__init__()
        self.path = path
        self._writer = None

    def on_epoch_end(self, epoch, logs=None):
        if self._writer is None:
            from tensorboard.summary import Writer

            self._writer = Writer(os.fspath(self.path))
        for name, value in (logs or {}).items():
            self._writer.add_scalar(name, float(value), step=epoch)
        self._writer.flush()

    def on_train_end(self, logs=None):
        self.close()

    def close(self) -> None:
        """Ends the file, also of a training that was interrupted; an epoch begins a new one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def event_logs(path: str | os.PathLike) -> list[EventLog]:
    """An `EventLog` where TensorBoard is installed and imports nothing that is not there yet.

    Where TensorFlow is installed TensorBoard loads it, which a training by JAX does without.
    It writes to no folder whose name is no UTF-8.

    Args:
        path: Folder of the event files.
    """
    there = [importlib.util.find_spec(name) is not None for name in ("tensorboard", "tensorflow")]
    loaded = keras.backend.backend() == "tensorflow" or not there[1]
    named = not re.search("[\ud800-\udfff]", os.fspath(path))
    return [EventLog(path)] if there[0] and loaded and named else []
