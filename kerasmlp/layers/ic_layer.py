import keras

from kerasmlp.layers.batch_norm import BatchNorm
from kerasmlp.layers.initializers import Seed, check_seeds
from kerasmlp.layers.masks import dropout, member_dropout
from kerasmlp.layers.member_dense import split_width
from kerasmlp.utils.checks import check_int, check_positive, check_rate, reject


@keras.saving.register_keras_serializable("kerasmlp")
class ICLayer(keras.layers.Layer):
    """Independent-component layer: batch normalisation, then dropout.

    `y = Dropout(BatchNorm(x))`, placed right before a weight layer.

    The two modes are separate and explicit:

    | call | batch norm | dropout |
    | --- | --- | --- |
    | `layer(x)` | moving statistics | off |
    | `layer(x, training=True)` | the batch's statistics, moving ones updated | on |
    | `layer(x, sampling=True)` | moving statistics | on |

    `training=True` at prediction is *not* MC dropout: it would normalise each
    row with its neighbours in the batch and overwrite the moving statistics.
    `sampling=True` is, one pass at a time; `kerasmlp.predict_samples` runs many at once.

    Args:
        dropout_rate: Probability to drop a unit, in [0, 1).
        momentum: Of the moving statistics (0.9 is PyTorch's 0.1).
        epsilon: Added to the variance.
        seed: Integer or None, of the dropout masks; of several members member m has `seed + m`,
            or that of a list.
        members: Networks whose channels lie side by side, each with masks of its own.

    Call arguments:
        inputs: Tensor of rank 2 or more, channels last.
        training: Bool, as above.
        sampling: Bool, as above.
        mask: Rows or steps that batch norm leaves out of its statistics.
        masks: `SampleMasks` of many passes that sample at once, or None. They are for
            calls on arrays: a functional model that is built with some cannot be saved.

    Input shape: `(batch, ..., channels)`.

    Output shape: the same.

    Raises:
        ValueError: if an argument is out of range.

    Example:

    >>> x = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
    >>> layer = ICLayer(dropout_rate=0.5, seed=1)
    >>> layer(x).shape == (32, 8)
    True
    >>> bool((np.array(layer(x, sampling=True)) == 0).any())
    True

    Reference: Chen et al., "Rethinking the Usage of Batch Normalization and
    Dropout in the Training of Deep Neural Networks", 2019, section 3.
    Deviation: the moving variance averages the biased variance of a batch,
    as Keras does; PyTorch's takes the unbiased one.
    """

    def __init__(
        self,
        *,
        dropout_rate: float = 0.05,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        seed: Seed = None,
        members: int = 1,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.dropout_rate = check_rate("dropout_rate", dropout_rate)
        self.momentum = check_rate("momentum", momentum)
        self.epsilon = check_positive("epsilon", epsilon)
        self.members = check_int("members", members, minimum=1)
        self.seed = check_seeds(seed, self.members)
        self.supports_masking = True
        self.norm = BatchNorm(
            momentum=self.momentum,
            epsilon=self.epsilon,
            dtype=self.dtype_policy,
            name="norm",
        )
        if self.dropout_rate and self.members == 1:
            self.seed_generator = keras.random.SeedGenerator(self.seed)
        elif self.dropout_rate:
            seeds = self.seed or [None] * self.members
            self.seed_generators = [keras.random.SeedGenerator(seed) for seed in seeds]

    def build(self, input_shape):
        if len(input_shape) < 2:
            reject("inputs", "must have rank 2 or more", tuple(input_shape))
        if self.members > 1 and len(input_shape) > 2:
            reject("inputs", "must have rank 2 to be those of several members", tuple(input_shape))
        split_width(input_shape[-1], self.members)
        self.norm.build(input_shape)
        self.built = True

    def call(self, inputs, training=False, sampling=False, mask=None, masks=None):
        x = self.norm(inputs, training=training, mask=mask)
        if not self.dropout_rate:
            return x
        if masks is not None:
            return masks.dropout(x, self.dropout_rate)
        if not (training or sampling):
            return x
        if self.members == 1:
            return dropout(x, self.dropout_rate, self.seed_generator)
        return member_dropout(x, self.dropout_rate, self.seed_generators)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "dropout_rate": self.dropout_rate,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "seed": self.seed,
            **({"members": self.members} if self.members > 1 else {}),
        }
