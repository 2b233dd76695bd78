"""The regressor as scikit-learn tests and uses it: numbers, standard deviations, intervals."""

import pickle

import numpy as np
import pytest
from data_sets import make_store
from scikit_checks import TINY, checks

from kerasmlp import KerasMLPRegressor, Predictor
from kerasmlp.models.presets import PRESETS
from kerasmlp.utils.checks import InputError

QUICK = {"epochs": 20, "batch_size": 32, "learning_rate": 0.01, "mixup_alpha": 0.0}
QUICK |= {"noise_std": 0.0, "random_state": 0, "num_samples": 8, "refit": False}


@pytest.fixture(scope="module")
def data():
    store = make_store(rows=300, width=16)
    return store.embeddings, 100 + 2 * store.labels["age_years"].astype(float)


@pytest.fixture(scope="module")
def fitted(data):
    return KerasMLPRegressor(**QUICK).fit(*data)


@pytest.mark.parametrize(("estimator", "check"), checks(KerasMLPRegressor(**TINY)))
def test_check_estimator(estimator, check):
    check(estimator)


def test_it_answers_as_the_run_that_it_saves(data, fitted, tmp_path):
    X, y = data
    fitted.model_.save(tmp_path / "run")
    run = Predictor(tmp_path / "run")
    answers = run.probabilities(X).astype(float)
    mean, std = fitted.predict(X, return_std=True)
    np.testing.assert_array_equal(mean, answers[:, 0])
    np.testing.assert_array_equal(std, answers[:, 1])
    np.testing.assert_array_equal(fitted.predict(X), mean)
    intervals = run.intervals(answers, sampled=False)
    for coverage in (0.5, 0.9):
        found = fitted.predict_interval(X, coverage=coverage)
        np.testing.assert_array_equal(found, intervals[round(100 * coverage)])
    (expected,) = run.uncertainty(X, num_samples=8, seed=0)
    for name, values in fitted.predict_uncertainty(X).items():
        np.testing.assert_array_equal(values, expected[name])
    assert fitted.score(X, y) > 0.5
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict(X), mean)


def test_intervals_hold_what_they_promise_on_new_rows(fitted):
    store = make_store(rows=2000, width=16, seed=5)
    y = 100 + 2 * store.labels["age_years"]
    for coverage in (0.5, 0.9):
        low, high = fitted.predict_interval(store.embeddings, coverage).T
        assert abs(((low <= y) & (y <= high)).mean() - coverage) < 0.15  # of 30 rows kept back
    with pytest.raises(InputError, match="`coverage` must be 0.5 or 0.9"):
        fitted.predict_interval(store.embeddings, 0.8)


def test_weights_move_the_answers(data, fitted):
    X, y = data
    weights = np.where(y > np.median(y), 30.0, 1.0)
    heavy = KerasMLPRegressor(**QUICK).fit(X, y, sample_weight=weights)
    assert heavy.predict(X).mean() > fitted.predict(X).mean() + 3


def test_its_hyperparameters_are_those_of_the_preset():
    regressor = KerasMLPRegressor()
    expected = PRESETS["number"].to_config()
    found = {name: getattr(regressor, name) for name in expected if hasattr(regressor, name)}
    assert found == {name: expected[name] for name in found} and len(found) >= 20
