"""Learning from several stores at once: what each head learns from, and what is said of it."""

import json

import numpy as np
import pytest
from data_sets import INFO, make_store

from kerasmlp import EmbeddingStore, Recipe, join_stores, load_model, train
from kerasmlp.cli import run_command
from kerasmlp.data.joining import open_stores
from kerasmlp.data.other_targets import SeveralTargets
from kerasmlp.data.targets import age_target, choose_target
from kerasmlp.evaluation.measuring import measure
from kerasmlp.runs.predictor import Predictor
from kerasmlp.training.compiled_models import Workbench
from kerasmlp.training.heads import Heads
from kerasmlp.training.rows import Rows

RECIPE = Recipe(epochs=3, batch_size=32, dropout_rate=0.2)
HOW = {"seed": 1, "pictures": False}


def part_of(whole: EmbeddingStore, chosen: np.ndarray, name: str, *labels: str) -> EmbeddingStore:
    part = whole.subset(chosen)
    return EmbeddingStore(part.embeddings, {k: part.labels[k] for k in labels}, INFO, name=name)


@pytest.fixture(scope="module")
def parts():
    whole, first = make_store(rows=400), np.arange(400) < 240
    a = part_of(whole, first, "a.h5", "gender")
    return whole, a, part_of(whole, ~first, "b.h5", "gender", "age_years")


@pytest.fixture(scope="module")
def target():
    age = age_target("age_years", "adience", by_years=True)
    return SeveralTargets((age, choose_target(make_store(), "gender")))


@pytest.fixture(scope="module")
def bench():
    return Workbench(xla=False)


@pytest.fixture(scope="module")
def run(parts, target, bench, tmp_path_factory):
    folder = tmp_path_factory.mktemp("joined") / "run"
    both = join_stores(parts[1:])
    how = HOW | {"workbench": bench, "test_share": 0.2}
    return folder, train(both, target, RECIPE, folder, **how)


def test_a_label_that_one_store_lacks_is_learned_from_the_other(parts, target):
    whole, *both = parts
    how = {"validation_share": 0.1, "seed": 0, "group": None}
    heads = Heads(Rows.of(join_stores(both), target, None, how), RECIPE)
    age, gender = (np.asarray(heads.targets)[:, columns] for columns in heads.columns)
    from_a = heads.heads[0].rows.training.labels["joined_from"] == "a.h5"
    assert 0 < from_a.sum() < len(from_a)
    assert (age[from_a] == 0).all() and (age[~from_a].sum(axis=1) > 0.99).all()
    assert (gender.sum(axis=1) == 1).all()
    inputs = heads.heads[0].rows.training.inputs[~from_a]
    assert {row.tobytes() for row in inputs} <= {row.tobytes() for row in whole.embeddings[240:]}


def test_it_is_the_training_on_the_rows_put_together_by_hand(parts, target, bench, run, tmp_path):
    whole, folder = parts[0], run[0]
    ages = np.where(np.arange(400) < 240, np.nan, whole.labels["age_years"])
    labels = {"gender": whole.labels["gender"], "age_years": ages}
    by_hand = EmbeddingStore(whole.embeddings, labels, INFO)
    report = train(
        by_hand, target, RECIPE, tmp_path / "run", workbench=bench, test_share=0.2, **HOW
    )
    for part in ("validation", "test"):
        assert report[part] == run[1][part]
    both = (load_model(path / "model.keras").get_weights() for path in (folder, tmp_path / "run"))
    for one, other in zip(*both, strict=True):
        np.testing.assert_array_equal(one, other)
    assert "stores" not in json.loads((tmp_path / "run" / "config.json").read_text())


def test_measures_by_store_are_those_of_their_rows(parts, target, run):
    folder, report = run
    config = json.loads((folder / "config.json").read_text())
    assert config["stores"] == [{"file": "a.h5", "rows": 240}, {"file": "b.h5", "rows": 160}]
    assert "test_by_store" not in report["heads"]["age"]  # one of them alone has ages
    joined = join_stores(parts[1:])
    how = {"validation_share": 0.1, "test_share": 0.2, "seed": 1, "group": None}
    gender = target.heads[1]
    rows = Rows.of(joined, gender, None, how).heads[0]
    head = next(p for p in Predictor.heads(folder) if p.target.name == "gender")
    for part, name in ((rows.part, "validation"), (rows.test, "test")):
        found = report["heads"]["gender"][f"{name}_by_store"]
        assert list(found) == ["a.h5", "b.h5"]
        for file, measured in found.items():
            own = part.subset(part.labels["joined_from"] == file)
            expected = measure(own, head.probabilities(own.inputs))
            assert measured["rows"] == len(own) and measured["nll"] > 0
            assert measured == pytest.approx(expected, rel=1e-4)
    assert sum(one["rows"] for one in found.values()) == report["heads"]["gender"]["test"]["rows"]


def command(name: str, *words) -> int:
    return run_command(name, [str(word) for word in words])


def test_the_command_says_what_it_joins_and_goes_on_with_no_other_stores(tmp_path, capsys):
    a, b = tmp_path / "a.h5", tmp_path / "b.h5"
    rng = np.random.default_rng(0)
    first, second = make_store(rows=120, width=8), make_store(rows=80, width=8, seed=1)
    races = rng.choice(["x", "y"], 120), rng.choice(["x", "z"], 80)
    again = np.concatenate([second.embeddings, first.embeddings[:3]])
    EmbeddingStore(first.embeddings, {"race": races[0], "n": np.arange(120)}, INFO).save(a)
    labels = {"race": [*races[1], *races[0][:3]], "n": ["t"] * 83}
    EmbeddingStore(again, labels, INFO).save(b)
    words = ("--label", "race", "--epochs", 1, "--batch-size", 32, "--run-dir", tmp_path / "run")
    assert command("train", "--store", a, b, *words) == 0
    printed = capsys.readouterr().out
    for line in (
        "a.h5: 120 rows, b.h5: 83 rows\n",
        "note: 3 rows are in two stores: they stay on one side of each split\n",
        "note: n is left out: it is text in b.h5, numbers in a.h5\n",
        "race: known in 120 of 120 rows in a.h5, 83 of 83 rows in b.h5\n",
        "note: race: 'z' in b.h5 alone\n",
    ):
        assert printed.count(line) == 1, line
    table = next(line for line in printed.splitlines() if "kept back  " in line)
    assert table.split() == ["kept", "back", "a.h5", "b.h5"]
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert "race: 'z' in b.h5 alone" in report["notes"]
    assert report["data_digest"] == open_stores([a, b]).digest()
    assert command("train", "--store", a, b, *words, "--resume") == 0
    for stores in ((b, a), (a,)):
        assert command("train", "--store", *stores, *words, "--resume") == 2
        assert "must be resumed with the same data_digest" in capsys.readouterr().err
    assert command("train", "--store", a, b, "--label", "n") == 2
    refused = "`--label` must be a column that stores have alike: it is text in b.h5, numbers in a"
    assert refused in capsys.readouterr().err
    assert command("train-gender", "--store", a, a) == 2
    assert "`--store` must name one or more files, each once" in capsys.readouterr().err
