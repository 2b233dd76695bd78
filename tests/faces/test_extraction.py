"""Photos to store: counts add up, kills do not matter, errors are one sentence."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from adience_layout import faces_to_spread, write_adience

from kerasmlp.cli import run_command
from kerasmlp.data.datasets import read_records
from kerasmlp.data.datasets.records import Record
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.stores.partial_store import partial_folder
from kerasmlp.faces import pool as face_pool
from kerasmlp.faces.extraction import extract_embeddings
from kerasmlp.faces.pool import FacePool
from kerasmlp.utils.workers import Worker

pytest.importorskip("insightface")

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
FACES, MODELS = SHARED / "faces", SHARED / "models"
pytestmark = pytest.mark.skipif(not MODELS.is_dir(), reason=f"needs the models in {MODELS}")


def command(source, store, *options, layout="folder"):
    arguments = [str(source), "-o", str(store), "--layout", layout, "--model-dir", str(MODELS)]
    return run_command("extract-embeddings", [*arguments, *options])


@pytest.fixture(scope="module")
def utkface(tmp_path_factory):
    """The whole sample in one go, by two workers."""
    path = tmp_path_factory.mktemp("utkface") / "whole.h5"
    assert command(FACES / "utkface", path, "--workers", "2", layout="utkface") == 0
    return EmbeddingStore.open(path)


def check_sums(store, path, inputs, removed):
    report = store.info.removal_report
    assert report == {"inputs": inputs, "kept": len(store), "removed": removed}
    assert inputs == report["kept"] + sum(removed.values())
    listed = json.loads(path.with_name(f"{path.name}.removal.json").read_text())
    assert {reason: len(keys) for reason, keys in listed["keys"].items()} == removed


def test_utkface(utkface):
    report = utkface.info.removal_report
    assert report["inputs"] == 243 and report["removed"]["malformed name"] == 3
    assert report["kept"] + sum(report["removed"].values()) == 243
    assert report["kept"] == len(utkface) > 230
    np.testing.assert_allclose(np.linalg.norm(utkface.embeddings, axis=1), 1, atol=1e-5)
    years, genders, _ = zip(*(p.split("_", 2) for p in utkface.labels["path"]), strict=True)
    assert utkface.labels["age_years"].tolist() == [float(y) for y in years]
    assert utkface.labels["gender"].tolist() == [int(g) for g in genders]
    assert utkface.info.source == "UTKFace" and "non-commercial" in utkface.info.licence


@pytest.mark.slow
def test_fairface_and_adience(tmp_path, capsys):
    store_path = tmp_path / "adience.h5"
    assert command(FACES / "adience", store_path, layout="adience") == 0
    adience = EmbeddingStore.open(store_path)
    check_sums(adience, store_path, 110, {"missing image": 20, "low det_score": 1})
    assert set(adience.labels["age_group"]) > {"0-2", "25-32"}
    assert set(adience.labels["fold"]) == {0}
    out = capsys.readouterr().out
    assert "missing image" in out and out.strip().endswith("adience.h5")

    records = read_records("fairface", FACES / "fairface")[:40]
    report = extract_embeddings(records, MODELS, tmp_path / "f.h5", face="centre", workers=2)
    fairface = EmbeddingStore.open(report["store"])
    check_sums(fairface, tmp_path / "f.h5", 40, report["removed"])
    assert "age_years" not in fairface.labels
    assert set(fairface.labels["age_group"]) > {"20-29", "10-19"}


@pytest.mark.slow
def test_the_complete_layout_of_adience(tmp_path):
    """One of 97 inputs here; `benchmarks/adience.py` takes all 19,370."""
    images = faces_to_spread(SHARED, tmp_path)
    counts = write_adience(tmp_path / "adience", **images, one_of=97)
    kept = counts.pop("kept")
    store_path = tmp_path / "adience.h5"
    assert command(tmp_path / "adience", store_path, layout="adience") == 0
    store = EmbeddingStore.open(store_path)
    check_sums(store, store_path, kept + sum(counts.values()), counts)
    assert len(store) == kept
    groups, folds = store.labels["group"], store.labels["fold"]
    assert len({*zip(groups, folds, strict=True)}) == len(set(groups))
    assert set(folds) == set(range(5))


def sample(n):
    return sorted((FACES / "utkface").glob("*_*_*_*.jpg"))[:n]


def test_order_of_reasons_and_groups(tmp_path):
    import insightface

    folder = tmp_path / "photos"
    folder.mkdir()
    a, b = sample(2)
    shutil.copy(a, folder / "a.jpg")
    shutil.copy(a, folder / "a again.jpg")
    shutil.copy(b, folder / "b.jpg")
    (folder / "damaged.jpg").write_bytes(a.read_bytes()[:3000])
    gray = b"P5 64 64 255\n" + bytes(64 * 64)
    (folder / "gray.png").write_bytes(gray)
    shutil.copy(Path(insightface.__file__).parent / "data/images/t1.jpg", folder / "six.jpg")

    def record(name, **fields):
        return Record(key=name, image=folder / name, **fields)

    records = [
        record("damaged.jpg", removed="no age"),  # the paper counts reading first
        record("a.jpg", removed="no age"),
        record("b.jpg", removed="no gender"),
        record("gray.png", removed="no gender"),
        record("none.jpg", removed="missing image"),
        record("gone.jpg"),
        record("damaged.jpg"),
        record("gray.png"),
        record("six.jpg"),
        record("a.jpg", group="ann", age_years=3.0),
        record("b.jpg", group="bob"),
        record("a again.jpg", extra={"camera": "X100"}),
        record("b.jpg", group="ann"),
    ]
    report = extract_embeddings(records, MODELS, tmp_path / "s.h5", workers=1)
    assert report["removed"] == {
        "missing image": 1, "failed to read image": 3, "no age": 1, "no gender": 2, "no face": 1,
        "more than one face": 1,
    }  # fmt: skip
    assert (report["inputs"], report["kept"]) == (13, 4)
    store = EmbeddingStore.open(report["store"])
    assert store.labels["path"].tolist() == ["a.jpg", "b.jpg", "a again.jpg", "b.jpg"]
    assert store.labels["camera"].tolist() == ["", "", "X100", ""]
    # b is a photo of bob's and of ann's, and a's bytes come twice: all belong together
    assert set(store.labels["group"]) == {store.labels["group"][0]}
    np.testing.assert_array_equal(store.labels["age_years"], [3, np.nan, np.nan, np.nan])


@pytest.mark.slow
def test_one_worker_gives_the_same_bits_as_two(tmp_path, utkface):
    records = read_records("utkface", FACES / "utkface")[:60]
    report = extract_embeddings(records, MODELS, tmp_path / "s.h5", face="centre", workers=1)
    store = EmbeddingStore.open(report["store"])
    assert store.labels["path"].tolist() == utkface.labels["path"][: len(store)].tolist()
    np.testing.assert_array_equal(store.embeddings, utkface.embeddings[: len(store)])


def start(source, store, *options):
    return subprocess.Popen(
        [
            sys.executable, ROOT / "bin/extract-embeddings", source, "-o", store,
            "--layout", "utkface", "--model-dir", MODELS, "--workers", "2", *options,
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def lines_on_disk(store):
    path = partial_folder(store) / "records.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for_lines(process, store, number):
    while process.poll() is None and lines_on_disk(store) <= number:
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_runs_resume_to_the_same_store(tmp_path, utkface, capsys):
    store, rng = tmp_path / "s.h5", random.Random(0)
    kills = 0
    for attempt in range(3):
        process = start(FACES / "utkface", store, *(["--resume"] if attempt else []))
        wait_for_lines(process, store, lines_on_disk(store))
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    assert kills >= 2
    done = lines_on_disk(store)
    assert command(FACES / "utkface", store, layout="utkface") == 2  # neither resume nor force
    assert command(FACES / "utkface", store, "--resume", layout="utkface") == 0
    assert 0 < done <= 243
    assert EmbeddingStore.open(store).digest() == utkface.digest()
    assert not partial_folder(store).exists()
    # finished: nothing is computed again, unless something else is asked for
    capsys.readouterr()
    assert command(FACES / "utkface", store, "--resume", layout="utkface") == 0
    assert capsys.readouterr().err == "note: the store was finished before\n"
    options = ("--resume", "--face", "biggest")
    assert command(FACES / "utkface", store, *options, layout="utkface") == 2
    assert "must have begun with the same inputs and settings" in capsys.readouterr().err


def test_sigterm_keeps_what_is_done(tmp_path):
    store = tmp_path / "s.h5"
    process = start(FACES / "utkface", store)
    wait_for_lines(process, store, 0)
    process.terminate()
    _, errors = process.communicate()
    assert process.returncode == 130
    assert "interrupted; --resume goes on from here" in errors
    assert "Traceback" not in errors
    assert lines_on_disk(store) > 0 and not store.exists()
    code = command(FACES / "utkface", store, "--resume", "--face", "biggest", layout="utkface")
    assert code == 2


HOOK = """
import builtins, os, pathlib, signal
dead = pathlib.Path(__file__).with_name('dead')
if dead.exists(): os._exit(9)
real = builtins.open
def hooked(path, *args, **kwargs):
    if 'poison' in str(path): os._exit(9)
    if 'plague' in str(path):
        dead.touch()
        os._exit(9)
    if 'hang' in str(path): os.kill(os.getpid(), signal.SIGSTOP)
    return real(path, *args, **kwargs)
