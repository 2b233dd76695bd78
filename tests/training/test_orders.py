"""Under JAX a training sees the rows that it would see under TensorFlow, in the same order."""

import keras
import numpy as np
import pytest

from kerasmlp.training.orders import permutation, random_words, uniforms

if keras.backend.backend() != "tensorflow":
    pytest.skip("compares with TensorFlow", allow_module_level=True)

import tensorflow as tf

from kerasmlp.training import batches, jax_batches

SEEDS = [(0, 0), (8, 9), (4 * 7, 3), (4 * (2**31 - 1), -5), (12, ~100), (2**40, 2**33)]


@pytest.mark.parametrize("seed", SEEDS)
def test_permutations_and_uniforms_are_those_of_tensorflow(seed):
    key = tf.constant(seed, tf.int64)
    for rows in (0, 1, 2, 5, 1001):
        expected = tf.random.experimental.stateless_shuffle(tf.range(rows), key)
        np.testing.assert_array_equal(permutation(rows, seed), expected)
        expected = tf.random.stateless_uniform((rows,), key)
        np.testing.assert_array_equal(uniforms(rows, seed), expected)
        bits = tf.random.stateless_uniform((rows,), key, None, None, tf.uint32)
        np.testing.assert_array_equal(random_words(rows, seed), bits)


HOW = {"batch_size": 5, "num_epochs": 4, "seed": 7, "first_epoch": 1}


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"steps_per_epoch": 33},
        {"members": 800},  # an epoch in chunks of two steps
        {"view_starts": np.array([0, 2, 3, 7, 11, 12, 19])},
    ],
    ids=str,
)
def test_chunks_are_those_of_tensorflow(how):
    x = np.arange(40, dtype="float32")[:, None]
    ours = list(jax_batches.training_chunks(x, -x, **HOW, **how))
    theirs = list(batches.training_chunks(x, -x, **HOW, **how))
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        count = int(other[2])
        assert int(one[2]) == count and one[0].shape == other[0].shape
        np.testing.assert_array_equal(one[0][:count], other[0][:count])
        np.testing.assert_array_equal(one[1][:count], other[1][:count])


def test_noise_is_of_the_same_size():
    """Its deviations are to the bit, its directions others of the same distribution."""
    x = np.eye(64, dtype="float32")
    how = {"batch_size": 64, "num_epochs": 1, "seed": 3, "noise_std": 0.2}
    units = np.float32(2) * np.ones(64, "float32")
    made = []
    for maker in (batches, jax_batches):
        ((plain,), _, _), *_ = maker.training_chunks(x, x, **how | {"noise_std": 0.0})
        ((noisy,), _, _), *_ = maker.training_chunks(x, x, noise_units=units, **how)
        made.append(np.array(noisy) - np.array(plain))
    deviations = [noise.std(axis=1) for noise in made]
    assert np.corrcoef(*deviations)[0, 1] > 0.9
    assert abs(np.corrcoef(*(noise.ravel() for noise in made))[0, 1]) < 0.06
    np.testing.assert_allclose(deviations[0].mean(), deviations[1].mean(), rtol=0.05)


def test_members_stand_side_by_side():
    x = np.arange(12, dtype="float32")[:, None]
    how = {"batch_size": 4, "num_epochs": 1, "members": 2}
    made = []
    for maker in (batches, jax_batches):
        each = [maker.training_chunks(x, x, seed=seed, **how) for seed in (0, 1)]
        made.append(next(iter(maker.side_by_side(each))))
    theirs, ours = made
    np.testing.assert_array_equal(ours[0], theirs[0])
    assert ours[0].shape == (3, 4, 2, 1) and int(ours[2]) == 3
