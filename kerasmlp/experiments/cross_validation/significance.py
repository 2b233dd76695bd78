"""Whether one procedure beats another, when its runs shared training rows."""

import math

import numpy as np

from kerasmlp.utils.checks import check_positive, reject


def corrected_t_test(differences, test_share: float) -> dict[str, float | int | None]:
    """The corrected resampled t-test on paired differences of resampled train/test splits.

    `t = mean / sqrt((1/n + n_test/n_train) · variance)`, with n - 1 degrees of freedom.

    The training sets of two splits overlap, so their results are correlated
    and the plain paired t-test finds differences where there are none. The
    second term stands for that correlation. The test errs on the side of
    finding nothing: a large p is no proof that two procedures are equal.

    Args:
        differences: One per split, each of another set of test rows, `(n,)`, n >= 2.
        test_share: Rows tested on per row that the procedure saw, n_test/n_train.

    Returns:
        `mean`, `t` (None where all differences are the same), `degrees_of_freedom`
        and the two-sided `p`.

    Raises:
        InputError: if there are fewer than two differences or one is not finite.

    Example:

    >>> result = corrected_t_test([0.01, 0.03, 0.02, 0.02], test_share=0.25)
    >>> round(result["t"], 4), round(result["p"], 4)
    (3.4641, 0.0405)

    Reference: Nadeau and Bengio, "Inference for the Generalization Error",
    Machine Learning 52, 2003; for repeated k-fold cross-validation Bouckaert
    and Frank, "Evaluating the Replicability of Significance Tests", 2004.
    """
    differences = np.asarray(differences, np.float64)
    check_positive("test_share", test_share)
    if differences.ndim != 1 or len(differences) < 2 or not np.isfinite(differences).all():
        reject("differences", "must hold two or more finite numbers", differences.tolist())
    number, mean = len(differences), float(differences.mean())
    result = {"mean": mean, "t": None, "degrees_of_freedom": number - 1}
    if np.ptp(differences) == 0:
        return result | {"p": 1.0 if mean == 0 else 0.0}
    t = mean / math.sqrt((1 / number + test_share) * differences.var(ddof=1))
    return result | {"t": t, "p": two_sided_p(t, number - 1)}


def two_sided_p(t: float, degrees_of_freedom: int) -> float:
    """Probability of a Student-t variable at least as far from zero as `t`.

    With x = tan(θ)·sqrt(df) its density becomes a power of the cosine on a
    finite interval, which Gauss-Legendre quadrature integrates.

    Example:

    >>> round(two_sided_p(2.776445, 4), 6)
    0.05
    """
    df = degrees_of_freedom
    low, high = math.atan(abs(t) / math.sqrt(df)), math.pi / 2
    nodes, weights = np.polynomial.legendre.leggauss(200)
    angles = low + (high - low) * (nodes + 1) / 2
    tail = (high - low) / 2 * float(weights @ np.cos(angles) ** (df - 1))
    scale = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(math.pi)
    return min(1.0, 2 * scale * tail)
