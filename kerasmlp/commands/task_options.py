"""From labels to what is learned: the target and its recipe, of any labels of a store."""

import argparse
from typing import Any

from kerasmlp.commands.number_options import add_number
from kerasmlp.commands.resumed import resumed_settings
from kerasmlp.data.tasks import TASKS
from kerasmlp.utils.checks import reject

AGE_LABELS = ("age_years", "age_group")


def add_task_arguments(parser: argparse.ArgumentParser) -> None:
    add_age_arguments(parser)
    parser.add_argument(
        "--task",
        nargs="+",
        default=[],
        metavar="KIND",
        help=f"what the label is: {', '.join(TASKS)} (default: as its name and values say); "
        "of several labels LABEL=KIND",
    )
    parser.add_argument(
        "--unit",
        nargs="+",
        default=[],
        metavar="UNIT",
        help="of a number, such as kg/m²; of several labels LABEL=UNIT",
    )


def add_age_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--classes",
        metavar="C",
        help="groups to measure, answer and abstain in: adience, fairface, bins such as "
        "0-12,13-19,20+, or years (default: adience, or the groups that the store names)",
    )
    text = "spread of the soft label around an age; 0: learn the classes themselves"
    add_number(parser, "--label-sigma-years", float, text)


def choose_task(args: argparse.Namespace, store) -> tuple[Any, Any]:
    """Target and recipe of the labels that were asked for; age where none is.

    Returns:
        A run that is resumed keeps its own, where nothing else is asked for.
    """
    from kerasmlp.data.other_targets import SeveralTargets
    from kerasmlp.data.targets import age_label_of

    if (before := resumed_task(args)) is not None:
        recipe = choose_recipe(args, _preset_of([kind_of(head) for head in before.heads]))
        return before, for_rows(args, recipe, store, before)
    labels = args.label or [age_label_of(store)]
    if len(set(labels)) < len(labels):
        reject("label", "must name each column once", labels)
    tasks, units = (_by_label(f"--{k}", getattr(args, k), labels) for k in ("task", "unit"))
    kinds = [_said_kind(store, label, tasks.get(label)) for label in labels]
    _check_age_options(args, kinds)
    recipe = choose_recipe(args, _preset_of(kinds))
    heads = tuple(
        _target_of(args, store, recipe, label, kind, tasks.get(label), units.get(label))
        for label, kind in zip(labels, kinds, strict=True)
    )
    target = heads[0] if len(heads) == 1 else SeveralTargets(heads)
    return target, for_rows(args, recipe, store, target)


def _target_of(args, store, recipe, label: str, kind: str, task: str | None, unit: str | None):
    from kerasmlp.data.other_targets import NumberTarget
    from kerasmlp.data.targets import choose_age_target, choose_target

    if unit is not None and kind != "number":
        reject("--unit", f"must be left out for {label}, which is no number", unit)
    if kind == "number":
        target = NumberTarget(label, unit)
        target.encode(store)
        return target
    if kind in ("years", "groups"):
        how = {"by_years": recipe.label_sigma_years > 0, "are_years": task == "years"}
        return choose_age_target(store, label, args.classes, **how)
    return choose_target(store, label)


def _said_kind(store, label: str, task: str | None) -> str:
    """What a label is, said before anything is learned."""
    from kerasmlp.data.label_kinds import kind_of_label

    kind, why = kind_of_label(store, label, task)
    print(f"{label}: {TASKS[kind]} ({why})", flush=True)
    return kind


def kind_of(target) -> str:
    """The task by which such a target is made."""
    if target.is_number:
        return "number"
    if target.is_age:
        return "years" if target.head == "years" else "groups"
    return "gender" if target.label == "gender" else "classes"


def _preset_of(kinds: list[str]) -> str:
    if "years" in kinds:
        return "age"
    names = {"groups": "age-groups", "number": "number"}
    return names.get(kinds[0], "gender") if len(kinds) == 1 else "gender"


def _check_age_options(args: argparse.Namespace, kinds: list[str]) -> None:
    if "years" in kinds or "groups" in kinds:
        return
    for option in ("classes", "label_sigma_years"):
        if getattr(args, option) is not None:
            flag = f"--{option.replace('_', '-')}"
            reject(flag, "must be left out for a label that is no age", getattr(args, option))


def _by_label(option: str, given: list[str], labels: list[str]) -> dict[str, str]:
    """What was given for each label, one word alone where there is one."""
    if len(labels) == 1 and len(given) == 1 and not given[0].startswith(f"{labels[0]}="):
        return {labels[0]: given[0]}
    found = {}
    for word in given:
        label, _, value = word.rpartition("=")
        if label not in labels or not value:
            reject(option, f"must be LABEL=… of one of {', '.join(labels)}", word)
        found[label] = value
    return found


def resumed_task(args: argparse.Namespace):
    """The target of the run that is resumed, where nothing else is asked for."""
    target = resumed_settings(args).get("target")
    asked = [getattr(args, name, None) for name in ("classes", "task", "unit")]
    if target is None or any(asked):
        return None
    labels = [args.label] if isinstance(args.label, str) else args.label
    return target if labels in (None, [head.label for head in target.heads]) else None


def choose_recipe(args: argparse.Namespace, default: str):
    """The preset with the single hyperparameters that were given on top.

    The default preset is made gentle where weights are given to begin with; what was
    given stays. A run that is resumed keeps its recipe.
    """
    from kerasmlp.commands.training_options import HYPERPARAMETERS
    from kerasmlp.models.presets import FINE_TUNING
    from kerasmlp.models.recipe_files import find_recipe

    more = ("label_sigma_years", "conformal_by", "refit")
    names = [n for n in (*HYPERPARAMETERS, *more) if hasattr(args, n)]
    changes = {n: getattr(args, n) for n in names if getattr(args, n) is not None}
    if args.preset is None and (before := resumed_settings(args)):
        return before["recipe"].replace(**changes)
    if args.preset is None and getattr(args, "init", None) is not None:
        changes = FINE_TUNING | changes
    return find_recipe(args.preset or default).replace(**changes)


def for_rows(args: argparse.Namespace, recipe, store, target):
    """The default preset with smaller batches where few rows have the label."""
    from kerasmlp.data.examples import count_labelled
    from kerasmlp.models.presets import SMALL_STORE, SMALL_STORE_ROWS

    given = [getattr(args, name, None) for name in ("preset", "init", "batch_size")]
    enough = recipe.min_steps > 1 and getattr(args, "min_steps", None) is None
    many = enough or count_labelled(store, target) >= SMALL_STORE_ROWS
    if many or given != [None] * 3 or resumed_settings(args):
        return recipe
    return recipe.replace(**SMALL_STORE)
