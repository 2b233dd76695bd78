"""Trainings side by side: each ends where it would have ended alone."""

import numpy as np
import pytest
from data_sets import make_store

from kerasmlp import EmbeddingStore, NumberTarget, Recipe, StoreInfo, load_model
from kerasmlp.data.targets import choose_target
from kerasmlp.experiments.cross_validation.plan import CrossValidationPlan, plan_runs
from kerasmlp.experiments.cross_validation.trainer import train_planned, train_together
from kerasmlp.training.compiled_models import Workbench
from kerasmlp.utils.tables import read_csv

RECIPE = Recipe(epochs=5, batch_size=32, dropout_rate=0.3, learning_rate=3e-3)


@pytest.fixture(scope="module")
def bench():
    return Workbench(xla=False)


def numbers_store(rows=300):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(rows, 4)) * [1, 50, 0.01, 0]).astype("float32")
    y = x[:, 0] + x[:, 1] / 50 + 0.1 * rng.normal(size=rows)
    return EmbeddingStore(x, {"y": y}, StoreInfo(normalized=False))


CASES = {
    "classes": (make_store(rows=300), "gender", RECIPE),
    "stopped early": (make_store(rows=300), "gender", RECIPE.replace(epochs=8, patience=1)),
    "numbers": (numbers_store(), None, RECIPE.replace(mixup_alpha=0.0, noise_std=0.1)),
}


def plan_of(store, label, recipe, seeds=(0, 1)):
    target = NumberTarget("y") if label is None else choose_target(store, label)
    return CrossValidationPlan(target=target, recipe=recipe, seeds=seeds, num_folds=2)


def check_equal(a, b, store):
    histories = [read_csv(path / "history.csv") for path in (a, b)]
    assert [len(h) for h in histories] == [len(histories[0])] * 2
    for mine, theirs in zip(*histories, strict=True):
        for name in mine:
            assert float(mine[name]) == pytest.approx(float(theirs[name]), rel=1e-3, abs=1e-4)
    answers = [load_model(p).predict(store.embeddings, verbose=0) for p in (a, b)]
    np.testing.assert_allclose(*answers, atol=2e-5)
    return answers[0]


@pytest.mark.parametrize("case", CASES)
def test_each_ends_where_it_would_alone(case, bench, tmp_path):
    store, label, recipe = CASES[case]
    plan = plan_of(store, label, recipe)
    runs = plan_runs(store, plan)
    train_together(store, plan, runs, tmp_path / "together", bench)
    answers = []
    for run in runs:
        train_planned(store, plan, run, tmp_path / "alone", bench)
        folders = [tmp_path / kind / run.name for kind in ("together", "alone")]
        answers.append(check_equal(*folders, store))
    apart = [np.abs(a - b).max() for a in answers for b in answers if a is not b]
    assert min(apart) > 1e-3
