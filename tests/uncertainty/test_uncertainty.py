from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

from kerasmlp import (
    DownsampleBlock,
    ResidualMLP,
    predict_moments,
    predict_samples,
    predict_uncertainty,
)
from kerasmlp.uncertainty.measures import (
    UNCERTAINTIES,
    age_interval_years,
    gaussian_log_likelihood,
    median_age_years,
    predictive_mean,
    regression_measures,
    uncertainty_measures,
)
from kerasmlp.uncertainty.sampler import Sampler
from kerasmlp.utils.checks import InputError

WIDTH = 16
X = np.random.default_rng(0).normal(size=(40, WIDTH)).astype("float32")


@pytest.fixture(scope="module")
def model():
    model = ResidualMLP(num_classes=3, width=WIDTH, num_blocks=2, dropout_rate=0.3, seed=0)
    for _ in range(20):
        model(X, training=True)
    return model


@pytest.fixture(scope="module")
def sampler(model):
    return Sampler(model)


def test_same_seed_same_samples(sampler):
    a, b = (predict_samples(sampler, X, num_samples=8, seed=4) for _ in range(2))
    assert a.shape == (8, 40, 3)
    np.testing.assert_array_equal(a, b)
    assert (a != predict_samples(sampler, X, num_samples=8, seed=5)).any()
    assert (a[0] != a[1]).any()


def test_the_model_is_as_it_was(model):
    before = [keras.ops.convert_to_numpy(v) for v in model.variables]
    outputs = model.predict(X, verbose=0)
    predict_samples(model, X, num_samples=8)
    np.testing.assert_array_equal(outputs, model.predict(X, verbose=0))
    for value, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(value, keras.ops.convert_to_numpy(variable))


def test_a_rows_distribution_does_not_depend_on_its_neighbours(sampler):
    """Means over many samples agree with those of the row alone, unlike under training=True."""
    alone = predict_samples(sampler, X[:1], num_samples=4000, seed=1)[:, 0]
    among = predict_samples(sampler, np.concatenate([X[:1], 5 * X[1:4]]), num_samples=4000, seed=2)
    among = among[:, 0]
    error = np.sqrt((alone.var(axis=0) + among.var(axis=0)) / 4000)
    assert (abs(alone.mean(axis=0) - among.mean(axis=0)) < 5 * error).all()
    ratio = alone.std(axis=0) / among.std(axis=0)
    assert ((ratio > 0.9) & (ratio < 1.1)).all()


def test_one_layer_has_the_variance_of_the_formula():
    """y = w·Drop(x): the variance is rate / (1 − rate) · Σ (w x)²."""
    inputs = keras.Input((WIDTH,))
    dropped = keras.layers.Dropout(0.2)(inputs)
    linear = keras.layers.Dense(1, use_bias=False)
    model = keras.Model(inputs, linear(dropped))
    samples = predict_samples(model, X[:3], num_samples=20_000, seed=0)[..., 0]
    terms = X[:3] * keras.ops.convert_to_numpy(linear.kernel)[:, 0]
    expected = 0.25 * (terms**2).sum(axis=1)
    np.testing.assert_allclose(samples.var(axis=0), expected, rtol=0.05)
    np.testing.assert_allclose(
        samples.mean(axis=0), terms.sum(axis=1), atol=5 * np.sqrt(expected.max() / 20_000)
    )


def test_a_sampler_serves_many_calls_and_follows_the_weights():
    model = ResidualMLP(num_classes=3, width=WIDTH, dropout_rate=0.3, seed=0)
    sampler = Sampler(model)
    for seed in (0, 1):
        samples = predict_samples(sampler, X, num_samples=4, seed=seed)
        np.testing.assert_array_equal(samples, predict_samples(model, X, num_samples=4, seed=seed))
    model.get_layer("logits").bias.assign([9.0, 0.0, 0.0])
    assert predict_samples(sampler, X, num_samples=4)[..., 0].min() > 0.9


