"""The classifier as scikit-learn tests and uses it, and its answers against those of a run."""

import dataclasses
import pickle
import sys
import threading

import numpy as np
import pytest
from data_sets import make_store
from scikit_checks import TINY, checks
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import kerasmlp
from kerasmlp import KerasMLPClassifier, Predictor, Recipe
from kerasmlp.utils.checks import InputError

QUICK = {"epochs": 2, "batch_size": 32, "mixup_alpha": 0.0, "noise_std": 0.0, "calibrate": False}
QUICK |= {"random_state": 0}


@pytest.fixture(scope="module")
def store():
    return make_store(rows=240, width=16)


@pytest.fixture(scope="module")
def fitted(store):
    return KerasMLPClassifier(**QUICK, num_samples=8).fit(store.embeddings, store.labels["gender"])


@pytest.mark.parametrize(("estimator", "check"), checks(KerasMLPClassifier(**TINY)))
def test_check_estimator(estimator, check):
    check(estimator)


def test_parameters_are_those_of_a_recipe():
    parameters = KerasMLPClassifier().get_params()
    recipe = {f.name: f.default for f in dataclasses.fields(Recipe)}
    own = {"random_state", "validation_fraction", "num_samples", "class_weight"}
    of_ages = {"label_sigma_years", "rps_weight", "conformal_by"}
    assert set(parameters) == set(recipe) - of_ages | own
    same = set(recipe) - of_ages - {"batch_size"}
    assert {k: parameters[k] for k in same} == {k: recipe[k] for k in same}
    with pytest.raises(InputError, match="`epochs` must be an integer >= 1"):
        KerasMLPClassifier(epochs=0).fit(np.eye(4), [0, 1, 0, 1])


def test_it_answers_as_the_run_that_it_saves(store, fitted, tmp_path):
    fitted.model_.save(tmp_path / "run")
    run, X = Predictor(tmp_path / "run"), store.embeddings
    np.testing.assert_array_equal(fitted.predict_proba(X), run.probabilities(X))
    (expected,) = run.uncertainty(X, num_samples=8, seed=0)
    measured = fitted.predict_uncertainty(X)
    assert measured.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(measured[name], values)
    assert fitted.n_iter_ == 2 and fitted.n_features_in_ == 16


def test_scikit_learn_searches_and_pickles_it(store):
    X, y = store.embeddings, np.where(store.labels["gender"] == 1, "f", "m")
    pipeline = make_pipeline(StandardScaler(), KerasMLPClassifier(**QUICK))
    values = {"kerasmlpclassifier__learning_rate": [1e-6, 0.03]}
    search = GridSearchCV(pipeline, values, cv=2).fit(X, y)
    assert search.best_params_ == {"kerasmlpclassifier__learning_rate": 0.03}
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    np.testing.assert_array_equal(again.predict(X), search.predict(X))
    assert set(again.predict(X)) <= {"f", "m"}


def test_class_weights_move_the_answers(store):
    X, y = store.embeddings, store.labels["gender"]
    longer = QUICK | {"epochs": 10, "learning_rate": 0.01}
    light = KerasMLPClassifier(**longer, class_weight={0: 50, 1: 1}).fit(X, y)
    assert light.predict_proba(X)[:, 1].mean() < y.mean() - 0.1
    balanced = KerasMLPClassifier(**QUICK, class_weight="balanced").fit(X, y, sample_weight=y + 1)
    by_hand = (y + 1) * (len(y) / 2 / np.bincount(y))[y]
    weighted = KerasMLPClassifier(**QUICK).fit(X, y, sample_weight=by_hand)
    np.testing.assert_array_equal(balanced.predict_proba(X), weighted.predict_proba(X))


def test_threads_do_not_share_a_model(store):
    X, y, found = store.embeddings, store.labels["gender"], {}

    def fit(seed):
        model = KerasMLPClassifier(**QUICK | {"random_state": seed}).fit(X, y)
        found[seed] = model.predict_proba(X)

    threads = [threading.Thread(target=fit, args=[seed]) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, expected in list(found.items()):
        fit(seed)
        np.testing.assert_array_equal(found[seed], expected)


def test_without_scikit_learn_one_sentence_says_so(monkeypatch):
    for name in [n for n in sys.modules if n.startswith("kerasmlp.estimators")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(InputError, match=r"^estimators need scikit-learn: .*kerasmlp\[sklearn\]"):
        _ = kerasmlp.KerasMLPClassifier
    assert kerasmlp.fit.__name__ == "fit"  # which does without
