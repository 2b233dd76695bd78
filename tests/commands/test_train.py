"""`train`: any label by its column, several at once, and what it says and refuses."""

import csv
import json

import numpy as np
import pytest

from kerasmlp import EmbeddingStore, StoreInfo
from kerasmlp.cli import run_command
from kerasmlp.data.other_targets import NumberTarget
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.training_files import read_settings

QUICK = ("--epochs", 2, "--batch-size", 32)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 12))
    path = tmp_path_factory.mktemp("train") / "people.h5"
    labels = {
        "bmi": 25 + 4 * x[:, 0] + rng.normal(size=300),
        "race": np.where(x[:, 1] > 0, "a", "b"),
        "code": np.arange(300),
        "quality": np.arange(300) % 6 + 3,
    }
    EmbeddingStore(x, labels, StoreInfo(normalized=False)).save(path)
    return path


def command(name, *arguments) -> int:
    return run_command(name, [str(a) for a in arguments])


def test_a_number_from_training_to_answers(store, tmp_path, capsys):
    run = tmp_path / "run"
    options = ("--store", store, "--label", "bmi", "--unit", "kg/m²", "--run-dir", run)
    assert command("train", *options, *QUICK, "--json") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("bmi: a number (floats, 300 different values)\n")
    assert "measured in bmi in kg/m²:" in printed
    assert json.loads(printed.splitlines()[-1])["rmse"] > 0
    assert read_settings(RunFolder(run))[1] == NumberTarget("bmi", "kg/m²")
    assert command("train", "--store", store, "--run-dir", run, "--resume", *QUICK) == 0
    assert "a number" not in capsys.readouterr().out  # it is the run's, nothing is looked at
    assert command("predict", run, store, "--num-samples", 4, "-o", tmp_path / "a.csv") == 0
    capsys.readouterr()
    rows = list(csv.DictReader((tmp_path / "a.csv").open(encoding="utf-8")))
    assert len(rows) == 300 and rows[0]["bmi.unit"] == "kg/m²"
    assert abs(np.mean([float(r["bmi.bmi"]) for r in rows]) - 25) < 4
    assert command("predict", run, store, "--max-risk", 0.1) == 2
    assert "must be left out for bmi, a number" in capsys.readouterr().err


@pytest.mark.slow
def test_several_labels(store, tmp_path, capsys):
    options = ("--store", store, "--label", "bmi", "quality", "race", "--run-dir", tmp_path / "run")
    tasks = ("--task", "quality=number", "--unit", "bmi=kg/m²")
    assert command("train", *options, *tasks, *QUICK, "--test-share", 0.2) == 0
    printed = capsys.readouterr().out
    assert "quality: a number (as --task says)\nrace: classes (text, 2 different values)" in printed
    for measured in ("bmi in kg/m²", "quality", "the 2 classes of race"):
        assert f"on the rows kept back, measured in {measured}:" in printed
    assert command("predict", tmp_path / "run", store, "--num-samples", 2) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[0])
    assert list(answer) == ["input", "row", "bmi", "quality", "race"]
    assert command("evaluate", tmp_path / "run", store, "--num-samples", 2, "--json") == 0
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert measured["race_accuracy"] > 0 and measured["mc_mean"]["bmi_rmse"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--label", "code"], "`code` must be told by `--task classes` or `--task number`"),
        (["--label", "hair"], "`--label` must be a column of the store"),
        (["--label", "bmi", "--task", "weight"], "`--task` must be one of years, groups, gender"),
        (["--label", "race", "--task", "number"], "`race` must hold numbers. Received: race="),
        (["--label", "race", "--unit", "cm"], "`--unit` must be left out for race, which is no n"),
        (
            ["--label", "bmi", "race", "--unit", "cm"],
            "`--unit` must be LABEL=… of one of bmi, r",
        ),
        (["--label", "bmi", "--classes", "years"], "`--classes` must be left out for a label that"),
        ([], "`--label` must be an age column; the store holds bmi, code, quality, race"),
    ],
)
def test_what_is_refused(store, tmp_path, capsys, options, message):
    assert command("train", "--store", store, *options, "--run-dir", tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()
