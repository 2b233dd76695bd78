import keras
import numpy as np
import pytest
from keras import layers

from kerasmlp import MomentModel, ResidualMLP, predict_moments, predict_samples
from kerasmlp.uncertainty.moment_rules import _relu, softmax_moments

WIDTH = 32
X = np.random.default_rng(0).normal(size=(6, WIDTH)).astype("float32")


def trained(**config):
    """A model whose batch norm has seen data and whose weights share directions, as after fit."""
    model = ResidualMLP(width=WIDTH, num_blocks=2, seed=0, **config)
    rng = np.random.default_rng(1)
    for weight in model.trainable_weights:
        if len(weight.shape) == 2:
            common = rng.normal(size=(weight.shape[0], 1)) @ rng.normal(size=(1, weight.shape[1]))
            weight.assign(
                keras.ops.convert_to_numpy(weight) + 0.1 * common / weight.shape[0] ** 0.5
            )
    if config.get("standardize"):
        model.get_layer("standardize").adapt(3 * X + 1)
    for _ in range(30):
        model(rng.normal(size=(64, WIDTH)).astype("float32"), training=True)
    return model


def compare(model, num_samples=20_000, rows=3):
    """Errors of mean and standard deviation, in Monte-Carlo standard deviations and relative."""
    moments = predict_moments(model, X[:rows])
    samples = predict_samples(model, X[:rows], num_samples=num_samples, seed=1).astype(np.float64)
    deviation = samples.std(axis=0)
    error = abs(moments["mean"] - samples.mean(axis=0)) / deviation
    return error.max(), np.sqrt(moments["variance"]) / deviation


def test_one_layer_is_exact():
    """y = w·Drop(x) + b: mean w·x + b, variance rate / (1 − rate) · Σ (w x)²."""
    inputs = keras.Input((WIDTH,))
    dense = layers.Dense(3)
    model = keras.Model(inputs, dense(layers.Dropout(0.2)(inputs)))
    kernel, bias = (keras.ops.convert_to_numpy(w).astype(np.float64) for w in dense.weights)
    moments = predict_moments(model, X)
    np.testing.assert_allclose(moments["mean"], X @ kernel + bias, atol=1e-5)
    np.testing.assert_allclose(moments["variance"], 0.25 * X**2 @ kernel**2, rtol=1e-4)


def test_two_linear_layers_are_exact():
    """The covariance of the units between them counts."""
    model = keras.Sequential(
        [keras.Input((WIDTH,)), layers.Dropout(0.3), layers.Dense(40), layers.Dense(1)]
    )
    a, b = (
        keras.ops.convert_to_numpy(layer.kernel).astype(np.float64) for layer in model.layers[1:]
    )
    expected = 0.3 / 0.7 * X**2 @ (a @ b) ** 2
    np.testing.assert_allclose(predict_moments(model, X)["variance"], expected, rtol=1e-3)


def test_relu_of_a_gaussian():
    """Against integration over a grid; enough units before it make the sum a Gaussian."""
    mean, deviation = (
        np.array([[-2.0, 0.0, 0.7]], "float32"),
        np.array([[1.0, 0.5, 2.0]], "float32"),
    )
    first, variance = _relu(None, mean, keras.ops.convert_to_tensor(deviation**2))
    z = np.linspace(-9, 9, 200_001)
    weights = np.exp(-(z**2) / 2)
    weights /= weights.sum()
    values = np.maximum(mean[0][:, None] + deviation[0][:, None] * z, 0)
    expected = values @ weights
    np.testing.assert_allclose(first[0], expected, atol=1e-5)
    np.testing.assert_allclose(variance[0], values**2 @ weights - expected**2, atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({"num_targets": 2, "dropout_rate": 0.05}, marks=pytest.mark.slow),
        pytest.param(
            {"num_targets": 2, "dropout_rate": 0.5, "use_input_ic": True, "use_output_ic": True},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"num_targets": 2, "dropout_rate": 0.2, "use_residual": False}, marks=pytest.mark.slow
        ),
        pytest.param({"num_classes": 2, "dropout_rate": 0.2}, marks=pytest.mark.slow),
        pytest.param(
            {"num_classes": 12, "dropout_rate": 0.2, "use_output_ic": True, "input_scale": 2.0},
            marks=pytest.mark.slow,
        ),
        {"num_targets": 2, "dropout_rate": 0.2, "hidden_width": 16, "standardize": True},
    ],
)
def test_against_20_000_samples(config):
    error, ratio = compare(trained(**config))
    assert error < 0.15
    assert 0.8 < np.median(ratio) < 1.2 and ratio.min() > 0.6 and ratio.max() < 1.6


