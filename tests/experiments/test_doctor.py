"""Answers out of fold, the labels that they cannot believe, and the way back into the store."""

import contextlib
import io
import json
import shutil
import sys

import numpy as np
import pytest
from data_sets import make_store
from PIL import Image

from kerasmlp import (
    CrossValidationPlan,
    EmbeddingStore,
    InputError,
    NumberTarget,
    Predictor,
    Recipe,
    SeveralTargets,
    Target,
    cross_validate,
    doctor,
    predict_uncertainty,
    relabel,
)
from kerasmlp.cli import run_command
from kerasmlp.data.joining import open_stores
from kerasmlp.data.other_targets import target_from_config
from kerasmlp.data.targets import age_target, choose_target
from kerasmlp.evaluation.predictions_file import Predictions
from kerasmlp.evaluation.suspects import rank_suspects
from kerasmlp.experiments.cross_validation import out_of_fold
from kerasmlp.experiments.cross_validation.plan import plan_runs
from kerasmlp.experiments.cross_validation.trainer import TrainingPool
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.utils.tables import csv_of, read_csv

RECIPE = Recipe(epochs=1, batch_size=32, dropout_rate=0.2, num_blocks=1, learning_rate=0.01)
FLIPPED = np.arange(0, 240, 16)


@pytest.fixture(scope="module")
def pool(quick_starts):
    with TrainingPool(1) as pool:
        yield pool


@pytest.fixture(scope="module")
def several(tmp_path_factory, pool):
    """Three heads, and predictions by the models of a run that was finished without them."""
    folder = tmp_path_factory.mktemp("several")
    bmi = np.where(np.arange(200) % 7, np.linspace(17, 33, 200), np.nan)
    store = make_store(rows=200, width=16, bmi=bmi)
    store.labels["gender"][:9] = -1
    store.save(folder / "store.h5")
    target = SeveralTargets(
        (
            choose_target(store, "gender"),
            NumberTarget("bmi", "kg/m²"),
            age_target("age_years", "adience", by_years=True),
        )
    )
    plan = CrossValidationPlan(target=target, recipe=RECIPE, seeds=(3,), num_folds=2)
    before = cross_validate(folder / "store.h5", plan, folder / "cv", pool=pool)
    config = json.loads((folder / "cv" / "config.json").read_text())
    config["files"] = [name for name in config["files"] if "predictions" not in name]
    run = RunFolder(folder / "cv")
    (run / "config.json").write_text(json.dumps(config))  # as of an older version
    run.finish(before)
    assert run.config()["files"] == config["files"]
    models = {p: p.stat().st_mtime_ns for p in (folder / "cv").glob("*/model.keras")}
    how = {"pool": pool, "resume": True, "save_predictions": True}
    after = cross_validate(folder / "store.h5", plan, folder / "cv", **how)
    assert after == before and len(models) == 2
    assert models == {p: p.stat().st_mtime_ns for p in (folder / "cv").glob("*/model.keras")}
    return folder, store, plan


@pytest.fixture(scope="module")
def joined(tmp_path_factory, pool):
    """Two stores with flipped genders; two seeds, whose runs were trained side by side."""
    folder, whole = tmp_path_factory.mktemp("joined"), make_store(rows=240, width=16)
    gender, group = whole.labels["gender"].copy(), np.arange(240)
    gender[FLIPPED] = 1 - gender[FLIPPED]
    path = np.array([f"{'ab'[k >= 100]}/{k}.jpg" for k in range(240)])
    paths = [folder / "a.h5", folder / "b.h5"]
    for file, rows in zip(paths, (np.arange(100), np.arange(100, 240)), strict=True):
        labels = {"gender": gender[rows], "group": group[rows], "path": path[rows]}
        EmbeddingStore(whole.embeddings[rows], labels, whole.info).save(file)
    target, recipe = choose_target(whole, "gender"), RECIPE.replace(epochs=8)
    plan = CrossValidationPlan(target=target, recipe=recipe, seeds=(0, 1), num_folds=2)
    how = {"pool": pool, "side_by_side": 2, "save_predictions": True}
    cross_validate(paths, plan, folder / "cv", **how)
    return folder, paths, plan


def read(folder, label):
    run = RunFolder(folder / "cv")
    return out_of_fold.read_predictions(run, target_from_config(run.config()["target"]), label)


