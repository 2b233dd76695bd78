"""Several networks in one: each is the network that it would be alone."""

import keras
import numpy as np
import pytest
from checks import check_layer

from kerasmlp import DownsampleBlock, ICLayer, ResidualBlock, ResidualMLP, predict_samples
from kerasmlp.layers.gaussian_head import GaussianHead
from kerasmlp.layers.member_dense import MemberDense
from kerasmlp.layers.member_ends import MemberMean, ToMembers
from kerasmlp.layers.members import members_apart, members_of
from kerasmlp.uncertainty.moments import predict_moments
from kerasmlp.uncertainty.samples import predict_uncertainty
from kerasmlp.utils.checks import InputError

X = np.random.default_rng(0).normal(size=(40, 8)).astype("float32")
DEEP = {
    "width": 8, "hidden_width": 16, "num_blocks": 2, "dropout_rate": 0.3, "use_output_ic": True,
    "use_input_ic": True, "standardize": True,
}  # fmt: skip
HEADS = {
    "classes": {"num_classes": 3},
    "numbers": {"num_targets": 2},
    "several": {"heads": {"a": 3, "b": "gaussian"}},
}


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def outputs(answers) -> list:
    return list(answers.values()) if isinstance(answers, dict) else [answers]


@pytest.mark.parametrize(
    ("layer_class", "config", "width", "parameters"),
    [
        (MemberDense, {"units": 3, "members": 2}, 8, 2 * (4 * 3 + 3)),
        (MemberMean, {"members": 3, "activation": "softmax"}, 6, 0),
        (ToMembers, {"members": 3}, 5, 0),
        (ICLayer, {"dropout_rate": 0.3, "seed": 1, "members": 2}, 8, 4 * 8),
        (ResidualBlock, {"seed": 3, "members": 2}, 12, 2 * (2 * (36 + 6) + 2 * 24)),
        (DownsampleBlock, {"width": 3, "seed": [5, 2], "members": 2}, 12, 2 * (18 + 3 + 24)),
    ],
)
def test_layers(layer_class, config, width, parameters):
    check_layer(layer_class, config, (16, width), parameters=parameters)


def test_the_head_of_numbers_answers_with_the_mixture():
    check_layer(GaussianHead, {"members": 3}, (4, 6), parameters=4, half_dtype="float32")
    head, x = GaussianHead(members=3), np.random.default_rng(1).normal(size=(50, 6))
    head.build((None, 6))
    head.set_unit(center=170.0, scale=10.0, spread=1.5, floor=0.2)
    each = array(head(np.float32(x), apart=True))
    alone = GaussianHead()
    alone.build((None, 2))
    alone.set_weights(head.get_weights())
    for m in range(3):
        answers = array(alone(np.float32(x[:, 2 * m : 2 * m + 2])))
        np.testing.assert_array_equal(each[:, m], answers)
    draws = np.random.default_rng(2).normal(size=(4000, 50, 3))
    draws = (each[..., 0] + each[..., 1] * draws).transpose(1, 0, 2).reshape(50, -1)
    mean, std = array(head(np.float32(x))).T
    np.testing.assert_allclose(mean, each[..., 0].mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(std, draws.std(axis=1), rtol=0.05)


@pytest.mark.parametrize(
    "kind", ["several", *(pytest.param(k, marks=pytest.mark.slow) for k in ("classes", "numbers"))]
)
def test_members_are_the_networks_of_their_seeds(kind):
    """Weights, inference, and training on rows of their own, masks and statistics included."""
    config = DEEP | HEADS[kind]
    model = ResidualMLP(members=3, seed=5, **config)
    alone = [ResidualMLP(seed=5 + m, **config) for m in range(3)]
    assert members_of(model) == 3 and members_of(alone[0]) == 1
    unit = 2 * 8 + (4 if kind == "several" else 0)  # what all members share
    assert model.count_params() - unit == sum(m.count_params() - unit for m in alone)
    shared = members_apart(model, own_rows=False)
    for each, *one in zip(
        outputs(shared.predict(X, verbose=0)),
        *(outputs(m.predict(X, verbose=0)) for m in alone),
        strict=True,
    ):
        assert each.shape == (40, 3, one[0].shape[1])
        np.testing.assert_allclose(each, np.stack(one, axis=1), atol=1e-6)
    apart = members_apart(model)
    for step in range(3):  # the masks differ from step to step, and the statistics move
        x = np.random.default_rng(step).normal(size=(16, 3, 8)).astype("float32")
        answers = outputs(apart(x, training=True))
        expected = [outputs(m(x[:, k], training=True)) for k, m in enumerate(alone)]
        for each, *one in zip(answers, *expected, strict=True):
            np.testing.assert_allclose(array(each), np.stack(one, axis=1), atol=3e-5)
    before = model.get_layer("downsample_0").ic.norm.moving_mean
    single = [m.get_layer("downsample_0").ic.norm.moving_mean for m in alone]
    np.testing.assert_allclose(array(before), np.concatenate(single), atol=1e-5)


def test_the_answer_is_the_mean_of_members(tmp_path):
    model = ResidualMLP(num_classes=3, members=4, seed=1, **DEEP)
    each = members_apart(model, own_rows=False).predict(X, verbose=0)
    answers = model.predict(X, verbose=0)
    np.testing.assert_allclose(answers, each.mean(axis=1), atol=1e-6)
    assert np.abs(each - answers[:, None]).max() > 0.01
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), answers)
    again = members_apart(loaded)
    x = np.repeat(X[:, None], 4, axis=1)
    np.testing.assert_allclose(again.predict(x, verbose=0), each, atol=1e-6)


