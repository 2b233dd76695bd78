import keras
import numpy as np
import pytest
import tensorflow as tf
from checks import check_layer

from kerasmlp import DownsampleBlock, ICLayer, ResidualBlock
from kerasmlp.layers.initializers import FanInUniform, dense

RNG = np.random.default_rng(0)
X = RNG.normal(2.0, 3.0, size=(64, 6)).astype("float32")


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def test_ic_layer():
    check_layer(ICLayer, {"dropout_rate": 0.3, "seed": 1}, (16, 5), parameters=4 * 5)


def test_ic_layer_takes_feature_maps():
    check_layer(ICLayer, {"dropout_rate": 0.3, "seed": 1}, (4, 3, 3, 5), parameters=4 * 5)


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        ({}, 2 * (36 + 6) + 2 * 24),
        ({"use_first_ic": False}, 2 * (36 + 6) + 24),
        ({"use_ic": False}, 2 * (36 + 6)),
        ({"use_residual": False, "kernel_initializer": "he_uniform"}, 2 * (36 + 6) + 2 * 24),
    ],
)
def test_residual_block(config, parameters):
    check_layer(ResidualBlock, {"seed": 3, **config}, (16, 6), parameters=parameters)


@pytest.mark.parametrize(("use_ic", "parameters"), [(True, 6 * 3 + 3 + 24), (False, 6 * 3 + 3)])
def test_downsample_block(use_ic, parameters):
    config = {"width": 3, "use_ic": use_ic, "seed": 3}
    check_layer(DownsampleBlock, config, (16, 6), parameters=parameters)


def test_training_and_sampling_are_separate_modes():
    layer = ICLayer(dropout_rate=0.5, seed=0)
    layer(X)
    for _ in range(50):
        layer(X, training=True)
    moving = [array(w) for w in layer.norm.non_trainable_weights]
    np.testing.assert_allclose(moving[0], X.mean(axis=0), atol=0.05)
    np.testing.assert_allclose(moving[1], X.var(axis=0), rtol=0.01)

    normalised = (X - moving[0]) / np.sqrt(moving[1] + layer.epsilon)
    np.testing.assert_allclose(array(layer(X)), normalised, rtol=1e-4, atol=1e-5)
    sample = array(layer(X, sampling=True))
    kept = sample != 0
    assert 0.4 < kept.mean() < 0.6
    np.testing.assert_allclose(sample[kept], 2 * normalised[kept], rtol=1e-4, atol=1e-5)
    for before, after in zip(moving, layer.norm.non_trainable_weights, strict=True):
        np.testing.assert_array_equal(before, array(after))


def test_a_row_does_not_depend_on_its_neighbours_when_sampling():
    layer = ICLayer(dropout_rate=0.0)
    layer(X, training=True)
    alone = array(layer(X[:1], sampling=True))
    np.testing.assert_allclose(alone, array(layer(X, sampling=True))[:1], rtol=1e-6)


def test_dropout_rate_zero_draws_nothing():
    layer = ICLayer(dropout_rate=0.0, seed=0)
    np.testing.assert_array_equal(array(layer(X, sampling=True)), array(layer(X)))


@pytest.mark.parametrize(
    "layer_class", [ICLayer, ResidualBlock, lambda **k: DownsampleBlock(width=2, **k)]
)
@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"dropout_rate": 1.0}, r"`dropout_rate` must be in \[0, 1\). Received: dropout_rate=1.0"),
        ({"dropout_rate": float("nan")}, "`dropout_rate` must be"),
        ({"momentum": -0.1}, r"`momentum` must be in \[0, 1\)"),
        ({"epsilon": 0}, "`epsilon` must be a finite number > 0"),
        ({"seed": -1}, "`seed` must be an integer >= 0"),
        ({"seed": 1.5}, "`seed` must be an integer >= 0"),
    ],
)
def test_bad_arguments(layer_class, argument, message):
    with pytest.raises(ValueError, match=message):
        layer_class(**argument)


def test_blocks_check_their_own_arguments():
    with pytest.raises(ValueError, match="`width` must be an integer >= 1"):
        DownsampleBlock(width=0)
    with pytest.raises(ValueError, match="`use_residual` must be True or False"):
        ResidualBlock(use_residual="yes")


def test_fan_in_uniform_is_pytorchs():
    kernel = array(FanInUniform(seed=0)((400, 300)))
    assert abs(kernel).max() <= 0.05
    assert abs(kernel.std() - 0.05 / np.sqrt(3)) < 1e-3
    bias = array(dense(300, "fan_in_uniform", 400, 0).bias_initializer((300,)))
    assert 0.045 < abs(bias).max() <= 0.05
    with pytest.raises(ValueError, match="`fan_in` must be given for a bias"):
        FanInUniform()((3,))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    def weights(seed):
        block = ResidualBlock(seed=seed)
        block(X)
        return [array(w) for w in block.trainable_weights if "kernel" in w.path]

    for a, b, c in zip(weights(1), weights(1), weights(2), strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()
    first, second = weights(1)
    assert (first != second).any()


def test_initialisers_are_names():
    for bad in ("nope", keras.initializers.HeNormal(), None):
        with pytest.raises(ValueError, match="`kernel_initializer` must be 'fan_in_uniform'"):
            ResidualBlock(kernel_initializer=bad)


def test_batch_norm_leaves_masked_steps_out():
    x = np.random.default_rng(0).normal(size=(8, 5, 3)).astype("float32")
    mask = np.ones((8, 5), bool)
    mask[:, 3:] = False
    layer = ICLayer(dropout_rate=0.0, momentum=0.0)
    layer(x, training=True, mask=mask)
    np.testing.assert_allclose(array(layer.norm.moving_mean), x[:, :3].mean((0, 1)), atol=1e-5)


def test_a_vector_is_refused():
    with pytest.raises(ValueError, match="`inputs` must have rank 2 or more"):
        ICLayer().build((4,))


of_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="is about TensorFlow's graphs"
)


@of_tensorflow
def test_no_relu_follows_a_sum_that_tensorflow_would_fuse_wrongly():
    """With oneDNN's fusions its remapper breaks MatMul, BiasAdd, Add, Relu and prints errors."""
    block = ResidualBlock()
    block.build((None, 8))
    traced = tf.function(lambda x: block(x)).get_concrete_function(tf.TensorSpec((None, 8)))
    sums = [op for op in traced.graph.get_operations() if op.type.startswith("Add")]
    into_sums = {source.op.type for op in sums for source in op.inputs}
    assert "BiasAdd" in into_sums
    followers = {op.type for add in sums for op in add.outputs[0].consumers()}
    assert followers and "Relu" not in followers


@of_tensorflow
def test_the_last_relu_of_a_block_is_one():
    block = ResidualBlock(use_ic=False)
    block.build((None, 3))
    block.set_weights([np.zeros_like(w) for w in block.get_weights()])
    x = tf.Variable([[-1.0, 0.0, 2.0]])
    with tf.GradientTape() as tape:
        y = block(x)
    np.testing.assert_array_equal(y, [[0, 0, 2]])
    np.testing.assert_array_equal(tape.gradient(y, x), [[0, 0, 1]])
    assert np.isnan(block(np.float32([[np.nan, 0, 0]]))).all()  # weights that diverged stay seen