def test_each_row_is_answered_by_the_run_that_was_tested_on_it(several):
    folder, store, plan = several
    files = {label: read(folder, label) for label in ("gender", "bmi", "age_years")}
    known = {}
    for label, found in files.items():
        column = store.labels[label].astype(float)
        known[label] = ~np.isnan(column) & (column != -1)
        assert sorted(found.columns["row"]) == np.flatnonzero(known[label]).tolist()
        assert found.about["rows_without_label"] == (~known[label]).sum()
        assert found.about["answers"] == "mc_mean" and found.about["num_samples"] == 64
        assert found.about["data_digest"] == store.digest()
        rows = found.columns["row"]
        np.testing.assert_array_equal(found.columns["label"], store.labels[label][rows])
    expected = {}
    for run in plan_runs(store, plan):
        if not expected:  # of one run: to compile the passes of another takes a second
            predictor = Predictor(folder / "cv" / run.name, "gender")
            x = store.embeddings[run.test]
            expected = predict_uncertainty(predictor.mc_model, x, num_samples=64, seed=3)
        for label, found in files.items():
            own = found.columns["fold"] == run.fold
            rows = found.columns["row"][own]
            assert set(rows) == set(run.test[known[label][run.test]])
            if run.fold == 0:
                place = np.searchsorted(run.test, rows)
                columns = {name: column[own] for name, column in found.columns.items()}
                answers = {name: values[place] for name, values in expected[label].items()}
                check_answers(columns, answers)


