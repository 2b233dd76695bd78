"""The training as scikit-learn has it, which must be installed."""

from importlib.util import find_spec

from kerasmlp.utils.checks import InputError

if find_spec("sklearn") is None:
    raise InputError(
        "estimators need scikit-learn: install it with `pip install kerasmlp[sklearn]`"
    )
