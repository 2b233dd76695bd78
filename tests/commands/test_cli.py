"""The commands as a user runs them: what they print, what they write, how they refuse."""

import contextlib
import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from damage import without_hashes
from data_sets import INFO, ROOT, SHARED, make_store
from forked import fresh_python

from kerasmlp import EmbeddingStore, StoreInfo, load_model
from kerasmlp.cli import main, run_command
from kerasmlp.data.labels import ADIENCE_GROUPS
from kerasmlp.data.splits import grouped_folds
from kerasmlp.data.targets import choose_target
from kerasmlp.runs.calibration import RunCalibration
from kerasmlp.runs.photo_answers import caption, draw_faces
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.seen import load_seen, row_hashes
from kerasmlp.training.rows import Rows
from kerasmlp.uncertainty.abstention import Abstention
from kerasmlp.utils.checks import InputError
from kerasmlp.utils.tables import row_writer

PHOTOS = SHARED / "faces"
needs_faces = pytest.mark.skipif(not PHOTOS.is_dir(), reason="needs the photos and models")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def store(folder):
    path = folder / "store.h5"
    make_store().save(path)
    return path


@pytest.fixture(scope="module")
def age_run(folder, store):
    path = folder / "age"
    arguments = ["--store", str(store), "--run-dir", str(path), "--epochs", "3"]
    assert run_command("train-age", [*arguments, "--classes", "adience"]) == 0
    return path


@pytest.fixture(scope="module")
def printed(folder, store):
    """A run on gender, and what its training printed."""
    path, text = folder / "gender", io.StringIO()
    arguments = ["--store", str(store), "--run-dir", str(path), "--epochs", "3", "--json"]
    with contextlib.redirect_stdout(text):
        assert run_command("train-gender", [*arguments, "--test-share", "0.2"]) == 0
    return path, text.getvalue()


@pytest.fixture(scope="module")
def gender_run(printed):
    return printed[0]


def refused(capsys, command, *arguments):
    """Runs a command that must fail with exit code 2 and one sentence; returns the sentence."""
    assert run_command(command, [str(a) for a in arguments]) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in captured.err
    return lines[0]


def test_training_prints_groups_and_metrics(printed):
    path, text = printed
    lines = text.splitlines()
    assert lines[0].startswith(f"{path}: 3 epochs")
    counts = "288 rows trained on, 32 kept back, 80 held out as a test, 0 without the label"
    assert lines[1] == counts
    assert "on the rows kept back, measured in the 2 classes of gender:" in lines
    assert any(line.split()[:3] == ["age_group", "gender", "rows"] for line in lines)
    result, report = json.loads(lines[-1]), json.loads((path / "report.json").read_text())
    assert result == report["validation"] | {"test": report["test"]}
    assert report["test"]["rows"] == 80 and report["training"]["rows"] == 288
    (row,) = (line.split() for line in lines if line.strip().startswith("accuracy"))
    assert row[1:] == [f"{report[part]['accuracy']:.3f}" for part in ("validation", "test")]
    assert "note: only 32 rows are kept back: an accuracy of " in text


def test_rows_held_out_are_neither_trained_nor_calibrated_on(gender_run, store):
    """Those of the test are the only ones that the run does not know again."""
    whole = EmbeddingStore.open(store)
    run = RunFolder(gender_run)
    known = np.isin(row_hashes(whole.embeddings), load_seen(run))
    assert (~known).sum() == 80
    target = choose_target(whole, "gender")
    how = {"validation_share": 0.1, "test_share": 0.2, "seed": 0, "group": None}
    (head,) = Rows.of(whole, target, None, how).heads
    rest, test = head.whole, head.test
    np.testing.assert_array_equal(test.inputs, whole.embeddings[~known])
    assert len(rest) == 320
    outputs = load_model(gender_run).predict(test.inputs, verbose=0)
    right = outputs.argmax(axis=1) == test.labels["gender"]
    assert run.report()["test"]["accuracy"] == pytest.approx(right.mean())
    assert run.config()["data_digest"] == whole.digest()


