"""An exported age model with dropout, as most tests of the service ask it."""

import pytest

from kerasmlp.data.targets import age_target
from kerasmlp.serving.export.saved_model import export_model
from kerasmlp.serving.server.served_models import load_models


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from test_export import make_run  # not before pytest has collected that file

    target = age_target("age_years", "adience", by_years=True)
    run = make_run(tmp_path_factory.mktemp("run"), target, dropout_rate=0.3)
    folder = tmp_path_factory.mktemp("served") / "age"
    export_model(run, folder)
    return folder


@pytest.fixture(scope="module")
def models(folder):
    return load_models([folder])


@pytest.fixture(scope="module")
def version(models):
    return models["age"].versions[1]
