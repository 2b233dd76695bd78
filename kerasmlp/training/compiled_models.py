import gc
from collections.abc import Mapping

import keras
import numpy as np

from kerasmlp.models.presets import Recipe
from kerasmlp.models.residual_mlp import ResidualMLP
from kerasmlp.runs.mc_model import can_be_sampled
from kerasmlp.runs.model import in_float32
from kerasmlp.training.fit import compile_by_recipe
from kerasmlp.training.heads import side_by_side
from kerasmlp.training.optimizers import recipe_optimizer
from kerasmlp.training.xla import xla_pays
from kerasmlp.uncertainty.sampler import Sampler

_FREE = (
    "batch_size", "min_steps", "learning_rate", "weight_decay", "schedule", "warmup_share",
    "gamma", "patience", "label_sigma_years", "rps_weight", "mixup_alpha", "noise_std", "calibrate",
    "conformal_by", "refit",
)  # fmt: skip
"""Of a recipe, what no compiled step hangs on, or only by what it is given beside the recipe."""


class Workbench:
    """Compiled models, one of each shape, handed out as if they were new.

    Tracing and compiling a small model takes as long as some epochs. Runs of
    the same network, batch size and number of steps can share the compiled
    step, whatever their data, seeds, learning rates and weight decays: the
    model gets the weights and random generators that a new one has, its
    optimiser and metrics go back to their beginning. What is then trained
    equals what a new model would have become, to the bit.

    The model that was handed out last for a shape is overwritten by the next.

    Args:
        max_models: Those handed out last are kept, so many at most; None keeps all.
        xla: As for `compile_by_recipe`; None takes it where `xla_pays`.

    Example:

    >>> from kerasmlp.training.losses import recipe_loss
    >>> bench, recipe = Workbench(), Recipe()
    >>> shape = {"heads": 2, "width": 8, "batch_size": 4, "steps": 3}
    >>> shape |= {"loss": recipe_loss(recipe, ordered=False), "precision": "float32"}
    >>> bench.model(recipe, **shape, seed=0) is bench.model(recipe, **shape, seed=1)
    True
    """

    def __init__(self, *, max_models: int | None = None, xla: bool | None = None):
        self.max_models = max_models
        self.xla = xla
        self._models: dict[tuple, tuple[keras.Model, list[np.ndarray]]] = {}
        self._plain: dict[tuple, tuple[keras.Model, keras.Model, Sampler | None]] = {}

    def model(
        self,
        recipe: Recipe,
        *,
        heads: int | str | Mapping[str, int | str],
        width: int,
        batch_size: int,
        steps: int,
        loss: keras.losses.Loss,
        precision: str,
        seed: int,
        normalized: bool = True,
        each_loss: bool = False,
    ) -> keras.Model:
        """Returns a compiled model in the state of a new one of this seed, its heads side by side.

        Args:
            recipe: Network and optimiser.
            heads: As of `ResidualMLP`.
            width: Of the embeddings.
            batch_size: Rows per step, which the step is compiled for.
            steps: Of an epoch; they are part of the trace and of the schedule.
            loss: To be minimised.
            precision: Policy of the blocks.
            seed: Of initial weights and dropout.
            normalized: Whether the embeddings have norm 1. If not, the network
                standardises columns, once it is shown rows (`adapt_columns`).
            each_loss: As of `compile_by_recipe`.
        """
        network = recipe.network(width, normalized=normalized)
        new = ResidualMLP(heads=heads, seed=seed, dtype=precision, **network)
        new = side_by_side(new)
        fixed = recipe.replace(**{name: getattr(Recipe, name) for name in _FREE})
        minimised = (type(loss), str(loss.get_config()))
        shape = (fixed, *network.values(), str(heads), batch_size, steps, *minimised, precision)
        shape += (each_loss,)
        if shape not in self._models:
            if self.max_models is not None and len(self._models) >= self.max_models:
                self._models.pop(next(iter(self._models)))
                gc.collect()  # a model and its traced steps refer to each other
            xla = xla_pays(recipe, steps) if self.xla is None else self.xla
            how = {"batch_size": batch_size, "xla": xla, "each_loss": each_loss}
            new = compile_by_recipe(new, recipe, steps=steps, loss=loss, **how)
            beginning = [np.array(v) for v in new.optimizer.variables]
            self._models[shape] = new, beginning
            return new
        shared, beginning = self._models[shape] = self._models.pop(shape)  # the latest is last
        for variable, value in zip(shared.variables, new.variables, strict=True):
            variable.assign(value)
        for variable, value in zip(shared.optimizer.variables, beginning, strict=True):
            variable.assign(value)
        recipe_optimizer(shared).follow(recipe)
        shared.reset_metrics()
        return shared

    def in_float32(
        self,
        model: keras.Model,
        recipe: Recipe,
        heads: int | str | Mapping[str, int | str],
        *,
        normalized: bool = True,
    ) -> tuple[keras.Model, keras.Model, Sampler | None]:
        """Returns the model in float32, the same with its heads side by side, and its sampler,
        None without dropout.

        Those of a shape stay the same, and so does what is compiled for them.
        They are overwritten by the next call.

        Args:
            model: Of `model`.
            recipe: Of its network.
            heads: Of its network.
            normalized: As of `model`.
        """
        network = recipe.network(model.input_shape[-1], normalized=normalized)
        shape = (*network.values(), str(heads), model.jit_compile)
        if shape not in self._plain:
            plain = ResidualMLP(heads=heads, seed=0, dtype="float32", **network)
            joined = side_by_side(plain)
            plain.jit_compile = joined.jit_compile = model.jit_compile
            self._plain[shape] = plain, joined, Sampler(plain) if can_be_sampled(plain) else None
        plain, joined, sampler = self._plain[shape]
        return in_float32(model, lambda: plain), joined, sampler
