"""What `evaluate` writes: folder, report, groups, figures; and when it refuses."""

import csv
import json
import shutil

import numpy as np
import pytest
from damage import without_hashes
from data_sets import INFO, make_store

from kerasmlp import EmbeddingStore
from kerasmlp.cli import run_command
from kerasmlp.data.targets import choose_age_target, choose_target
from kerasmlp.evaluation import metrics
from kerasmlp.evaluation.report import random_vectors
from kerasmlp.models.presets import Recipe
from kerasmlp.runs.evaluation_folder import FILES, evaluation_folder
from kerasmlp.runs.predictor import Predictor
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.training.embeddings import train
from kerasmlp.uncertainty.samples import predict_uncertainty
from kerasmlp.uncertainty.selective import aurc, auroc
from kerasmlp.utils.checks import InputError

SMALL = Recipe(epochs=3, batch_size=32, dropout_rate=0.2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run on ages, a store with gaps and races, and one of another source."""
    path = tmp_path_factory.mktemp("evaluation")
    store = make_store()
    target = choose_age_target(store, None, "adience", by_years=True)
    train(store, target, SMALL, path / "age", seed=1, pictures=False)
    race = np.array(["Black", "White", "", "White"] * 50)
    fresh = make_store(rows=200, seed=5, race=race)
    fresh.labels["age_years"][:10] = np.nan
    fresh.save(path / "fresh.h5")
    other = make_store(rows=60, seed=9)
    EmbeddingStore(np.roll(other.embeddings, 7, axis=1), {}, INFO).save(path / "foreign.h5")
    return path


@pytest.fixture(scope="module")
def evaluated(folder):
    arguments = [folder / "age", folder / "fresh.h5", "--ood", folder / "foreign.h5"]
    arguments += ["--num-samples", 16, "--output", folder / "deep" / "result"]
    assert run_command("evaluate", [str(a) for a in arguments]) == 0
    return folder / "deep" / "result"


def test_the_folder_is_whole(evaluated):
    assert {p.name for p in evaluated.iterdir()} == set(FILES) - {"predicted.png"}
    assert [p.name for p in evaluated.parent.iterdir()] == ["result"]
    for name in set(FILES) - {"predicted.png"}:  # which is of numbers
        if name.endswith(".png"):
            assert (evaluated / name).read_bytes().startswith(b"\x89PNG")


def test_the_report_against_numbers_from_the_arrays(folder, evaluated):
    report = json.loads((evaluated / "report.json").read_text())
    assert report["rows_learned_from"] == 0
    predictor = Predictor(folder / "age")
    target = predictor.target
    whole = EmbeddingStore.open(folder / "fresh.h5")
    store = whole.subset(np.arange(10, 200))  # without those of unknown age
    ages = store.labels["age_years"]
    labels = target.encode(store)
    drawn = predict_uncertainty(predictor.model, store.embeddings, num_samples=16, seed=0)
    for name, p in (
        ("deterministic", predictor.probabilities(store.embeddings)), ("mc_mean", drawn["mean"]),
    ):  # fmt: skip
        groups = target.measured(p)
        wrong = groups.argmax(axis=1) != labels
        entropy = -np.sum(groups * np.log(groups), axis=1)
        ends = predictor.intervals(p, sampled=name == "mc_mean")[90]
        result = report[name]
        assert result["rows"] == 190
        assert result["accuracy"] == pytest.approx(1 - wrong.mean())
        assert result["nll"] == pytest.approx(metrics.nll(labels, groups), rel=1e-4)
        assert result["aurc"] == pytest.approx(aurc(wrong, entropy), rel=1e-3)
        assert result["aurc_random"] == pytest.approx(wrong.mean())
        assert result["aurc_oracle"] == pytest.approx(aurc(wrong, wrong))
        surest = np.argsort(entropy)[: round(0.8 * 190)]
        assert result["accuracy_at_80"] == pytest.approx(1 - wrong[surest].mean(), abs=0.01)
        covered = np.mean((ends[:, 0] <= ages) & (ages <= ends[:, 1]))
        assert result["interval_90_coverage"] == pytest.approx(covered, abs=0.006)
        width = (ends[:, 1] - ends[:, 0]).mean()
        assert result["interval_90_width_years"] == pytest.approx(width, rel=1e-3)
        assert sum(report["reliability"][name]["rows"]) == 190
        assert len(report["central_intervals"][name]) == 9
    assert report["conformal"] is True
    noise = random_vectors(store.embeddings, 0)
    np.testing.assert_allclose(np.linalg.norm(noise, axis=1), 1, rtol=1e-5)
    unsure = predict_uncertainty(predictor.model, noise, num_samples=16, seed=0)
    assert set(report["ood_auroc"]) == {"random_unit_vectors", "foreign"}
    for key in ("mutual_information_nats", "vote_entropy_nats"):
        expected = auroc(drawn[key], unsure[key])
        assert report["ood_auroc"]["random_unit_vectors"][key] == pytest.approx(expected, abs=2e-3)
    assert "vote_mean" not in report["ood_auroc"]["foreign"]


def test_groups_add_up_in_the_table(evaluated):
    report = json.loads((evaluated / "report.json").read_text())
    with open(evaluated / "groups.csv", newline="") as file:
        table = list(csv.DictReader(file))
    for model in ("deterministic", "mc_mean"):
        rows = [row for row in table if row["model"] == model]
        people = [row for row in rows if row["race"] == "all"]
        assert sum(int(row["rows"]) for row in people) == 190
        right = sum(int(row["rows"]) * float(row["accuracy"]) for row in people)
        assert right / 190 == pytest.approx(report[model]["accuracy"])
        races = {row["race"]: int(row["rows"]) for row in rows if row["race"] != "all"}
        assert set(races) == {"Black", "White"} and races["White"] < 100
        assert {row["age_group"] for row in rows if row["race"] != "all"} == {"all"}


def refused(capsys, *arguments):
    assert run_command("evaluate", [str(a) for a in arguments]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    (sentence,) = (line for line in error.splitlines() if line.startswith("error: "))
    return sentence


def test_it_goes_into_the_run_and_leaves_with_it(folder, tmp_path, capsys):
    run, store = tmp_path / "age", folder / "fresh.h5"
    shutil.copytree(folder / "age", run)
    quick = [run, store, "--num-samples", "0", "--json"]
    assert run_command("evaluate", [str(a) for a in quick]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["output"] == str(run / "evaluation-fresh") and "mc_mean" not in result
    before = (run / "evaluation-fresh" / "report.json").read_text()
    assert "uncertainty.png" not in {p.name for p in (run / "evaluation-fresh").iterdir()}
    assert "evaluation-fresh` must not exist yet (or give --force)" in refused(capsys, *quick)
    assert (run / "evaluation-fresh" / "report.json").read_text() == before
    assert run_command("evaluate", [str(a) for a in (*quick, "--force", "--seed", "3")]) == 0
    assert json.loads((run / "evaluation-fresh" / "report.json").read_text())["seed"] == 3
    killed = run / ".evaluation-fresh.abcdefgh"
    killed.mkdir()
    assert {p.name for p in run.iterdir() if "evaluation" in p.name} == {
        "evaluation-fresh", killed.name,
    }  # fmt: skip
    # A run that is replaced takes along what was measured on it.
    with RunFolder(run).working({"seed": 0}, resume=False, force=True):
        assert {p.name for p in run.iterdir()} == {".lock", "config.json"}


def test_nothing_else_is_replaced(folder, tmp_path, capsys):
    run, store, mine = tmp_path / "age", folder / "fresh.h5", tmp_path / "mine"
    shutil.copytree(folder / "age", run)
    mine.mkdir()
    (mine / "report.json").write_text('{"format": "thesis"}')
    for path in (mine, run):
        sentence = refused(capsys, run, store, "--output", path, "--force")
        assert "must hold nothing but an evaluation to be replaced" in sentence
    (tmp_path / "file").write_text("precious")
    sentence = refused(capsys, run, store, "--output", tmp_path / "file", "--force")
    assert "must not exist yet" in sentence and "Received: a file" in sentence
    assert (mine / "report.json").read_text() == '{"format": "thesis"}'
    # and a run with something else in it, by whatever name, is not cleared
    (run / "evaluation-thesis").mkdir()
    (run / "evaluation-thesis" / "notes.txt").write_text("precious")
    with (
        pytest.raises(InputError, match="must hold nothing but a run"),
        RunFolder(run).working({}, resume=False, force=True),
    ):
        pass
    assert (run / "DONE").exists() and (run / "evaluation-thesis" / "notes.txt").exists()


def test_bad_input_leaves_nothing(folder, tmp_path, capsys):
    run, store = folder / "age", folder / "fresh.h5"
    bare = tmp_path / "bare.h5"
    nobody = make_store(rows=20, age_years=np.full(20, np.nan))
    nobody.save(bare)
    wide = tmp_path / "wide.h5"
    make_store(rows=20, width=48).save(wide)
    names = {p.name for p in run.iterdir()}
    for arguments, text in (
        ((run, bare), "must be"),
        ((run, wide), "must hold embeddings of width 32. Received: 48"),
        ((run, store, "--ood", wide), "must hold embeddings of width 32. Received: 48"),
        ((run, store, "--ood", tmp_path / "no.h5"), "no such file"),
        ((run, tmp_path / "no.h5"), "no such file"),
        ((tmp_path, store), "without DONE"),
        ((run, store, "--num-samples", "-1"), "`--num-samples` must be an integer >= 0"),
        ((run, store, "--ood", wide, "--num-samples", "0"), "`--ood` must come with --num-samples"),
    ):
        assert text in refused(capsys, *arguments)
    assert {p.name for p in run.iterdir()} == names


def test_a_failure_in_the_middle_leaves_the_old_one(tmp_path):
    path = tmp_path / "result"
    with evaluation_folder(path, force=False) as folder:
        (folder / "report.json").write_text('{"format": "kerasmlp.evaluation", "seed": 1}')
    with pytest.raises(RuntimeError), evaluation_folder(path, force=True) as folder:
        (folder / "report.json").write_text("{")
        raise RuntimeError("in the middle")
    assert [p.name for p in tmp_path.iterdir()] == ["result"]
    assert json.loads((path / "report.json").read_text())["seed"] == 1


def test_a_model_without_dropout_or_calibration_is_measured_too(tmp_path, capsys):
    store = make_store(rows=120)
    store.save(tmp_path / "store.h5")
    run = tmp_path / "run"
    recipe = SMALL.replace(epochs=1, dropout_rate=0.0)
    train(store, choose_target(store, "gender"), recipe, run, pictures=False)
    (run / "calibration.json").unlink()
    without_hashes(run)  # without the hashes of what was trained
    assert run_command("evaluate", [str(run), str(tmp_path / "store.h5"), "--json"]) == 0
    captured = capsys.readouterr()
    assert "note: the model has no dropout, nothing to sample" in captured.err
    assert "note: the run has learned from 120 of these rows, which flatters it" in captured.out
    assert "mc_mean" not in json.loads(captured.out.splitlines()[-1])
    assert not (run / "evaluation-store" / "intervals.png").exists()