def test_rows_beyond_one_chunk(sampler):
    many = np.tile(X, (6, 1))
    samples = predict_samples(sampler, many, num_samples=100, seed=0)
    assert samples.shape == (100, 240, 3)
    np.testing.assert_allclose(samples.sum(axis=2), 1, atol=1e-5)


def test_no_rows(sampler):
    assert predict_samples(sampler, X[:0], num_samples=5).shape == (5, 0, 3)


@pytest.mark.parametrize(
    ("x", "arguments", "message"),
    [
        (X[:, :5], {}, r"`x` must have shape \(batch, 16\). Received: x=\(40, 5\)"),
        (np.full((1, WIDTH), np.nan), {}, "`x` must be finite"),
        (X, {"num_samples": -1}, "`num_samples` must be an integer >= 1"),
        (X, {"num_samples": 2.5}, "`num_samples` must be an integer >= 1"),
        (X, {"num_samples": 0}, "`num_samples` must be an integer >= 1"),
        (X, {"masks": "same"}, "`masks` must be"),
        (X, {"rows_per_pass": 0}, "`rows_per_pass` must be an integer >= 1"),
        (X, {"first_row": -1}, "`first_row` must be an integer >= 0"),
        (X, {"seed": -1}, "`seed` must be an integer >= 0"),
        (X, {"seed": 2**63}, "`seed` must be below 9223372036854775808"),
    ],
)
def test_bad_arguments(sampler, x, arguments, message):
    with pytest.raises(ValueError, match=message):
        predict_samples(sampler, x, **arguments)


@pytest.mark.parametrize("config", [{"use_ic": False}, {"dropout_rate": 0.0}])
def test_a_model_without_dropout_is_refused(config):
    with pytest.raises(ValueError, match="`model` must have dropout"):
        predict_samples(ResidualMLP(num_classes=2, width=WIDTH, **config), X)


def nested(model):
    inputs = keras.Input((WIDTH,))
    return keras.Model(inputs, model(inputs))


@pytest.mark.parametrize(
    "wrap",
    [
        nested,
        lambda model: nested(nested(model)),
        lambda model: keras.Sequential([keras.Input((WIDTH,)), keras.layers.Dropout(0.2), model]),
        lambda model: nested(keras.Sequential([keras.Input((WIDTH,)), model])),
    ],
)
def test_nested_and_sequential_models_are_sampled_throughout(model, wrap):
    outer = wrap(model)
    samples = predict_samples(outer, X, num_samples=16, seed=0)
    assert (samples.std(axis=0) > 1e-4).all()
    np.testing.assert_array_equal(*(outer.predict(X, verbose=0) for _ in range(2)))


def test_other_random_layers_are_refused(model):
    inputs = keras.Input((WIDTH,))
    noisy = keras.Model(inputs, model(keras.layers.GaussianDropout(0.2)(inputs)))
    with pytest.raises(ValueError, match="`model` must be random in ICLayer and Dropout only"):
        predict_samples(noisy, X)


def test_two_outputs_are_refused(model):
    two = keras.Model(model.input, [model.output, model.output])
    with pytest.raises(ValueError, match="`model` must have one input and one output"):
        predict_samples(two, X)


def test_threads_do_not_disturb_each_other(model, sampler):
    expected = [predict_samples(sampler, X, num_samples=4, seed=s) for s in range(4)]
    before = [keras.ops.convert_to_numpy(v) for v in model.variables]
    sampler = Sampler(model)  # traced by whichever threads come first
    with ThreadPoolExecutor(4) as pool:
        seeds = [0, 1, 2, 3] * 5
        results = pool.map(lambda s: predict_samples(sampler, X, num_samples=4, seed=s), seeds)
        for seed, samples in zip(seeds, results, strict=True):
            np.testing.assert_array_equal(samples, expected[seed])
    for value, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(value, keras.ops.convert_to_numpy(variable))


