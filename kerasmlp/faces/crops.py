"""From a photo and a face to what an embedder sees of it."""

import warnings

import numpy as np

from kerasmlp.faces.detector import Face
from kerasmlp.faces.preprocessing import Preprocessing

_SHIFT, _SCALE, _DEGREES = 0.04, 0.08, 6.0
"""Most by which a further view is moved (in sides of the crop), scaled and turned."""


def crops_of(
    image: np.ndarray, face: Face, preprocessing: Preprocessing, *, views: int = 1, seed: int = 0
) -> list[np.ndarray] | None:
    """Cuts a face out of a photo, as its embedder wants it.

    Args:
        image: The photo, BGR of 8 bits.
        face: In it.
        preprocessing: Size and alignment of the crop.
        views: Crops; each after the first is moved, scaled and turned a little.
        seed: Of these, together with their number.

    Returns:
        Crops of 8 bits, or None where the landmarks cannot be aligned.
    """
    crops = []
    for view in range(views):
        # The first one is as it should be: it is what photos are answered by.
        moved = np.random.default_rng([seed, view]).uniform(-1, 1, 4) if view else np.zeros(4)
        if preprocessing.alignment == "arcface":
            crop = _aligned(image, face.landmarks, preprocessing.input_size[0], moved)
        else:
            crop = _window(image, _sides(image, face, preprocessing, moved), preprocessing)
        if crop is None:
            return None
        crops.append(crop)
    return crops


def _aligned(
    image: np.ndarray, landmarks: np.ndarray, size: int, moved: np.ndarray
) -> np.ndarray | None:
    """By insightface's similarity from landmarks to their places."""
    import cv2
    from insightface.utils.face_align import estimate_norm

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # insightface calls scikit-image in its old way
        try:
            matrix = estimate_norm(landmarks, size)
            if moved.any():
                middle, scale = (size / 2, size / 2), 1 + _SCALE * moved[2]
                turn = cv2.getRotationMatrix2D(middle, _DEGREES * moved[3], scale)
                turn[:, 2] += _SHIFT * size * moved[:2]
                matrix = turn @ np.vstack([matrix, [0, 0, 1]])
            return cv2.warpAffine(image, matrix, (size, size), borderValue=0.0)
        except (ValueError, np.linalg.LinAlgError):
            return None


def _sides(
    image: np.ndarray, face: Face, preprocessing: Preprocessing, moved: np.ndarray
) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the window; one of a whole picture stays inside it."""
    if preprocessing.alignment == "none":
        height, width = image.shape[:2]
        scale = 1 - _SCALE * abs(moved[2])
        room = np.array([width, height]) * (1 - scale)
        corner = room * (moved[:2] + 1) / 2
        sides = np.concatenate([corner, corner + np.array([width, height]) * scale])
    else:
        box = np.asarray(face.box, float)
        longer = max(box[2] - box[0], box[3] - box[1])
        middle = (box[:2] + box[2:]) / 2 + _SHIFT * longer * moved[:2]
        height, width = preprocessing.input_size
        shape = np.array([width, height]) / max(width, height)
        half = longer * (0.5 + preprocessing.margin) * (1 + _SCALE * moved[2]) * shape
        sides = np.concatenate([middle - half, middle + half])
    left, top, right, bottom = (round(side) for side in sides)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _window(
    image: np.ndarray, sides: tuple[int, int, int, int], preprocessing: Preprocessing
) -> np.ndarray | None:
    """A part of the photo at the embedder's size; what lies outside of the photo is black."""
    import cv2

    corners, size = np.array(sides).reshape(2, 2), np.array(preprocessing.input_size[::-1])
    (left, top), (right, bottom) = inside = np.clip(corners, 0, image.shape[1::-1])
    if left == right or top == bottom:
        return None
    # Where the photo's part lies in the crop: a margin takes no memory beyond that.
    scale = size / (corners[1] - corners[0])
    start, end = np.rint((inside - corners[0]) * scale).astype(int)
    start = np.minimum(start, size - 1)
    shape = np.maximum(end - start, 1)
    part = image[top:bottom, left:right]
    how = cv2.INTER_AREA if scale.prod() < 1 else cv2.INTER_LINEAR
    crop = np.zeros((*size[::-1], 3), np.uint8)
    (x, y), (w, h) = start.tolist(), shape.tolist()
    crop[y : y + h, x : x + w] = cv2.resize(part, (w, h), interpolation=how)
    return crop
