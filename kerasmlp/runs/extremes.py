"""The faces that a model is surest and least sure of, while photos go by."""

import bisect
from typing import NamedTuple

import numpy as np

from kerasmlp.data.stores.embedding_store import NORM_TOLERANCE
from kerasmlp.utils.checks import check_int

_SIDE = 224
_MARGIN = 1.25
# among 243 photos of UTKFace, one picture in two crops is at 0.90, every other pair below 0.51
_SAME_COSINE = 0.85


class KeptFace(NamedTuple):
    """A face with its answer.

    Attributes:
        entropy_nats: Of the predictive mean.
        embedding: Norm 1, shape `(width,)`.
        crop: BGR, shape `(side, side, 3)`.
        text: The answer in words.
    """

    entropy_nats: float
    embedding: np.ndarray
    crop: np.ndarray
    text: str


class Extremes:
    """Keeps the faces of lowest and highest predictive entropy, at most `2 * count` of them.

    Of fewer faces, half are low and half are high: none is both. Of a picture
    that comes again, also in another size or crop, the first copy is kept.

    Args:
        name: What is predicted: `age`, `gender` or another label.
        count: Faces on either side.

    Raises:
        InputError: if `count` is below 1.

    Example:

    >>> extremes = Extremes("age", count=2)
    >>> for entropy_nats, embedding in zip([0.3, 0.1, 0.5, 0.2, 0.4], np.eye(5)):
    ...     extremes.add(KeptFace(entropy_nats, embedding, np.zeros((8, 8, 3)), "30 years"))
    >>> [face.entropy_nats for face in extremes.lowest]
    [0.1, 0.2]
    >>> [face.entropy_nats for face in extremes.highest]
    [0.5, 0.4]

    Reference: Figure 5 of the paper.
    """

    def __init__(self, name: str, *, count: int = 10):
        self.name = name
        self.count = check_int("count", count, minimum=1)
        self._faces: list[KeptFace] = []

    def add(self, face: KeptFace) -> None:
        if any(_same(face.embedding, other.embedding) for other in self._faces):
            return
        bisect.insort(self._faces, face, key=lambda kept: kept.entropy_nats)
        if len(self._faces) > 2 * self.count:
            # `count` faces lie on either side of it: it can never be extreme again
            del self._faces[self.count]

    @property
    def lowest(self) -> list[KeptFace]:
        """The surest answers, the surest first."""
        return self._faces[: self._half]

    @property
    def highest(self) -> list[KeptFace]:
        """The least sure answers, the least sure first."""
        return self._faces[self._half :][::-1]

    @property
    def _half(self) -> int:
        return (len(self._faces) + 1) // 2


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two embeddings are of one face; if not normalised, whether they are equal."""
    if max(abs(a @ a - 1), abs(b @ b - 1)) > NORM_TOLERANCE:
        return bool((a == b).all())
    return bool(a @ b > _SAME_COSINE)


def square_crop(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Returns the square around a face, as far as the image reaches.

    Args:
        image: BGR, shape `(height, width, 3)`.
        box: Left, top, right, bottom in pixels; may reach out of the image.

    Returns:
        BGR, shape `(224, 224, 3)`.
    """
    import cv2

    sides = np.array([image.shape[1], image.shape[0]])
    corners = np.asarray(box, float).reshape(2, 2)
    side = int(min(_MARGIN * (corners[1] - corners[0]).max(), *sides))
    side = max(side, 1)
    left, top = np.clip(corners.mean(axis=0) - side / 2, 0, sides - side).astype(int)
    crop = image[top : top + side, left : left + side]
    smaller = cv2.INTER_AREA if side > _SIDE else cv2.INTER_CUBIC
    return cv2.resize(crop, (_SIDE, _SIDE), interpolation=smaller)
