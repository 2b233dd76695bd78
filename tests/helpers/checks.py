"""One helper that tests what every layer owes its users."""

import inspect
import json
import tempfile

import keras
import numpy as np


def check_layer(
    layer_class,
    config: dict,
    input_shape: tuple[int, ...],
    *,
    parameters: int,
    half_dtype: str = "float16",
):
    """Config and JSON round trips, shapes, fit, `.keras` round trip, mixed precision, modes."""
    layer = layer_class(**config)
    restored = layer_class.from_config(json.loads(json.dumps(layer.get_config())))
    assert restored.get_config() == layer.get_config()

    inputs = keras.Input(input_shape[1:])
    outputs = layer(inputs)
    assert layer.count_params() == parameters
    assert tuple(outputs.shape) == tuple(layer.compute_output_shape((None, *input_shape[1:])))
    x = np.random.default_rng(0).normal(size=input_shape).astype("float32")
    assert tuple(layer(x).shape) == tuple(layer.compute_output_shape(input_shape))

    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Flatten()(outputs)))
    model.compile("sgd", "mse")
    model.fit(x, x[:, :1].reshape(len(x), -1)[:, :1], epochs=1, verbose=0)

    before = model.predict(x, verbose=0)
    np.testing.assert_array_equal(before, model.predict(x, verbose=0))
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/model.keras")
        loaded = keras.saving.load_model(f"{folder}/model.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), before, rtol=1e-5, atol=1e-6)

    half = layer_class(**config, dtype="mixed_float16")
    known = inspect.signature(layer.call).parameters
    for mode in ({}, *({name: True} for name in ("training", "sampling") if name in known)):
        assert keras.backend.standardize_dtype(half(x, **mode).dtype) == half_dtype
        assert tuple(layer(x, **mode).shape) == tuple(layer.compute_output_shape(input_shape))
    assert {w.dtype for w in half.weights} <= {"float32"}
    # Every sublayer follows the policy of its parent.
    for sublayer in half._flatten_layers():
        assert sublayer.dtype_policy.name == "mixed_float16"
    return layer
