"""The same work by the workers of a Ray cluster: equal to what one machine does."""

import importlib.machinery
import itertools
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from data_sets import make_store

from kerasmlp import EmbeddingStore
from kerasmlp.cli import run_command
from kerasmlp.data.datasets import read_records
from kerasmlp.data.part_folder import part_path
from kerasmlp.data.stores.store_folder import shard_name, write_manifest
from kerasmlp.data.stores.store_paths import save_store
from kerasmlp.faces.extraction import extract_embeddings
from kerasmlp.runs import ray_prediction
from kerasmlp.runs.photo_answers import predict_store
from kerasmlp.runs.predictors import open_predictors
from kerasmlp.runs.ray_prediction import predict_by_ray
from kerasmlp.utils import ray_tasks
from kerasmlp.utils.checks import InputError
from kerasmlp.utils.tables import row_writer

ROWS = 17_100  # two parts, and a chunk that is not full


def refused(capsys, command, *arguments):
    assert run_command(command, [str(a) for a in arguments]) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    return line


class NoRay:
    """Where Ray is not installed: a folder that is called so is none."""

    def find_spec(self, name, *_):
        return importlib.machinery.ModuleSpec("ray", None) if name == "ray" else None


def test_without_ray_it_says_what_to_install(monkeypatch, tmp_path, capsys):
    for name in [n for n in sys.modules if n == "ray"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [NoRay(), *sys.meta_path])
    make_store(9).save(tmp_path / "a.h5")
    words = ["run", tmp_path / "a.h5", "--engine", "ray", "-o", tmp_path / "a.jsonl"]
    assert "(`pip install kerasmlp[ray]`). Received: --engine='ray'" in refused(
        capsys, "predict", *words
    )
    words = ["--engine", "ray", "--run-dir", tmp_path / "cv", "--label", "gender"]
    assert "pip install kerasmlp[ray]" in refused(capsys, "cross-validate", *words)
    assert not (tmp_path / "cv").exists()


def test_what_no_cluster_does_is_refused(tmp_path, capsys):
    pytest.importorskip("ray.data", reason="needs Ray (the extra `ray`)")
    (tmp_path / "photo.jpg").touch()
    make_store(9).save(tmp_path / "a.h5")
    ray = ["--engine", "ray"]
    words = ["run", tmp_path / "photo.jpg", "--model-dir", tmp_path, "-o", tmp_path / "b", *ray]
    assert "extract-embeddings" in refused(capsys, "predict", *words)
    assert "`--output` must be given" in refused(capsys, "predict", "run", tmp_path / "a.h5", *ray)
    words = ["run", tmp_path / "a.h5", "--resume"]
    assert "`--resume` must come with --engine ray" in refused(capsys, "predict", *words)


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:10001", "nowhere", "auto"])
def test_a_cluster_that_does_not_answer(address, monkeypatch):
    ray = pytest.importorskip("ray.data", reason="needs Ray (the extra `ray`)")
    assert ray is not None
    monkeypatch.setenv("RAY_ADDRESS", address)
    with (
        pytest.raises(InputError, match=f"`RAY_ADDRESS` must be .*RAY_ADDRESS='{address}'"),
        ray_tasks.ray_cluster(),
    ):
        pass


@pytest.fixture(scope="module")
def cluster():
    """Two cores, for all tests here: their commands find it there."""
    pytest.importorskip("ray.data", reason="needs Ray (the extra `ray`)")
    with ray_tasks.ray_cluster(2) as workers:
        yield workers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("ray")
    store = make_store(ROWS, 32, kind=np.resize(["a", "b", "c"], ROWS))
    store.save(path / "rows.h5")
    (path / "shards").mkdir()
    cuts = [0, 700, 16_500, ROWS]
    for number, (first, last) in enumerate(itertools.pairwise(cuts)):
        store.subset(range(first, last)).save(path / "shards" / shard_name(number))
    rows = {shard_name(n): b - a for n, (a, b) in enumerate(itertools.pairwise(cuts))}
    write_manifest(path / "shards", rows, store.info)
    store.subset(range(1500)).save(path / "learned.h5")
    words = ["--store", path / "learned.h5", "--label", "age_years", "kind", "--epochs", "1"]
    words += ["--conformal-by", "gender", "--run-dir", path / "run", "--hidden-width", "32"]
    assert run_command("train", [str(w) for w in words]) == 0
    return path


HOW = {"num_samples": 4, "seed": 0, "max_risk": None, "within_years": None}


@pytest.fixture(scope="module")
def predictors(folder):
    return open_predictors([folder / "run"], num_samples=4)


def here(predictors, store, output):
    """What one machine writes."""
    with row_writer(output, output.suffix[1:]) as write:
        for row in predict_store(predictors, store, **HOW):
            write(row)
    return output.read_bytes()


