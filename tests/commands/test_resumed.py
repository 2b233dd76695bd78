"""What is not given again with --resume comes from the run, whatever the defaults are now."""

import argparse
import json

import numpy as np
import pytest
from data_sets import make_store

from kerasmlp import InputError
from kerasmlp.commands import train_age, train_gender
from kerasmlp.commands.training_options import choose_validation_share
from kerasmlp.data.targets import age_target
from kerasmlp.models.presets import PRESETS


def parsed(command, *words):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args([str(word) for word in words])


def chosen(command, args, store):
    """The target and the recipe that the command would train."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "open_store", lambda _: store)
        patch.setattr(command, "run_training", lambda *given: found.extend(given[3:]))
        found = []
        command.run(args)
    return tuple(found)


@pytest.fixture
def older(tmp_path):
    """A run as versions wrote it that measured in single years and knew no gentle defaults."""
    years = age_target("age_years", "years", by_years=True)
    target = {"label": "age_years", "head": "years", "classes": "years"}
    target["class_names"] = list(years.class_names)
    recipe = PRESETS["age"].replace(epochs=3).to_config()
    config = {"format": "kerasmlp.run", "target": target, "recipe": recipe, "group": None}
    config |= {"validation_share": 0.1, "seed": 0, "init": None, "width": 16}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize("init", [[], ["--init", "a"]])
def test_an_older_run_goes_on_as_it_began(older, init):
    store, began = make_store(rows=300, width=16), PRESETS["age"].replace(epochs=3)
    years = age_target("age_years", "years", by_years=True)
    args = parsed(train_age, "--run-dir", older, "--resume", *init)
    assert chosen(train_age, args, store) == (years, began)
    assert choose_validation_share(args, 300) == 0.1
    words = ("--run-dir", older, "--resume", "--epochs", 4, "--classes", "fairface")
    args = parsed(train_age, *words, "--validation-share", 0.3)  # what is given stays
    target, recipe = chosen(train_age, args, store)
    assert target.classes == "fairface" and recipe == began.replace(epochs=4)
    assert choose_validation_share(args, 300) == 0.3
    args = parsed(train_age, "--run-dir", older, *init)  # not resumed: defaults of now
    target, recipe = chosen(train_age, args, store)
    assert target.classes == "adience" and recipe.batch_size == (256 if init else 64)


def test_a_run_that_cannot_be_read_is_not_resumed(older):
    path, args = older / "config.json", parsed(train_age, "--run-dir", older, "--resume")
    config = json.loads(path.read_text())
    for change, message in (
        ({"recipe": {"batch_size": 0}}, "config.json` must hold hyperparameters of a recipe"),
        ({"validation_share": "x"}, "`validation_share` is a number from 0 to 1"),
        ({"target": config["target"] | {"classes": "dogs"}}, "`target.classes` is the name of"),
    ):
        path.write_text(json.dumps(config | change))
        with pytest.raises(InputError, match=message):
            chosen(train_age, args, make_store(rows=20))


def test_a_small_store_is_one_with_few_labels():
    """5,000 rows of which 500 have the label: as many steps as 500 rows allow."""
    gender = np.where(np.arange(5000) < 500, np.arange(5000) % 2, -1)
    store = make_store(rows=5000, width=4, gender=gender)
    assert chosen(train_gender, parsed(train_gender), store)[1].batch_size == 64
    whole = store.subset(gender == gender)
    whole.labels["gender"] = np.arange(5000) % 2
    assert chosen(train_gender, parsed(train_gender), whole)[1].batch_size == 256
