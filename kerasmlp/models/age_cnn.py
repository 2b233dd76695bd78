from collections.abc import Mapping, Sequence
from typing import Any

import keras

from kerasmlp.layers.initializers import spread_seed
from kerasmlp.models.layer_specification import check_specification
from kerasmlp.models.presets import MAX_PARAMETERS
from kerasmlp.utils.checks import check_int, check_positive, check_seed, reject

_L2 = {"regularizer": "l2"}
_MAX_POOL = {"kind": "pool", "mode": "max"}


def _conv(filters: int, kernel: int = 3) -> dict[str, Any]:
    return {"kind": "conv", "filters": filters, "kernel": kernel, "batch_norm": True, **_L2}


def _dense(units: int, activation: str = "relu") -> dict[str, Any]:
    return {"kind": "dense", "units": units, "activation": activation, **_L2}


PAPER = (
    _conv(32), _conv(32), _MAX_POOL,
    _conv(64), _conv(64), _MAX_POOL,
    _conv(128), _conv(128), _conv(128), _MAX_POOL,
    _conv(256), _conv(512, kernel=1), _MAX_POOL,
    {"kind": "flatten"}, _dense(256), _dense(128), _dense(64), _dense(1, "linear"),
)  # fmt: skip
"""The final model of the paper."""


def AgeCNN(
    specification: Sequence[Mapping[str, Any]] = PAPER,
    *,
    input_shape: tuple[int, int, int] = (91, 91, 1),
    regularization: float = 1e-4,
    seed: int | None = None,
    dtype: str | keras.DTypePolicy = "float32",
    name: str = "age_cnn",
) -> keras.Model:
    """Builds a CNN that tells an age from the pixels of a face, out of a list of layers.

    A layer is a mapping with its `kind` and:

    - `conv`: `filters`, `kernel`, `stride` (1), `padding` (`"valid"`, or `"same"`),
      `activation` (`"relu"`), `initializer` (`"xavier"`, or `"gaussian"`),
      `regularizer` (None, `"l1"`, `"l2"`), `batch_norm` (False; before the activation)
    - `batch_norm`: nothing
    - `pool`: `mode` (`"max"`, `"avg"`), `size` (2), `stride` (`size`)
    - `dropout`: `rate`
    - `flatten`: nothing
    - `dense`: `units`, `activation` (`"linear"`), `initializer`, `regularizer`

    The model divides pixels by 255 itself: it takes them as they are in a file.

    Args:
        specification: The layers; the paper's model where none are given. The last
            is a dense layer of 1 unit.
        input_shape: Height, width and channels.
        regularization: Factor of all L1 and L2 penalties on kernels.
        seed: Integer or None, of initial weights and dropout.
        dtype: Policy of the layers, such as `"mixed_bfloat16"`; the answer is float32.
        name: Of the model.

    Returns:
        A `keras.Model` with input `image` of shape `(batch, *input_shape)`, 0 to 255,
        and output `(batch, 1)`, years.

    Raises:
        InputError: naming the layer, if one is bad or does not fit those before it.

    Example:

    >>> AgeCNN().count_params()
    1431905
    >>> tiny = [{"kind": "flatten"}, {"kind": "dense", "units": 1}]
    >>> AgeCNN(tiny, input_shape=(8, 8, 1)).count_params()
    65

    Reference: Dalva and Altındış, "Age Estimation" (CS 559, Bilkent University),
    sections III and IV, appendix.
    """
    layers = check_specification(specification)
    if len(input_shape) != 3:
        reject("input_shape", "must be height, width and channels", input_shape)
    for side in input_shape:
        check_int("input_shape", side, minimum=1)
    check_positive("regularization", regularization, zero=True)
    seeds = spread_seed(check_seed(seed), len(layers))
    inputs = keras.Input(tuple(input_shape), name="image")
    x = keras.layers.Rescaling(1 / 255, dtype=dtype, name="scaled")(inputs)
    for number, (layer, layer_seed) in enumerate(zip(layers, seeds, strict=True)):
        _check_place(f"specification[{number}]", layer, x.shape)
        policy = "float32" if number == len(layers) - 1 else dtype
        for part in _parts(layer, number, regularization, layer_seed, policy):
            x = part(x)
    return keras.Model(inputs, x, name=name)


def _parts(
    layer: dict[str, Any],
    number: int,
    regularization: float,
    seed: int | None,
    dtype: str | keras.DTypePolicy,
) -> list[keras.layers.Layer]:
    """What a layer of the specification is made of."""
    kind = layer["kind"]
    common = {"dtype": dtype, "name": f"{kind}_{number}"}
    if kind == "batch_norm":
        return [keras.layers.BatchNormalization(**common)]
    if kind == "pool":
        pools = {"max": keras.layers.MaxPooling2D, "avg": keras.layers.AveragePooling2D}
        return [pools[layer["mode"]](layer["size"], layer["stride"], **common)]
    if kind == "dropout":
        return [keras.layers.Dropout(layer["rate"], seed=seed, **common)]
    if kind == "flatten":
        return [keras.layers.Flatten(**common)]
    initializers = {"xavier": "GlorotUniform", "gaussian": "RandomNormal"}
    penalties = {"l1": keras.regularizers.L1, "l2": keras.regularizers.L2}
    penalty = penalties.get(layer["regularizer"])
    common |= {
        "kernel_initializer": getattr(keras.initializers, initializers[layer["initializer"]])(
            seed=seed
        ),
        "kernel_regularizer": penalty and penalty(regularization),
    }
    if kind == "dense":
        return [keras.layers.Dense(layer["units"], layer["activation"], **common)]
    parts = [
        keras.layers.Conv2D(
            layer["filters"], layer["kernel"], layer["stride"], layer["padding"], **common
        )
    ]
    if layer["batch_norm"]:
        parts.append(keras.layers.BatchNormalization(dtype=dtype, name=f"norm_{number}"))
    name = f"{layer['activation']}_{number}"
    return [*parts, keras.layers.Activation(layer["activation"], dtype=dtype, name=name)]


def _check_place(name: str, layer: dict[str, Any], shape: tuple[int | None, ...]) -> None:
    kind = layer["kind"]
    flat = len(shape) == 2
    if kind == "dense" and not flat:
        reject(name, "must come after a flatten layer", layer)
    if kind in ("conv", "pool", "flatten") and flat:
        reject(name, "must come before the flatten layer", layer)
    window, outputs = (layer["kernel"], "filters") if kind == "conv" else (1, "units")
    if kind in ("conv", "dense") and window**2 * shape[-1] * layer[outputs] > MAX_PARAMETERS:
        requirement = f"must have at most {MAX_PARAMETERS} weights on {shape[-1]} inputs"
        reject(name, requirement, layer)
    if kind == "pool" or (kind == "conv" and layer["padding"] == "valid"):
        window = layer["size" if kind == "pool" else "kernel"]
        height, width = shape[1:3]
        if window > min(height, width):
            requirement = f"must leave at least 1 of the {height}×{width} pixels that reach it"
            reject(name, requirement, layer)
