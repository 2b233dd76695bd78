"""When compiling by XLA is earned back."""

from kerasmlp.models.presets import Recipe

XLA_PAYS_STEPS = 500
"""From which on XLA makes up for the seconds that it takes to compile a small network."""


def xla_pays(recipe: Recipe, steps: int) -> bool:
    """Whether a run has as many steps as that.

    Args:
        recipe: Of the run.
        steps: Of an epoch.

    Example:

    >>> xla_pays(Recipe(epochs=3), 84), xla_pays(Recipe(epochs=30), 84)
    (False, True)
    """
    return recipe.epochs * steps >= XLA_PAYS_STEPS
