"""Recipes by the name of a preset, or from JSON files."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from kerasmlp.models.presets import PRESETS, Recipe
from kerasmlp.utils.checks import InputError, reject, reject_file
from kerasmlp.utils.manifest import read_preset_json


def find_recipe(preset: str | os.PathLike, argument: str = "preset") -> Recipe:
    """Returns a preset by its name, or reads one from a JSON file.

    Args:
        preset: Name or path.
        argument: That it came by, for an error.

    Raises:
        InputError: if there is no such preset, or a value in it is bad.
    """
    if preset in PRESETS:
        return PRESETS[preset]
    path = Path(preset)
    if path.suffix != ".json":
        names = ", ".join(PRESETS)
        reject(argument, f"must be one of {names}, or a .json file", str(preset))
    return recipe_of(path, read_preset_json(path))


def recipe_of(path: str | os.PathLike, values: Any) -> Recipe:
    """The recipe that a file holds.

    Raises:
        InputError: naming the file, if a value is unknown or bad.
    """
    known = {f.name for f in dataclasses.fields(Recipe)}
    if not isinstance(values, dict) or not set(values) <= known:
        unknown = sorted(set(values) - known) if isinstance(values, dict) else type(values).__name__
        reject_file(path, "must hold hyperparameters of a recipe", f"{unknown}")
    try:
        return Recipe(**values)
    except InputError as error:
        reject_file(path, "must hold hyperparameters of a recipe", f"{error}")