def test_evaluate_prints_tables_and_json_where_asked(age_run, store, capsys):
    assert run_command("evaluate", [str(age_run), str(store)]) == 0
    output = capsys.readouterr().out
    assert "{" not in output
    report = json.loads((age_run / "evaluation-store" / "report.json").read_text())
    rows = {line.split()[0]: line.split()[1:] for line in output.splitlines() if line.strip()}
    for name, digits in (("accuracy", 3), ("mae_years", 2), ("aurc", 3)):
        models = (report[model][name] for model in ("deterministic", "mc_mean"))
        assert rows[name] == [f"{value:.{digits}f}" for value in models]
    regrouped = ["--classes", "0-17,18+", "--force", "--num-samples", "0", "--json"]
    assert run_command("evaluate", [str(age_run), str(store), *regrouped]) == 0
    other = json.loads(capsys.readouterr().out.splitlines()[-1])
    result = report["deterministic"]
    assert list(result)[:2] == ["rows", "mae_years"]
    assert result["exact_year_accuracy"] < result["accuracy"]
    assert other["accuracy"] > result["accuracy"]
    assert other["mae_years"] == result["mae_years"]
    assert "mc_mean" not in other


def test_predict_a_store_as_json_lines_and_as_csv(age_run, gender_run, store, folder, capsys):
    arguments = [str(age_run), str(store), "--also", str(gender_run), "--num-samples", "8"]
    assert run_command("predict", arguments) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 400
    assert [row["row"] for row in rows] == list(range(400))
    age, gender = rows[0]["age"], rows[0]["gender"]
    low, high = age["age_interval_90"]
    assert 0 <= low <= age["age_years"] <= high <= 100
    assert gender["gender"] in ("male", "female")
    assert sum(gender["probabilities"].values()) == pytest.approx(1)
    measures = {
        "predictive_entropy_nats", "expected_entropy_nats", "mutual_information_nats",
        "variation_ratio", "vote_mean", "vote_entropy_nats",
    }  # fmt: skip
    measures |= {f"{name.removesuffix('_nats')}_scaled" for name in measures}
    assert measures <= set(age) and measures <= set(gender)

    output = folder / "answers.csv"
    assert run_command("predict", [*arguments, "-o", str(output)]) == 0
    with open(output, newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 400
    age_years = float(table[7]["age.age_years"])  # files hold all digits, the screen six
    assert rows[7]["age"]["age_years"] == float(f"{age_years:.6g}") != age_years
    # Other chunks of rows draw other masks.
    assert len({row["age"]["mutual_information_nats"] for row in rows}) > 390


def test_abstaining(age_run, gender_run, store, tmp_path, capsys):
    """A run that has seen 1,000 errors at high entropies only, asked for a risk of 5%."""
    run = tmp_path / "gender"
    shutil.copytree(gender_run, run)
    everyone = ["--num-samples", "64"]
    output = ["-o", str(tmp_path / "plain.jsonl")]
    assert run_command("predict", [str(run), str(store), *everyone, *output]) == 0
    lines = (tmp_path / "plain.jsonl").read_text().splitlines()
    plain = [json.loads(line)["gender"] for line in lines]
    capsys.readouterr()
    entropies = sorted(row["predictive_entropy_nats"] for row in plain)
    abstention = Abstention([entropies[99], entropies[-1]], [1000, 4000], [0, 3000])
    calibration = RunCalibration(
        rows=4000, num_samples=64, offsets_years={}, abstention=abstention, mc_temperature=1.0
    )
    calibration.save(run / "calibration.json")
    without_hashes(run)  # without the hashes of what was trained
    arguments = [str(run), str(store), "--max-risk", "0.05"]
    output = ["-o", str(tmp_path / "sure.jsonl")]
    assert run_command("predict", [*arguments, *output]) == 0
    lines = (tmp_path / "sure.jsonl").read_text().splitlines()
    rows = [json.loads(line)["gender"] for line in lines]
    capsys.readouterr()
    assert sum(not row["abstained"] for row in rows) == 100
    for row, before in zip(rows, plain, strict=True):
        kept = {k for k in before if k.endswith(("nats", "scaled")) or k.startswith("vari")}
        empty = row["abstained"]
        kept -= {"vote_mean_scaled"}
        assert all(row[k] == before[k] for k in kept)
        assert row["vote_mean"] == (None if empty else before["vote_mean"])
        assert row["gender"] == (None if empty else before["gender"])
        assert row["probability"] == (None if empty else before["probability"])
        assert set(row["probabilities"]) == {"male", "female"}
        assert (row["probabilities"]["male"] is None) == empty
        assert row["uncertainty"] == pytest.approx(before["predictive_entropy_scaled"])
        assert row["uncertainty"] == pytest.approx(row["class_entropy_nats"] / np.log(2))
        assert (row["uncertainty"] > row["uncertainty_limit"]) == empty
        (text,) = caption({"gender": row})
        numbers = [float(n) for n in re.findall(r"[01]\.\d+", text)]
        assert numbers == pytest.approx([row["uncertainty"], row["uncertainty_limit"]], abs=0.006)
        assert re.match(r"gender: not sure \(.* > " if empty else r"(fe)?male, sure \(.* ≤ ", text)
        assert "%" not in text
    assert run_command("predict", [*arguments, "--format", "csv"]) == 0
    table = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["gender.abstained"] == "True" for row in table] == [r["abstained"] for r in rows]
    assert {row["gender.gender"] for row in table if row["gender.abstained"] == "True"} == {""}

    def no(*flags):
        return refused(capsys, "predict", run, store, *flags)

    assert re.search(
        r"`--max-risk` must be at least 0\.00\d\d, the lowest that .* after its 4000 rows",
        no("--max-risk", "0.001"),
    )
    assert "`--max-risk` must be in (0, 1). Received: --max-risk=1.5" in no("--max-risk", "1.5")
    sentence = no("--max-risk", "0.05", "--num-samples", "0")
    assert (
        "`--num-samples` must be at least 64 with --max-risk. Received: --num-samples=0" in sentence
    )
    sentence = no("--max-risk", "0.05", "--also", age_run)
    assert "`--max-risk` must be at least" in sentence and str(age_run) in sentence
    (run / "calibration.json").unlink()
    assert "must hold what abstaining by max_risk needs. Received: no cal" in no(
        "--max-risk", "0.5"
    )
    assert run_command("predict", [str(run), str(store), *everyone]) == 0  # as it always did


