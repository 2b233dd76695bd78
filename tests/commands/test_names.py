"""Names as people give them, from a store to pictures, tables, JSON, HTML and a SavedModel."""

import ast
import csv
import json
import os
import shutil

import numpy as np
import pytest
from data_sets import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.cbook import is_math_text
from matplotlib.figure import Figure

from kerasmlp import EmbeddingStore, InputError, StoreInfo
from kerasmlp.cli import run_command
from kerasmlp.utils.drawing import _families, _glyphs, drawing, label, shown
from kerasmlp.utils.files import read_json, write_json
from kerasmlp.utils.tables import csv_of, read_csv, row_writer

NOT_UTF8 = os.fsdecode(b"caf\xe9 $1_$2")
NAMES = [
    "A$$", "$1_$2", r"\frac{1}{0}", "_%^{}", "\N{GRINNING FACE} \u4e2d", "\u05d9\u05dc\u05d3",
    "\xe9" * 500, "two\nlines\r\x1b[31m", "<b>&\"'", "a, b; c",
]  # fmt: skip
LABEL = "kind_$x$ <i>_{"


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=()), max_size=80), st.integers(4, 40))
def test_labels_are_what_was_meant_and_can_be_drawn(name, length):
    text, plain = label(name, length), shown(name, length)
    assert not is_math_text(text)
    assert text.replace(r"\$", "$").removeprefix(" " * plain.startswith("_")) == plain
    assert len(plain) <= length and not text.startswith("_")
    assert set(map(ord, plain)) <= _glyphs(_families()) | {ord("…")}
    if name.isascii() and name.isprintable() and len(name) <= length:
        assert plain == name


def test_a_long_name_keeps_both_ends():
    assert shown("a" * 500 + "z.jpg", 9) == "aaaa….jpg"
    assert shown("abcde", 5) == "abcde"


@pytest.mark.filterwarnings("error")
def test_pictures_of_any_names(tmp_path):
    from kerasmlp.evaluation import figures
    from kerasmlp.utils.figures import save_png

    labels = np.repeat(np.arange(len(NAMES)), 5)
    figures.confusion(labels, labels[::-1], [*NAMES[:-1], NOT_UTF8], tmp_path / "confusion.png")
    values = {"entropy": {"store": np.arange(9), "_$x$_": np.arange(9), "_": np.arange(9)}}
    legends = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "save_png", lambda figure, _: legends.append(figure))
        auroc = {name: {"entropy": 0.5} for name in ("_$x$_", "_")}
        figures.uncertainty(values, auroc, tmp_path / "uncertainty.png")
    shown_in_legend = [text.get_text() for text in legends[0].legends[0].get_texts()]
    assert shown_in_legend == ["store", r" _\$x\$_", " _"]
    save_png(legends[0], tmp_path / "uncertainty.png")


def test_a_failed_picture_is_one_sentence(tmp_path, capsys):
    with drawing(tmp_path / "trials.png") as path:
        path.write_text("half")
        raise MemoryError("too\nlarge")
    assert (
        capsys.readouterr().err == "note: trials.png could not be drawn: MemoryError: too large\n"
    )
    with pytest.raises(KeyboardInterrupt), drawing(tmp_path / "trials.png"):
        raise KeyboardInterrupt


