import keras

_DTYPES = ("float16", "bfloat16", "float32")  # of the kernel


@keras.saving.register_keras_serializable("kerasmlp")
class BatchNorm(keras.layers.BatchNormalization):
    """Keras' batch normalisation, on feature maps by one kernel that passes over them once.

    Keras computes means, variances and the result one after the other, which on a CPU
    takes longer than a 3×3 convolution of 16 channels. In training, on maps `(batch,
    height, width, channels)` and under TensorFlow, this gives the same numbers to
    rounding in less than half the time; everywhere else it is Keras'.
    `tests/benchmarks/ic_resnet.py` measures it.

    Its arguments are those of `keras.layers.BatchNormalization`.

    Call arguments:
        inputs: Tensor, channels last.
        training: Bool.
        mask: As in Keras.

    Input shape: `(batch, ..., channels)`.

    Output shape: the same.

    Example:

    >>> x = np.random.default_rng(0).normal(3, 2, (4, 5, 5, 2)).astype("float32")
    >>> y = keras.ops.convert_to_numpy(BatchNorm()(x, training=True))
    >>> bool(np.abs(y.mean((0, 1, 2))).max() < 1e-5)
    True

    Reference: Ioffe and Szegedy, "Batch Normalization", 2015.
    """

    def call(self, inputs, training=None, mask=None):
        learns = training and self.trainable and mask is None and not self.renorm
        is_map = len(inputs.shape) == 4 and self.axis in (-1, 3) and self.scale and self.center
        known = self.variable_dtype == "float32" and inputs.dtype in _DTYPES
        plain = learns and is_map and known and not self.synchronized
        if not (plain and keras.backend.backend() == "tensorflow"):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        none = tf.zeros((0,), tf.float32)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma,
            offset=self.beta,
            mean=none,
            variance=none,
            epsilon=self.epsilon,
            is_training=True,
        )
        # The kernel's variance is that of a sample, with n - 1.
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], "float32")
        variance *= (count - 1) / count
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + value * (1.0 - self.momentum))
        return outputs
