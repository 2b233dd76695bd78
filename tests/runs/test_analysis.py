"""`analyze`: from a photo to faces with answers, the same that the parts give one by one."""

from pathlib import Path

import numpy as np
import pytest
from data_sets import SHARED

from kerasmlp import (
    SAMPLE,
    EmbeddingStore,
    FaceEmbedder,
    Predictor,
    Recipe,
    StoreInfo,
    analyze,
    fit,
)
from kerasmlp.utils.checks import InputError

cv2 = pytest.importorskip("cv2")
insightface = pytest.importorskip("insightface")
MODELS = SHARED / "models"
pytestmark = pytest.mark.skipif(not MODELS.is_dir(), reason=f"needs the models in {MODELS}")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Of the sample, whose embedder is that of the models."""
    sample = EmbeddingStore.open(SAMPLE).subset(range(400))
    recipe, folder = Recipe(epochs=1), tmp_path_factory.mktemp("runs")
    for label, column in (("race", "race"), ("years", "age_group")):
        fit(sample, sample.labels[column], label=label, recipe=recipe).save(folder / label)
    return folder / "race", folder / "years"


@pytest.fixture(scope="module")
def embedder():
    return FaceEmbedder(MODELS)


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "six.png"
    cv2.imwrite(str(path), insightface.data.get_image("t1"))
    return path


def test_faces_with_answers(runs, embedder, photo):
    faces = analyze(photo, runs, model_dir=embedder, num_samples=8, seed=1)
    assert [face["face"] for face in faces] == list(range(6))
    store = embedder.embed(photo)
    for name, run in zip(("race", "years"), runs, strict=True):
        expected = list(Predictor(run).rows(store, num_samples=8, seed=1))
        assert [face[name] for face in faces] == expected
        assert all(0 <= face[name]["uncertainty"] <= 1 for face in faces)
    edges = np.stack([store.labels[edge] for edge in ("left", "top", "right", "bottom")], axis=1)
    np.testing.assert_allclose([face["box"] for face in faces], edges, atol=0.051)


def test_one_run_and_a_folder_of_models(runs, embedder, photo):
    expected = analyze(photo, Predictor(runs[0]), model_dir=embedder, num_samples=0)
    assert analyze(photo, str(runs[0]), model_dir=MODELS, num_samples=0) == expected
    assert "years" not in expected[0]


def test_a_photo_without_a_face_and_what_is_none(runs, embedder, tmp_path):
    empty = tmp_path / "empty.png"
    cv2.imwrite(str(empty), np.zeros((64, 64, 3), np.uint8))
    assert analyze(empty, runs, model_dir=embedder) == []
    with pytest.raises(InputError, match="none.jpg` must be an image"):
        analyze(tmp_path / "none.jpg", runs, model_dir=embedder)
    with pytest.raises(InputError, match="`run` must be given, and each once"):
        analyze(empty, [runs[0], runs[0]], model_dir=embedder)


def test_another_embedder_is_refused(embedder, photo):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 512)).astype("float32")
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    other = EmbeddingStore(x, info=StoreInfo(embedder="other.onnx", embedder_sha256="0" * 64))
    model = fit(other, [0, 1] * 20, recipe=Recipe(epochs=1, calibrate=False))
    with pytest.raises(InputError, match="`model_dir` must hold embeddings of other.onnx"):
        analyze(photo, model, model_dir=embedder)
