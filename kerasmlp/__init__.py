"""Small residual MLPs on embeddings: accurate, fast, and honest about what they do not know.

Public names load when they are first used, so that `import kerasmlp` costs
nothing.
"""

from kerasmlp.utils.lazy import lazy_names

__version__ = "0.1.0"

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "age_classes": "data.labels",
        "AgeCNN": "models.age_cnn",
        "choose_age_target": "data.targets",
        "choose_target": "data.targets",
        "DownsampleBlock": "layers.downsample_block",
        "EmbeddingStore": "data.stores.embedding_store",
        "find_recipe": "models.presets",
        "Gender": "data.labels",
        "ICLayer": "layers.ic_layer",
        "ICResNet": "models.ic_resnet",
        "ICResNet50": "models.ic_resnet50",
        "ImageStore": "data.stores.image_store",
        "InputError": "utils.checks",
        "LayerOut": "callbacks.layer_out",
        "load_model": "runs.model",
        "MNISTNet": "models.mnist_net",
        "predict_moments": "uncertainty.moments",
        "predict_samples": "uncertainty.samples",
        "predict_uncertainty": "uncertainty.samples",
        "Predictor": "runs.predictor",
        "PRESETS": "models.presets",
        "RandomErasing": "layers.random_erasing",
        "Recipe": "models.presets",
        "ResidualBlock": "layers.residual_block",
        "ResidualMLP": "models.residual_mlp",
        "StoreInfo": "data.stores.store_info",
        "Target": "data.targets",
        "train": "training.embeddings",
        "VGG16": "models.vgg16",
    },
)
