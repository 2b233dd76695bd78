"""Small stores for tests: made, not mocked, with a signal that a model can learn."""

from pathlib import Path

import numpy as np

from kerasmlp import EmbeddingStore, StoreInfo

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
INFO = StoreInfo(embedder="made.onnx", embedder_sha256="0" * 64)


def make_store(rows=400, width=32, seed=0, **labels) -> EmbeddingStore:
    """Directions that carry gender and age, noise on top, norm 1."""
    rng = np.random.default_rng(seed)
    gender = rng.integers(0, 2, rows)
    age_years = rng.integers(0, 90, rows).astype("float32")
    directions = np.random.default_rng(99).normal(size=(2, width))
    x = 0.7 * rng.normal(size=(rows, width))
    x += np.outer(2 * gender - 1, directions[0]) + np.outer(age_years / 30 - 1.5, directions[1])
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    columns = {"age_years": age_years, "gender": gender, "group": np.arange(rows), **labels}
    return EmbeddingStore(x.astype("float32"), columns, INFO)
