"""scikit-learn's checks of an estimator as parameters of a test, those that train often as slow."""

from collections.abc import Iterator

import pytest
from sklearn.base import BaseEstimator
from sklearn.utils.estimator_checks import estimator_checks_generator

TINY = {  # seconds for what is trained a hundred times
    "epochs": 5, "batch_size": 8, "learning_rate": 0.03, "num_blocks": 0, "dropout_rate": 0.1,
    "mixup_alpha": 0.0, "noise_std": 0.0, "calibrate": False, "refit": False,
}  # fmt: skip
EXCEPTIONS = {
    "check_sample_weight_equivalence_on_dense_data": "a row that comes twice may be kept back "
    "once, and batches are drawn by row: a weight of two is twice the loss, not two rows",
    **dict.fromkeys(
        ("check_methods_sample_order_invariance", "check_methods_subset_invariance"),
        "answers are float32, whose last bit may differ with a row's place in a batch",
    ),
}
"""What may fail, and why."""
_QUICK = (  # those that train not at all, or once and then look at what matters most
    "cloneable", "tags_renamed", "valid_tag_types", "repr", "no_attributes_set_in_init",
    "overwrite_params", "unfitted", "do_not_raise_errors_in_init_or_set_params", "mixin_order",
    "all_zero_sample_weights_error", "complex_data", "empty_data_messages", "sparse_tag",
    "sparse_array", "estimators_pickle", "one_label", "regression_target", "y_no_nan",
    "default_constructible", "fit2d_1sample", "params_invariance", "set_params", "fit1d",
    "requires_y_none", "dict_unchanged",
)  # fmt: skip


def checks(estimator: BaseEstimator) -> Iterator:
    """Parameters `estimator, check`, of a tiny estimator."""
    for one, check in estimator_checks_generator(estimator):
        name = check.func.__name__
        marks = [] if name.endswith(_QUICK) else [pytest.mark.slow]
        if name in EXCEPTIONS:
            marks.append(pytest.mark.xfail(reason=EXCEPTIONS[name]))
        yield pytest.param(one, check, marks=marks, id=f"{name}-{one}"[:80])