@pytest.mark.parametrize("masks", ["independent", pytest.param("shared", marks=pytest.mark.slow)])
def test_samples_do_not_depend_on_chunks(sampler, masks):
    """Whatever is computed together: the masks are those of the row, the pass and the seed."""
    rows = np.tile(X, (2, 1))
    whole = predict_samples(sampler, rows, num_samples=50, seed=3, masks=masks)
    for rows_per_pass in (5, 70, 1000):
        parts = predict_samples(
            sampler, rows, num_samples=50, seed=3, masks=masks, rows_per_pass=rows_per_pass
        )
        np.testing.assert_allclose(parts, whole, atol=2e-6)
    later = predict_samples(sampler, rows[33:], num_samples=50, seed=3, masks=masks, first_row=33)
    np.testing.assert_allclose(later, whole[:, 33:], atol=2e-6)
    fewer = predict_samples(sampler, rows, num_samples=20, seed=3, masks=masks)
    np.testing.assert_allclose(fewer, whole[:20], atol=2e-6)


def test_shared_masks_make_a_pass_one_function(sampler):
    twice = np.concatenate([X[:1], X[:1]])
    shared = predict_samples(sampler, twice, num_samples=32, masks="shared")
    np.testing.assert_allclose(shared[:, 0], shared[:, 1], atol=1e-6)
    own = predict_samples(sampler, twice, num_samples=32)
    assert (own[:, 0] != own[:, 1]).any(axis=1).all()


def test_shared_and_independent_masks_agree_on_a_row(sampler):
    a, b = (
        predict_samples(sampler, X, num_samples=4000, masks=m) for m in ("shared", "independent")
    )
    error = np.sqrt((a.var(axis=0) + b.var(axis=0)) / 4000)
    assert (abs(a.mean(axis=0) - b.mean(axis=0)) < 5 * error).all()
    ratio = a.std(axis=0) / b.std(axis=0)
    assert ((ratio > 0.9) & (ratio < 1.1)).all()


def test_what_many_rows_save_is_nothing_but_time():
    """From 16 rows on shared masks take dropped units off one product; fewer rows do not."""
    model = ResidualMLP(num_classes=3, width=256, dropout_rate=0.02, seed=0)
    x = np.random.default_rng(0).normal(size=(32, 256)).astype("float32")
    many = predict_samples(model, x, num_samples=20, masks="shared")
    few = predict_samples(model, x[:4], num_samples=20, masks="shared")
    assert few.std(axis=0).min() > 1e-5
    np.testing.assert_allclose(many[:, :4], few, atol=1e-6)


