import numpy as np
import pytest
from scipy import stats

from kerasmlp.experiments.cross_validation.significance import corrected_t_test, two_sided_p
from kerasmlp.utils.checks import InputError


@pytest.mark.parametrize("df", [1, 2, 4, 24, 99])
def test_p_is_that_of_students_t(df):
    for t in (0.0, 0.1, -1.5, 2.8, 12.0):
        assert two_sided_p(t, df) == pytest.approx(2 * stats.t.sf(abs(t), df), rel=1e-8)


def test_equal_results_prove_nothing():
    result = corrected_t_test([0.0, 0.0, 0.0], 0.25)
    assert (result["t"], result["p"]) == (None, 1.0)
    assert corrected_t_test([0.1, 0.1, 0.1], 0.25)["p"] == 0.0


@pytest.mark.slow
def test_it_holds_its_level_where_the_plain_test_does_not():
    """Squared error of the training mean against that of zero, in five times five folds.

    A mean of 80 rows of variance 1 costs 1/80 on new rows: less that, no difference is left.
    """
    rng, found, plain = np.random.default_rng(0), 0, 0
    for _ in range(400):
        data, differences = rng.normal(size=100), []
        for _ in range(5):
            order = rng.permutation(100)
            for test in np.split(order, 5):
                mean = (data.sum() - data[test].sum()) / 80
                errors = (data[test] - mean) ** 2 - data[test] ** 2
                differences.append(errors.mean() - 1 / 80)
        found += corrected_t_test(differences, 0.25)["p"] < 0.05
        plain += stats.ttest_1samp(differences, 0).pvalue < 0.05
    assert found < 0.1 * 400 < plain


@pytest.mark.parametrize("bad", [[0.1], [], [0.1, float("nan")], [[0.1, 0.2]]])
def test_bad_differences(bad):
    with pytest.raises(InputError, match="`differences` must hold two or more finite numbers"):
        corrected_t_test(bad, 0.25)


def test_a_bad_share():
    with pytest.raises(InputError, match="`test_share` must be a finite number > 0"):
        corrected_t_test([0.1, 0.2], 0.0)
