"""Run folders as tables: every run counted, what differs shown, damage said."""

import json

import pytest
from damage import outcome
from data_sets import make_store

from kerasmlp import choose_target, train
from kerasmlp.data.targets import age_target
from kerasmlp.models.presets import Recipe
from kerasmlp.runs.listing import compare_runs, list_runs, measured_apart
from kerasmlp.training.recalibrating import recalibrate
from kerasmlp.utils.checks import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two genders of other seeds, an age further in, one unfinished, one damaged."""
    folder = tmp_path_factory.mktemp("runs")
    store, how = make_store(rows=150), {"pictures": False}
    for seed, epochs in ((0, 1), (1, 2)):
        target = choose_target(store, "gender")
        train(store, target, Recipe(epochs=epochs), folder / f"g{seed}", seed=seed, **how)
    target = age_target("age_years", "adience", by_years=True)
    train(store, target, Recipe(epochs=1), folder / "inner" / "age", **how)
    half = folder / "half"
    half.mkdir()
    (half / "config.json").write_text((folder / "g0" / "config.json").read_text())
    (folder / "broken").mkdir()
    (folder / "broken" / "config.json").write_text("{")
    return folder


def test_every_run_is_told_with_its_measures(folder):
    rows = {row["run"]: row for row in list_runs(folder)}
    assert sorted(rows) == ["broken", "g0", "g1", "half", "inner/age"]
    report = json.loads((folder / "g1" / "report.json").read_text())
    found = rows["g1"]
    assert (found["state"], found["epochs"], found["seed"]) == ("done", 2, 1)
    assert found["accuracy"] == report["validation"]["accuracy"]
    assert found["rows"] == report["rows"]["training"] and found["labels"] == "gender"
    assert "mae_years" in rows["inner/age"] and rows["half"]["state"] == "unfinished"
    assert rows["broken"]["state"] == "damaged" and "config.json" in rows["broken"]["why"]


def test_what_sets_runs_apart(folder):
    found = compare_runs([folder / "g0", folder / "g1"])
    assert found["settings"] == {"recipe.epochs": [1, 2], "seed": [0, 1]}
    reports = [json.loads((folder / f"g{k}" / "report.json").read_text()) for k in (0, 1)]
    assert found["measures"]["nll"] == [r["validation"]["nll"] for r in reports]
    for unfinished in ("half", "broken", "absent"):
        with pytest.raises(InputError, match=unfinished):
            compare_runs([folder / "g0", folder / unfinished])


def test_a_recalibrated_run_is_told_from_a_training(folder, tmp_path):
    store = make_store(rows=90, seed=1)
    recalibrate(folder / "g0", store, tmp_path / "new")
    (row,) = list_runs(tmp_path)
    report = json.loads((tmp_path / "new" / "report.json").read_text())
    assert row["state"] == "recalibrated" and row["nll"] == report["validation"]["nll"]
    _, out, _ = outcome("runs", "list", tmp_path)
    assert out.endswith("recalibrated runs are of the rows that they were fitted to\n")
    settings = compare_runs([folder / "g0", tmp_path / "new"])["settings"]
    assert settings["recalibrated.data_digest"] == [None, store.digest()]
    assert "recalibrated.seed" in settings
    assert measured_apart(settings) == ["recalibrated.data_digest"]
    same = compare_runs([folder / "g0", folder / "g0"])["settings"]
    assert measured_apart(same) == [] == measured_apart({"recipe.epochs": [1, 2]})


def test_the_commands(folder):
    code, out, _ = outcome("runs", "list", folder, "--json")
    *table, line = out.splitlines()
    assert code == 0 and json.loads(line)["runs"] == list_runs(folder)
    assert table[0].split()[:3] == ["run", "state", "kind"] and "note:" in table[-1]
    code, out, _ = outcome("runs", "compare", folder / "g0", folder / "g1")
    assert code == 0 and "recipe.epochs" in out and "accuracy" in out
    assert out.startswith("note: measures are of different rows, for these differ: seed\n")
    for arguments in (["list", folder / "nowhere"], ["compare", folder / "half"]):
        code, _, err = outcome("runs", *arguments)
        assert code == 2 and len(err.splitlines()) == 1