@pytest.mark.parametrize(
    ("uncertainty", "limit", "abstained", "said"),
    [
        (0.31, None, None, "male, uncertainty 0.31"),
        (0.31, 0.6, False, "male, sure (0.31 ≤ 0.60)"),
        (0.996, 0.99996, False, "male, uncertainty 1.00, no limit"),
        (0.99999, 0.9999, True, "gender: not sure (1.0000 > 0.9999)"),
    ],
)
def test_a_limit_that_refuses_nothing_makes_no_answer_sure(uncertainty, limit, abstained, said):
    answer = {"gender": "male", "uncertainty": uncertainty}
    answer |= {} if limit is None else {"uncertainty_limit": limit, "abstained": abstained}
    assert caption({"gender": answer}) == [said]


def test_captions_leave_the_faces_of_others_free():
    """The boxes of insightface's photograph of six, where one caption lay on another's face."""
    boxes = [
        (745, 342, 847, 480), (464, 266, 573, 415), (56, 261, 169, 398),
        (906, 59, 1011, 206), (1130, 273, 1227, 401), (270, 145, 372, 270),
    ]  # fmt: skip
    age = {"age_years": 27.0, "age_interval_90": [18, 39], "uncertainty": 0.71}
    row = {"age": age, "gender": {"gender": "male", "uncertainty": 0.31}}
    white = np.full((886, 1280, 3), 255, np.uint8)
    faces = [SimpleNamespace(box=box) for box in boxes]
    drawn = np.asarray(draw_faces(white, faces, [row] * 6))
    assert (drawn == 0).all(axis=2).sum() > 6 * 5000  # the captions
    for left, top, right, bottom in boxes:
        assert drawn[top + 4 : bottom - 4, left + 4 : right - 4].min() == 255
        assert drawn[top, left : right + 1].tolist() == [[80, 220, 100]] * (right - left + 1)