def check_answers(columns, expected):
    if "mean" not in columns:
        np.testing.assert_allclose(columns["probabilities"], expected["mean"], atol=1e-6)
        for name in ("predictive_entropy_nats", "mutual_information_nats"):
            np.testing.assert_allclose(columns[name], expected[name], atol=1e-5)
        return
    (mean, std), (epistemic, of_std) = expected["mean"].T, expected["epistemic_variance"].T
    np.testing.assert_allclose(columns["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(columns["std"], np.sqrt(epistemic + std**2 + of_std), rtol=1e-4)
    np.testing.assert_allclose(columns["epistemic_std"], np.sqrt(epistemic), rtol=1e-3)


def test_the_folder_knows_its_new_files(several):
    folder, _, plan = several
    run = RunFolder(folder / "cv")
    run.check_files()
    names = {f"predictions_{label}.parquet" for label in ("gender", "bmi", "age_years")}
    assert names <= {line.split()[1] for line in (run / "DONE").read_text().splitlines()}
    assert "predictions*.parquet" in run.config()["files"] and not (run / "predictions").exists()
    stamps = {name: (run / name).stat().st_mtime_ns for name in names}
    how = {"resume": True, "save_predictions": True}
    cross_validate(folder / "store.h5", plan, run.path, **how)  # no worker starts
    assert stamps == {name: (run / name).stat().st_mtime_ns for name in names}


def keep_parts(several, path, *, fold):
    """The answers of one run, as they are before they are put together."""
    folder, store, plan = several
    (path / "predictions").mkdir()
    for label, name in out_of_fold.files_of(plan.target).items():
        found, run = read(folder, label), plan_runs(store, plan)[fold]
        own = found.columns["fold"] == fold
        columns = {name: column[own] for name, column in found.columns.items()}
        said = found.about | {"rows_without_label": len(run.test) - int(own.sum())}
        part = Predictions(found.target, said, columns)
        part.save(path / "predictions" / name.replace("predictions", run.name))


class Counting:
    """Predicts in this process, and keeps which runs; with `deadly` it dies at that one."""

    number = 1

    def __init__(self, store, plan, deadly=None):
        self.store, self.plan, self.deadly, self.done = store, plan, deadly, []

    def train(self, settings, pending, steps, **how):
        assert settings["predict"]  # there is nothing to train
        for number in pending:
            if number == self.deadly:
                raise KeyboardInterrupt
            run = plan_runs(self.store, self.plan)[number]
            out_of_fold.predict_planned(self.store, self.plan, run, settings["run_dir"])
            self.done.append(number)
            yield number


def test_killed_in_between_it_goes_on_with_what_is_left(several, tmp_path):
    """And what is damaged or gone is refused until it is written anew."""
    folder, store, plan = several
    path = shutil.copytree(folder / "cv", tmp_path / "cv")
    whole = {p.name: p.read_bytes() for p in path.glob("*.parquet")}
    damaged = bytearray(whole["predictions_bmi.parquet"])
    damaged[400] ^= 1
    (path / "predictions_bmi.parquet").write_bytes(damaged)
    with pytest.raises(InputError, match=r"predictions_bmi.parquet` must be as it was written"):
        doctor(path, folder / "store.h5", tmp_path / "out")
    (path / "predictions_gender.parquet").unlink()
    with pytest.raises(InputError, match=r"predictions_gender.parquet` must be there, as DONE"):
        doctor(path, folder / "store.h5", tmp_path / "out")
    how = {"resume": True, "save_predictions": True}
    with pytest.raises(KeyboardInterrupt):
        killed = Counting(store, plan, deadly=0)
        cross_validate(folder / "store.h5", plan, path, pool=killed, **how)
    assert RunFolder(path).done  # nothing is lost: the runs are finished
    keep_parts(several, path, fold=0)
    again = Counting(store, plan)
    cross_validate(folder / "store.h5", plan, path, pool=again, **how)
    assert again.done == [1]
    RunFolder(path).check_files()
    assert whole == {p.name: p.read_bytes() for p in path.glob("*.parquet")}


def test_without_pyarrow_it_is_refused_before_any_work(several, tmp_path, monkeypatch):
    folder, _, plan = several
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"_gender.parquet` needs pyarrow to be read"):
        doctor(folder / "cv", folder / "store.h5", tmp_path / "out")
    with pytest.raises(InputError, match=r"`save_predictions` needs pyarrow .*kerasmlp.tables"):
        cross_validate(folder / "none.h5", plan, tmp_path / "cv", save_predictions=True)
    with contextlib.redirect_stderr(io.StringIO()) as said:
        assert run_command("cross-validate", ["--store", "none.h5", "--save-predictions"]) == 2
    assert "`--save-predictions` needs pyarrow" in said.getvalue()


def test_runs_that_diverged_have_no_answers_and_are_named(several, tmp_path):
    folder, store, plan = several
    path = shutil.copytree(folder / "cv", tmp_path / "cv")
    runs = plan_runs(store, plan)
    shutil.rmtree(path / runs[0].name)
    other = RunFolder(path / runs[0].name)
    with other.working({"kind": "embeddings"}, resume=False, force=False):
        other.finish({"diverged": "the weights diverged"})
    folders = [RunFolder(path / run.name) for run in runs]
    assert out_of_fold.without_part(folders, plan.target) == [1]
    keep_parts(several, path, fold=1)
    assert out_of_fold.without_part(folders, plan.target) == []
    out_of_fold.join_parts(runs, plan.target, RunFolder(path))
    found = Predictions.read("a", (path / "predictions_gender.parquet").read_bytes())
    assert found.about["diverged"] == ["seed3_fold0"] and set(found.columns["fold"]) == {1}
    assert not (path / "predictions").exists() and not RunFolder(path).done


def test_of_a_face_with_several_views_the_first_is_asked(several, tmp_path):
    folder, store, plan = several
    rows = np.repeat(np.arange(len(store)), 2)
    twice = store.subset(rows)
    twice.labels["view"] = np.arange(len(rows)) % 2
    run = plan_runs(twice, plan)[0]
    shutil.copytree(folder / "cv" / run.name, tmp_path / run.name)
    out_of_fold.predict_planned(twice, plan, run, tmp_path, num_samples=0)
    (path,) = tmp_path.glob("predictions/*_bmi.parquet")
    found = Predictions.read(path, path.read_bytes())
    known = run.test[~np.isnan(twice.labels["bmi"][run.test])]
    assert found.columns["row"].tolist() == known[known % 2 == 0].tolist()
    assert found.about["answers"] == "deterministic" and "epistemic_std" not in found.columns
    x = twice.embeddings[found.columns["row"]]
    expected = Predictor(tmp_path / run.name, "bmi").probabilities(x)
    np.testing.assert_allclose(found.columns["mean"], expected[:, 0], rtol=1e-5)


def test_flipped_labels_come_first(joined, tmp_path):
    folder, paths, _ = joined
    store = open_stores(paths)
    found = read(folder, "gender")
    assert len(found) == 480 and set(found.columns["seed"]) == {0, 1}
    suspects = rank_suspects(found)
    own = found.columns["probabilities"][np.arange(480), found.columns["label"]].astype(float)
    mean = np.array([own[found.columns["row"] == row].mean() for row in suspects.rows])
    np.testing.assert_allclose(suspects.scores["self_confidence"], mean)
    assert (np.diff(mean) >= 0).all()
    first = set(suspects.rows[: len(FLIPPED)].tolist())
    assert len(first & set(FLIPPED.tolist())) >= len(FLIPPED) - 4
    report = doctor(folder / "cv", paths, tmp_path / "out", most=30)
    told = report["labels"]["gender"]
    assert told["rows"] == 240 and told["listed"] == 30 and told["rows_without_answer"] == 0
    assert told["wrong"] == suspects.wrong == sum(n for _, _, n in suspects.pairs)
    lines = read_csv(tmp_path / "out" / "suspects.csv")
    stores = {path.name: EmbeddingStore.open(path) for path in paths}
    for line, row in zip(lines, suspects.rows[:30], strict=True):
        own = stores[line["store"]]
        place = int(line["row"])
        assert line["path"] == own.labels["path"][place] == store.labels["path"][row]
        assert line["store_digest"] == own.digest() and line["corrected"] == ""
        assert line["label"] == ("male", "female")[own.labels["gender"][place]]
        assert {line["label"], line["suggested"]} == {"male", "female"}
    RunFolder(tmp_path / "out").check_files()


def test_corrections_find_their_way_back(joined, tmp_path):
    folder, paths, _ = joined
    doctor(folder / "cv", paths, tmp_path / "out", most=20)
    table = tmp_path / "out" / "suspects.csv"
    lines = read_csv(table)
    for line in lines:
        line["corrected"] = line["suggested"]
    table.write_text(csv_of(lines))
    with pytest.raises(InputError, match="must be moved away, to be replaced"):
        doctor(folder / "cv", paths, tmp_path / "out", force=True)
    assert table.read_text() == csv_of(lines)
    for path in paths:
        before = EmbeddingStore.open(path)
        after, counts = relabel(before, [table])
        rows = [int(line["row"]) for line in lines if line["store"] == path.name]
        assert counts["changed"] == len(rows) and counts["of_other_stores"] == 20 - len(rows)
        different = np.flatnonzero(before.labels["gender"] != after.labels["gender"])
        assert different.tolist() == sorted(rows)


def test_numbers_and_ages_are_ranked_by_their_distance(several, tmp_path):
    folder, store, _ = several
    how = {"most": 50, "force": True}
    report = doctor(folder / "cv", folder / "store.h5", tmp_path / "out", **how)
    found = read(folder, "bmi").columns
    scaled = (found["label"] - found["mean"]) / found["std"]
    order = np.argsort(-np.abs(scaled), kind="stable")
    lines = read_csv(tmp_path / "out" / "suspects_bmi.csv")
    assert [int(line["row"]) for line in lines[:9]] == found["row"][order][:9].tolist()
    np.testing.assert_allclose(
        [float(line["scaled_residual"]) for line in lines], scaled[order][:50], rtol=1e-5
    )
    assert report["labels"]["bmi"]["wrong"] == (np.abs(scaled) > 3).sum()
    found = read(folder, "age_years").columns
    p, years = found["probabilities"].astype(float), np.arange(101)
    mean = p @ years
    std = np.sqrt(p @ years**2 - mean**2 + 1 / 12)
    scaled = (store.labels["age_years"][found["row"]] - mean) / std
    lines = read_csv(tmp_path / "out" / "suspects_age_years.csv")
    expected = sorted(np.abs(scaled), reverse=True)[:50]
    np.testing.assert_allclose(
        [abs(float(line["scaled_residual"])) for line in lines], expected, rtol=1e-4
    )
    line = lines[0]
    assert float(line["label"]) == store.labels["age_years"][int(line["row"])]
    assert float(line["suggested"]) == pytest.approx(
        float(line["label"]) - float(line["residual"]), abs=0.51
    )


def test_photos_are_found_by_name_and_drawn(joined, tmp_path):
    folder, paths, _ = joined
    photos = tmp_path / "photos" / "a"
    photos.mkdir(parents=True)
    for row in (*FLIPPED[FLIPPED < 100], 1, 2):
        Image.new("L" if row % 32 else "RGB", (40, 60)).save(photos / f"{row}.jpg")
    (photos / f"{FLIPPED[1]}.jpg").write_bytes(b"\xff\xd8\xff none")
    how = {"most": 240, "photos": tmp_path / "photos"}
    report = doctor(folder / "cv", paths, tmp_path / "out", **how)
    assert report["labels"]["gender"]["photos"] == {"found": 9, "drawn": 8, "unreadable": 1}
    assert report["photo_column"] == "path"
    assert (tmp_path / "out" / "suspects_1.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "out" / "suspects_2.png").exists()


def test_what_does_not_belong_together_is_refused(joined, several, tmp_path):
    folder, paths, _ = joined
    out = tmp_path / "out"
    for stores in (paths[0], paths[::-1], several[0] / "store.h5"):
        with pytest.raises(InputError, match="cv learned from, unchanged. Received: a store with"):
            doctor(folder / "cv", stores, out)
    whole = EmbeddingStore.open(several[0] / "store.h5")
    whole.labels["gender"][100] ^= 1
    whole.save(tmp_path / "other.h5")
    with pytest.raises(InputError, match="learned from, unchanged"):
        doctor(several[0] / "cv", tmp_path / "other.h5", out)
    with pytest.raises(InputError, match="must be the folder of a cross-validation"):
        doctor(folder / "cv" / "seed0_fold0", paths, out)
    with pytest.raises(InputError, match="`photos` must come with a store whose column names"):
        doctor(several[0] / "cv", several[0] / "store.h5", out, photos=tmp_path)
    with pytest.raises(InputError, match="`photo_column` must be a column of text of the store"):
        doctor(folder / "cv", paths, out, photo_column="gender")
    with pytest.raises(InputError, match="must be a folder of photos"):
        doctor(folder / "cv", paths, out, photos=tmp_path / "none")
    with pytest.raises(InputError, match="`most` must be an integer >= 1"):
        doctor(folder / "cv", paths, out, most=0)
    assert not out.exists()


def crafted(folder, tmp_path, label, change):
    """The cross-validation with another file that its DONE vouches for."""
    path = shutil.copytree(folder / "cv", tmp_path / "cv")
    found = read(folder, label)
    change(found).save(path / out_of_fold.files_of(found.target)[label])
    RunFolder(path).finish(RunFolder(path).report())
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: with_columns(p, label=1 - p.columns["label"]), "must hold the labels of the"),
        (lambda p: with_about(p, store_rows=999), "must be of a store of 240 rows. Received: 999"),
        (lambda p: with_about(p, data_digest="0" * 64), "must be what .* learned from, unchanged"),
        (
            lambda p: Predictions(
                Target("gender", ("m", "f")), {**p.about, "label_names": ["m", "f"]}, p.columns
            ),
            "must be of gender, as config.json says. Received: answers of another",
        ),
    ],
)  # fmt: skip
def test_a_file_that_somebody_made_is_held_against_the_store(joined, tmp_path, change, message):
    folder, paths, _ = joined
    path = crafted(folder, tmp_path, "gender", change)
    with pytest.raises(InputError, match=message):
        doctor(path, paths, tmp_path / "out")


