"""What a command that resumes a run takes from it: all that is not given again.

Defaults change from version to version, and some hang on the store.
"""

import argparse

_ASKED = ("target", "validation_share", "group")


def resumed_settings(args: argparse.Namespace) -> dict:
    """The settings of the run that `--resume` goes on with; none where none has begun.

    Returns:
        `recipe` (a `Recipe`), `target` (a `Target`) and what else `config.json` holds.

    Raises:
        InputError: naming the file, if it is damaged.
    """
    from kerasmlp.models.recipe_files import recipe_of
    from kerasmlp.runs.run_folder import RunFolder
    from kerasmlp.runs.training_files import target_of
    from kerasmlp.utils.schema import check_object, number, optional, text

    if not args.resume or args.run_dir is None:
        return {}
    path = args.run_dir / "config.json"
    if not path.is_file():
        return {}
    config, what = RunFolder(args.run_dir).config(), "that of a training on embeddings"
    values = config.get("recipe", config.get("base"))  # as a search calls it
    if values is None or not set(_ASKED) <= config.keys():
        return {}  # another kind of run, which is refused by its kind
    share = number(0, 1)
    kinds = {"validation_share": share, "test_share": optional(share), "group": optional(text())}
    check_object(path, config, kinds, what)
    return config | {"recipe": recipe_of(path, values), "target": target_of(path, config, what)}