def test_an_age_is_withheld_whole(age_run, store, tmp_path, capsys):
    run = tmp_path / "age"
    shutil.copytree(age_run, run, ignore=shutil.ignore_patterns("evaluation-*"))
    offsets = {"50": 0.0, "90": 2.5}
    both = {"mc_mean": offsets, "deterministic": {"50": 0.0, "90": -100.0}}
    RunCalibration(
        rows=900,
        num_samples=8,
        offsets_years=both,
        abstention=Abstention([0.0], [900], [0]),
        mc_temperature=1.0,
    ).save(run / "calibration.json")
    without_hashes(run)  # without the hashes of what was trained
    arguments = [str(run), str(store), "--num-samples", "8"]
    assert run_command("predict", arguments) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[0])["age"]
    (low, high), (inner_low, inner_high) = row["age_interval_90"], row["age_interval_50"]
    assert low < inner_low <= row["age_median_years"] <= inner_high < high
    assert run_command("predict", [*arguments, "--max-risk", "0.1"]) == 0
    empty = json.loads(capsys.readouterr().out.splitlines()[0])["age"]
    assert empty["abstained"] is True
    for key in ("age_group", "probability", "age_years", "age_median_years", "age_interval_90"):
        assert empty[key] is None
    assert empty["vote_mean"] is None is empty["vote_mean_scaled"]
    assert run_command("predict", [str(run), str(store), "--num-samples", "0"]) == 0
    sure = json.loads(capsys.readouterr().out.splitlines()[0])["age"]
    assert sure["age_interval_90"] == sure["age_interval_50"]  # shrunk to the middle, and around it
    (run / "calibration.json").unlink()
    assert run_command("predict", arguments) == 0
    raw = json.loads(capsys.readouterr().out.splitlines()[0])["age"]
    assert raw["age_interval_90"][0] == pytest.approx(min(low + 2.5, raw["age_interval_90"][0]))
    (run / "calibration.json").write_text("{}")
    assert "must be the calibration of a run" in refused(capsys, "predict", run, store)


def test_predict_without_samples_is_the_deterministic_model(age_run, store, capsys):
    assert run_command("predict", [str(age_run), str(store), "--num-samples", "0"]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[0])
    assert "predictive_entropy_nats" not in row["age"]
    years = load_model(age_run).predict(EmbeddingStore.open(store).embeddings[:1], verbose=0)
    assert row["age"]["age_years"] == pytest.approx(float(years[0] @ np.arange(101)), rel=1e-5)


def test_csv_has_the_columns_of_all_rows(tmp_path):
    path = tmp_path / "rows.csv"
    with row_writer(path, "csv") as write:
        write({"input": "a", "reason": "no face"})
        write({"input": "b", "age": {"age_years": 3.0, "age_interval_90": [1, 5]}})
    assert path.read_text().splitlines() == [
        "input,reason,age.age_years,age.age_interval_90", "a,no face,,", "b,,3.0,1 5",
    ]  # fmt: skip


def test_classes_are_for_ages(gender_run, store, capsys):
    sentence = refused(capsys, "evaluate", gender_run, store, "--classes", "adience")
    assert "`--classes` must be left out for a model of gender" in sentence


def damaged_store(path, change):
    store = make_store(rows=20)
    store.save(path)
    change(path)
    return path


def truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


def put_nan(path):
    with h5py.File(path, "r+") as file:
        file["embedding"][3, 0] = np.nan


