"""A run says its kind and its files: who reads or replaces it needs to know no more."""

import argparse
import importlib
import json

import numpy as np
import pytest
from damage import is_one_sentence, outcome

from kerasmlp import EmbeddingStore, InputError
from kerasmlp.runs.run_folder import RunFolder

FILES = ("table.md", "search/*/", "figures/network-*.png", "trees/**")


def write(path, kind, files, **config):
    """A finished run with all that it may write, a run of its own among it."""
    run = RunFolder(path)
    with run.working({"kind": kind, **config}, resume=False, force=False, files=files):
        for name in ("search/a", "figures", "trees/deep"):
            (run / name).mkdir(parents=True)
        for name in ("table.md", "figures/network-age.png", "trees/deep/state", "history.csv"):
            (run / name).write_text("ours")
        inner = RunFolder(run / "search/a")
        with inner.working({"kind": "tuning"}, resume=False, force=False, files=["best.json"]):
            (inner / "best.json").write_text("{}")
        run.finish({"accuracy": 0.5})
    return run


def contents(run):
    return {str(p.relative_to(run.path)) for p in run.path.rglob("*")}


def test_a_run_is_replaced_by_another_of_which_it_knows_nothing(tmp_path):
    run = write(tmp_path / "run", "mine", FILES)
    hashed = {line.split("  ")[1] for line in (run / "DONE").read_text().splitlines()}
    assert hashed == {"config.json", "history.csv", "report.json", "table.md"}
    with run.working({"kind": "other"}, resume=False, force=True):
        assert contents(run) == {".lock", "config.json"}
    assert run.config()["kind"] == "other"


@pytest.mark.parametrize(
    "name",
    [
        "thesis.txt", "runs.csv", "figures/mine.png", "figures/deep/network-age.png", "search/x",
        "search/a/thesis.txt", "search/a/table.md", "search/b/thesis.txt",
        "evaluation-x/thesis.txt",
    ],
)  # fmt: skip
def test_what_a_run_has_not_named_is_not_deleted(name, tmp_path):
    run = write(tmp_path / "run", "mine", FILES)
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_text("precious")
    before = contents(run)
    with (
        pytest.raises(InputError, match="must hold nothing but a run to be replaced"),
        run.working({"kind": "mine"}, resume=False, force=True),
    ):
        pass
    assert contents(run) == before and (run / name).read_text() == "precious"


@pytest.mark.parametrize(
    "name",
    ["../thesis.txt", "/etc/passwd", "a/../../b", ".ssh/**", "*", "**", "*/", "*/**", "a*/**", 5],
)
def test_no_run_names_what_is_outside(name, tmp_path):
    run = write(tmp_path / "run", "mine", FILES)
    config = json.loads((run / "config.json").read_text()) | {"files": [name]}
    (run / "config.json").write_text(json.dumps(config))
    with (
        pytest.raises(InputError, match="is the name of a file inside"),
        run.working({"kind": "mine"}, resume=False, force=True),
    ):
        pass
    assert run.done


def made_older(run):
    config = json.loads((run / "config.json").read_text())
    del config["files"], config["hashes"]
    (run / "config.json").write_text(json.dumps(config))
    (run / "DONE").write_text("")


@pytest.mark.parametrize("kind", ["tuning", "experiment"])
def test_a_run_of_an_older_version_is_replaced_too(kind, tmp_path):
    run = RunFolder(tmp_path / "run")
    names = {
        "tuning": ["best.json", "search/any/trial_0/checkpoint"],
        "experiment": ["table.csv", "claims.csv", "search.csv", "report.html", "figures/faces.png"],
    }[kind]
    with run.working({"kind": kind}, resume=False, force=False):
        for name in (*names, "table.md", "curves.png"):
            (run / name).parent.mkdir(parents=True, exist_ok=True)
            (run / name).write_text("ours")
        if kind == "experiment":
            for name in ("pretraining/age-full", "cross-validation/age-full-random"):
                (run / name).mkdir(parents=True)
                inner = RunFolder(run / name)
                with inner.working({"kind": "cross-validation"}, resume=False, force=False):
                    fold = RunFolder(inner / "seed0_fold1")
                    with fold.working({"seed": 0}, resume=False, force=False):
                        (fold / "seen.npy").write_text("ours")
                made_older(fold)
                made_older(inner)
        run.finish({})
    made_older(run)
    (run / "thesis.txt").write_text("precious")
    with (
        pytest.raises(InputError, match="Received: a folder with thesis.txt"),
        run.working({}, resume=False, force=True),
    ):
        pass
    (run / "thesis.txt").unlink()
    with run.working({"kind": "other"}, resume=False, force=True):
        assert contents(run) == {".lock", "config.json"}


def test_a_training_of_an_older_version_goes_on(tmp_path):
    """It had no kind, and said `dtype` for the precision."""
    run = RunFolder(tmp_path)
    older = {"format": "kerasmlp.run", "seed": 3, "dtype": "float32"}
    (tmp_path / "config.json").write_text(json.dumps(older))
    (tmp_path / "checkpoint.npz").write_text("ours")
    now = {"kind": "embeddings", "seed": 3, "precision": "float32", "norm_1_share": 0.0}
    for changed, message in (
        ({"precision": "mixed_float16"}, r"the same precision \('float32'\). Received: 'mixed_"),
        ({"kind": "age-cnn"}, r"the same kind \('embeddings'\). Received: 'age-cnn'"),
    ):
        with (
            pytest.raises(InputError, match=message),
            run.working(now | changed, resume=True, force=False),
        ):
            pass
    with run.working(now, resume=True, force=False, files=["seen.npy"]):
        (run / "seen.npy").write_text("ours")
        run.finish({})
    assert "seen.npy" in (run / "DONE").read_text() and not (run / "checkpoint.npz").exists()
    assert run.config()["precision"] == "float32" and "dtype" not in run.config()


@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("predict", ["store.h5"]), ("evaluate", ["store.h5"]), ("export-model", ["served/m"]),
        ("export-model", ["m.onnx", "--format", "onnx"]), ("serve", []), ("demo", []),
        ("train-age", ["--store", "store.h5", "--run-dir", "new"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["age-cnn", "cross-validation", "tuning"])
def test_a_run_of_another_kind_is_refused_by_its_kind(command, more, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    EmbeddingStore(np.eye(20, dtype="float32"), {"age_years": np.arange(20)}).save("store.h5")
    write(tmp_path / "run", kind, FILES)
    (tmp_path / "run" / "model.keras").write_text("of images")
    words = [*more, "--init", "run"] if command == "train-age" else ["run", *more]
    code, out, err = outcome(command, *words)
    assert code == 2 and out == "" and is_one_sentence(err), (code, out, err)
    assert f"`run` must be a training on embeddings. Received: a run of kind '{kind}'" in err
    assert not (tmp_path / "new").exists() and not (tmp_path / "served").exists()


@pytest.mark.parametrize(
    "command",
    [
        "train_age", "train_gender", "train_age_cnn", "tune_age_cnn", "train_cifar", "tune",
        "train_layerout", "cross_validate", "reproduce", "import_torch",
    ],
)  # fmt: skip
def test_commands_that_write_a_run_go_on_with_it_and_replace_it(command):
    parser = argparse.ArgumentParser()
    importlib.import_module(f"kerasmlp.commands.{command}").add_arguments(parser)
    flags = {flag for action in parser._actions for flag in action.option_strings}
    assert {"--resume", "--force"} <= flags
