"""A model that is trained by chunks of batches, under the backend that Keras runs on."""

from collections.abc import Callable
from typing import Any

import keras

from kerasmlp.layers.members import members_of


@keras.saving.register_keras_serializable("kerasmlp")
class ChunkModel(keras.Model):
    """A functional model whose training step takes a chunk of `training_chunks`.

    It runs Keras' own step on each of its batches, in a loop inside of the compiled
    code: with `steps_per_execution` alone Keras comes back to Python between
    batches, which costs a small network a fifth of its time.
    """

    def train_step(self, *given):
        under = _under_jax if keras.backend.backend() == "jax" else _under_tensorflow
        return under(self, super().train_step, *given)

    def build_losses(self):
        """Under JAX, where Keras would build them of a chunk, which it takes for a batch."""
        import jax

        def losses(y):
            with keras.StatelessScope():
                self.compute_metrics(None, y, y)
                return self.compute_loss(y=y, y_pred=y)

        jax.eval_shape(losses, jax.ShapeDtypeStruct((1, *self.output.shape[1:]), "float32"))

    def get_metrics_result(self):
        """Of several members the loss is a sum, and is told as their mean."""
        members = members_of(self)
        results = super().get_metrics_result()
        return {k: v / members if k == "loss" else v for k, v in results.items()}


def _under_tensorflow(model: ChunkModel, step: Callable, chunk: tuple) -> dict[str, Any]:
    import tensorflow as tf

    x, y, count = chunk

    def run(i):
        step((x[i], y[i]))
        return i + 1

    tf.while_loop(lambda i: i < count, run, [0])
    return model.get_metrics_result()


def _under_jax(model: ChunkModel, step: Callable, state: tuple, chunk: tuple) -> tuple[dict, tuple]:
    import jax

    x, y, count = chunk

    def run(i, state):
        return step(state, (x[i], y[i]))[1]

    state = jax.lax.fori_loop(0, count, run, state)
    metrics = zip(model.metrics_variables, state[-1], strict=True)
    with keras.StatelessScope(state_mapping=list(metrics)):
        return model.get_metrics_result(), state