def test_samples_come_from_the_members_in_turn():
    config = {"num_classes": 3, "width": 8, "num_blocks": 1}
    still = ResidualMLP(members=3, seed=5, dropout_rate=0.0, **config)
    samples = predict_samples(still, X, num_samples=7)
    alone = [ResidualMLP(seed=5 + m, dropout_rate=0.0, **config) for m in range(3)]
    for i, sample in enumerate(samples):
        np.testing.assert_allclose(sample, alone[i % 3].predict(X, verbose=0), atol=1e-6)
    noisy = ResidualMLP(members=3, seed=5, dropout_rate=0.5, **config)
    alone = [ResidualMLP(seed=5 + m, dropout_rate=0.5, **config) for m in range(3)]
    for masks in ("independent", "shared"):
        how = {"masks": masks, "seed": 2}
        samples = predict_samples(noisy, X, num_samples=3000, **how)
        few = predict_samples(noisy, X, num_samples=10, **how)
        np.testing.assert_allclose(few, samples[:10], atol=1e-6)
        cut = predict_samples(noisy, X, num_samples=10, rows_per_pass=50, **how)
        np.testing.assert_allclose(cut, samples[:10], atol=1e-6)
        means = [samples[m::3].mean(axis=0) for m in range(3)]
        for mean, one in zip(means, alone, strict=True):
            expected = predict_samples(one, X, num_samples=1000, **how)
            error = np.sqrt(2 * expected.var(axis=0) / 1000)
            assert (np.abs(mean - expected.mean(axis=0)) < 6 * error + 1e-4).all()
        found = predict_uncertainty(noisy, X, num_samples=3000, **how)
        np.testing.assert_allclose(found["mean"], samples.mean(axis=0, dtype=np.float64), atol=1e-6)
    assert len({samples[k].tobytes() for k in range(9)}) == 9


def test_members_begin_differently():
    layer = MemberDense(3, members=2)
    layer.build((None, 8))
    first, second = array(layer.kernel)
    assert (first != second).all()
    unseeded = ICLayer(dropout_rate=0.5, members=2)
    masks = array(unseeded(np.ones((50, 8), "float32"), sampling=True)) == 0
    assert (masks[:, :4] != masks[:, 4:]).any()


def test_nested_models_are_sampled():
    inner = ResidualMLP(num_classes=3, members=2, seed=1, width=8, dropout_rate=0.3)
    outer = keras.Sequential([keras.Input((8,)), inner])
    assert members_of(outer) == 2
    samples = predict_samples(outer, X, num_samples=5)
    np.testing.assert_allclose(samples, predict_samples(inner, X, num_samples=5), atol=1e-6)
    more = keras.Sequential([keras.Input((8,)), inner, keras.layers.Dense(2)])
    with pytest.raises(InputError, match="must end in the means of its members"):
        predict_samples(more, X, num_samples=5)


def test_what_is_refused():
    with pytest.raises(InputError, match="must have several members"):
        members_apart(ResidualMLP(num_classes=2, width=8))
    with pytest.raises(InputError, match="must have no members"):
        predict_moments(keras.Sequential([keras.Input((8,)), ResidualBlock(members=2)]), X)
    with pytest.raises(ValueError, match=r"must be of shape \(batch, 3, width\)"):
        ToMembers(3)(np.zeros((3, 5, 2), "float32"))
    with pytest.raises(ValueError, match="multiple of 2 columns"):
        ICLayer(members=2)(np.zeros((4, 7), "float32"))
    with pytest.raises(ValueError, match="must have rank 2 to be"):
        ICLayer(members=2)(np.zeros((4, 3, 6), "float32"))
    with pytest.raises(ValueError, match="at most 2147483646 with 2 members"):
        ICLayer(members=2, seed=2**31 - 1)
    with pytest.raises(ValueError, match="`members` must be"):
        ResidualMLP(num_classes=2, width=8, members=0)
    with pytest.raises(ValueError, match="multiple of 3 columns"):
        MemberDense(2, members=3)(np.zeros((4, 8), "float32"))
    with pytest.raises(ValueError, match="one for each of 2 members"):
        ICLayer(members=2, seed=[1, 2, 3])
    with pytest.raises(ValueError, match="one for each of 2 members"):
        MemberDense(2, members=2, kernel_initializer=["zeros"] * 3)
