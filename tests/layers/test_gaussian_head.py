import keras
import numpy as np
from checks import check_layer

from kerasmlp.layers.gaussian_head import MIN_STD, GaussianHead


def test_contract():
    check_layer(GaussianHead, {}, (4, 2), parameters=3)


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
