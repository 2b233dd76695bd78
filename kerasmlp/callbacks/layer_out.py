from collections import OrderedDict
from collections.abc import Sequence

import keras
import numpy as np

from kerasmlp.callbacks.frozen_step import FrozenStep, WeightLayer, weight_layers
from kerasmlp.utils.checks import check_choice, check_int, check_rate, check_seed, is_number, reject

SCHEDULES = ("random", "efreeze", "dfreeze")
_STEEPEST = 0.9
_MOST_OFTEN_ALL = 0.999  # all layers at once are drawn again
_MAX_STEPS = 32  # a traced step of a small network holds some megabytes


class LayerOut(keras.callbacks.Callback):
    """Freezes randomly chosen layers for an epoch: regularises, and spares their gradients.

    In every epoch after the warm-up layer i is frozen with probability `v_i`;
    if that were all layers, it is drawn again. A frozen layer takes part in the
    forward pass as ever, and its weights and their optimiser state do not change
    by a bit. Its gradient is not computed, and the backward pass ends where
    nothing below it trains. The state of the others carries on.

    A layer is whatever holds a kernel, inside of other layers too; see
    `weight_layers`. Scale and shift of a batch norm rest with the layer before
    it. Its statistics do not rest, since the forward pass is whole: it
    normalises by the batch and its moving statistics follow the data. Keras leaves
    the penalty of a frozen kernel's regulariser out of the loss that it logs.

    Which layers are frozen depends on `seed` and the number of the epoch alone,
    so a fit that goes on with `initial_epoch` freezes the same. Each pattern of
    frozen layers is traced when it first comes, and kept; of more than 32 the
    one that was not used for longest is dropped. Nothing is frozen outside of a
    step: validation, checkpoints, saved models and a fit that failed see the
    model as it was.

    Each epoch logs `frozen_share`, the share of trainable parameters in frozen
    layers, and `frozen_layers`, their number. Put it before callbacks that
    write logs.

    Args:
        freeze_probability: Mean of the `v_i` of a named schedule, in [0, 1); 0.5,
            the paper's, by default. A list has its own.
        warmup_epochs: First epochs, in which nothing is frozen; fewer than the fit has.
        schedule: `"random"`: each `v_i` is drawn once from U(0, 1); `"efreeze"`:
            they fall from 0.9 at the input to 0.1 at the output; `"dfreeze"`:
            they rise; or a list of them, input first, one per layer.
        seed: Decides everything.

    Attributes:
        layers: The `WeightLayer`s of the model, from the beginning of a fit on.
        probabilities: Their `v_i`.
        frozen: For each epoch of the last fit the names of the frozen layers.

    Raises:
        InputError: if an argument is out of range; when a fit begins, if it
            does not suit the model: a list of another length, a warm-up as long
            as the fit, no layer to freeze, an optimiser that also changes what has
            no gradient (`use_ema`, `gradient_accumulation_steps`), another
            backend than TensorFlow.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), *(keras.layers.Dense(2) for _ in range(3))])
    >>> model.compile("adam", "mse", jit_compile=False)
    >>> x = np.ones((8, 2), "float32")
    >>> layer_out = LayerOut(warmup_epochs=1, schedule=[1.0, 1.0, 0.0])
    >>> history = model.fit(x, x, epochs=2, verbose=0, callbacks=[layer_out])
    >>> [round(share, 2) for share in history.history["frozen_share"]]
    [0.0, 0.67]
    >>> [len(names) for names in layer_out.frozen.values()]
    [0, 2]

    Reference: Goutam et al., "LayerOut: Freezing Layers in Deep Neural Networks",
    2020, section 4. The text draws `v` for an epoch, the experiments once per run;
    so does this.
    Deviation: the optimiser state lives on, where the original's experiments begin
    each epoch with a new optimiser; scale and shift of a batch norm are frozen
    too, which lets the backward pass end there.
    """

    def __init__(
        self,
        *,
        freeze_probability: float | None = None,
        warmup_epochs: int = 0,
        schedule: str | Sequence[float] = "random",
        seed: int = 0,
    ):
        super().__init__()
        self.warmup_epochs = check_int("warmup_epochs", warmup_epochs, minimum=0)
        self.seed = check_seed(check_int("seed", seed, minimum=0))
        if isinstance(schedule, str):
            self.schedule = check_choice("schedule", schedule, SCHEDULES)
            mean = 0.5 if freeze_probability is None else freeze_probability
            self.freeze_probability = check_rate("freeze_probability", mean)
        else:
            self.schedule = _check_probabilities(schedule)
            if freeze_probability is not None:
                requirement = "must be left out where `schedule` lists probabilities"
                reject("freeze_probability", requirement, freeze_probability)
            self.freeze_probability = None
        self.layers: list[WeightLayer] = []
        self.probabilities = np.zeros(0)
        self.frozen: dict[int, tuple[str, ...]] = {}
        self._steps: OrderedDict[tuple[bool, ...], FrozenStep] = OrderedDict()
        self._step: FrozenStep | None = None

    @property
    def expected_share(self) -> float:
        """Mean share of parameters frozen in an epoch after the warm-up."""
        sizes = np.array([layer.size for layer in self.layers])
        everything = np.prod(self.probabilities)  # is drawn again
        share = self.probabilities @ sizes / sizes.sum()
        return float((share - everything) / (1 - everything))

    def pattern(self, epoch: int) -> tuple[bool, ...]:
        """Which layers are frozen in an epoch, input first."""
        if epoch < self.warmup_epochs:
            return (False,) * len(self.layers)
        rng = np.random.default_rng((self.seed, 1, epoch))
        while True:
            frozen = rng.random(len(self.layers)) < self.probabilities
            if not frozen.all():
                return tuple(frozen.tolist())

    def names(self, epoch: int) -> tuple[str, ...]:
        """Of the layers frozen in an epoch."""
        pairs = zip(self.layers, self.pattern(epoch), strict=True)
        return tuple(layer.name for layer, rests in pairs if rests)

    def share(self, pattern: Sequence[bool]) -> float:
        """Share of the trainable parameters that a pattern freezes."""
        sizes = np.array([layer.size for layer in self.layers])
        return float(sizes[np.array(pattern)].sum() / sizes.sum())

    def follow(self, model: keras.Model) -> None:
        """Takes up the layers of a model; a fit does so itself."""
        self.layers = weight_layers(model)
        if not self.layers:
            reject("model", "must be built and have a trainable kernel", model.name)
        self.probabilities = self._draw_probabilities(len(self.layers))
        if np.prod(self.probabilities) > _MOST_OFTEN_ALL:
            name = "freeze_probability" if isinstance(self.schedule, str) else "schedule"
            came = getattr(self, name)
            reject(name, "must leave a layer that is not nearly always frozen", came)

    def on_train_begin(self, logs=None):
        if keras.backend.backend() != "tensorflow":
            reject("backend", "must be tensorflow for LayerOut", keras.backend.backend())
        epochs = self.params["epochs"]
        if self.warmup_epochs >= epochs:
            requirement = f"must be less than the {epochs} epochs of the fit"
            reject("warmup_epochs", requirement, self.warmup_epochs)
        self.follow(self.model)
        optimizer = self.model.optimizer
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        for name in ("use_ema", "gradient_accumulation_steps"):
            if getattr(inner, name):
                reject(name, "must be off for LayerOut", getattr(inner, name))
        if not optimizer.built:
            # A step that is traced with frozen layers would build it without them.
            optimizer.build(self.model.trainable_variables)
        self.frozen = {}
        self._steps.clear()
        self._step = None

    def on_epoch_begin(self, epoch, logs=None):
        pattern = self.pattern(epoch)
        self.frozen[epoch] = self.names(epoch)
        self._step = self._step_of(pattern) if any(pattern) else None

    def on_train_batch_begin(self, batch, logs=None):
        if self._step is not None:
            self._step.install()

    def on_epoch_end(self, epoch, logs=None):
        logs["frozen_share"] = self.share(self.pattern(epoch))
        logs["frozen_layers"] = len(self.frozen[epoch])

    def on_train_end(self, logs=None):
        self._steps.clear()
        self._step = None

    def _step_of(self, pattern: tuple[bool, ...]) -> FrozenStep:
        if pattern not in self._steps:
            pairs = zip(self.layers, pattern, strict=True)
            resting = [v for layer, rests in pairs if rests for v in layer.variables]
            self._steps[pattern] = FrozenStep(self.model, resting)
        self._steps.move_to_end(pattern)
        if len(self._steps) > _MAX_STEPS:
            self._steps.popitem(last=False)
        return self._steps[pattern]

    def _draw_probabilities(self, count: int) -> np.ndarray:
        if not isinstance(self.schedule, str):
            if len(self.schedule) != count:
                names = ", ".join(layer.name for layer in self.layers)
                requirement = f"must have {count} probabilities, one per layer with a kernel"
                requirement += f" ({names[:200]})"
                reject("schedule", requirement, list(self.schedule))
            return np.array(self.schedule)
        if self.schedule == "random":
            spread = np.random.default_rng((self.seed, 0)).random(count)
        else:
            spread = np.linspace(_STEEPEST, 1 - _STEEPEST, count) if count > 1 else np.array([0.5])
            spread = spread if self.schedule == "efreeze" else spread[::-1]
        mean = self.freeze_probability
        # Both schedules have the mean 0.5; this moves it, and stays in [0, 1].
        return 2 * mean * spread if mean <= 0.5 else 1 - 2 * (1 - mean) * (1 - spread)


def _check_probabilities(schedule: Sequence[float]) -> tuple[float, ...]:
    values = tuple(schedule) if isinstance(schedule, Sequence | np.ndarray) else ()
    if not values or not all(is_number(v) and 0 <= v <= 1 for v in values):
        listed = ", ".join(repr(s) for s in SCHEDULES)
        reject("schedule", f"must be one of {listed}, or probabilities in [0, 1]", schedule)
    if min(values) == 1:
        reject("schedule", "must leave a layer that is not always frozen", list(values))
    return tuple(float(v) for v in values)
