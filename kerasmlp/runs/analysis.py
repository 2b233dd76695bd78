import os
from collections.abc import Sequence

from kerasmlp.faces.embedder import FaceEmbedder
from kerasmlp.faces.finder import read_image
from kerasmlp.runs.photo_answers import predict_faces, want_flips
from kerasmlp.runs.predictor import Predictor
from kerasmlp.utils.checks import check_each_once

AnyRun = str | os.PathLike | Predictor


def analyze(
    photo: str | os.PathLike,
    run: AnyRun | Sequence[AnyRun],
    *,
    model_dir: str | os.PathLike | FaceEmbedder = "models",
    num_samples: int = 64,
    seed: int = 0,
) -> list[dict]:
    """Finds the faces in a photo and answers for each, with how sure the answers are.

    For many photos open what is asked once: `analyze(photo, Predictor(run),
    model_dir=FaceEmbedder("models"))`.

    Args:
        photo: Path of the photo.
        run: Run folder or `Predictor`, or several that answer different labels.
        model_dir: Folder with a detector and the embedder of the run, or a `FaceEmbedder`.
        num_samples: Stochastic passes to answer from; 0 asks the deterministic model.
        seed: Of the samples.

    Returns:
        One dict per face, best first, none where no face is found: `face` (its number), `box`
        (left, top, right, bottom in pixels), `det_score`, and under the name of each model
        (`age`, `gender`, …) the answer that `Predictor.rows` gives.

    Raises:
        InputError: if the photo cannot be read, a run is not finished, or the embedder is not
            that of the run.

    Example:

    >>> analyze("party.jpg", "no/run")
    Traceback (most recent call last):
    ...
    kerasmlp.utils.checks.InputError: `no/run` must be a run folder. Received: no such file...
    """
    runs = [run] if isinstance(run, AnyRun) else list(run)
    each = [[r] if isinstance(r, Predictor) else Predictor.heads(r) for r in runs]
    predictors = [head for heads in each for head in heads]
    check_each_once("run", [p.name for p in predictors])
    embedder = model_dir
    if not isinstance(embedder, FaceEmbedder):
        embedder = FaceEmbedder(embedder, flip=want_flips(predictors))
    finder = embedder.finder
    for predictor in predictors:
        predictor.check("model_dir", finder.width, finder.info)
    faces = finder.find(read_image(photo))
    return predict_faces(predictors, faces, num_samples=num_samples, seed=seed)
