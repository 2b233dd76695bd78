import math

import keras

from kerasmlp.utils.checks import DivergedError


class Divergence(keras.callbacks.Callback):
    """Ends a training whose answers on the rows kept back are no longer numbers.

    Put it before the callbacks that keep what they see: a checkpoint, early stopping. The loss
    that Keras logs says less: in half precision a single batch of it may overflow, whose step is
    left out.

    Args:
        learning_rate: To be named.

    Raises:
        DivergedError: when an epoch ends with a `val_` number that is not finite.

    Example:

    >>> Divergence(0.5).on_epoch_end(0, {"loss": float("inf"), "val_loss": 1.0})
    >>> Divergence(0.5).on_epoch_end(0, {"loss": 1.0, "val_loss": float("nan")})
    Traceback (most recent call last):
        ...
    kerasmlp.utils.checks.DivergedError: `learning_rate` must be lower: the weights diverged. \
Received: learning_rate=0.5
    """

    def __init__(self, learning_rate: float):
        super().__init__()
        self.learning_rate = learning_rate

    def on_epoch_end(self, epoch, logs=None):
        measured = [value for name, value in logs.items() if name.startswith("val_")]
        if not all(map(math.isfinite, measured)):
            raise DivergedError(self.learning_rate)
