"""Faces in photos: which are there, which one is meant, and their embeddings."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from kerasmlp.data.datasets.photos import read_photo
from kerasmlp.data.datasets.records import (
    FAILED_TO_READ,
    LOW_DET_SCORE,
    NO_FACE,
    SEVERAL_FACES,
    TOO_LARGE,
)
from kerasmlp.data.images.image_decoding import decode_image, max_pixels
from kerasmlp.data.stores.store_info import StoreInfo
from kerasmlp.faces.crops import crops_of
from kerasmlp.faces.detector import Face, FaceDetector
from kerasmlp.faces.models import FaceModels, find_models
from kerasmlp.faces.network import EmbedderNetwork, providers_of, session_options
from kerasmlp.utils.checks import (
    check_bool,
    check_choice,
    check_int,
    check_rate,
    reject,
    reject_file,
)
from kerasmlp.utils.files import what_is

CHOICES = ("only", "centre", "biggest")
DEVICES = ("auto", "cpu", "cuda")
MIN_DET_SCORE = 0.5
"""Fits SCRFD detectors, which score the crops of FairFace 0.56 to 0.84 (1% to 90%); the paper's
0.9 belongs to RetinaFace-R50."""


class FaceFinder:
    """Finds the faces in a photo and embeds them; without a detector, whole pictures.

    Args:
        model_dir: Folder with a detector and an ArcFace embedder as .onnx.
        embedder: Folder of an embedder with its `embedder.json`, instead of the one in
            `model_dir`; see `find_models`.
        detector: `"auto"`, or None: every picture is taken whole, as one face.
        flip: Whether the mirrored crop is embedded too, and the mean taken.
        min_det_score: Faces below this score do not count.
        device: `"auto"` takes a GPU where onnxruntime has one; `"cuda"`
            insists on it.
        threads: CPU threads for the networks; 0 leaves it to onnxruntime.
        batch_size: Crops that the embedder is given in one call, where it takes several;
            None: one on a CPU, 32 on a GPU.

    Raises:
        InputError: if a model is missing or damaged, or the device is not there.
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
        threads: int = 0,
        batch_size: int | None = None,
    ):
        self.min_det_score = check_rate("min_det_score", min_det_score)
        check_choice("device", device, DEVICES)
        check_int("threads", threads, minimum=0)
        self.models: FaceModels = find_models(
            model_dir, embedder=embedder, detector=detector, flip=check_bool("flip", flip)
        )
        self._detector = None
        if self.models.detector is not None:
            self._detector = FaceDetector(
                self.models.detector,
                min_det_score=self.min_det_score,
                providers=providers_of(device),
                options=session_options(threads),
            )
        how = {"device": device, "threads": threads, "batch_size": batch_size}
        self.network = EmbedderNetwork(self.models, **how)
        self.provider, self.width = self.network.provider, self.network.width
        if device == "cuda" and not self.provider.startswith("CUDA"):
            reject("device", f"must be one that works (onnxruntime chose {self.provider})", device)

    @property
    def info(self) -> StoreInfo:
        """What a store of these embeddings says about their origin."""
        import cv2

        info = self.models.info(min_det_score=self.min_det_score)
        return replace(info, versions=self.network.versions | {"opencv": cv2.__version__})

    def find(self, image: np.ndarray) -> list[Face]:
        """Returns the faces of at least `min_det_score` that can be embedded, best first."""
        return [face for _, face in self.find_in([image])]

    def find_in(self, images: Iterable[np.ndarray]) -> Iterator[tuple[int, Face]]:
        """Yields the number of the image and the face, as `find` of each, embedded in batches."""
        crops = (
            (number, face, cut[0])
            for number, image in enumerate(images)
            for face in self.detect(image)
            if face.det_score is None or face.det_score >= self.min_det_score
            if (cut := self.crops(image, face)) is not None
        )
        while batch := list(islice(crops, self.network.batch_size)):
            embeddings = self.embeddings([crop for *_, crop in batch])
            for (number, face, _), embedding in zip(batch, embeddings, strict=True):
                if embedding is not None:
                    yield number, replace(face, embedding=embedding)

    def detect(self, image: np.ndarray) -> list[Face]:
        """Returns faces and doubtful candidates of a BGR image, best first, without embeddings."""
        if self._detector is None:
            height, width = image.shape[:2]
            return [Face(np.array([0, 0, width, height], np.float32), None, None)]
        return self._detector.detect(image)

    def crops(
        self, image: np.ndarray, face: Face, *, views: int = 1, seed: int = 0
    ) -> list[np.ndarray] | None:
        """What the embedder sees of a face, as `crops_of`."""
        return crops_of(image, face, self.models.preprocessing, views=views, seed=seed)

    def embeddings(self, crops: Sequence[np.ndarray]) -> list[np.ndarray | None]:
        """One for each crop; None where it is not finite or without a direction."""
        rows = self.network.features(crops)
        if self.models.preprocessing.flip:
            rows = (rows + self.network.features([crop[:, ::-1] for crop in crops])) / 2
        embeddings: list[np.ndarray | None] = []
        for row in rows:
            norm = np.linalg.norm(row)
            good = np.isfinite(norm) and norm > 0
            embeddings.append((row / norm if self.models.normalize else row) if good else None)
        return embeddings

    def choose(self, image: np.ndarray, choice: str) -> tuple[Face | None, str | None]:
        """Returns the face that `choice` means, without embedding, or why there is none."""
        return choose_face(self.detect(image), image.shape, choice, self.min_det_score)