@pytest.mark.parametrize("rows_per_pass", [7, 4096])
def test_uncertainty_is_what_the_samples_say(sampler, rows_per_pass):
    samples = predict_samples(sampler, X, num_samples=30, seed=5)
    answer = predict_uncertainty(sampler, X, num_samples=30, seed=5, rows_per_pass=rows_per_pass)
    np.testing.assert_allclose(answer.pop("mean"), predictive_mean(samples), atol=1e-6)
    expected = uncertainty_measures(samples)
    assert answer.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(answer[name], value, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("rows_per_pass", [7, 4096])
def test_uncertainty_of_a_regression(rows_per_pass):
    model = ResidualMLP(num_targets=2, width=WIDTH, dropout_rate=0.3, seed=0)
    samples = predict_samples(model, X, num_samples=30)
    answer = predict_uncertainty(model, X, num_samples=30, rows_per_pass=rows_per_pass)
    np.testing.assert_allclose(answer["mean"], samples.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(answer["epistemic_variance"], samples.var(axis=0), rtol=1e-3)


def test_a_skip_connection_around_dropout_in_the_users_model():
    """Every pass adds the same carried rows to its own."""
    inputs = keras.Input((WIDTH,))
    dropped = keras.layers.Dropout(0.5)(inputs)
    for merge in (keras.layers.Add()([inputs, dropped]), inputs + dropped, dropped + inputs):
        model = keras.Model(inputs, merge)
        samples = predict_samples(model, X, num_samples=40)
        kept = np.isclose(samples, 3 * X, rtol=1e-5)
        assert (kept | np.isclose(samples, X, rtol=1e-5)).all()
        assert 0.45 < kept.mean() < 0.55


def test_a_merge_before_the_first_dropout_and_shared_masks():
    inputs = keras.Input((256,))
    merged = keras.layers.Add()([inputs, keras.layers.Dense(256)(inputs)])
    block = DownsampleBlock(width=8, dropout_rate=0.02)
    model = keras.Model(inputs, keras.layers.Dense(2)(block(merged)))
    x = np.random.default_rng(0).normal(size=(32, 256)).astype("float32")
    many = predict_samples(model, x, num_samples=8, masks="shared")
    few = predict_samples(model, x[:2], num_samples=8, masks="shared")
    np.testing.assert_allclose(many[:, :2], few, atol=1e-5)


def test_a_model_with_the_users_own_loss():
    inputs = keras.Input((WIDTH,))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dropout(0.5)(inputs)))
    model.compile("adam", lambda y, p: keras.ops.mean((y - p) ** 2))
    assert predict_samples(model, X, num_samples=3).shape == (3, 40, 2)
    assert predict_moments(model, X)["mean"].shape == (40, 2)


def test_changed_layers_are_seen():
    model = keras.Sequential([keras.Input((WIDTH,)), keras.layers.Dropout(0.5)])
    model.add(keras.layers.Dense(3))
    before = predict_samples(model, X, num_samples=200).var()
    moments = predict_moments(model, X)["variance"].mean()
    model.layers[0].rate = 0.05
    assert predict_samples(model, X, num_samples=200).var(axis=0).mean() < before
    assert predict_moments(model, X)["variance"].mean() < 0.1 * moments
    model.add(keras.layers.Softmax())
    np.testing.assert_allclose(predict_samples(model, X).sum(axis=2), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("end", "classes"),
    [
        (lambda x: keras.ops.softmax(x), True),
        (lambda x: keras.ops.log(keras.layers.Softmax()(x)), False),
        (lambda x: keras.layers.Activation("softmax")(x), True),
    ],
)
def test_probabilities_are_known_by_the_last_operation(end, classes):
    inputs = keras.Input((WIDTH,))
    model = keras.Model(inputs, end(keras.layers.Dropout(0.5)(inputs)))
    found = predict_uncertainty(model, X, num_samples=2)
    assert ("mutual_information_nats" in found) == classes


def test_models_that_cannot_be_asked():
    inputs = keras.Input((5, WIDTH))
    model = keras.Model(inputs, keras.layers.Dropout(0.5)(inputs))
    with pytest.raises(ValueError, match="one output of shape"):
        predict_samples(model, X)
    with pytest.raises(ValueError, match="`model` must be functional or sequential"):
        predict_samples(keras.Sequential([keras.layers.Dropout(0.5)]), X)


def test_dropout_of_whole_channels():
    inputs = keras.Input((5, WIDTH))
    dropped = keras.layers.Dropout(0.5, noise_shape=(None, 1, WIDTH))(inputs)
    model = keras.Model(inputs, keras.layers.Flatten()(dropped))
    samples = sampling_many(model, np.ones((3, 5, WIDTH), "float32"), 20)
    samples = samples.reshape(20, 3, 5, WIDTH)
    assert (samples == samples[:, :, :1]).all()
    assert 0.4 < (samples == 0).mean() < 0.6


def sampling_many(model, x, num_samples):
    from kerasmlp.layers.masks import sample_streams

    streams = sample_streams(0, np.arange(num_samples), np.arange(len(x)))
    weights = np.ones((1, num_samples), "float32")
    return Sampler(model).run("samples", x, streams[None], weights)[0][0]


