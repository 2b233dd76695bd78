"""Faces in photos: detection, choice of a face, ArcFace embedding, all by insightface."""

import os
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kerasmlp.data.datasets.photos import read_photo
from kerasmlp.data.datasets.records import (
    FAILED_TO_READ,
    LOW_DET_SCORE,
    NO_EMBEDDING,
    NO_FACE,
    SEVERAL_FACES,
    TOO_LARGE,
)
from kerasmlp.data.images.image_decoding import decode_image, max_pixels
from kerasmlp.data.stores.store_info import StoreInfo
from kerasmlp.faces.models import FaceModels, exact_fast_prelu, find_models, missing_package
from kerasmlp.utils.checks import check_choice, check_int, check_rate, reject, reject_file
from kerasmlp.utils.files import what_is

CHOICES = ("only", "centre", "biggest")
DEVICES = ("auto", "cpu", "cuda")
MIN_DET_SCORE = 0.5
"""Fits SCRFD detectors, which score the crops of FairFace 0.56 to 0.84 (1% to 90%); the paper's
0.9 belongs to RetinaFace-R50."""

_CANDIDATE_SCORE = 0.3
_LARGE, _SMALL = 640, 320
_SHARE = 0.6  # of the view that the second look gives to the photo


@dataclass(frozen=True)
class Face:
    """One face in a photo.

    Attributes:
        box: Left, top, right, bottom in pixels.
        landmarks: Eyes, nose, corners of the mouth, shape `(5, 2)`.
        det_score: The detector's score, on the detector's own scale.
        embedding: Norm 1, or None where it was not asked for or cannot be computed.
    """

    box: np.ndarray
    landmarks: np.ndarray
    det_score: float
    embedding: np.ndarray | None = None


