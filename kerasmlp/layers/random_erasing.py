import math

import keras

from kerasmlp.utils.checks import check_seed, is_number, reject

_ATTEMPTS = 16


@keras.saving.register_keras_serializable("kerasmlp")
class RandomErasing(keras.layers.Layer):
    """Overwrites a random rectangle of an image, in training alone.

    With probability `probability` a rectangle with a random share of the image's
    area and a random ratio of its sides is placed where it fits and set to
    `fill_value`. Other calls give the images back as they are.

    Args:
        probability: Of an image to lose a rectangle, in [0, 1].
        area: Smallest and largest share of the image, in (0, 1).
        aspect_ratio: Smallest ratio of height to width, in (0, 1]; the largest
            is its inverse.
        fill_value: After normalisation 0 is the mean colour.
        seed: Integer or None.

    Call arguments:
        inputs: Images, channels last.
        training: Bool.

    Input shape: `(batch, height, width, channels)`.

    Output shape: the same.

    Raises:
        InputError: if an argument is out of range.

    Example:

    >>> images = np.ones((8, 32, 32, 3), "float32")
    >>> erasing = RandomErasing(probability=1.0, seed=0)
    >>> kept = np.array(erasing(images, training=True)).mean(axis=(1, 2, 3))
    >>> bool((kept > 0.5).all() and (kept < 1).all())
    True

    Reference: Zhong et al., "Random Erasing Data Augmentation", 2017, algorithm 1.
    Deviation: of 16 rectangles drawn at once the first that fits is taken, where
    the original draws until one does; an image of which none fits stays whole.
    """

    def __init__(
        self,
        *,
        probability: float = 0.5,
        area: tuple[float, float] = (0.02, 0.4),
        aspect_ratio: float = 0.3,
        fill_value: float = 0.0,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not is_number(probability) or not 0 <= probability <= 1:
            reject("probability", "must be in [0, 1]", probability)
        numbers = isinstance(area, tuple | list) and len(area) == 2 and all(map(is_number, area))
        if not numbers or not 0 < area[0] <= area[1] < 1:
            reject("area", "must be two shares in (0, 1), the smaller first", area)
        if not is_number(aspect_ratio) or not 0 < aspect_ratio <= 1:
            reject("aspect_ratio", "must be in (0, 1]", aspect_ratio)
        if not is_number(fill_value) or not math.isfinite(fill_value):
            reject("fill_value", "must be a finite number", fill_value)
        self.probability = float(probability)
        self.area = tuple(map(float, area))
        self.aspect_ratio = float(aspect_ratio)
        self.fill_value = float(fill_value)
        self.seed = check_seed(seed)
        self.seed_generator = keras.random.SeedGenerator(self.seed)

    def build(self, input_shape):
        if len(input_shape) != 4:
            reject("inputs", "must have rank 4", tuple(input_shape))
        self.built = True

    def call(self, inputs, training=False):
        if not training:
            return inputs
        height, width = inputs.shape[1:3]
        shape = (keras.ops.shape(inputs)[0], _ATTEMPTS)

        def uniform(low, high):
            return keras.random.uniform(shape, low, high, "float32", self.seed_generator)

        area = uniform(*self.area) * (height * width)
        # As the original does: uniform in the ratio itself, so tall ones come more often.
        ratio = uniform(self.aspect_ratio, 1 / self.aspect_ratio)
        tall = keras.ops.round(keras.ops.sqrt(area * ratio))
        wide = keras.ops.round(keras.ops.sqrt(area / ratio))
        top = keras.ops.floor(uniform(0, 1) * (height - tall + 1))
        left = keras.ops.floor(uniform(0, 1) * (width - wide + 1))
        fits = keras.ops.logical_and(tall < height, wide < width)
        first = keras.ops.argmax(fits, axis=1)[:, None]

        def chosen(values):
            return keras.ops.take_along_axis(values, first, axis=1)

        erased = keras.ops.logical_and(chosen(fits), uniform(0, 1)[:, :1] < self.probability)
        rows = _inside(height, chosen(top), chosen(tall))[:, :, None]
        columns = _inside(width, chosen(left), chosen(wide))[:, None, :]
        hole = keras.ops.logical_and(rows, columns)
        hole = keras.ops.logical_and(hole, erased[:, :, None])[..., None]
        return keras.ops.where(hole, keras.ops.cast(self.fill_value, inputs.dtype), inputs)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "probability": self.probability,
            "area": list(self.area),
            "aspect_ratio": self.aspect_ratio,
            "fill_value": self.fill_value,
            "seed": self.seed,
        }


def _inside(size: int, start, length):
    places = keras.ops.arange(size, dtype="float32")[None]
    return keras.ops.logical_and(places >= start, places < start + length)
