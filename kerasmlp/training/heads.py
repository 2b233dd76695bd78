"""The heads of a network while it learns: their targets, their loss, their answers."""

from __future__ import annotations

import copy
from collections.abc import Callable

import keras
import numpy as np

from kerasmlp.data.other_targets import AnyTarget
from kerasmlp.evaluation.measuring import measure
from kerasmlp.layers.gaussian_head import GaussianHead
from kerasmlp.models.presets import Recipe
from kerasmlp.models.residual_mlp import head_layer
from kerasmlp.training.losses import GaussianNLL, JointLoss, recipe_loss
from kerasmlp.training.rows import HeadRows, Rows
from kerasmlp.training.target_rows import TargetRows
from kerasmlp.utils.checks import reject_column

_KEPT = ("accuracy", "exact_year_accuracy", "mae_years", "rmse")
"""Of the measures, in a history."""

_SOME_ROWS = 1 << 18
"""Of many, evenly spaced: what a constant answer loses need not be known to more digits."""

_LEAST_SPREAD = 1e-4
"""Of numbers against their mean: of float32's seven digits three are left."""


class LearningHead:
    """One head: what it is to learn from which rows, and what its outputs mean.

    Numbers are learned in units of their own spread, from their mean on; `finish` tells the
    layer of the model the unit.

    Args:
        rows: As the head sees them.
        recipe: Hyperparameters.
        name: Of several heads, that of this one; else None.
    """

    mc_temperature = 1.0
    """Of passes, where rows are too few to fit one."""

    def __init__(self, rows: HeadRows, recipe: Recipe, name: str | None):
        self.rows, self.target, self.name = rows, rows.training.target, name
        self.center, self.scale = 0.0, 1.0
        if self.target.is_number:
            numbers = rows.training.targets[rows.training.known]
            self.center, self.scale = float(numbers.mean()), float(numbers.std())
            self._check_unit()
            self.loss: keras.losses.Loss = GaussianNLL()
        else:
            partial = name is not None
            self.loss = recipe_loss(recipe, ordered=self.target.is_age, partial=partial)
        self._sigma_years = recipe.label_sigma_years

    def _check_unit(self) -> None:
        """Rejects numbers that float32, which answers are in, does not tell apart."""
        least, most = _LEAST_SPREAD * abs(self.center), float(np.finfo(np.float32).max) / 100
        if not least <= self.scale <= most or abs(self.center) > most:
            came = f"a mean of {self.center:.6g} and a standard deviation of {self.scale:.3g}"
            requirement = (
                "must hold numbers within float32's range that vary by more than a "
                "ten-thousandth of their mean (subtract an offset, or take another unit)"
            )
            reject_column(self.target.label, requirement, came)

    @property
    def targets(self) -> TargetRows:
        """What the loss takes, `(rows, outputs)`, zeros where the label is unknown."""
        training, known = self.rows.training, self.rows.training.known
        if not self.target.is_number:
            return TargetRows([training.kinds_of_targets(self._sigma_years)])
        standard = np.where(known, (training.targets - self.center) / self.scale, 0.0)
        return TargetRows([(np.stack([standard, known], axis=1).astype(np.float32), None)])

    def go_on_from(self, model: keras.Model, *, same: bool) -> None:
        """Keeps the unit of the weights that a model begins with, if it is that of this number."""
        layer = self.layer(model, "gaussian")
        center, scale, *_ = map(float, layer.get_weights())
        if same and (center, scale) != (0, 1):
            self.center, self.scale = center, scale
        layer.set_unit(center=0.0, scale=1.0)

    @property
    def counted(self) -> np.ndarray:
        """Mask of the targets that are known."""
        return self.rows.training.known

    def constant_loss(self) -> float:
        """The loss of the best answer that is the same for all rows, where the label is known."""
        targets, known = self.targets, np.arange(len(self.targets))[self.counted]
        if len(known) > _SOME_ROWS:
            known = known[np.linspace(0, len(known) - 1, _SOME_ROWS).round().astype(int)]
        known = targets[known]
        constant = np.array([[0, 1]]) if self.target.is_number else known.mean(axis=0)[None]
        answers = np.repeat(constant, len(known), axis=0).astype(np.float32)
        return float(keras.ops.convert_to_numpy(self.loss(known, answers)))

    def in_unit(self, outputs: np.ndarray) -> np.ndarray:
        """Outputs of the model in training as those of the finished one."""
        if not self.target.is_number:
            return outputs
        return np.asarray(outputs, np.float64) * self.scale + [self.center, 0.0]

    def layer(self, model: keras.Model, kind: str) -> keras.layers.Layer:
        """A layer of this head, such as its `logits`."""
        return model.get_layer(head_layer(kind, self.name))

    def finish(self, model: keras.Model, *, spread: float = 1.0, floor: float = 0.0) -> None:
        """Tells the model the unit of its answers, and what changes their standard deviations."""
        layer = self.layer(model, "gaussian")
        assert isinstance(layer, GaussianHead)
        layer.set_unit(center=self.center, scale=self.scale, spread=spread, floor=floor)