def test_measures_against_plain_loops():
    rng = np.random.default_rng(0)
    samples = rng.dirichlet([1, 2, 3], size=(50, 4))
    measures = uncertainty_measures(samples)
    for row in range(4):
        mean = [sum(samples[s, row, c] for s in range(50)) / 50 for c in range(3)]
        entropy = -sum(p * np.log(p) for p in mean)
        inner = np.mean([-sum(p * np.log(p) for p in samples[s, row]) for s in range(50)])
        winners = [int(samples[s, row].argmax()) for s in range(50)]
        shares = [winners.count(c) / 50 for c in range(3)]
        assert measures["predictive_entropy_nats"][row] == pytest.approx(entropy)
        assert measures["expected_entropy_nats"][row] == pytest.approx(inner)
        assert measures["mutual_information_nats"][row] == pytest.approx(entropy - inner)
        assert measures["variation_ratio"][row] == pytest.approx(1 - max(shares))
        assert measures["vote_mean"][row] == pytest.approx(np.mean(winners))
        votes = -sum(p * np.log(p) for p in shares if p)
        assert measures["vote_entropy_nats"][row] == pytest.approx(votes)
    np.testing.assert_allclose(predictive_mean(samples), samples.mean(axis=0))


def test_the_largest_entropies_are_the_papers():
    for classes, maximum in ((2, 0.6931), (101, 4.6151)):
        one_vote_each = np.eye(classes)[:, None, :]
        entropy = uncertainty_measures(one_vote_each)["vote_entropy_nats"][0]
        assert entropy == pytest.approx(maximum, abs=1e-4)


def test_samples_of_another_rank_are_refused():
    with pytest.raises(ValueError, match="`samples` must have shape"):
        uncertainty_measures(np.ones((3, 2)))


def test_scaled_measures_are_shares_of_their_maxima():
    samples = np.random.default_rng(1).dirichlet([1, 2, 3, 0.2], size=(30, 5))
    measures = uncertainty_measures(samples)
    plain = [name for name in measures if not name.endswith("_scaled")]
    assert {f"{name.removesuffix('_nats')}_scaled" for name in plain} == set(measures) - set(plain)
    for row in range(5):
        for name in plain:
            largest = {"variation_ratio": 3 / 4, "vote_mean": 3}.get(name, np.log(4))
            scaled = measures[f"{name.removesuffix('_nats')}_scaled"][row]
            assert scaled == pytest.approx(measures[name][row] / largest)
    one_vote_each = uncertainty_measures(np.eye(4)[:, None, :])
    for name in set(UNCERTAINTIES) - {"expected_entropy_nats"}:
        assert one_vote_each[f"{name.removesuffix('_nats')}_scaled"] == pytest.approx(1)


def quantile_by_walking(row, year_to_class, share):
    """The age below which `share` of the probability lies, in steps of a year."""
    seen = 0.0
    for year, k in enumerate(year_to_class):
        mass = row[k] / list(year_to_class).count(k)
        if seen + mass >= share:
            return year - 0.5 + (share - seen) / mass
        seen += mass


@pytest.mark.parametrize("bins", [np.arange(101), np.repeat([0, 1, 2], [20, 40, 41])])
def test_median_and_intervals_against_plain_loops(bins):
    p = np.random.default_rng(2).dirichlet(np.full(bins.max() + 1, 0.3), size=20)
    for i, row in enumerate(p):
        assert median_age_years(p, bins)[i] == pytest.approx(quantile_by_walking(row, bins, 0.5))
        for coverage, ends in ((0.5, (0.25, 0.75)), (0.9, (0.05, 0.95))):
            expected = [quantile_by_walking(row, bins, q) for q in ends]
            assert age_interval_years(p, bins, coverage)[i] == pytest.approx(expected)


