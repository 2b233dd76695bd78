"""Products of operands rounded to bfloat16, summed in float32, where the processor has units."""

import functools
import re
from pathlib import Path

import keras
from keras import ops

_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")  # of x86 and of ARM
_CPUINFO = Path("/proc/cpuinfo")


@functools.cache
def cpu_multiplies_bfloat16(cpuinfo: Path = _CPUINFO) -> bool:
    """Whether this processor multiplies bfloat16 by itself, as Linux says.

    Args:
        cpuinfo: Where it says so.
    """
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    lines = re.findall(r"^(?:flags|Features)\s*:(.*)$", text, re.M)
    return bool(lines) and all(set(line.split()) & set(_FLAGS) for line in lines)


def bfloat16_product(x, kernel):
    """`x @ kernel` of float32 tensors that are rounded to bfloat16; float32, in compiled code.

    A bfloat16 keeps 8 bits of a number: the relative error of each product is up to 2^-8, and
    sums of hundreds of them are off by far less.
    """
    x, kernel = ops.cast(x, "bfloat16"), ops.cast(kernel, "bfloat16")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.matmul(x, kernel, output_type=tf.float32)
    if keras.backend.backend() == "jax":
        import jax.numpy as jnp

        return jnp.matmul(x, kernel, preferred_element_type=jnp.float32)
    return ops.cast(ops.matmul(x, kernel), "float32")
