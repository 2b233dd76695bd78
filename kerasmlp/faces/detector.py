"""Where the faces in a photo are, by insightface's detectors."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kerasmlp.faces.models import missing_package
from kerasmlp.utils.checks import reject_file

_CANDIDATE_SCORE = 0.3
_LARGE, _SMALL = 640, 320
_SHARE = 0.6  # of the view that the second look gives to the photo


@dataclass(frozen=True)
class Face:
    """One face in a photo, or a whole picture.

    Attributes:
        box: Left, top, right, bottom in pixels.
        landmarks: Eyes, nose, corners of the mouth, shape `(5, 2)`; None without a detector.
        det_score: The detector's score, on the detector's own scale, or None.
        embedding: Norm 1 where the embedder's are so, or None where it was not asked for
            or cannot be computed.
    """

    box: np.ndarray
    landmarks: np.ndarray | None
    det_score: float | None
    embedding: np.ndarray | None = None


class FaceDetector:
    """Finds faces and doubtful candidates.

    A photo whose longer side exceeds 320 pixels is brought to 640 for the
    detector, as insightface does; if that shows no face, a second look takes
    it small, with a margin. Smaller pictures are looked at as they are, in
    the middle of 320: enlarged to 640, a tight crop fills the detector's
    whole view and no face is found in any of UTKFace's or FairFace's.

    Args:
        path: Of the .onnx file.
        min_det_score: Faces below this score do not count.
        providers: Of onnxruntime, best first.
        options: A session's, of onnxruntime.

    Raises:
        InputError: if the model does not work.
    """

    def __init__(self, path: Path, *, min_det_score: float, providers: list[str], options: Any):
        self.path, self.min_det_score = path, min_det_score
        try:
            from insightface.model_zoo import get_model
        except ImportError as error:
            missing_package(error)
        try:
            self._model = get_model(str(path), providers=providers, sess_options=options)
        except Exception as error:  # onnxruntime raises its own kinds, none of them public
            reject_file(path, "must be a working ONNX model", " ".join(str(error).split())[:200])
        threshold = min(_CANDIDATE_SCORE, min_det_score)
        self._model.prepare(0, input_size=(_LARGE, _LARGE), det_thresh=threshold)

    def detect(self, image: np.ndarray) -> list[Face]:
        """Returns faces and doubtful candidates of a BGR image, best first."""
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

    def _look(self, image: np.ndarray, size: int) -> list[Face]:
        rows, landmarks = self._model.detect(image, input_size=(size, size))
        if landmarks is None:
            reject_file(self.path, "must find landmarks", "boxes only")
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
