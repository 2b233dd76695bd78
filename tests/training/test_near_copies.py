"""Near-duplicates across a split: trainings and cross-validations count them and say so."""

import json

import numpy as np
import pytest

from kerasmlp import EmbeddingStore, Recipe, StoreInfo, choose_target, train
from kerasmlp.cli import run_command
from kerasmlp.data.splits import grouped_split
from kerasmlp.experiments.cross_validation.fold_copies import fold_copies
from kerasmlp.experiments.cross_validation.plan import CrossValidationPlan, plan_runs

RECIPE = Recipe(epochs=2, batch_size=64, num_blocks=1, min_steps=1)
ROWS, COPIES = 400, 120


@pytest.fixture(scope="module")
def leaky():
    """Rows of which some have a copy, each its own group."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 64))
    x = np.concatenate([x, x[:COPIES] + 0.15 * rng.normal(size=(COPIES, 64))])
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    side = np.where(x[:, 0] > 0, "left", "right")
    return EmbeddingStore(x, {"side": side}, StoreInfo(embedder="made"))


def grouped(store: EmbeddingStore) -> EmbeddingStore:
    groups = np.append(np.arange(ROWS), np.arange(COPIES))
    return EmbeddingStore(store.embeddings, {**store.labels, "group": groups}, store.info)


def weights(path) -> bytes:
    from kerasmlp import load_model

    return b"".join(w.tobytes() for w in load_model(path).get_weights())


@pytest.fixture(scope="module")
def run(leaky, tmp_path_factory, workbench):
    folder = tmp_path_factory.mktemp("leaky") / "run"
    how = {"workbench": workbench, "pictures": False, "test_share": 0.2}
    return folder, train(leaky, choose_target(leaky, "side"), RECIPE, folder, **how)


def crossing(x, held_out, others) -> int:
    return int(((x[held_out] @ x[others].T).max(axis=1) >= 0.95).sum())


def test_a_training_counts_the_copies_that_its_splits_cross(leaky, run):
    _, report = run
    rest, test = grouped_split(np.arange(len(leaky)), 0.2, 0)
    inner, part = grouped_split(np.arange(len(rest)), 0.1, 0)
    expected = {
        "validation": (crossing(leaky.embeddings, rest[part], rest[inner]), len(part)),
        "test": (crossing(leaky.embeddings, test, rest), len(test)),
    }
    found = {k: (v["rows"], v["looked_at"]) for k, v in report["near_copies"].items()}
    assert found == expected and all(rows > 3 for rows, _ in expected.values())
    (kept, of_kept), (tested, of_tested) = expected.values()
    assert report["notes"][0] == (
        f"{kept} of the {of_kept} rows kept back and {tested} of the {of_tested} rows held out "
        "as a test have a near-duplicate (cosine 0.95 or more) among those learned from, which "
        "flatters what is measured on them: `leaks --threshold 0.95 --write-groups` gives such "
        "rows one group, which no split divides"
    )


def test_the_look_changes_no_bit(leaky, run, tmp_path, workbench):
    how = {"workbench": workbench, "pictures": False, "test_share": 0.2, "near_copies": False}
    report = train(leaky, choose_target(leaky, "side"), RECIPE, tmp_path / "run", **how)
    assert "near_copies" not in report and not any("near-dup" in n for n in report["notes"])
    assert weights(tmp_path / "run") == weights(run[0])
    assert report["test"] == run[1]["test"]


def test_groups_silence_it(leaky, tmp_path, workbench):
    store = grouped(leaky)
    how = {"workbench": workbench, "pictures": False}
    report = train(store, choose_target(store, "side"), RECIPE, tmp_path / "run", **how)
    assert report["near_copies"]["validation"]["rows"] == 0
    assert not any("near-dup" in note for note in report["notes"])


def test_columns_of_a_table_are_not_looked_at(tmp_path, workbench):
    x = np.random.default_rng(0).normal(size=(200, 64)) + 3
    labels = {"side": np.where(x[:, 0] > 3, "left", "right")}
    store = EmbeddingStore(x, labels, StoreInfo(normalized=False))
    how = {"workbench": workbench, "pictures": False}
    report = train(store, choose_target(store, "side"), RECIPE, tmp_path / "run", **how)
    assert "near_copies" not in report


@pytest.mark.parametrize("by_column", [False, True])
def test_folds_are_held_against_each_other(leaky, by_column):
    store = leaky
    if by_column:
        folds = np.random.default_rng(1).integers(-1, 3, len(leaky))
        labels = {**leaky.labels, "fold": folds}
        store = EmbeddingStore(leaky.embeddings, labels, leaky.info)
    plan = CrossValidationPlan(target=choose_target(store, "side"), recipe=RECIPE, seeds=(0, 1))
    runs = plan_runs(store, plan)
    expected = sum(crossing(store.embeddings, run.test, run.training) for run in runs)
    tested = sum(len(run.test) for run in runs)
    found = fold_copies(store, runs)
    assert expected > 50
    assert found == {"rows": expected, "looked_at": tested, "of_rows": tested, "cosine": 0.95}
    assert fold_copies(grouped(leaky), plan_runs(grouped(leaky), plan))["rows"] == 0
    table = EmbeddingStore(leaky.embeddings, leaky.labels, StoreInfo(normalized=False))
    assert fold_copies(table, runs) is None


def test_cross_validate_says_so(leaky, tmp_path, capsys, quick_starts):
    leaky.save(tmp_path / "a.h5")
    words = ["--store", tmp_path / "a.h5", "--label", "side", "--epochs", "1", "--seeds", "1"]
    words += ["--num-blocks", "1", "--folds", "2", "--workers", "1"]
    words += ["--run-dir", tmp_path / "cv", "--json"]
    assert run_command("cross-validate", [str(w) for w in words]) == 0
    *_, note, summary = capsys.readouterr().out.splitlines()
    report = json.loads((tmp_path / "cv" / "report.json").read_text())
    share = report["near_copies"]["rows"] / report["near_copies"]["looked_at"]
    assert note.startswith(f"note: {share:.1%} of the rows tested on have a near-duplicate (cosine")
    assert 0.1 < share < 0.4 and "test_accuracy" in json.loads(summary)
    runs = [json.loads(p.read_text()) for p in (tmp_path / "cv").glob("seed*/report.json")]
    assert len(runs) == 2 and not any("near_copies" in one for one in runs)