def put_nan_as_older_versions(path):
    put_nan(path)
    with h5py.File(path, "r+") as file:
        for part in (file["embedding"], *file["labels"].values()):
            del part.attrs["checksums"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (truncate, "complete"),
        (put_nan, "must hold what was written, by its checksums. Received: damage in rows 0 to 19"),
        (put_nan_as_older_versions, "must hold finite numbers only. Received: NaN or infinity in"),
        (lambda p: p.write_bytes(b""), "must be a complete HDF5 file"),
        (lambda p: p.unlink(), "no such file"),
    ],
)
def test_damaged_stores(tmp_path, capsys, change, message):
    path = damaged_store(tmp_path / "bad.h5", change)
    for command in (["train-age", "--store", path], ["train-gender", "--store", path]):
        sentence = refused(capsys, *command, "--run-dir", tmp_path / "run")
        assert str(path) in sentence and message in sentence
    assert not (tmp_path / "run").exists()


def test_bad_labels_and_options(tmp_path, store, capsys):
    run = ["--run-dir", tmp_path / "run"]
    one = tmp_path / "one.h5"
    make_store(rows=50, gender=np.ones(50, int)).save(one)
    sentence = refused(capsys, "train-gender", "--store", one, *run)
    assert "`gender` must hold at least two classes" in sentence
    bare = tmp_path / "bare.h5"
    EmbeddingStore(np.eye(20, dtype="float32"), {}, INFO).save(bare)
    assert "`--label` must be" in refused(capsys, "train-age", "--store", bare, *run)
    assert "`--label` must be" in refused(capsys, "train-gender", "--store", bare, *run)
    for flags, message in (
        (["--classes", "0-10,5-20"], "`--classes` must cover the years 0 to 100"),
        (
            ["--dropout-rate", "1"],
            "`--dropout-rate` must be in [0, 1). Received: --dropout-rate=1.0",
        ),
        (["--preset", "papr"], "`--preset` must be one of"),
        (["--validation-share", "1.5"], "`--validation-share` must be in (0, 1)"),
        (["--seed", "-1"], "`--seed` must be an integer >= 0"),
        (
            ["--init", tmp_path / "nowhere"],
            "must be a run folder. Received: no such file or folder",
        ),
    ):
        assert message in refused(capsys, "train-age", "--store", store, *run, *flags)
    assert not (tmp_path / "run").exists()
    assert "must be given to be resumed" in refused(capsys, "train-age", "--resume")


def test_an_existing_run_is_refused_and_replaced_by_force(tmp_path, gender_run, store, capsys):
    shutil.copytree(gender_run, tmp_path / "run")
    arguments = ["--store", store, "--run-dir", tmp_path / "run", "--epochs", "1"]
    arguments = [str(a) for a in arguments]
    before = (tmp_path / "run" / "report.json").read_text()
    assert "must be empty (or give --resume" in refused(capsys, "train-gender", *arguments)
    assert (tmp_path / "run" / "report.json").read_text() == before
    assert run_command("train-gender", [*arguments, "--force", "--seed", "3"]) == 0
    assert json.loads((tmp_path / "run" / "report.json").read_text())["seed"] == 3


def test_a_model_refuses_foreign_embeddings(tmp_path, age_run, capsys):
    other = tmp_path / "other.h5"
    source = make_store(rows=20)
    info = StoreInfo(embedder="other.onnx", embedder_sha256="1" * 64)
    EmbeddingStore(source.embeddings, source.labels, info).save(other)
    wide = tmp_path / "wide.h5"
    make_store(rows=20, width=48).save(wide)
    for command in ("evaluate", "predict"):
        sentence = refused(capsys, command, age_run, other)
        assert "must hold embeddings of made.onnx" in sentence and "other.onnx" in sentence
        sentence = refused(capsys, command, age_run, wide)
        assert "must hold embeddings of width 32. Received: 48" in sentence


