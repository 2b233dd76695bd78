import os

import numpy as np

from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.faces.finder import MIN_DET_SCORE, FaceFinder, read_image
from kerasmlp.utils.checks import reject


class FaceEmbedder:
    """Embeds the faces of single photos, in this process; `extract-embeddings` takes folders.

    Args:
        model_dir: Folder with a detector and an ArcFace embedder as .onnx.
        min_det_score: Faces below this score do not count.
        device: `"auto"`, `"cpu"` or `"cuda"`, as for `FaceFinder`.

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
        model_dir: str | os.PathLike,
        *,
        min_det_score: float = MIN_DET_SCORE,
        device: str = "auto",
    ):
        self.finder = FaceFinder(model_dir, min_det_score=min_det_score, device=device)

    def embed(self, *photos: str | os.PathLike) -> EmbeddingStore:
        """Returns the faces of photos, best first in each, as a store that knows its embedder.

        Its labels are `path`, `det_score`, and the box `left`, `top`, `right`, `bottom` in
        pixels. A photo without a face adds no row.

        Raises:
            InputError: if a photo cannot be read, or none shows a face.
        """
        found = [(path, face) for path in photos for face in self.finder.find(read_image(path))]
        if not found:
            reject("photos", "must show a face", ", ".join(map(str, photos)))
        faces = [face for _, face in found]
        edges = np.stack([face.box for face in faces]).T
        labels = {
            "path": [str(path) for path, _ in found],
            "det_score": [face.det_score for face in faces],
            **dict(zip(("left", "top", "right", "bottom"), edges, strict=True)),
        }
        return EmbeddingStore(
            np.stack([face.embedding for face in faces]), labels, self.finder.info, name="photos"
        )