def test_without_dropout_it_is_predict():
    model = trained(num_classes=4, dropout_rate=0.0)
    moments = predict_moments(model, X)
    np.testing.assert_allclose(moments["mean"], model.predict(X, verbose=0), atol=1e-5)
    np.testing.assert_allclose(moments["variance"], 0, atol=1e-10)


def test_new_weights_count_and_the_model_stays_as_it_was():
    model = trained(num_classes=2, dropout_rate=0.2)
    network = MomentModel(model)
    before = predict_moments(network, X)["mean"]
    model.get_layer("logits").set_weights([2 * w for w in model.get_layer("logits").get_weights()])
    assert (predict_moments(network, X)["mean"] != before).any()


def test_nested_models_and_repeated_layers():
    inner = trained(num_targets=WIDTH, dropout_rate=0.1)
    inputs = keras.Input((WIDTH,))
    dense = layers.Dense(WIDTH)
    model = keras.Model(inputs, layers.Softmax()(layers.Dense(2)(dense(dense(inner(inputs))))))
    error, ratio = compare(model, 4000)
    assert error < 0.2 and ratio.min() > 0.7 and ratio.max() < 1.4


def test_rescaling_by_a_vector_is_exact():
    scale = np.linspace(0.5, 3, 5)
    dense = [layers.Dense(5), layers.Dense(1)]
    model = keras.Sequential(
        [keras.Input((WIDTH,)), layers.Dropout(0.3), dense[0], layers.Rescaling(scale), dense[1]]
    )
    a, b = (keras.ops.convert_to_numpy(layer.kernel).astype(np.float64) for layer in dense)
    expected = 0.3 / 0.7 * X**2 @ (a * scale @ b) ** 2
    np.testing.assert_allclose(predict_moments(model, X)["variance"], expected, rtol=1e-3)


def test_no_rows():
    assert predict_moments(trained(num_classes=2), X[:0])["mean"].shape == (0, 2)


def test_softmax_moments_against_samples():
    rng = np.random.default_rng(3)
    for size in (2, 5, 30):
        mean = rng.normal(size=size)
        root = rng.normal(size=(size, size)) / size**0.5
        logits = mean + rng.normal(size=(100_000, size)) @ root.T
        samples = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        first, variance = softmax_moments(mean[None], (root @ root.T)[None])
        assert abs(first[0] - samples.mean(axis=0)).max() < 0.025
        np.testing.assert_allclose(first.sum(), 1)
        ratio = np.sqrt(variance[0]) / samples.std(axis=0)
        assert ratio.min() > 0.8 and ratio.max() < 1.3


def branching(inputs):
    return layers.Add()([layers.Dense(4)(inputs), layers.Dropout(0.1)(layers.Dense(4)(inputs))])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (branching, "`model` must be a chain of layers to have its moments computed"),
        (layers.LayerNormalization(), "`model` must be made of .* to have its moments computed"),
        (layers.Dense(4, activation="tanh"), "Received: model='tanh'"),
        (layers.ReLU(max_value=1.0), "`model` must have no ReLU but the plain one"),
        (layers.Dropout(0.1, noise_shape=(None, 1)), "`model` must have no dropout with a noise"),
        (layers.GaussianDropout(0.1), "`model` must be made of"),
    ],
)
def test_other_layers_are_refused(build, message):
    inputs = keras.Input((WIDTH,))
    with pytest.raises(ValueError, match=message):
        predict_moments(keras.Model(inputs, build(inputs)), X)