def test_predict_refuses_what_it_cannot_read(tmp_path, age_run, store, capsys):
    assert "no such file" in refused(capsys, "predict", age_run, tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes(b"not a photo")
    assert "`--model-dir` must be given" in refused(capsys, "predict", age_run, tmp_path / "a.jpg")
    assert "without DONE" in refused(capsys, "predict", tmp_path, store)
    assert "`--num-samples` must be" in refused(
        capsys, "predict", age_run, store, "--num-samples", -1
    )
    table = tmp_path / "my faces.csv"
    table.write_text("e0,e1\n")
    sentence = refused(capsys, "predict", age_run, table)
    assert f"`{table}` must be a photo, a folder of photos or an embedding store" in sentence
    # Of a long sentence the middle is cut.
    assert sentence.endswith(f"my faces.csv' -o '{tmp_path / 'my faces.h5'}'` makes one")


@needs_faces
@pytest.mark.slow
def test_photos_to_faces_with_boxes(tmp_path, gender_run, capsys):
    """The six-face photograph of insightface, with models that embed 512 wide."""
    cv2 = pytest.importorskip("cv2")
    from insightface.data import get_image

    source = SHARED / "utkface_arcface.h5"
    assert run_command("import-embeddings", [str(source), "-o", str(tmp_path / "utk.h5")]) == 0
    small = EmbeddingStore.open(tmp_path / "utk.h5").subset(np.arange(1500))
    small.save(tmp_path / "small.h5")
    run = ["--store", str(tmp_path / "small.h5"), "--epochs", "2", "--run-dir"]
    assert run_command("train-age", [*run, str(tmp_path / "age")]) == 0
    photos = tmp_path / "photos"
    photos.mkdir()
    cv2.imwrite(str(photos / "six.jpg"), get_image("t1"))
    cv2.imwrite(str(photos / "empty.png"), np.full((64, 64, 3), 127, np.uint8))
    (photos / "broken.jpg").write_bytes(b"\xff\xd8 broken")
    output = tmp_path / "answers.jsonl"
    models = SHARED / "models"
    arguments = [tmp_path / "age", photos, "--model-dir", models, "--annotate", tmp_path / "drawn"]
    extremes = tmp_path / "extremes.png"
    arguments += ["--num-samples", 16, "--extremes", extremes]
    sentence = refused(capsys, "predict", *arguments, "-o", output)
    assert "broken.jpg" in sentence
    # What could be read was answered.
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["face"] for row in rows] == [None, 0, 1, 2, 3, 4, 5]
    assert rows[0]["reason"] == "no face"
    picture = cv2.imread(str(tmp_path / "drawn" / "six.png"))
    assert picture.shape == get_image("t1").shape
    assert (picture == np.array([100, 220, 80])).all(axis=2).sum() > 1000  # the boxes
    height, width = cv2.imread(str(extremes)).shape[:2]
    assert width > 350 and height > 400  # two rows of three faces
    assert "must not exist yet" in refused(capsys, "predict", *arguments)
    extremes.unlink()
    arguments[1] = photos / "empty.png"
    sentence = refused(capsys, "predict", *arguments)
    assert "`--extremes` must come with photos that show a face" in sentence
    assert not extremes.exists()
    # A model that was trained on other embeddings refuses these.
    sentence = refused(capsys, "predict", gender_run, photos, "--model-dir", models)
    assert "must hold embeddings of" in sentence


def test_extremes_are_refused_before_any_work(tmp_path, store, capsys):
    photo = tmp_path / "a.jpg"
    photo.write_bytes(b"looked at later")
    arguments = ["predict", tmp_path / "no-run", photo, "--model-dir", tmp_path, "--extremes"]
    for flags, message in (
        ([photo, "--force"], "must not be the output too"),
        ([tmp_path, "--force"], "must be a file. Received: a folder"),
        ([tmp_path / "no" / "a.png"], "must lie in an existing folder"),
        ([tmp_path / "a.png", "-o", tmp_path / "a.png"], "must be another file than --output"),
        ([tmp_path / "a.png", "--num-samples", 0], "`--num-samples` must be >= 1 for --extremes"),
    ):
        assert message in refused(capsys, *arguments, *flags)
    sentence = refused(capsys, "predict", tmp_path, store, "--extremes", tmp_path / "a.png")
    assert "`--extremes` must come with photos" in sentence


