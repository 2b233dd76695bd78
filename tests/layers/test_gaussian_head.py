import keras
import numpy as np
import pytest
from checks import check_layer

from kerasmlp.layers.gaussian_head import MIN_STD, GaussianHead


def test_contract():
    check_layer(GaussianHead, {}, (4, 2), parameters=4, half_dtype="float32")


def test_values_are_those_of_numpy():
    x = np.random.default_rng(0).normal(size=(50, 2)).astype("float32")
    x[0, 1] = -40  # a spread of nothing
    head = GaussianHead()
    head.build((None, 2))
    head.set_unit(center=170.0, scale=10.0, spread=1.5)
    mean, std = keras.ops.convert_to_numpy(head(x)).T
    np.testing.assert_allclose(mean, 170 + 10 * x[:, 0], rtol=1e-6)
    softplus = np.log1p(np.exp(x[:, 1].astype(float) + np.log(np.e - 1)))
    np.testing.assert_allclose(std, 15 * np.maximum(softplus, MIN_STD), rtol=1e-5)
    assert not head.trainable_weights
    head.set_unit(center=170.0, scale=10.0, spread=1.5, floor=2.0)
    _, raised = keras.ops.convert_to_numpy(head(x)).T
    np.testing.assert_allclose(raised, np.hypot(std, 20), rtol=1e-5)
    head.set_unit(center=170.0, scale=10.0, spread=0.0, floor=2.0)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(head(x))[:, 1], 20, rtol=1e-6)


def test_it_answers_in_float32_under_any_policy():
    head = GaussianHead(dtype="mixed_float16")
    inputs = keras.Input((2,))
    assert head(inputs).dtype == "float32" and head(inputs).shape == (None, 2)
    head.set_unit(center=7e4, scale=10.0)
    answers = keras.ops.convert_to_numpy(head(np.float32([[0, 0], [1, 0]])))
    assert answers.dtype == np.float32
    np.testing.assert_allclose(answers, [[7e4, 10], [7e4 + 10, 10]], rtol=1e-6)


def test_what_it_refuses():
    with pytest.raises(ValueError, match="2"):
        GaussianHead()(np.zeros((4, 5), "float32"))
    with pytest.raises(ValueError):
        GaussianHead()(np.zeros((4, 3, 2), "float32"))
    with pytest.raises(ValueError, match="`layer` must be built"):
        GaussianHead().set_unit(center=0.0, scale=1.0)
    head = GaussianHead()
    head.build((None, 2))
    with pytest.raises(ValueError, match="`scale` must be"):
        head.set_unit(center=0.0, scale=-1.0)
    with pytest.raises(ValueError, match="`spread` must be"):
        head.set_unit(center=0.0, scale=1.0, spread=0.0)
    with pytest.raises(ValueError, match="`floor` must be"):
        head.set_unit(center=0.0, scale=1.0, floor=-1.0)
