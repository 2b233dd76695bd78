"""A finished run that another network learns from, and the model that asks it in every step."""

from __future__ import annotations

import os

import keras
import numpy as np

from kerasmlp.callbacks.validation import forward
from kerasmlp.layers.standardize import Standardize
from kerasmlp.models.recipe_files import recipe_of
from kerasmlp.runs.answering_model import AnsweringModel
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.seen import load_seen
from kerasmlp.runs.training_files import read_settings
from kerasmlp.training.chunk_model import ChunkModel
from kerasmlp.training.heads import side_by_side
from kerasmlp.utils.files import sha256_file


class Teacher(AnsweringModel):
    """A run as one learns from it: its deterministic answers, the mean of its members.

    Numbers are answered in units of their own spread, which `units` holds.

    Attributes:
        run: Its folder.
        recipe: It has learned by.
        target: What it answers.
        units: Center and scale of the answers of each head of numbers, by label.
        seen: Hashes of the rows that it has learned from; empty where it does not tell.
        joined: Its model, heads side by side.

    Args:
        path: Run folder.

    Raises:
        InputError: if there is no finished run, or one of its files is damaged or altered.
    """

    def __init__(self, path: str | os.PathLike):
        super().__init__(path)
        self.run = RunFolder(path)
        self.target = read_settings(self.run)[1]
        self.recipe = recipe_of(self.run / "config.json", self.config["recipe"])
        self.seen = load_seen(self.run)
        self.sha256 = sha256_file(self.run / "model.keras")
        self.units = {}
        for label in (head.label for head in self.target.heads if head.is_number):
            head = self.gaussian_of(label)
            center, scale, spread, floor = map(float, head.get_weights())
            self.units[label] = center, scale
            head.set_unit(center=0.0, scale=1.0, spread=spread, floor=floor)
        self.joined = side_by_side(self.model)

    def outputs(self, rows: np.ndarray) -> np.ndarray:
        """Its answers, heads side by side, numbers in units of their spread."""
        return forward(self.joined, rows)

    @property
    def columns(self) -> Standardize | None:
        """The layer that brings its columns to one scale, if it has one."""
        return next((k for k in self.model.layers if isinstance(k, Standardize)), None)


class StudentModel(ChunkModel):
    """A model whose targets are what another one answers to the very rows of a step.

    Args:
        inputs, outputs: As of `keras.Model`.
        teacher: Of the same outputs; it is no part of this model, whose checkpoints and
            optimiser know nothing of it.
    """

    def __init__(self, inputs, outputs, *, teacher: keras.Model, **kwargs):
        super().__init__(inputs, outputs, **kwargs)
        self.__dict__["_teacher"] = teacher

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        if x is not None:  # as it is where the losses are built
            y = keras.ops.stop_gradient(self.__dict__["_teacher"](x, training=False))
        return super().compute_loss(x, y, y_pred, sample_weight, training)