def test_a_full_disk(tmp_path, store):
    """A write limit stands for a full disk: exit code 2, one sentence, nothing half-written."""
    code = (
        "import resource, sys\n"
        "from kerasmlp.cli import run_command\n"
        "from kerasmlp.utils.tensorflow_import import import_tensorflow; import_tensorflow()\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "sys.exit(run_command('train-gender', sys.argv[1:]))\n"
    )
    arguments = ["--store", str(store), "--run-dir", str(tmp_path / "run"), "--epochs", "1"]
    run = subprocess.run(
        [fresh_python(), "-c", code, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert run.returncode == 2, run.stderr
    named = f"error: the disk is full: `{tmp_path / 'run'}/"
    (line,) = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith(named) and line.endswith(
        "` could not be written, and nothing half-written is left"
    )
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "run").exists()  # the next try finds it new


def test_an_unexpected_error_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr("kerasmlp.commands.evaluate.run", lambda args: 1 / 0)
    assert run_command("evaluate", ["a", "b"]) == 1
    assert "unexpected ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize(
    ("command", "option", "file"),
    [
        ("extract-embeddings", "-o", "a.h5.partial/began.json"),
        ("train-gender", "--run-dir", "a.h5/config.json"),
    ],
)
def test_a_stopped_command_offers_to_resume_what_has_begun(
    command, option, file, begun, tmp_path, monkeypatch, capsys
):
    def stopped(args):
        if begun:
            (tmp_path / file).parent.mkdir()
            (tmp_path / file).touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(f"kerasmlp.commands.{command.replace('-', '_')}.run", stopped)
    source = ["photos", "--model-dir", "models"] if command == "extract-embeddings" else []
    assert run_command(command, [*source, option, str(tmp_path / "a.h5")]) == 130
    more = "; --resume goes on from here" if begun else ""
    assert capsys.readouterr().err == f"error: interrupted{more}\n"


