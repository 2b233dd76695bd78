"""The faces that the pre-trained networks are surest and least sure of, as in Figure 5."""

import os
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from kerasmlp.data.datasets.photos import photos_of
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.stores.store_info import check_same_embedder
from kerasmlp.faces.finder import MIN_DET_SCORE
from kerasmlp.faces.models import find_models
from kerasmlp.runs.extremes import Extremes
from kerasmlp.utils.checks import InputError, reject_file
from kerasmlp.utils.drawing import drawing

NUM_SAMPLES = 512


def check_photos(photos: Path, model_dir: str | os.PathLike, store: EmbeddingStore) -> None:
    """Rejects photos or face models that could not be drawn from hours later."""
    photos_of(photos)
    embedder = find_models(model_dir).info(min_det_score=MIN_DET_SCORE)
    check_same_embedder(os.fspath(model_dir), embedder, store.info)


def draw_extreme_faces(
    runs: Sequence[Path],
    photos: Path,
    model_dir: str | os.PathLike,
    path: Path,
    *,
    seed: int,
    progress: bool = False,
) -> None:
    """Draws the ten surest and the ten least sure faces of each model among photos.

    Photos that cannot be read are passed over.

    Raises:
        InputError: if no photo shows a face, or the embedder is another one.
    """
    from kerasmlp.faces.finder import FaceFinder
    from kerasmlp.runs.figures import extreme_faces
    from kerasmlp.runs.photo_answers import predict_photo
    from kerasmlp.runs.predictor import Predictor

    predictors = [Predictor(run) for run in runs]
    finder = FaceFinder(model_dir)
    for predictor in predictors:
        predictor.check(model_dir, finder.width, finder.info)
    extremes = [Extremes(predictor.name) for predictor in predictors]
    for photo in tqdm(photos_of(photos), unit="photo", disable=not progress):
        how = {"num_samples": NUM_SAMPLES, "seed": seed, "annotate": None, "extremes": extremes}
        try:
            predict_photo(predictors, finder, photo, **how)
        except InputError:
            continue
    if not extremes[0].lowest:
        reject_file(photos, "must hold photos that show a face", "none")
    with drawing(path):
        extreme_faces(extremes, path)
