"""What the backend that Keras runs on has."""


def on_gpu() -> bool:
    """Whether it has a GPU."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() == "gpu"
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))