def test_parts_are_the_same_to_the_bit(folder, predictors):
    """What a worker does, here: ranges of shards give the lines that the whole gives."""
    store, opened = folder / "shards", []
    tasks = list(ray_prediction._tasks_of(predictors, store, opened.append))
    assert [(t["start"], t["stop"]) for t in tasks] == [(0, 16_384), (16_384, ROWS)]
    assert [len(each) for each in opened] == [ROWS]
    columns = ray_prediction._columns_of(predictors)
    assert columns == ["gender"]
    lines = [x for t in tasks for x in ray_prediction._lines(predictors, t, columns, HOW)]
    assert "".join(lines).encode() == here(predictors, store, folder / "here.jsonl")
    other = tasks[1] | {"path": str(folder / "other.h5")}
    make_store(ROWS, 32, seed=1).save(other["path"])
    with pytest.raises(InputError, match="must hold the same rows on every node"):
        list(ray_prediction._lines(predictors, other, columns, HOW))


def test_a_worker_reads_no_more_of_a_store_than_its_range(folder, predictors):
    """Others are damaged here; whoever has them finds it by their digest."""
    whole, copy = EmbeddingStore.open(folder / "rows.h5"), folder / "copy.h5"
    save_store(whole, copy)
    good, damaged = ray_prediction._tasks_of(predictors, copy, lambda store: None)
    with open(copy, "r+b") as file:
        file.seek(file.read().index(whole.embeddings[-1].tobytes()))
        file.write(np.full(32, np.nan, "float32").tobytes())
    with pytest.raises(InputError, match="must hold finite numbers"):
        EmbeddingStore.open(copy)
    before = _bytes_read()
    ray_prediction._rows_of(str(copy), 0, 700, ["gender", "kind"])
    assert _bytes_read() - before < whole.embeddings.nbytes / 2
    rows = ray_prediction._rows_of(str(copy), good["start"], good["stop"], ["gender"])
    assert ray_prediction._digest(*rows) == good["sha256"]
    with pytest.raises(InputError, match="must hold the same rows on every node"):
        list(ray_prediction._lines(predictors, damaged, ["gender"], HOW))


@pytest.mark.parametrize("form", ["h5", "parquet", "compressed"])
def test_a_range_is_that_of_the_whole_store(folder, form):
    whole, copy = EmbeddingStore.open(folder / "rows.h5"), folder / f"range.{form}"
    if form == "compressed":
        shutil.copy(folder / "rows.h5", copy)
        with h5py.File(copy, "a") as file:
            del file["embedding"]
            file.create_dataset("embedding", data=whole.embeddings, compression="gzip")
    else:
        if form == "parquet":
            pytest.importorskip("pyarrow")
        save_store(whole, copy)
    rows, columns = ray_prediction._rows_of(str(copy), 500, 700, ["gender", "kind", "none"])
    np.testing.assert_array_equal(rows, whole.embeddings[500:700])
    assert list(columns) == ["gender", "kind"]
    for name, column in columns.items():
        assert column.tolist() == whole.labels[name][500:700].tolist()


def _bytes_read():
    """By this process, of files and what they are cached in."""
    name, number, *_ = Path("/proc/self/io").read_text().split()
    assert name == "rchar:"
    return int(number)


def test_an_address_that_is_none_leaves_nothing_behind(folder, predictors, pictures, monkeypatch):
    pytest.importorskip("ray.data", reason="needs Ray (the extra `ray`)")
    import ray

    if ray.is_initialized():
        pytest.skip("a cluster is joined")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    for _ in range(2):
        with pytest.raises(InputError, match="`RAY_ADDRESS` must be of a running cluster"):
            predict_by_ray(predictors, [folder / "learned.h5"], folder / "typo.jsonl", **HOW)
        assert extract(pictures, "typo.h5", "--engine", "ray") == 2
    assert not (folder / "typo.jsonl.partial").exists()
    assert not list(pictures.glob("typo*"))


