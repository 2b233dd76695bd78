"""Small residual MLPs on embeddings: accurate, fast, and honest about what they do not know.

Public names load when they are first used, so that `import kerasmlp` costs
nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "AgeCNN": "kerasmlp.models.age_cnn",
    "DownsampleBlock": "kerasmlp.layers.downsample_block",
    "EmbeddingStore": "kerasmlp.data.stores.embedding_store",
    "Gender": "kerasmlp.data.labels",
    "ICLayer": "kerasmlp.layers.ic_layer",
    "ImageStore": "kerasmlp.data.stores.image_store",
    "ICResNet": "kerasmlp.models.ic_resnet",
    "ICResNet50": "kerasmlp.models.ic_resnet50",
    "InputError": "kerasmlp.utils.checks",
    "LayerOut": "kerasmlp.callbacks.layer_out",
    "MNISTNet": "kerasmlp.models.mnist_net",
    "RandomErasing": "kerasmlp.layers.random_erasing",
    "Recipe": "kerasmlp.models.presets",
    "ResidualBlock": "kerasmlp.layers.residual_block",
    "ResidualMLP": "kerasmlp.models.residual_mlp",
    "StoreInfo": "kerasmlp.data.stores.embedding_store",
    "VGG16": "kerasmlp.models.vgg16",
    "age_classes": "kerasmlp.data.labels",
    "load_model": "kerasmlp.runs.model",
    "predict_moments": "kerasmlp.uncertainty.moments",
    "predict_samples": "kerasmlp.uncertainty.samples",
    "predict_uncertainty": "kerasmlp.uncertainty.samples",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'kerasmlp' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
