"""Trains many small Keras models side by side, as one program of Keras' JAX backend.

A model of some hundred weights keeps no core busy: most of a step is
overhead. Here `model.stateless_call` and `optimizer.stateless_apply` run
under `jax.vmap` over models of one architecture that differ in weights, rows
and penalty, and a whole training is one `jax.lax.scan`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import keras
import numpy as np

from kerasmlp.layers.masks import dropout

Values = tuple[list[np.ndarray], list[np.ndarray]]
"""Trainable and non-trainable values of models, each with a leading model axis."""


class HashDropout(keras.layers.Layer):
    """`keras.layers.Dropout` for training, with the masks of `kerasmlp.layers.masks`.

    JAX' generator took nine tenths of a step of a model of this size.
    """

    def __init__(self, rate: float, seed: int):
        super().__init__()
        self.rate = rate
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs, training=False):
        return dropout(inputs, self.rate, self.seed_generator) if training else inputs


def values_of(models: list[keras.Model]) -> Values:
    """Stacks the values of models of one architecture."""

    def stack(variables):
        columns = zip(*(variables(model) for model in models), strict=True)
        return [np.stack([keras.ops.convert_to_numpy(v) for v in column]) for column in columns]

    return stack(lambda m: m.trainable_variables), stack(lambda m: m.non_trainable_variables)


def take(values: Values, models: list[int]) -> Values:
    """The values of some of the models, in this order, with repetitions if you like."""
    trainable, other = values
    return [v[models] for v in trainable], [v[models] for v in other]


def put(values: Values, index: int, model: keras.Model) -> None:
    """Gives the model the values of one of the stacked models."""
    trainable, other = values
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    for variable, stacked in zip(variables, [*trainable, *other], strict=True):
        variable.assign(stacked[index])


def shuffled_batches(num_rows: int, epochs: int, batch_size: int, seed: int) -> np.ndarray:
    """Row numbers `(steps, rows)` of batches of equal size, `batch_size` at most.

    Rows that do not divide evenly, fewer than an epoch has batches, sit the epoch out.
    """
    steps = -(-num_rows // batch_size)
    rows = num_rows // steps
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(num_rows)[: steps * rows] for _ in range(epochs)]
    return np.stack(orders).reshape(epochs * steps, rows).astype("int32")


def train_side_by_side(
    model: keras.Model,
    start: Values,
    x: np.ndarray,
    y: np.ndarray,
    l2: np.ndarray,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> Values:
    """Minimises squared error plus `l2` times the squared kernels by Adam.

    The learning rate falls to 0 on a half cosine. All models see their rows
    in the same order of positions.

    Args:
        model: The architecture; it stays as it is.
        start: Initial values of the models.
        x: `(models, rows, features)`, float32.
        y: `(models, rows, 1)`, float32.
        l2: `(models,)`, float32.

    Returns:
        The values after the last step.
    """
    batches = shuffled_batches(x.shape[1], epochs, batch_size, seed)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, len(batches))
    optimizer = keras.optimizers.Adam(schedule)
    optimizer.build(model.trainable_variables)
    is_kernel = [v.path.endswith("kernel") for v in model.trainable_variables]

    def loss(trainable, other, x, y, l2):
        outputs, other = model.stateless_call(trainable, other, x, training=True)
        squares = sum(jnp.sum(w**2) for w, k in zip(trainable, is_kernel, strict=True) if k)
        return jnp.mean((outputs - y) ** 2) + l2 * squares, other

    def step(trainable, other, state, x, y, l2):
        gradients, other = jax.grad(loss, has_aux=True)(trainable, other, x, y, l2)
        trainable, state = optimizer.stateless_apply(state, gradients, trainable)
        return trainable, other, state

    @jax.jit
    def train(carry, x, y, l2, batches):
        def body(carry, rows):
            return jax.vmap(step)(*carry, x[:, rows], y[:, rows], l2), None

        return jax.lax.scan(body, carry, batches)[0]

    state = [np.stack([keras.ops.convert_to_numpy(v)] * len(x)) for v in optimizer.variables]
    trainable, other, _ = train((*start, state), x, y, l2, batches)
    return [np.asarray(v) for v in trainable], [np.asarray(v) for v in other]