@pytest.mark.slow
def test_what_was_interrupted_goes_on(cluster, folder, predictors, capfd):
    """The parts are there, and the output could not be written."""
    work = [predictors, [folder / "rows.h5"], folder / "late.csv"]
    how = HOW | {"form": "csv", "workers": 1}
    capfd.readouterr()
    with pytest.raises(InputError, match="must be a file"):
        predict_by_ray(*work, opened=lambda store: (folder / "late.csv").mkdir(), **how)
    (folder / "late.csv").rmdir()
    (parts,) = (folder / "late.csv.partial").glob("parts-*")
    kept, lost = part_path(parts, 0), part_path(parts, 1)
    before = kept.stat().st_mtime_ns
    lost.write_bytes(lost.read_bytes()[:-7])
    with pytest.raises(InputError, match="another seed"):
        predict_by_ray(*work, resume=True, **how | {"seed": 1})
    assert kept.stat().st_mtime_ns == before
    predict_by_ray(*work, resume=True, **how)
    assert capfd.readouterr() == ("", "")  # Ray is not heard
    expected = here(predictors, folder / "rows.h5", folder / "here.csv")
    assert (folder / "late.csv").read_bytes() == expected
    assert not (folder / "late.csv.partial").exists()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    pytest.importorskip("onnxruntime")
    cv2 = pytest.importorskip("cv2")
    from tiny_embedder import write_embedder

    path, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    (path / "photos").mkdir()
    for k in range(20):
        picture = rng.integers(0, 255, (30, 20, 3)).astype(np.uint8)
        assert cv2.imwrite(str(path / "photos" / f"{k:02}.png"), picture)
    (path / "photos" / "07.png").write_bytes(b"no picture")
    write_embedder(path / "embedder")
    return path


def extract(pictures, store, *options):
    words = [pictures / "photos", "-o", pictures / store, "--embedder", pictures / "embedder"]
    words += ["--detector", "none", "--workers", "2", *options]
    return run_command("extract-embeddings", [str(w) for w in words])


def test_a_store_is_the_same_row_for_row(cluster, pictures, capsys):
    assert extract(pictures, "here.h5") == 0
    table = capsys.readouterr().out.splitlines()[:-1]
    assert extract(pictures, "shards", "--engine", "ray") == 0
    assert capsys.readouterr().out.splitlines()[:-1] == table
    whole, other = (EmbeddingStore.open(pictures / n) for n in ("here.h5", "shards"))
    assert len(whole) == 19 and other.digest() == whole.digest()
    assert replace(other.info, created=None) == replace(whole.info, created=None)
    removed = [
        json.loads((pictures / f"{n}.removal.json").read_text())["keys"]
        for n in ("here.h5", "shards")
    ]
    assert removed[0] == removed[1] == {"failed to read image": ["07.png"]}
    assert extract(pictures, "shards", "--engine", "ray", "--resume") == 0
    assert "the store was finished before" in capsys.readouterr().err
    assert not list(pictures.glob("*.partial"))


def test_a_store_that_came_meanwhile_is_not_replaced(cluster, pictures):
    class Coming(list):
        """Records; another store is written as the first of them is handed out."""

        def __getitem__(self, key):
            if not (pictures / "came.h5").exists():
                make_store(9).save(pictures / "came.h5")
            return super().__getitem__(key)

    records = Coming(read_records("folder", pictures / "photos"))
    how = {"embedder": pictures / "embedder", "detector": None, "engine": "ray", "workers": 1}
    with pytest.raises(InputError, match=r"came.h5` must not exist yet"):
        extract_embeddings(records, None, pictures / "came.h5", **how)
    assert EmbeddingStore.open(pictures / "came.h5").digest() == make_store(9).digest()
    extract_embeddings(records, None, pictures / "came.h5", resume=True, **how)
    assert len(EmbeddingStore.open(pictures / "came.h5")) == 19


def test_what_another_engine_began_is_refused(cluster, pictures, capsys):
    (pictures / "b.h5.partial").mkdir()
    (pictures / "b.h5.partial" / "meta.json").write_text('{"width": 8}')
    assert extract(pictures, "b.h5", "--engine", "ray", "--resume") == 2
    assert "must have begun with the same inputs and settings" in capsys.readouterr().err


@pytest.mark.slow
def test_a_node_without_the_file_says_so(cluster, tmp_path):
    settings = {"parts": str(tmp_path / "a")}
    answers = ray_tasks.answers_of(ray_prediction._prepare, settings, {0: {}}, workers=1)
    with pytest.raises(InputError, match=r"/a` must be there on every node of the cluster .*node"):
        list(answers)


@pytest.mark.slow
def test_a_task_that_ends_its_workers_is_given_up(cluster):
    """`os._exit` is what it works by."""
    answers = ray_tasks.answers_of(os._exit, 1, {0: 0}, workers=1)
    with pytest.raises(InputError, match=r"`workers` must stay alive. Received: 5 lost at task 0"):
        list(answers)


@pytest.mark.slow
def test_a_cross_validation_comes_to_the_same(cluster, folder):
    tables = []
    for engine in ("local", "ray"):
        words = ["--store", folder / "learned.h5", "--label", "kind", "--seeds", "1"]
        words += ["--folds", "2", "--epochs", "1", "--workers", "2", "--engine", engine]
        words += ["--run-dir", folder / f"cv-{engine}"]
        assert run_command("cross-validate", [str(w) for w in words]) == 0
        tables.append((folder / f"cv-{engine}" / "table.md").read_text())
    assert tables[0] == tables[1]
