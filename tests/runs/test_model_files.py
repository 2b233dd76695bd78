"""What a model file may hold: every network of ours in a run folder, Keras' layers in a file."""

import json

import keras
import numpy as np
import pytest

from kerasmlp import InputError, load_model
from kerasmlp.models.age_cnn import AgeCNN
from kerasmlp.models.ic_resnet import ICResNet
from kerasmlp.models.ic_resnet50 import ICResNet50
from kerasmlp.models.mnist_net import MNISTNet
from kerasmlp.models.presets import PRESETS
from kerasmlp.models.residual_mlp import ResidualMLP
from kerasmlp.models.vgg16 import VGG16
from kerasmlp.utils import keras_file


@pytest.mark.parametrize(
    "build",
    [
        *(lambda r=r: ResidualMLP(num_classes=3, **r.network(16)) for r in PRESETS.values()),
        lambda: ResidualMLP(num_classes=2, width=8, kernel_initializer="he_normal"),
        AgeCNN,
        ICResNet,
        ICResNet50,
        MNISTNet,
        VGG16,
    ],
)
def test_every_network_is_one_of_a_run(build):
    with keras.StatelessScope(initialize_variables=False):  # without memory for them
        config = json.loads(json.dumps(keras.saving.serialize_keras_object(build())))
    keras_file._check_classes("model.keras", config, of_a_run=True)


def test_a_file_may_hold_other_layers_than_a_run(tmp_path):
    path = tmp_path / "model.keras"
    model = keras.Sequential([keras.Input((4,)), keras.layers.LayerNormalization()])
    model.save(path)
    x = np.arange(8, dtype="float32").reshape(2, 4)
    np.testing.assert_array_equal(load_model(path)(x), model(x))
    with pytest.raises(InputError, match="of the layers that models of kerasmlp have"):
        keras_file.load_keras_file(path, path.read_bytes(), of_a_run=True)