def test_all_pictures_of_finished_work_are_drawn_so():
    """`predict --extremes` alone asks for a picture and nothing else."""
    modules, found = {"plots", "pictures", "figures"}, 0
    functions = {"confusion", "curves", "curves_with_bands", "extreme_faces"}
    for path in sorted((ROOT / "kerasmlp").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        guarded = {
            inner
            for node in ast.walk(tree)
            if (isinstance(node, ast.With) and "drawing(" in ast.unparse(node.items[0]))
            or (  # what is handed to those who call it so
                isinstance(node, ast.FunctionDef | ast.Lambda)
                and [argument.arg for argument in node.args.args] == ["path"]
            )
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = node.func
            if ast.unparse(called) == "_drawn":  # draws what it is handed so
                found += 1
            if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
                is_picture = called.value.id in modules and called.attr.islower()
                is_picture &= called.attr not in ("mkdir", "append", "__setitem__")
            else:
                is_picture = isinstance(called, ast.Name) and called.id in functions
            if is_picture and path.name != "predict.py":
                found += 1
                assert node in guarded, f"{path}:{node.lineno}"
    assert found >= 16


@pytest.mark.parametrize("value", [NOT_UTF8, *NAMES])
def test_json_and_csv_hold_any_name(value, tmp_path):
    write_json(tmp_path / "a.json", {value: [value]})
    assert read_json(tmp_path / "a.json") == {value: [value]}
    (tmp_path / "a.json").read_bytes().decode()  # UTF-8 all the same
    with row_writer(tmp_path / "a.jsonl", "jsonl") as write:
        write({"input": value})
    assert json.loads((tmp_path / "a.jsonl").read_text()) == {"input": value}
    with row_writer(tmp_path / "a.csv", "csv") as write:
        write({value: value, "other": 1})
    expected = value.replace("\udce9", r"\udce9")
    assert read_csv(tmp_path / "a.csv") == [{expected: expected, "other": "1"}]
    # also for those who take a carriage return for the end of a line
    with open(tmp_path / "a.csv", encoding="utf-8", newline="") as file:
        assert len(list(csv.reader(file.read().splitlines(keepends=True)))) == 2


def test_a_table_without_odd_names_is_as_before():
    assert csv_of([{"a": 1, "b": "x,y"}, {"a": None, "c": 'q"'}]) == 'a,b,c\n1,"x,y",\n,,"q"""\n'


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A store and a run of such names, whose first picture failed; what was there at each one."""
    folder = tmp_path_factory.mktemp("names")
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, len(NAMES), 400)
    x = rng.normal(size=(400, 16)) + 4 * np.eye(16)[kinds]
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype("float32")
    path, run = folder / f"{NOT_UTF8}.h5", folder / f"{NOT_UTF8} run"
    columns = {LABEL: np.array(NAMES)[kinds], "group": np.arange(400)}
    EmbeddingStore(x, columns, StoreInfo(embedder="made.onnx")).save(path)
    (folder / "tiny.json").write_text(json.dumps({"epochs": 2, "num_blocks": 1, "batch_size": 64}))
    there, save = [], Figure.savefig

    def failing_once(self, *args, **options):
        there.append({p.name for p in run.iterdir() if not p.name.startswith(".")})
        if len(there) == 1:
            raise ValueError("no such colour")
        return save(self, *args, **options)

    words = ["--store", path, "--label", LABEL, "--run-dir", run, "--preset", folder / "tiny.json"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", failing_once)
        assert run_command("train-gender", [str(w) for w in words]) == 0
    return path, run, there


def test_a_picture_that_fails_costs_no_training(trained):
    path, run, there = trained
    assert {"history.csv", "model.keras", "seen.npy", "calibration.json"} <= there[0]
    names = {p.name for p in run.iterdir()}
    assert {"DONE", "report.json", "confusion_matrix.png"} <= names and "curves.png" not in names
    assert not any(name.startswith(".curves") for name in names)
    before = (run / "model.keras").stat().st_mtime_ns
    words = ["--store", path, "--label", LABEL, "--run-dir", run, "--resume"]
    words += ["--preset", path.parent / "tiny.json"]
    assert run_command("train-gender", [str(w) for w in words]) == 0
    assert (run / "model.keras").stat().st_mtime_ns == before


def test_a_run_knows_its_names(trained):
    _, run, _ = trained
    target = read_json(run / "config.json")["target"]
    assert target["label"] == LABEL and target["class_names"] == sorted(NAMES)
    assert (run / "report.json").read_bytes().decode().startswith("{")
    assert len(read_csv(run / "history.csv")) == 2


def test_answers_hold_names_and_files_as_they_are(trained, tmp_path):
    path, run, _ = trained
    truth = EmbeddingStore.open(path).labels[LABEL]
    words = [str(run), str(path), "--num-samples", "2"]
    for form in ("jsonl", "csv"):
        assert run_command("predict", [*words, "--format", form, "-o", f"{tmp_path}/a.{form}"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert {os.fsencode(row["input"]) for row in rows} == {os.fsencode(path)}
    assert {row[LABEL][LABEL] for row in rows} <= set(truth)
    assert list(rows[0][LABEL]["probabilities"]) == sorted(NAMES)
    table = read_csv(tmp_path / "a.csv")
    assert [row[f"{LABEL}.{LABEL}"] for row in table] == [row[LABEL][LABEL] for row in rows]
    assert table[0]["input"] == str(path).replace("\udce9", r"\udce9")
    assert {f"{LABEL}.probabilities.{name}" for name in NAMES} <= set(table[0])


def test_an_evaluation_draws_them(trained, tmp_path, capsys):
    path, run, _ = trained
    words = [str(run), str(path), "--num-samples", "2", "--output", str(tmp_path / "e")]
    other = tmp_path / "_$x$.h5"
    shutil.copy(path, other)
    assert run_command("evaluate", [*words, "--ood", str(other)]) == 0
    assert "could not be drawn" not in capsys.readouterr().err
    assert {p.name for p in (tmp_path / "e").iterdir()} == {
        "report.json", "groups.csv", "reliability.png", "risk_coverage.png", "uncertainty.png",
    }  # fmt: skip
    assert "_$x$" in read_json(tmp_path / "e" / "report.json")["ood_auroc"]


def test_a_saved_model_tells_them(trained, tmp_path):
    from kerasmlp.serving.export.saved_model import export_model

    _, run, _ = trained
    assert run_command("export-model", [str(run), str(tmp_path / "kinds")]) == 0
    described = read_json(tmp_path / "kinds" / "1" / "assets" / "model.json")
    assert described["label"] == LABEL
    assert described["class_names"] == described["label_names"] == sorted(NAMES)
    with pytest.raises(InputError, match="must be a path in UTF-8, as TensorFlow takes it"):
        export_model(run, tmp_path / NOT_UTF8 / "kinds")


def test_the_page_shows_them_as_text(trained):
    from kerasmlp.runs.predictor import Predictor
    from kerasmlp.serving.demo.answers import DemoAnswers

    path, run, _ = trained
    answers = DemoAnswers([Predictor(run)], None, num_samples=2)
    page, headers, table = answers.store(path, lambda rows, total: rows)
    assert page.count("data:image/png;base64,") == 1
    assert "<b>" not in page and "<i>" not in page and "kind_$x$ &lt;i&gt;_{" in page
    assert headers[1] == LABEL and {row[1] for row in table} <= set(NAMES)
    page.encode()
