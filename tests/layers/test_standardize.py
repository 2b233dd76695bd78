import keras
import numpy as np
import pytest
import tensorflow as tf
from checks import check_layer

from kerasmlp import Standardize
from kerasmlp.utils.checks import InputError

X = np.random.default_rng(0).normal(3.0, 2.0, size=(300, 4)).astype("float32")
HUGE = np.full((1, 4), 3e38, "float32")


def adapted(rows, **config):
    layer = Standardize(**config)
    layer.adapt(rows)
    return layer


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def test_it_is_a_layer():
    check_layer(Standardize, {"limit": 2.5}, (16, 5), parameters=10)


def test_mean_and_deviation_of_each_column():
    y = array(adapted(X)(X))
    expected = (X - X.mean(axis=0, dtype=np.float64)) / X.std(axis=0, dtype=np.float64)
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_sums_of_many_rows_are_exact():
    """In float32 the mean of so many sevenths would be off by far more than their deviation."""
    rows = np.tile(np.float32([[1 / 7], [1 / 7 + 1e-6]]), (40_000, 1))
    layer = adapted(rows)
    y = array(layer(rows[:2]))
    np.testing.assert_allclose(y, [[-1], [1]], atol=0.05)
    assert array(layer.mean)[0] == pytest.approx(rows.mean(dtype=np.float64), rel=1e-7)


def test_powers_of_two_change_no_bit_and_shifts_hardly_any():
    scale = np.float32(2.0) ** np.array([-90, -5, 7, 80])
    np.testing.assert_array_equal(array(adapted(X * scale)(X * scale)), array(adapted(X)(X)))
    shifted = X + np.float32([100, -1000, 5000, 0])
    np.testing.assert_allclose(array(adapted(shifted)(shifted)), array(adapted(X)(X)), atol=1e-3)


@pytest.mark.parametrize("constant", [0.0, 1 / 3, -7e9, 1e-42, 3e38])
def test_a_column_that_never_varies_is_0_whatever_comes_later(constant):
    rows = X.copy()
    rows[:, 1] = constant
    layer = adapted(rows)
    for later in (rows, X, HUGE, -HUGE):
        y = array(layer(later))
        assert (y[:, 1] == 0).all() and np.isfinite(y).all()


def test_a_column_that_varies_by_rounding_alone_is_0():
    rows = X.copy()
    rows[:, 1] = np.nextafter(np.float32(123456.0), np.float32(np.inf))
    rows[::2, 1] = 123456.0
    rows[:, 2] = 123456.0 + np.arange(len(X)) % 2  # this one says something
    y = array(adapted(rows)(rows))
    assert (y[:, 1] == 0).all()
    np.testing.assert_allclose(np.abs(y[:, 2]), 1, atol=0.01)


def test_what_lies_far_out_counts_as_the_limit():
    rows = np.concatenate([X[:1] + 1e6, HUGE, -HUGE])
    np.testing.assert_array_equal(array(adapted(X, limit=5.0)(rows)), [[5] * 4, [5] * 4, [-5] * 4])
    half = adapted(X * 1e6, dtype="mixed_float16")
    y = half(X * 1e6)  # pixels and salaries overflow float16
    assert y.dtype == "float16"
    np.testing.assert_allclose(array(y), array(adapted(X)(X)), atol=5e-3)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="is about TensorFlow's graphs")
def test_a_compiled_step_follows_new_statistics():
    layer = adapted(X)
    traced = tf.function(layer)
    before = array(traced(X))
    layer.adapt(10 * X)
    np.testing.assert_array_equal(array(traced(X)), array(adapted(10 * X)(X)))
    assert (array(traced(X)) != before).any()


def test_rows_that_are_not_finite_are_refused():
    rows = X.copy()
    rows[7, 2] = np.nan
    with pytest.raises(InputError, match="`rows` must be finite. Received: rows='NaN or infinity'"):
        Standardize().adapt(rows)
    with pytest.raises(InputError, match="`limit` must be a finite number > 0"):
        Standardize(limit=0)


def test_a_list_is_rows_and_nothing_is_refused():
    layer = Standardize()
    layer.adapt([[1, 2], [3, 2]])
    np.testing.assert_array_equal(layer.mean, [2, 0])
    with pytest.raises(ValueError, match="one row at least"):
        Standardize().adapt(np.zeros((0, 2)))