builtins.open = hooked
"""


def pool(workers):
    return FacePool(MODELS, face="centre", min_det_score=0.5, device="cpu", workers=workers)


def test_killed_worker_loses_nothing(utkface):
    photos = sample(80)
    with pool(2) as workers:
        answers = []
        for i, answer in enumerate(workers.map([(p, False) for p in photos])):
            answers.append(answer)
            if i in (10, 45):
                workers.workers[i % 2].process.kill()
    assert [a["reason"] for a in answers] == [None] * 80
    order = {path: row for row, path in enumerate(utkface.labels["path"])}
    for photo, answer in zip(photos, answers, strict=True):
        np.testing.assert_array_equal(
            answer["embedding"], utkface.embeddings[order[photo.name]]
        )  # fmt: skip


def test_photo_that_kills_its_worker_is_counted(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(HOOK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    tasks = [(p, False) for p in sample(12)]
    tasks.insert(5, (tmp_path / "poison.jpg", False))
    monkeypatch.setattr(face_pool, "_REORDER", 1)  # what comes after it must be looked at
    with pool(2) as workers:
        reasons = Counter(a["reason"] for a in workers.map(tasks))
    assert reasons == {None: 12, "worker crashed": 1}


@pytest.mark.slow
def test_photo_that_stops_its_worker_is_counted(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(HOOK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    tasks = [(p, False) for p in sample(8)]
    tasks.insert(5, (tmp_path / "hang.jpg", False))
    with pool(1) as workers:
        assert (workers.still_seconds, workers.busy_seconds) == (60, 600)
        workers.still_seconds, workers.busy_seconds = 1.2, 12
        monkeypatch.setattr("kerasmlp.utils.workers.LOOK_SECONDS", 0.5)
        answers = list(workers.map(tasks))
    reasons = [answer["reason"] for answer in answers]
    assert reasons == [None] * 5 + ["no answer for a minute or more, twice"] + [None] * 3


def test_workers_killed_at_their_start(monkeypatch):
    started = []

    def start(*args):
        started.append(Worker(*args))
        if len(started) in (1, 2, 4):
            started[-1].process.kill()
        return started[-1]

    monkeypatch.setattr("kerasmlp.utils.workers.Worker", start)
    with pool(1) as workers:
        answers = list(workers.map([(p, False) for p in sample(3)]))
    assert [a["reason"] for a in answers] == [None] * 3 and len(started) == 3


@pytest.mark.slow
def test_nine_workers_killed_in_a_row_end_with_a_sentence(tmp_path, monkeypatch, capsys):
    (tmp_path / "sitecustomize.py").write_text(HOOK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    photos = tmp_path / "photos"
    photos.mkdir()
    for k, photo in enumerate(sample(4)):
        shutil.copy(photo, photos / f"a{k}.jpg")
    (photos / "plague.jpg").write_bytes(b"")  # after which no worker lives to be ready
    store = tmp_path / "s.h5"
    options = ("--workers", "1", "--face", "centre")
    assert command(photos, store, *options) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "error: `--workers` must stay alive. Received: 9 lost in a row" in error
    assert "ended with exit code 9 at its start" in error
    assert error.endswith("; --resume goes on from here")
    assert 1 <= lines_on_disk(store) <= 4 and not store.exists()
    monkeypatch.delenv("PYTHONPATH")
    assert command(photos, store, *options, "--resume") == 0
    check_sums(EmbeddingStore.open(store), store, 5, {"failed to read image": 1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model-dir", "/nowhere"], "non-commercial research only"),
        (["--workers", "0"], "`--workers` must be an integer >= 1"),
        (["--min-det-score", "1.5"], r"`--min-det-score` must be in [0, 1)"),
        (["--resume", "--force"], "must not be given together"),
        (["--device", "cuda"], "`--device` must be one that works"),
        (["-o", "/nowhere/s.h5"], "must lie in an existing folder"),
    ],
)
def test_bad_options_are_one_sentence(tmp_path, capsys, options, message):
    if options[-1] == "cuda":
        import onnxruntime

        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            pytest.skip("this machine has it")
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(sample(1)[0], photos / "a.jpg")
    assert command(photos, tmp_path / "s.h5", *options) == 2
    errors = capsys.readouterr().err.strip()
    assert message in errors and "\n" not in errors and errors.startswith("error: ")
    assert not (tmp_path / "s.h5").exists()


def test_nothing_kept_and_existing_store(tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.png").write_bytes(b"P5 64 64 255\n" + bytes(64 * 64))
    store = tmp_path / "s.h5"
    assert command(photos, store) == 2
    assert "must hold at least one face. Received: none ({'no face': 1})" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["photos", "s.h5.removal.json"]
    shutil.copy(sample(1)[0], photos / "b.jpg")
    assert command(photos, store) == 0
    assert command(photos, store) == 2
    assert "must not exist yet" in capsys.readouterr().err
    assert command(photos, store, "--force") == 0
