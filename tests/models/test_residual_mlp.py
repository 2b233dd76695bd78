import subprocess

import keras
import numpy as np
import pytest
from forked import fresh_python

from kerasmlp import ResidualMLP, load_model
from kerasmlp.models.presets import PRESETS
from kerasmlp.utils.tensorflow_import import require_backend, require_tensorflow

X = np.random.default_rng(0).normal(size=(32, 512)).astype("float32")
X /= np.linalg.norm(X, axis=1, keepdims=True)


def count(weights):
    return sum(int(np.prod(w.shape)) for w in weights)


TRAINABLE = {
    ("paper-gender", 2): 877_602,
    ("paper-age", 101): 837_733,
    ("paper-age", 8): 825_736,
    ("age", 101): 685_157,
    ("age-groups", 101): 685_157,
    ("gender", 2): 659_714,
    ("number", 2): 659_714,
}


@pytest.mark.parametrize(("preset", "num_classes"), TRAINABLE)
def test_parameter_counts(preset, num_classes):
    model = ResidualMLP(num_classes=num_classes, **PRESETS[preset].network(512))
    assert count(model.trainable_weights) == TRAINABLE[preset, num_classes]


def test_every_preset_is_in_the_table():
    assert {name for name, _ in TRAINABLE} == set(PRESETS)


def test_moving_statistics_are_what_count_params_adds():
    model = ResidualMLP(num_classes=101, **PRESETS["paper-age"].network(512))
    assert model.count_params() == 841_317


def numpy_forward(model, x):
    """The formulas of the paper in NumPy, on the model's own weights."""

    def norm(layer, x):
        gamma, beta, mean, var = (keras.ops.convert_to_numpy(w) for w in layer.norm.weights)
        return gamma * (x - mean) / np.sqrt(var + layer.epsilon) + beta

    def dense(layer, x):
        kernel, bias = (keras.ops.convert_to_numpy(w).astype(np.float64) for w in layer.weights)
        return x @ kernel + bias

    x = x.astype(np.float64)
    for layer in model.layers:
        kind = type(layer).__name__
        if kind == "Rescaling":
            x = x * layer.scale
        elif kind == "ResidualBlock":
            y = norm(layer.ic_0, x) if layer.ic_0 else x
            y = np.maximum(dense(layer.dense_0, y), 0)
            y = norm(layer.ic_1, y) if layer.ic_1 else y
            x = np.maximum(dense(layer.dense_1, y) + (x if layer.use_residual else 0), 0)
        elif kind == "DownsampleBlock":
            x = np.maximum(dense(layer.dense, norm(layer.ic, x) if layer.ic else x), 0)
        elif kind == "ICLayer":
            x = norm(layer, x)
        elif kind == "Dense":
            x = dense(layer, x)
        elif kind == "Activation":
            e = np.exp(x - x.max(axis=1, keepdims=True))
            x = e / e.sum(axis=1, keepdims=True)
        else:
            assert kind == "InputLayer"
    return x


@pytest.mark.parametrize(
    "config",
    [
        PRESETS["paper-gender"].network(512),
        PRESETS["age"].network(512),
        {"num_blocks": 2, "use_ic": False},
        {"num_blocks": 2, "use_residual": False, "use_input_ic": True},
        {"num_blocks": 1, "residuals_per_block": 0},
        {"num_blocks": 0},
    ],
)
def test_forward_pass_agrees_with_numpy(config):
    model = ResidualMLP(num_classes=5, seed=1, **config)
    model(X, training=True)  # moving statistics that are not 0 and 1
    expected = numpy_forward(model, X)
    np.testing.assert_allclose(model.predict(X, verbose=0), expected, atol=1e-5)


def test_regression_head():
    model = ResidualMLP(num_targets=3, width=8, seed=0)
    assert model.output_names == ["outputs"]
    assert model.output_shape == (None, 3)
    outputs = model.predict(np.zeros((2, 8), "float32"), verbose=0)
    np.testing.assert_allclose(outputs, numpy_forward(model, np.zeros((2, 8))), atol=1e-5)


def test_columns_are_standardised_and_projected_in_front():
    how = {"num_targets": 3, "width": 4, "num_blocks": 2, "seed": 0}
    names = [layer.name for layer in ResidualMLP(**how).layers]
    assert [layer.name for layer in ResidualMLP(**how, hidden_width=4).layers] == names
    model = ResidualMLP(**how, hidden_width=32, standardize=True)
    assert [layer.name for layer in model.layers] == [
        names[0], "standardize", "projection", *names[1:]
    ]  # fmt: skip
    assert model.get_layer("projection").kernel.shape == (4, 32)
    assert model.get_layer("residual_0_0").ic_0 is not None  # no longer the first dense layer
    assert model.get_layer("outputs").kernel.shape == (8, 3)
    x = np.float32([[1e6, 2, -3, 4], [3e6, 4, -9, 4]])
    model.get_layer("standardize").adapt(x)
    plain = ResidualMLP(**how, hidden_width=32)
    plain.set_weights(model.get_weights()[2:])
    np.testing.assert_allclose(
        model.predict(x, verbose=0),
        plain.predict(np.float32([[-1, -1, 1, 0], [1, 1, -1, 0]]), verbose=0),
        atol=1e-5,
    )


