import gc
import os
import sys

import forked
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        forked.prepare_folder()


def pytest_unconfigure(config):
    if not hasattr(config, "workerinput"):
        forked.remove_folder()


_LONG = [
    *("test_readme.py", "test_tuning.py", "test_training.py", "test_experiment.py"),
    *("test_cross_validation.py", "test_cli.py", "test_extraction.py", "test_export.py"),
    *("test_workbench.py", "test_uncertainty.py", "test_moments.py", "test_demo.py"),
    *("test_ic_resnet.py", "test_layer_out.py", "test_age_cnn.py", "test_serving.py"),
    *("test_cifar.py", "test_serving_clients.py", "test_layer_out_experiment.py"),
    *("test_packaging.py", "test_heads.py", "test_train.py", "test_any_embedder.py"),
    "test_doctor.py",
]


def pytest_collection_modifyitems(items):
    """The longest files first: a core that gets one of them last works on alone."""
    items.sort(key=lambda item: _LONG.index(item.path.name) if item.path.name in _LONG else 99)


def pytest_collection_finish(session):
    """What is imported stays: to look through its million objects again takes a fifth of a test."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


@pytest.fixture(scope="module")
def quick_starts():
    """Processes that the package starts begin at once, as copies of one that has Keras loaded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", forked.fresh_python())
        yield


@pytest.fixture(autouse=True)
def own_environment():
    """What a command leaves in the environment of its process, no later test hears of."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def workbench():
    """Compiled steps that tests share, where a run need not be the first of its shape."""
    from kerasmlp.training.compiled_models import Workbench

    return Workbench()