class FaceFinder:
    """Finds the faces in a photo and embeds them.

    A photo whose longer side exceeds 320 pixels is brought to 640 for the
    detector, as insightface does; if that shows no face, a second look takes
    it small, with a margin. Smaller pictures are looked at as they are, in
    the middle of 320: enlarged to 640, a tight crop fills the detector's
    whole view and no face is found in any of UTKFace's or FairFace's.

    Args:
        model_dir: Folder with a detector and an ArcFace embedder as .onnx.
        min_det_score: Faces below this score do not count.
        device: `"auto"` takes a GPU where onnxruntime has one; `"cuda"`
            insists on it.
        threads: CPU threads for the networks; 0 leaves it to onnxruntime.

    Raises:
        InputError: if a model is missing or damaged, or the device is not there.
    """

    def __init__(
        self,
        model_dir: str | os.PathLike,
        *,
        min_det_score: float = MIN_DET_SCORE,
        device: str = "auto",
        threads: int = 0,
    ):
        self.min_det_score = check_rate("min_det_score", min_det_score)
        self.models: FaceModels = find_models(model_dir)
        self.threads = check_int("threads", threads, minimum=0)
        self._detector, self._embedder = self._load(check_choice("device", device, DEVICES))
        self._detector.prepare(
            0, input_size=(_LARGE, _LARGE), det_thresh=min(_CANDIDATE_SCORE, self.min_det_score)
        )
        self.provider = self._embedder.session.get_providers()[0]
        if device == "cuda" and not self.provider.startswith("CUDA"):
            reject("device", f"must be one that works (onnxruntime chose {self.provider})", device)
        self.width = self._features(np.zeros((112, 112, 3), np.uint8)).size

    @property
    def info(self) -> StoreInfo:
        """What a store of these embeddings says about their origin."""
        return self.models.info(min_det_score=self.min_det_score)

    def find(self, image: np.ndarray) -> list[Face]:
        """Returns the faces of at least `min_det_score` that can be embedded, best first."""
        faces = [f for f in self.detect(image) if f.det_score >= self.min_det_score]
        embedded = [self.embed(image, face) for face in faces]
        return [face for face in embedded if face.embedding is not None]

    def detect(self, image: np.ndarray) -> list[Face]:
        """Returns faces and doubtful candidates of a BGR image, best first, without embeddings."""
        longer, shorter = max(image.shape[:2]), min(image.shape[:2])
        if longer <= _SMALL:
            return self._look_in_the_middle(image)
        if shorter * _LARGE < longer:  # insightface would shrink it to a height of 0
            return []
        faces = self._look(image, _LARGE)
        if faces and faces[0].det_score >= self.min_det_score:
            return faces
        again = self._look_in_the_middle(image, scale=_SHARE * _SMALL / longer)
        return max(faces, again, key=lambda found: found[0].det_score if found else 0)

    def embed(self, image: np.ndarray, face: Face) -> Face:
        """Returns the face with its embedding, None where the landmarks cannot be aligned."""
        from insightface.utils.face_align import norm_crop

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # insightface calls scikit-image in its old way
            try:
                crop = norm_crop(image, face.landmarks, self._embedder.input_size[0])
            except (ValueError, np.linalg.LinAlgError):
                return face
        features = self._features(crop)
        norm = np.linalg.norm(features)
        if not np.isfinite(norm) or norm == 0:
            return face
        return replace(face, embedding=features / norm)

    def choose(self, image: np.ndarray, choice: str) -> tuple[Face | None, str | None]:
        """Returns the face that `choice` means, embedded, or the reason why there is none."""
        face, reason = choose_face(self.detect(image), image.shape, choice, self.min_det_score)
        if face is None:
            return None, reason
        face = self.embed(image, face)
        return (face, None) if face.embedding is not None else (None, NO_EMBEDDING)

    def _features(self, crop: np.ndarray) -> np.ndarray:
        return self._embedder.get_feat(crop).astype(np.float32).ravel()

    def _look(self, image: np.ndarray, size: int) -> list[Face]:
        rows, landmarks = self._detector.detect(image, input_size=(size, size))
        if landmarks is None:
            reject_file(self.models.detector, "must find landmarks", "boxes only")
        return [
            Face(row[:4], points, float(row[4]))
            for row, points in zip(rows, landmarks, strict=True)
        ]

    def _look_in_the_middle(self, image: np.ndarray, scale: float = 1.0) -> list[Face]:
        import cv2

        height, width = (max(1, round(side * scale)) for side in image.shape[:2])
        small = image if scale == 1 else cv2.resize(image, (width, height))
        left, top = (_SMALL - width) // 2, (_SMALL - height) // 2
        canvas = np.zeros((_SMALL, _SMALL, 3), np.uint8)
        canvas[top : top + height, left : left + width] = small
        offset = np.array([left, top], np.float32)
        return [
            replace(
                face,
                box=((face.box.reshape(2, 2) - offset) / scale).ravel(),
                landmarks=(face.landmarks - offset) / scale,
            )
            for face in self._look(canvas, _SMALL)
        ]

    def _load(self, device: str) -> tuple[Any, Any]:
        try:
            import onnxruntime
            from insightface.model_zoo import get_model
            from insightface.model_zoo.arcface_onnx import ArcFaceONNX
        except ImportError as error:
            missing_package(error)
        onnxruntime.set_default_logger_severity(4)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 4
        available = onnxruntime.get_available_providers()
        gpu = device != "cpu" and "CUDAExecutionProvider" in available
        providers = ["CUDAExecutionProvider"] * gpu + ["CPUExecutionProvider"]
        current = self.models.detector
        try:
            detector = get_model(str(current), providers=providers, sess_options=options)
            current = self.models.embedder
            content = current.read_bytes() if gpu else exact_fast_prelu(current)
            session = onnxruntime.InferenceSession(content, options, providers=providers)
            return detector, ArcFaceONNX(str(current), session)
        except Exception as error:  # onnxruntime raises its own kinds, none of them public
            reject_file(current, "must be a working ONNX model", " ".join(str(error).split())[:200])


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
    image, reason = decode_photo(content)
    if reason == TOO_LARGE:
        most = f"{max_pixels(len(content)) / 1e6:.0f} megapixels, of some formats fewer"
        reason = f"one of more pixels than are read of a file of this size ({most})"
    elif reason == FAILED_TO_READ:
        reason = "a damaged or unknown one"
    if image is None:
        reject_file(path, "must be a readable image", reason)
    return image
