"""What the outputs of an exported model are called."""

from collections.abc import Sequence
from pathlib import Path

from kerasmlp.data.other_targets import NumberTarget
from kerasmlp.data.targets import Target
from kerasmlp.utils.checks import reject_file

_NUMBER = ("number", "std", "interval_90", "aleatoric_std", "epistemic_std")
_CLASSES = (
    "label",
    "probabilities",
    "predictive_entropy_nats",
    "mutual_information_nats",
    "set_90",
)
_AGES = ("age_years", "age_interval_90")


def output_names(target: Target | NumberTarget, *, several: bool) -> dict[str, str]:
    """From the name of each output of a single head to its name among several.

    Example:

    >>> output_names(NumberTarget("bmi"), several=True)["interval_90"]
    'bmi_interval_90'
    >>> names = output_names(Target("gender", ("male", "female")), several=True)
    >>> names["label"], names["probabilities"]
    ('gender', 'gender_probabilities')
    """
    plain = _NUMBER if target.is_number else _CLASSES + _AGES * target.is_age
    if not several:
        return {name: name for name in plain}
    answer = {"number": target.label, "label": "age_group" if target.is_age else target.label}
    ages = {name: name for name in _AGES}
    return {name: f"{target.name}_{name}" for name in plain} | {
        name: given for name, given in (answer | ages).items() if name in plain
    }


def check_names(path: Path, names: Sequence[str]) -> None:
    """Rejects a run with labels such as `bmi` and `bmi_std`, whose outputs have one name."""
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        requirement = "must have labels whose outputs have different names"
        reject_file(path, requirement, f"two outputs {twice[0]!r}")
