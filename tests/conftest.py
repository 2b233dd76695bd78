import os

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
    *("test_readme.py", "test_tuning.py", "test_cross_validation.py", "test_experiment.py"),
    *("test_training.py", "test_workbench.py", "test_torch_import.py"),
]


def pytest_collection_modifyitems(items):
    """The longest files first: a core that gets one of them last works on alone."""
    items.sort(key=lambda item: _LONG.index(item.path.name) if item.path.name in _LONG else 99)


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