def test_the_ends_of_the_ages():
    for year in (0, 100):
        sure = np.eye(101)[[year]]
        low, high = age_interval_years(sure, np.arange(101))[0]
        assert year - 0.5 <= low < high <= year + 0.5
        assert median_age_years(sure, np.arange(101)) == year
    assert median_age_years(0.6 * np.eye(101)[:1] + 0.4 / 101, np.arange(101)) >= 0
    too_little = np.full((1, 101), 0.9 / 101)  # a rounded row still has an end
    assert age_interval_years(too_little, np.arange(101))[0, 1] == 100.5
    with pytest.raises(ValueError, match=r"`coverage` must be in \(0, 1\). Received: coverage=1"):
        age_interval_years(sure, np.arange(101), 1)


def test_interval_of_groups_spreads_over_their_years():
    year_to_class = np.repeat([0, 1], [51, 50])
    np.testing.assert_allclose(
        age_interval_years(np.array([[1.0, 0.0]]), year_to_class), [[2.05, 47.95]]
    )


@pytest.mark.parametrize("noise_shape", [(), (2,), (3, 2), (40, 3, 2)])
def test_regression_measures_against_plain_loops(noise_shape):
    rng = np.random.default_rng(3)
    samples, y = rng.normal(size=(40, 3, 2)), rng.normal(size=(3, 2))
    noise = rng.uniform(0.2, 2.0, noise_shape)
    measures = regression_measures(samples, noise)
    log_likelihood = gaussian_log_likelihood(y, samples, noise)
    variances = np.broadcast_to(noise, samples.shape)
    for row in range(3):
        density = 0.0
        for s in range(40):
            term = 1.0
            for k in range(2):
                v = variances[s, row, k]
                error = y[row, k] - samples[s, row, k]
                term *= np.exp(-(error**2) / (2 * v)) / np.sqrt(2 * np.pi * v)
            density += term / 40
        assert log_likelihood[row] == pytest.approx(np.log(density))
        for k in range(2):
            values = [float(v) for v in samples[:, row, k]]
            mean = sum(values) / 40
            spread = sum((v - mean) ** 2 for v in values) / 40
            noise_mean = sum(variances[:, row, k]) / 40
            assert measures["mean"][row, k] == pytest.approx(mean)
            assert measures["epistemic_variance"][row, k] == pytest.approx(spread)
            assert measures["aleatoric_variance"][row, k] == pytest.approx(noise_mean)
            assert measures["total_variance"][row, k] == pytest.approx(spread + noise_mean)


def test_log_likelihood_of_a_far_target_does_not_underflow():
    far = gaussian_log_likelihood(np.array([[1e4]]), np.zeros((5, 1, 1), "float32"), 1.0)
    assert far[0] == pytest.approx(-0.5e8 - 0.5 * np.log(2 * np.pi))


def test_log_likelihood_follows_the_unit_of_the_target():
    rng = np.random.default_rng(4)
    samples, y = rng.normal(size=(20, 6, 1)), rng.normal(size=(6, 1))
    metres = gaussian_log_likelihood(y, samples, 0.3)
    centimetres = gaussian_log_likelihood(100 * y, 100 * samples, 0.3e4)
    np.testing.assert_allclose(metres - centimetres, np.log(100))


@pytest.mark.parametrize(
    ("y", "samples", "noise_variance", "message"),
    [
        (np.ones((3, 1)), np.ones((4, 3)), 1.0, r"`samples` must have shape \(num_samples, batch"),
        (np.ones(3), np.ones((4, 3, 1)), 1.0, r"`y` must have shape \(3, 1\), that of one sample"),
        (np.ones((3, 1)), np.ones((4, 3, 1)), 0.0, "`noise_variance` must be above 0. Received"),
        (np.ones((3, 1)), np.ones((4, 3, 1)), np.nan, "`noise_variance` must be above 0"),
        (np.ones((3, 1)), np.ones((4, 3, 1)), np.ones(2), r"`noise_variance` must broadcast to"),
        (np.ones((3, 1)), np.ones((4, 3, 1)), np.ones(5), r"`noise_variance` must broadcast to"),
    ],
)
def test_bad_regression_arguments(y, samples, noise_variance, message):
    with pytest.raises(ValueError, match=message):
        gaussian_log_likelihood(y, samples, noise_variance)


