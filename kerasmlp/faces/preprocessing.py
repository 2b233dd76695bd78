"""How a picture comes before an embedder: what decides its answer beside the weights."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

LAYOUTS = ("nchw", "nhwc")
COLOURS = ("rgb", "bgr", "gray")
ALIGNMENTS = ("arcface", "crop", "none")


@dataclass(frozen=True)
class Preprocessing:
    """From a photo to what an embedder takes.

    Attributes:
        input_size: Height and width in pixels.
        layout: `"nchw"` or `"nhwc"`.
        colour_order: `"rgb"`, `"bgr"` or `"gray"`.
        mean: Taken away from pixels of 0 to 255, one number for each channel.
        std: By which the rest is divided, one number for each channel.
        alignment: `"arcface"` (by landmarks), `"crop"` (the detected box, with a
            margin) or `"none"` (the whole picture).
        margin: That `"crop"` adds at each side, as a share of the box's longer side.
        output: Name of the output that is the embedding.
        flip: Whether the mirrored picture is embedded too, and the mean taken.
    """

    input_size: tuple[int, int]
    layout: str
    colour_order: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    alignment: str
    margin: float | None = None
    output: str | None = None
    flip: bool = False

    @property
    def channels(self) -> int:
        return 1 if self.colour_order == "gray" else 3

    def to_json(self) -> dict[str, Any]:
        """What a store keeps: as `embedder.json` has it."""
        kept = {k: v for k, v in asdict(self).items() if v is not None}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in kept.items()}

    def batch(self, crops: list[np.ndarray]) -> np.ndarray:
        """What the embedder takes, float32, of crops of its size, which are BGR of 8 bits."""
        import cv2

        if self.colour_order == "gray":
            pixels = np.stack([cv2.cvtColor(c, cv2.COLOR_BGR2GRAY) for c in crops])[..., None]
        else:
            pixels = np.stack(crops)[..., :: -1 if self.colour_order == "rgb" else 1]
        tables = self._tables()
        channels = [table[pixels[..., c]] for c, table in enumerate(tables)]
        return np.stack(channels, axis=1 if self.layout == "nchw" else 3)

    def _tables(self) -> list[np.ndarray]:
        """What each of 256 values becomes, by channel; as OpenCV's `blobFromImages` rounds it."""
        values = np.arange(256, dtype=np.float32)
        return [
            (values - np.float32(mean)) * np.float32(1 / std)
            for mean, std in zip(self.mean, self.std, strict=True)
        ]
