"""Pictures that are no faces → an embedder of one's own → a store → a model → its answers."""

import json
import shutil

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
cv2 = pytest.importorskip("cv2")
from data_sets import make_store  # noqa: E402
from tiny_embedder import tiny_onnx, write_embedder  # noqa: E402

from kerasmlp import EmbeddingStore, StoreInfo  # noqa: E402
from kerasmlp.cli import run_command  # noqa: E402
from kerasmlp.data.stores.partial_store import PartialStore  # noqa: E402
from kerasmlp.data.stores.store_info import joined_info  # noqa: E402
from kerasmlp.faces import pool as face_pool  # noqa: E402
from kerasmlp.runs.run_folder import RunFolder  # noqa: E402
from kerasmlp.runs.training_files import read_settings  # noqa: E402
from kerasmlp.utils.manifest import write_manifest  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sixty pictures of grass or sky, one of no class, and an embedder that tells them apart."""
    path, rng = tmp_path_factory.mktemp("any"), np.random.default_rng(0)
    for k in range(60):
        name, colour = ("sky", (220, 120, 40)) if k % 2 else ("grass", (40, 160, 60))
        (path / "pictures" / name).mkdir(parents=True, exist_ok=True)
        picture = np.clip(rng.normal(colour, 40, (20, 30, 3)), 0, 255).astype(np.uint8)
        assert cv2.imwrite(str(path / "pictures" / name / f"{k}.png"), picture)
    assert cv2.imwrite(str(path / "pictures" / "none.png"), picture)
    write_embedder(path / "embedder")
    return path


def extract(folder, store, *options):
    arguments = ["-o", folder / store, "--layout", "classes", "--workers", "1", *options]
    arguments = [folder / "pictures", "--embedder", folder / "embedder", *arguments]
    return run_command("extract-embeddings", [str(a) for a in arguments])


@pytest.fixture(scope="module")
def store(folder):
    assert extract(folder, "flipped.h5", "--flip", "--detector", "none") == 0
    return EmbeddingStore.open(folder / "flipped.h5", verify=True)


@pytest.fixture(scope="module")
def run(folder, store):
    arguments = ["--store", folder / "flipped.h5", "--label", "class", "--epochs", "20"]
    arguments += ["--run-dir", folder / "run", "--noise-std", "0", "--mixup-alpha", "0"]
    assert run_command("train", [str(a) for a in arguments]) == 0
    return folder / "run"


def refused(capsys, command, *arguments):
    assert run_command(command, [str(a) for a in arguments]) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    return line


def test_folders_are_classes(folder, store):
    assert store.info.removal_report == {
        "inputs": 61, "kept": 60, "removed": {"in no folder of a class": 1},
    }  # fmt: skip
    names = [path.split("/")[0] for path in store.labels["path"]]
    assert store.labels["class"].tolist() == names and set(names) == {"sky", "grass"}
    assert "det_score" not in store.labels and len(set(store.labels["group"])) == 60
    preprocessing = store.info.preprocessing
    assert (preprocessing["alignment"], preprocessing["flip"]) == ("none", True)
    assert store.info.extraction["preprocessing"] == preprocessing


def test_photos_are_answered_as_the_store_was_made(folder, store, run, capsys):
    """Flipped without being told: the run remembers."""
    photos = [folder / "pictures" / name for name in store.labels["path"][[0, 20, 40, 50]]]
    how = ["--embedder", folder / "embedder", "--num-samples", "0"]
    assert run_command("predict", [str(a) for a in [run, *photos, *how]]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["det_score"] for row in rows] == [None] * 4
    assert np.ptp([row["class"]["probabilities"]["sky"] for row in rows]) > 0.001
    part = store.subset([0, 20, 40, 50])
    part.save(folder / "part.h5", overwrite=True)
    assert run_command("predict", [str(a) for a in [run, folder / "part.h5", *how[2:]]]) == 0
    of_store = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for row, other in zip(rows, of_store, strict=True):
        assert row["class"]["probability"] == pytest.approx(other["class"]["probability"], abs=1e-5)


def test_another_embedder_or_preprocessing_is_refused_by_what_differs(folder, run, capsys):
    assert extract(folder, "plain.h5") == 0
    sentence = refused(capsys, "predict", run, folder / "plain.h5")
    assert "must hold embeddings made with flip=True" in sentence and "flip=False" in sentence
    other = write_embedder(folder / "other", content=tiny_onnx(seed=1))
    photo = folder / "pictures" / "none.png"
    sentence = refused(capsys, "predict", run, photo, "--embedder", other)
    assert "must hold embeddings of tiny.onnx (sha256" in sentence
    assert "Received: those of tiny.onnx" in sentence
    bgr = write_embedder(folder / "bgr", colour_order="bgr")
    sentence = refused(capsys, "predict", run, photo, "--embedder", bgr)
    assert "made with colour_order='rgb'. Received: those made with colour_order='bgr'" in sentence
    raw = write_embedder(folder / "raw", normalize=False)
    sentence = refused(capsys, "predict", run, photo, "--embedder", raw)
    assert "must hold embeddings that are normalised" in sentence
    make_store(rows=10).save(folder / "faces.h5")
    sentence = refused(capsys, "predict", run, folder / "faces.h5")
    assert "must hold embeddings of tiny.onnx" in sentence and "made.onnx" in sentence


def test_stores_and_runs_of_before_know_no_preprocessing(folder, store, run, tmp_path, capsys):
    config, _ = read_settings(RunFolder(run))
    assert config["preprocessing"] == store.info.preprocessing
    known = {k: getattr(store.info, k) for k in ("embedder", "embedder_sha256")}
    before = EmbeddingStore(store.embeddings, store.labels, StoreInfo(**known))
    assert set(before.info.of_embedder()) == {"embedder", "embedder_sha256", "normalized"}
    before.save(tmp_path / "before.h5")
    arguments = [str(run), str(tmp_path / "before.h5"), "--num-samples", "0"]
    assert run_command("predict", arguments) == 0
    joined = joined_info([before.info, store.info])
    assert joined.preprocessing == store.info.preprocessing
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text(
        json.dumps({k: v for k, v in RunFolder(run).config().items() if k != "preprocessing"})
    )
    names = [p.name for p in (tmp_path / "run").iterdir() if p.is_file() and p.name != "DONE"]
    write_manifest(tmp_path / "run" / "DONE", [n for n in names if not n.startswith(".")])
    how = ["--embedder", str(folder / "embedder"), "--num-samples", "0"]
    photo = str(folder / "pictures" / "none.png")
    assert run_command("predict", [str(tmp_path / "run"), photo, *how]) == 0


def test_views_are_rows_of_one_group(folder, capsys):
    assert extract(folder, "plain-1.h5") == 0
    assert extract(folder, "views.h5", "--views", "3", "--batch-size", "4") == 0
    plain, views = (EmbeddingStore.open(folder / f"{n}.h5") for n in ("plain-1", "views"))
    assert len(views) == 180 and views.info.removal_report["kept"] == 60
    assert views.labels["view"].tolist() == [0, 1, 2] * 60
    assert views.labels["path"][::3].tolist() == plain.labels["path"].tolist()
    for k in (1, 2):
        np.testing.assert_array_equal(views.labels["group"][k::3], views.labels["group"][::3])
        cosines = np.vecdot(views.embeddings[k::3], plain.embeddings)
        assert 0.5 < cosines.min() < 0.9999
    np.testing.assert_allclose(views.embeddings[::3], plain.embeddings, atol=1e-6)
    assert extract(folder, "views.h5", "--resume") == 2
    assert "another views" in capsys.readouterr().err


def test_what_was_interrupted_goes_on_in_batches_to_the_same_store(folder, monkeypatch, capsys):
    """On a CPU to the bit; between batches of other sizes cosines are .9999 at the least."""
    assert extract(folder, "whole.h5") == 0
    append, done = PartialStore.append, []

    def interrupted(self, entry, embedding=None):
        done.append(entry)
        if len(done) == 30:
            raise KeyboardInterrupt
        append(self, entry, embedding)

    with monkeypatch.context() as patched:
        patched.setattr(PartialStore, "append", interrupted)
        assert extract(folder, "resumed.h5", "--batch-size", "7") == 130
    assert extract(folder, "resumed.h5", "--resume", "--flip") == 2
    assert "another preprocessing" in capsys.readouterr().err
    assert extract(folder, "resumed.h5", "--resume", "--batch-size", "7") == 0
    whole, resumed = (EmbeddingStore.open(folder / f"{n}.h5") for n in ("whole", "resumed"))
    assert resumed.labels["path"].tolist() == whole.labels["path"].tolist()
    assert np.vecdot(whole.embeddings, resumed.embeddings).min() >= 0.9999
    assert resumed.digest() == whole.digest()


def test_a_worker_gathers_photos_and_answers_in_their_order(folder):
    """In this process: a batch when it is full, what there is before a pause."""
    settings = {"embedder": str(folder / "embedder"), "batch_size": 3}
    ready, work = face_pool._prepare({"finder": settings, "face": "only", "views": 1})
    assert (ready["width"], ready["batch_size"], ready["note"]) == (8, 3, None)
    photos = sorted((folder / "pictures" / "sky").iterdir())[:5]
    read = [face_pool._read({"path": str(path), "read_only": False}) for path in photos]
    bad = face_pool._read({"path": str(folder / "nowhere.png"), "read_only": False})
    assert [work(read[0]), work(bad), work(read[1])] == [[], [], []]
    answers = work(read[2])
    assert [a["reason"] for a in answers] == [None, "failed to read image", None, None]
    assert [a.get("sha256") for a in answers] == [read[0][1], None, read[1][1], read[2][1]]
    assert work(bad) == [{"reason": "failed to read image"}]  # it waits for none
    assert work(read[3]) == []
    assert len(work(None)) == 1 and work(None) == []
