import os

import numpy as np

from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.faces.finder import MIN_DET_SCORE, FaceFinder, read_image
from kerasmlp.utils.checks import reject


class FaceEmbedder:
    """Embeds the faces of single photos, in this process; `extract-embeddings` takes folders.

    Args:
        model_dir: Folder with a detector and an ArcFace embedder as .onnx.
        embedder: Folder of another embedder, .onnx or .keras, with its `embedder.json`;
            the detector is that of `model_dir` then.
        detector: `"auto"`, or None: every picture is embedded whole.
        flip: Whether the mirrored crop is embedded too, and the mean taken.
        min_det_score: Faces below this score do not count.
        device: `"auto"`, `"cpu"` or `"cuda"`, as for `FaceFinder`.
        batch_size: Crops, of however many photos, in one call of the embedder; None: one
            on a CPU, 32 on a GPU.

    Raises:
        InputError: if a model is missing or damaged, or the device is not there.

    Example:

    >>> FaceEmbedder("no/models")
    Traceback (most recent call last):
    ...
    kerasmlp.utils.checks.InputError: `no/models` must be a folder of insightface models: ...
    """

    def __init__(
        self,
        model_dir: str | os.PathLike | None = None,
        *,
        embedder: str | os.PathLike | None = None,
        detector: str | None = "auto",
        flip: bool = False,
        min_det_score: float = MIN_DET_SCORE,
        device: str = "auto",
        batch_size: int | None = None,
    ):
        self.finder = FaceFinder(
            model_dir,
            embedder=embedder,
            detector=detector,
            flip=flip,
            min_det_score=min_det_score,
            device=device,
            batch_size=batch_size,
        )

    def embed(self, *photos: str | os.PathLike) -> EmbeddingStore:
        """Returns the faces of photos, best first in each, as a store that knows its embedder.

        Its labels are `path` and, with a detector, `det_score` and the box `left`, `top`,
        `right`, `bottom` in pixels. A photo without a face adds no row.

        Args:
            photos: Files.

        Raises:
            InputError: if a photo cannot be read, or none shows a face.
        """
        found = list(self.finder.find_in(map(read_image, photos)))
        if not found:
            reject("photos", "must show a face", ", ".join(map(str, photos)))
        faces = [face for _, face in found]
        labels = {"path": [str(photos[number]) for number, _ in found]}
        if self.finder.models.detector is not None:
            edges = np.stack([face.box for face in faces]).T
            labels |= {"det_score": [face.det_score for face in faces]}
            labels |= dict(zip(("left", "top", "right", "bottom"), edges, strict=True))
        embeddings = np.stack([face.embedding for face in faces])
        return EmbeddingStore(embeddings, labels, self.finder.info, name="photos")
