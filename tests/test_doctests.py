"""The examples in docstrings run, on the TensorFlow and the JAX backend alike."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import kerasmlp

MODULES = [
    m.name
    for m in pkgutil.walk_packages(kerasmlp.__path__, "kerasmlp.")
    if m.name != "kerasmlp.__main__"
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    failures, _ = doctest.testmod(module, extraglobs={"np": np}, optionflags=flags)
    assert failures == 0
