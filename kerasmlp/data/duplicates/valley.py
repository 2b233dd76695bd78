"""The threshold between duplicates and the rest, where the rows themselves show one."""

from itertools import pairwise

import numpy as np

DUPLICATE_COSINE = 0.9
"""Duplicates are mostly nearer than this; the same person on another photo hardly ever is."""

LEAST_COSINE = 0.85
"""No threshold is lower, however wide the valley."""

_STEP, _WIDTH = 0.005, 0.02  # of the histogram, in units of the angle of most neighbours
_HALF = 0.5  # of that angle at most: some embedders have all rows in a narrow cone
_SURE = 3.1  # standard deviations: one valley in a thousand is chance


def valley_threshold(nearest: np.ndarray) -> float | None:
    """The cosine in the valley between duplicates and other neighbours; None where there is none.

    The angles to the nearest rows are smoothed to a histogram, and its peaks are merged until
    each valley between two is deeper than chance makes it (rows come in pairs: twice the
    deviation of a count). Duplicates are the peaks at cosines of 0.9 and more, and at no more
    than half the angle of most; the valley after the last of them is the one. The same person
    on two photos makes a peak too, farther away.

    Args:
        nearest: The cosine of each row with its nearest, rows that are equal left out.

    Returns:
        The middle of the lowest stretch of the valley, 0.85 at least.

    Example:

    >>> rng = np.random.default_rng(0)
    >>> people, copies = rng.normal(0.4, 0.08, 5000), 1 - rng.exponential(0.01, 200)
    >>> 0.85 <= valley_threshold(np.concatenate([people, copies])) < 0.96
    True
    >>> valley_threshold(people) is None
    True
    """
    angles = np.arccos(np.clip(nearest.astype(np.float64), -1, 1))
    unit = float(np.quantile(angles, 0.95)) if len(angles) else 0.0
    if unit <= 1e-3:  # float32 tells no smaller angles apart
        return None
    heights = _smoothed(angles / unit)
    peaks, valleys = _peaks_and_valleys(heights)
    most = min(np.arccos(DUPLICATE_COSINE) / unit, _HALF)
    last = max((k for k, peak in enumerate(peaks) if peak * _STEP <= most), default=None)
    if last is None or last == len(peaks) - 1:
        return None
    lowest = heights[valleys[last]]
    low = heights <= lowest + np.sqrt(lowest) + 0.5
    first = valleys[last] - int(np.argmin(low[valleys[last] :: -1]))
    end = valleys[last] + int(np.argmin(low[valleys[last] :]))
    middle = unit * _STEP * (first + end) / 2
    return float(np.cos(min(middle, np.arccos(LEAST_COSINE))))


def _smoothed(angles: np.ndarray) -> np.ndarray:
    """How many angles lie around each multiple of the step, as many as a window would count."""
    reach = round(4 * _WIDTH / _STEP)
    places = np.rint(angles / _STEP).astype(int)
    counts = np.bincount(places, minlength=places.max() + reach + 1).astype(float)
    offsets = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (offsets * _STEP / _WIDTH) ** 2)
    kernel *= 2 * np.sqrt(np.pi) * _WIDTH / _STEP / kernel.sum()
    mirrored = np.concatenate([counts[reach:0:-1], counts])  # no angle is below 0
    return np.convolve(mirrored, kernel, "same")[reach:]


def _peaks_and_valleys(heights: np.ndarray) -> tuple[list[int], list[int]]:
    """Places of the peaks that are more than chance, and of the lowest points between them."""
    rises = np.diff(heights, prepend=-1) > 0
    falls = np.diff(heights, append=-1) < 0
    peaks = [int(k) for k in np.flatnonzero(rises & falls)] or [int(heights.argmax())]
    while len(peaks) > 1:
        valleys = [a + int(heights[a:b].argmin()) for a, b in pairwise(peaks)]
        lower = [min(heights[a], heights[b]) for a, b in pairwise(peaks)]
        depths = [
            (high - heights[v]) / np.sqrt(2 * (high + heights[v]))
            for high, v in zip(lower, valleys, strict=True)
        ]
        shallow = int(np.argmin(depths))
        if depths[shallow] >= _SURE:
            return peaks, valleys
        a, b = peaks[shallow], peaks[shallow + 1]
        peaks.remove(a if heights[a] < heights[b] else b)
    return peaks, []