def test_gradients_reach_every_weight():
    model = ResidualMLP(num_classes=3, width=16, num_blocks=2, use_output_ic=True, seed=0)
    before = [keras.ops.convert_to_numpy(w) for w in model.trainable_weights]
    model.compile(keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 16)).astype("float32")
    model.fit(x, rng.integers(0, 3, 64), epochs=1, batch_size=64, verbose=0)
    for weight, old in zip(model.trainable_weights, before, strict=True):
        assert (keras.ops.convert_to_numpy(weight) != old).any(), weight.path


def test_names_and_dtypes_for_serving():
    model = ResidualMLP(num_classes=4, width=16, dtype="mixed_float16")
    assert model.input.name == "embedding"
    assert model.output_names == ["probabilities"]
    assert keras.backend.standardize_dtype(model.output.dtype) == "float32"
    assert model.get_layer("downsample_0").compute_dtype == "float16"


@pytest.mark.parametrize(("width", "num_blocks"), [(1, 0), (2, 1), (7, 2), (128, 3), (1000, 1)])
def test_any_width(width, num_blocks):
    model = ResidualMLP(num_classes=2, width=width, num_blocks=num_blocks)
    assert model.get_layer("logits").kernel.shape == (width // 2**num_blocks, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "`num_classes` must be given, or else `num_targets`"),
        ({"num_classes": 2, "num_targets": 1}, "only one of them"),
        ({"num_classes": 1}, "`num_classes` must be an integer >= 2"),
        ({"num_targets": 0}, "`num_targets` must be an integer >= 1"),
        ({"num_classes": 2, "width": 4, "num_blocks": 3}, "`num_blocks` must leave a width"),
        ({"num_classes": 2, "dropout_rate": 1}, r"`dropout_rate` must be in \[0, 1\)"),
        ({"num_classes": 2, "residuals_per_block": -1}, "`residuals_per_block` must be"),
        ({"num_classes": 2, "hidden_width": 0}, "`hidden_width` must be an integer >= 1"),
        ({"num_classes": 2, "standardize": 1}, "`standardize` must be True or False"),
        ({"num_classes": 2, "use_output_ic": 1}, "`use_output_ic` must be True or False"),
        ({"num_classes": 2, "input_scale": 0}, "`input_scale` must be a finite number > 0"),
        ({"num_classes": True}, "`num_classes` must be an integer"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ResidualMLP(**arguments)


def test_loads_in_a_fresh_process_with_equal_outputs(tmp_path):
    model = ResidualMLP(num_classes=3, num_blocks=2, seed=5)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", X)
    code = (
        "import sys, numpy as np, kerasmlp; p = sys.argv[1];"
        "m = kerasmlp.load_model(p + '/model.keras');"
        "np.save(p + '/y.npy', m.predict(np.load(p + '/x.npy'), verbose=0))"
    )
    subprocess.run([fresh_python(), "-c", code, str(tmp_path)], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), model.predict(X, verbose=0))


def test_a_model_that_was_fitted_loads_without_its_optimizer(tmp_path):
    model = ResidualMLP(num_classes=3, num_blocks=1, seed=5)
    model.compile("adamw", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(X, np.arange(len(X)) % 3, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))


def test_a_damaged_model_is_named(tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(b"PK\x03\x04 not a model")
    with pytest.raises(ValueError, match="must be a saved model"):
        load_model(path)
    with pytest.raises(ValueError, match=r"missing\.keras` must be a saved model.*no such file"):
        load_model(tmp_path / "missing.keras")


def test_heads_take_integers_of_numpy_and_names():
    model = ResidualMLP(heads={"a": np.int64(5), "b": 3}, width=8)
    assert {name: output.shape[1] for name, output in model.output.items()} == {"a": 5, "b": 3}
    assert ResidualMLP(heads=np.int64(5), width=8).output_shape == (None, 5)
    with pytest.raises(ValueError, match="must be two or more, by their names"):
        ResidualMLP(heads={"a": 2, 1: 3}, width=8)


def test_an_input_ic_stands_before_the_head_where_it_is_the_first_dense_layer():
    names = [
        [layer.name for layer in ResidualMLP(num_classes=2, width=8, num_blocks=0, **how).layers]
        for how in ({}, {"use_input_ic": True})
    ]
    assert names[1] == [names[0][0], "output_ic", *names[0][1:]]


def test_a_training_under_another_backend_is_refused(monkeypatch):
    """It would end in an error of Keras, somewhere."""
    require_backend()
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(ValueError, match="`KERAS_BACKEND` must be tensorflow or jax to train"):
        require_backend()
    with pytest.raises(ValueError, match="`KERAS_BACKEND` must be tensorflow to export"):
        require_tensorflow()
