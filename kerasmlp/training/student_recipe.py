"""How a student learns where nobody says otherwise."""

from __future__ import annotations

import os
from typing import Any

from kerasmlp.models.presets import PRESETS, Recipe
from kerasmlp.models.recipe_files import recipe_of
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.training_files import read_settings
from kerasmlp.training.fitted import for_rows

_NETWORK = (
    "num_blocks", "hidden_width", "residuals_per_block", "use_ic", "use_residual", "use_output_ic",
    "scale_inputs",
)  # fmt: skip
"""Of the teacher's recipe, what makes a student one of its members."""

DISTILLING: dict[str, Any] = {"dropout_rate": 0.05}
"""What a student learns otherwise than from labels: its targets hold no noise to be kept from."""


def student_recipe(run: str | os.PathLike, rows: int) -> Recipe:
    """How a student learns where nobody says otherwise: as a member of the run's network.

    Args:
        run: To learn from.
        rows: Of the stores.

    Raises:
        InputError: if there is no such run.
    """
    config, target = read_settings(RunFolder(run))
    teacher = recipe_of(RunFolder(run) / "config.json", config["recipe"])
    numbers = all(head.is_number for head in target.heads)
    found = (PRESETS["number"] if numbers else PRESETS["age"]).replace(**DISTILLING)
    network = {name: getattr(teacher, name) for name in _NETWORK}
    return for_rows(found.replace(**network, members=1, refit=False), rows)
