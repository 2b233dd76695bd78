"""In which precision a network computes. TensorFlow is not needed to name them."""

import contextlib
from collections.abc import Iterator

from kerasmlp.utils.backends import on_gpu
from kerasmlp.utils.checks import check_choice

PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")


def default_policy() -> str:
    """`mixed_float16` where there is a GPU, else `float32`."""
    return "mixed_float16" if on_gpu() else "float32"


@contextlib.contextmanager
def computing_in(precision: str) -> Iterator[None]:
    """What is built and compiled in the block has this Keras dtype policy.

    Weights are float32 under each of them.

    Args:
        precision: Of `PRECISIONS`.

    Raises:
        InputError: if it is another.

    Example:

    >>> import keras
    >>> with computing_in("mixed_bfloat16"):
    ...     layer = keras.layers.Dense(2)
    >>> layer.compute_dtype, layer.variable_dtype, keras.layers.Dense(2).compute_dtype
    ('bfloat16', 'float32', 'float32')
    """
    import keras

    check_choice("precision", precision, PRECISIONS)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
