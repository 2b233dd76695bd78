"""The model whose samples a run answers from."""

from collections.abc import Mapping

import keras

from kerasmlp.layers.members import members_of
from kerasmlp.models.residual_mlp import head_layer


def can_be_sampled(model: keras.Model) -> bool:
    """Whether its passes differ: by dropout, or by members."""
    return members_of(model) > 1 or any(
        v.path.endswith("seed_generator_state") for v in model.variables
    )


def with_temperatures(model: keras.Model, temperatures: Mapping[str | None, float]) -> keras.Model:
    """A model on the same weights that is as sure as temperatures say; its heads are its own.

    Logits are divided by them, and standard deviations multiplied.

    Args:
        model: A `ResidualMLP`.
        temperatures: Above 0, by the names of its heads, None of the only one; where all
            are 1 the model itself comes back.
    """
    if all(temperature == 1 for temperature in temperatures.values()):
        return model
    outputs = dict(zip(sorted(temperatures, key=str), model.outputs, strict=True))
    for name, temperature in temperatures.items():
        if temperature != 1:
            outputs[name] = _cooled(model, name, temperature)
    return keras.Model(model.input, outputs.get(None, outputs), name=model.name)


def _cooled(model: keras.Model, name: str | None, temperature: float):
    gaussian = head_layer("gaussian", name)
    if any(layer.name == gaussian for layer in model.layers):
        head = model.get_layer(gaussian)
        cooled = head.__class__.from_config(head.get_config())
        outputs = cooled(head.input)
        center, scale, *stds = head.get_weights()
        cooled.set_weights([center, scale, *(std * temperature for std in stds)])
        return outputs
    head = model.get_layer(head_layer("logits", name))
    cooled = head.__class__.from_config(head.get_config())
    outputs = model.get_layer(head_layer("probabilities", name))(cooled(head.input))
    cooled.set_weights([w / temperature for w in head.get_weights()])
    return outputs
