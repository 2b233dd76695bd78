"""The model whose samples a run answers from."""

import keras


def has_dropout(model: keras.Model) -> bool:
    """Whether there is anything to sample."""
    return any(v.path.endswith("seed_generator_state") for v in model.variables)


def with_temperature(model: keras.Model, temperature: float) -> keras.Model:
    """A model on the same weights whose logits are divided by a temperature; its head is its own.

    Args:
        model: A `ResidualMLP` with `num_classes`.
        temperature: Above 0; with 1 the model itself comes back.
    """
    if temperature == 1:
        return model
    head = model.get_layer("logits")
    cooled = keras.layers.Dense.from_config(head.get_config())
    outputs = model.get_layer("probabilities")(cooled(head.input))
    cooled.set_weights([w / temperature for w in head.get_weights()])
    return keras.Model(model.inputs, outputs, name=model.name)