def choose_face(
    faces: list[Face], shape: tuple[int, ...], choice: str, min_det_score: float = MIN_DET_SCORE
) -> tuple[Face | None, str | None]:
    """Picks one face of a photo.

    Args:
        faces: Faces and candidates, best first.
        shape: Of the image: height first, then width.
        choice: `"only"` (exactly one, else none), `"centre"` (nearest to the
            middle of the image) or `"biggest"`.
        min_det_score: Faces below it do not count.

    Returns:
        The face and None, or None and the reason.

    Example:

    >>> left = Face(np.array([0, 40, 20, 60]), np.zeros((5, 2)), 0.9)
    >>> right = Face(np.array([90, 40, 120, 60]), np.zeros((5, 2)), 0.8)
    >>> choose_face([left, right], (100, 200, 3), "centre")[0] is right
    True
    >>> choose_face([left, right], (100, 200, 3), "only")
    (None, 'more than one face')
    """
    check_choice("face", choice, CHOICES)
    if not faces:
        return None, NO_FACE
    if faces[0].det_score is None:  # the whole picture
        return faces[0], None
    faces = [face for face in faces if face.det_score >= min_det_score]
    if not faces:
        return None, LOW_DET_SCORE
    if choice == "only":
        return (faces[0], None) if len(faces) == 1 else (None, SEVERAL_FACES)
    boxes = np.stack([face.box for face in faces])
    sides = boxes[:, 2:] - boxes[:, :2]
    middle = np.array([shape[1], shape[0]]) / 2
    distance = np.linalg.norm((boxes[:, 2:] + boxes[:, :2]) / 2 - middle, axis=1)
    best = distance.argmin() if choice == "centre" else sides.prod(axis=1).argmax()
    return faces[int(best)], None


def decode_photo(content: bytes) -> tuple[np.ndarray | None, str | None]:
    """Returns an upright BGR image and None, or None and the reason why it is not read."""
    pixels, reason = decode_image(content)
    if pixels is None:
        return None, reason
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3))[..., ::-1]), None


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Reads one image file.

    Raises:
        InputError: if there is none or it cannot be read.
    """
    if not Path(path).is_file():
        reject_file(path, "must be an image", what_is(path))
    try:
        content = read_photo(path)
    except OSError as error:
        reject_file(path, "must be a readable image", error.strerror or str(error))
    return image_of(content, path)


def image_of(content: bytes, name: str | os.PathLike) -> np.ndarray:
    """As `decode_photo`.

    Args:
        content: Of a file.
        name: What an error calls it.

    Raises:
        InputError: if it cannot be read.
    """
    image, reason = decode_photo(content)
    if reason == TOO_LARGE:
        most = f"{max_pixels(len(content)) / 1e6:.0f} megapixels, of some formats fewer"
        reason = f"one of more pixels than are read of a file of this size ({most})"
    elif reason == FAILED_TO_READ:
        reason = "a damaged or unknown one"
    if image is None:
        reject_file(name, "must be a readable image", reason)
    return image