def test_a_model_keeps_what_is_compiled_of_it_until_its_layers_change():
    model, x = ResidualMLP(num_classes=3, width=8, dropout_rate=0.5, seed=0), np.ones((2, 8), "f4")
    first = predict_samples(model, x, num_samples=4)
    calls = len(model.layers[-1]._inbound_nodes)
    np.testing.assert_array_equal(predict_samples(model, x, num_samples=4), first)
    assert len(model.layers[-1]._inbound_nodes) == calls
    assert not any("sampler" in w.path for w in model.weights)
    for layer in model.layers:
        if hasattr(layer, "dropout_rate"):
            layer.dropout_rate = 0.0
            for ic in (getattr(layer, name, None) for name in ("ic", "ic_0", "ic_1")):
                if ic is not None:
                    ic.dropout_rate = 0.0
    changed = predict_samples(model, x, num_samples=4)
    assert len(np.unique(changed, axis=0)) == 1 < len(np.unique(first, axis=0))


def test_what_is_no_model_is_one_sentence():
    with pytest.raises(InputError, match="`model` must be a keras.Model"):
        predict_samples("model.keras", np.ones((2, 8), "f4"))


def test_few_columns_of_which_hardly_any_drop_out():
    """Fewer columns than the units that a pass with shared masks takes off at once."""
    model = ResidualMLP(num_classes=3, width=12, num_blocks=1, dropout_rate=1e-4, seed=0)
    x = np.random.default_rng(0).standard_normal((40, 12), np.float32)
    samples = predict_samples(model, x, num_samples=8, masks="shared")
    alone = predict_samples(model, x[:1], num_samples=8, masks="shared")
    np.testing.assert_allclose(samples[:, :1], alone, atol=1e-6)


def test_another_float_type_of_keras(sampler):
    expected = predict_uncertainty(sampler, X, num_samples=5)["mean"]
    keras.config.set_floatx("float64")
    try:
        answer = predict_uncertainty(Sampler(sampler.model), X, num_samples=5)["mean"]
    finally:
        keras.config.set_floatx("float32")
    np.testing.assert_allclose(answer, expected, atol=1e-6)


@pytest.mark.parametrize("num_samples", [5, 7])
def test_steps_of_several_members_keep_to_the_rows_at_once(monkeypatch, num_samples):
    sampler = Sampler(ResidualMLP(num_classes=3, width=WIDTH, members=5, dropout_rate=0.5, seed=0))
    sizes, run = [], sampler.run

    def counted(output, x, streams, weights, **how):
        sizes.append(len(x) * weights.shape[1])
        return run(output, x, streams, weights, **how)

    monkeypatch.setattr(sampler, "run", counted)
    x = np.zeros((90, WIDTH), np.float32)
    predict_uncertainty(sampler, x, num_samples=num_samples, rows_per_pass=100)
    assert 0 < max(sizes) <= 100


def test_xla_is_not_expected_where_a_nested_layer_has_none():
    class Plain(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.supports_jit = False

        def call(self, inputs):
            return inputs * 2.0

    def model(layer):
        inside = keras.Sequential([keras.Input((WIDTH,)), layer])
        parts = [inside, keras.layers.Dropout(0.5), keras.layers.Dense(2, activation="softmax")]
        return keras.Sequential([keras.Input((WIDTH,)), *parts])

    assert Sampler(model(keras.layers.ReLU())).jit_compiles
    sampler = Sampler(model(Plain()))
    assert not sampler.jit_compiles
    samples = predict_samples(sampler, X, num_samples=6)
    answer = predict_uncertainty(sampler, X, num_samples=6)["mean"]
    np.testing.assert_allclose(answer, samples.mean(axis=0), atol=1e-6)
