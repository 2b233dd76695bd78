import os

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(scope="session")
def workbench():
    """Compiled steps that tests share, where a run need not be the first of its shape."""
    from kerasmlp.workbench import Workbench

    return Workbench()