def with_columns(found, **columns):
    return Predictions(found.target, found.about, {**found.columns, **columns})


def with_about(found, **about):
    return Predictions(found.target, {**found.about, **about}, found.columns)


def test_predictions_are_asked_for_where_there_are_none(several, tmp_path):
    folder, _, _ = several
    path = shutil.copytree(folder / "cv", tmp_path / "cv")
    for file in path.glob("*.parquet"):
        file.unlink()
    RunFolder(path).finish(RunFolder(path).report())
    with pytest.raises(InputError, match=r"must be there .`cross-validate --save-predictions"):
        doctor(path, folder / "store.h5", tmp_path / "out")


def test_the_command_says_what_it_found(joined, tmp_path, capsys):
    folder, paths, _ = joined
    words = [str(folder / "cv"), *map(str, paths), "-o", str(tmp_path / "out"), "--most", "3"]
    assert run_command("doctor", [*words, "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "gender: 240 labels; answers are means of 64 passes, of 2 seeds"
    assert lines[1].startswith("about ") and "seem to be wrong" in lines[1]
    assert "the 3 most suspicious are listed" in lines
    assert f"{tmp_path / 'out'}: suspects.csv" in lines
    assert json.loads(lines[-1])["gender"]["listed"] == 3
    assert run_command("doctor", words) == 2
    assert "must be empty" in capsys.readouterr().err
    assert run_command("doctor", [*words, "--force"]) == 0