class Heads:
    """All heads of a network, whose outputs lie side by side while it learns.

    Several losses are summed, each divided by the square root of that of the best constant
    answer on the rows trained on: divided by the whole of it, a head of 101 years learned
    less than alone (on UTKFace a mean error of 5.0 years, by the root 4.7, alone 4.8).

    Args:
        rows: Of the training.
        recipe: Hyperparameters.
        make: Makes a head, of the arguments of `LearningHead`.
    """

    def __init__(
        self, rows: Rows, recipe: Recipe, make: Callable[..., LearningHead] = LearningHead
    ):
        several = len(rows.heads) > 1
        heads = [
            make(head, recipe, head.training.target.label if several else None)
            for head in rows.heads
        ]
        self.heads = sorted(heads, key=lambda head: head.name or "")  # as the model has them
        ends = np.cumsum([head.target.num_outputs for head in self.heads])
        starts = [0, *ends[:-1]]
        self.columns = [slice(*both) for both in zip(starts, ends, strict=True)]
        self._weights = [1.0]
        if several:
            self._weights = [head.constant_loss() ** -0.5 for head in self.heads]

    def on(self, rows: Rows) -> Heads:
        """The same heads, their units and weights too, on other rows."""
        known = {head.training.target.label: head for head in rows.heads}
        found = copy.copy(self)
        found.heads = [copy.copy(head) for head in self.heads]
        for head in found.heads:
            head.rows = known[head.target.label]
        return found

    @property
    def targets(self) -> TargetRows:
        """Of all heads, `(rows, outputs)`."""
        return TargetRows.side_by_side([head.targets for head in self.heads])

    @property
    def loss(self) -> keras.losses.Loss:
        if len(self.heads) == 1:
            return self.heads[0].loss
        sizes = [head.target.num_outputs for head in self.heads]
        losses = [head.loss for head in self.heads]
        return JointLoss(losses, sizes=sizes, weights=self._weights)

    def go_on_from(self, model: keras.Model, target: AnyTarget) -> None:
        """Tells the heads of numbers that the model begins with the weights of a run.

        Args:
            model: With its weights.
            target: Of the run.
        """
        known = {head.label: head for head in target.heads}
        for head in self.heads:
            if head.target.is_number:
                head.go_on_from(model, same=known.get(head.target.label) == head.target)

    def measured(self, outputs: np.ndarray) -> dict[str, float]:
        """Measures on the rows kept back, from outputs side by side; of several under names."""
        return self._named(self._measured(outputs))

    def validation(self, outputs: np.ndarray) -> dict[str, float]:
        """Those that a history keeps, and the loss that says when to stop."""
        each = self._measured(outputs)
        kept = [{name: one[name] for name in _KEPT if name in one} for one in each]
        return self._loss(each) | self._named(kept)

    def validation_loss(self, outputs: np.ndarray) -> dict[str, float]:
        """That loss alone."""
        return self._loss(self._measured(outputs))

    def _loss(self, each: list[dict]) -> dict[str, float]:
        return {"loss": sum(w * one["nll"] for w, one in zip(self._weights, each, strict=True))}

    def _named(self, each: list[dict]) -> dict:
        if len(each) == 1:
            return each[0]
        named = zip(self.heads, each, strict=True)
        return {f"{head.target.name}_{k}": v for head, one in named for k, v in one.items()}

    def _measured(self, outputs: np.ndarray) -> list[dict]:
        both = zip(self.heads, self.answers(outputs), strict=True)
        return [measure(head.rows.part, answers) for head, answers in both]

    def answers(self, outputs: np.ndarray) -> list[np.ndarray]:
        """Of each head, in the unit of its label, from outputs side by side."""
        return [
            head.in_unit(outputs[:, columns])
            for head, columns in zip(self.heads, self.columns, strict=True)
        ]


def side_by_side(model: keras.Model) -> keras.Model:
    """A model on the same layers whose outputs lie side by side, one array; one has it already."""
    if len(model.outputs) == 1:
        return model
    joined = keras.layers.Concatenate(dtype="float32", name="side_by_side")(model.outputs)
    return keras.Model(model.input, joined, name=model.name)