def test_main_lists_the_commands(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    output = capsys.readouterr().out
    assert "train-age" in output and "extract-embeddings" in output


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["fly"], "argument command: invalid choice: 'fly' (choose from"),
        (
            ["predict", "r"],
            "the following arguments are required: inputs (`kerasmlp predict --help` ",
        ),
        (
            ["compare", "a", "b", "--seed"],
            "unrecognized arguments: --seed (`kerasmlp compare --help",
        ),
        (
            ["train-age", "--epochs", "x"],
            "argument --epochs: invalid int value: 'x' (`kerasmlp tra",
        ),
        (
            ["train-age", "--resume", "--force"],
            "argument --force: not allowed with argument --resu",
        ),
    ],
)
def test_a_wrong_word_is_one_sentence(words, sentence, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {sentence}") and line.endswith("--help` lists the options)")


def test_a_sentence_names_the_option_and_not_the_argument_of_python(store, tmp_path, capsys):
    run = ["--store", store, "--run-dir", tmp_path / "run"]
    wrong = "`--folds` must be an integer >= 2. Received: --folds=1"
    assert wrong in refused(capsys, "cross-validate", *run, "--folds", 1)
    wrong = "`--seeds` must be an integer >= 1. Received: --seeds=0"
    assert wrong in refused(capsys, "reproduce", store, store, "--tasks", "gender", "--seeds", 0)
    with pytest.raises(InputError, match="`num_folds` must be an integer >= 2. Received: num_f"):
        grouped_folds([1, 2, 3], 1, 0)
    labels = {"classes": ["x"] * 20}  # a column is no option, whatever its name
    EmbeddingStore(np.eye(20, dtype="float32"), labels, INFO).save(tmp_path / "one.h5")
    column = ["--store", tmp_path / "one.h5", "--label", "classes", "--run-dir", tmp_path / "run"]
    sentence = refused(capsys, "cross-validate", *column)
    assert "`classes` must hold at least two classes to be trained on" in sentence


def test_an_output_is_never_an_input_nor_replaced_unasked(tmp_path, age_run, store, capsys):
    before = store.read_bytes()
    sentence = refused(capsys, "predict", age_run, store, "-o", store, "--force")
    assert "must not be the output too" in sentence
    sentence = refused(capsys, "import-embeddings", store, "-o", store, "--force")
    assert "must not be the source too" in sentence
    assert store.read_bytes() == before
    answers = tmp_path / "answers.jsonl"
    answers.write_text("precious")
    assert "must not exist yet" in refused(capsys, "predict", age_run, store, "-o", answers)
    words = ["predict", age_run, store, "-o", answers, "--num-samples", 0, "--force", "--format"]
    for form in ("jsonl", "csv"):
        answers.write_text("precious")
        assert "must be of predict to be replaced" in refused(capsys, *words, form)
        assert answers.read_text() == "precious"
        answers.write_bytes(b"")
        for _ in range(2):
            assert run_command("predict", [*map(str, words[1:]), form]) == 0
        assert len(answers.read_text().splitlines()) == 400 + (form == "csv")


def test_a_model_of_years_is_measured_in_the_groups_of_the_store(tmp_path, age_run, capsys):
    groups = np.array(["0-2", "20-29", "3-9", "more than 70"] * 100)
    whole = make_store(age_group=groups)
    labels = {k: v for k, v in whole.labels.items() if k != "age_years"}
    path = tmp_path / "groups.h5"
    EmbeddingStore(whole.embeddings, labels, INFO).save(path)
    assert run_command("evaluate", [str(age_run), str(path)]) == 0
    output = capsys.readouterr().out
    assert "note: the training was measured in the 8 age groups of adience, which" in output
    first, second = re.findall(r".*measured in the 9 age groups of fairface:\n(.*)", output)
    assert "accuracy" in first and first.split()[0] == "age_group"
    assert second.split() == ["deterministic", "mc_mean"]
    assert "mae_years" not in output and "exact_year" not in output


@pytest.mark.slow
def test_a_model_measured_in_years_answers_in_groups(tmp_path, gender_run, store, capsys):
    """As every run of older versions was, where the store held years."""
    run = tmp_path / "age"
    words = ["--store", str(store), "--run-dir", str(run), "--epochs", "1", "--classes", "years"]
    assert run_command("train-age", words) == 0
    measured = json.loads((run / "report.json").read_text())["validation"]
    assert "accuracy" not in measured and 0 <= measured["exact_year_accuracy"] < 0.3
    output = capsys.readouterr().out
    assert "measured in single years:" in output and "exact_year_accuracy" in output
    assert run_command("evaluate", [str(run), str(store), "--num-samples", "0", "--json"]) == 0
    output = capsys.readouterr().out
    assert output.count("measured in the 8 age groups of adience:\n") == 2
    result = json.loads(output.splitlines()[-1])
    assert result["accuracy"] > result["exact_year_accuracy"]
    arguments = [str(run), str(store), "--max-risk", "0.9"]
    for flags, largest in ((["--within-years", "60"], np.log(101)), ([], np.log(8))):
        assert run_command("predict", [*arguments, *flags]) == 0
        for line in capsys.readouterr().out.splitlines():
            age = json.loads(line)["age"]
            assert age["abstained"] == (age["uncertainty"] > age["uncertainty_limit"])
            assert age["uncertainty"] == pytest.approx(
                age["class_entropy_nats"] / largest, rel=1e-4
            )
            assert age["abstained"] or age["age_group"] in ADIENCE_GROUPS
    within = ["--within-years", "5"]
    sentence = refused(capsys, "predict", run, store, *within)
    assert "`--within-years` must come with --max-risk" in sentence
    sentence = refused(capsys, "predict", gender_run, store, "--max-risk", "0.9", *within)
    assert "`--within-years` must come with a model of ages" in sentence


def test_a_known_embedder_is_not_renamed(tmp_path, store, capsys):
    sentence = refused(
        capsys, "import-embeddings", store, "-o", tmp_path / "a.h5", "--embedder", "other"
    )
    assert "must hold embeddings of embedder 'other'. Received: made.onnx" in sentence


def test_another_backend_is_not_taken_for_tensorflow(tmp_path):
    environment = dict(os.environ, KERAS_BACKEND="torch")
    words = [sys.executable, "bin/train-age", "--epochs", "1", "--run-dir", str(tmp_path / "run")]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and not (tmp_path / "run").exists()
    assert (
        "`KERAS_BACKEND` must be tensorflow or jax. Received: KERAS_BACKEND='torch'" in done.stderr
    )
