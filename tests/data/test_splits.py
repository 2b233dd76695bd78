import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasmlp.data.splits import grouped_folds, grouped_split
from kerasmlp.utils.checks import InputError

numbers = st.lists(st.integers(-1, 12), min_size=3, max_size=80)
words = st.lists(st.sampled_from(["", "ann", "bób", "סיד", "d"]), min_size=3, max_size=80)
seeds = st.integers(0, 2**32)


def group_names(groups):
    """Unknown rows each get a name of their own."""
    return [f"row {i}" if g in (-1, "") else g for i, g in enumerate(groups)]


def check_parts(groups, parts):
    names = group_names(groups)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(groups)))
    sets = [{names[i] for i in part} for part in parts]
    assert sum(len(s) for s in sets) == len(set(names))
    assert all(len(part) and (np.diff(part) > 0).all() for part in parts)


@given(numbers | words, st.floats(0.01, 0.99), seeds)
def test_split(groups, fraction, seed):
    names = group_names(groups)
    if len(set(names)) < 2:
        with pytest.raises(InputError, match="`groups` must hold at least 2 different groups"):
            grouped_split(groups, fraction, seed)
        return
    rest, part = grouped_split(groups, fraction, seed)
    check_parts(groups, [rest, part])
    largest = max(names.count(n) for n in set(names))
    assert abs(len(part) - fraction * len(groups)) <= largest
    again = grouped_split(np.array(groups), fraction, seed)
    np.testing.assert_array_equal(part, again[1])


@given(numbers | words, st.integers(2, 6), seeds)
def test_folds(groups, num_folds, seed):
    names = group_names(groups)
    if len(set(names)) < num_folds:
        with pytest.raises(InputError, match=f"at least {num_folds} different groups"):
            grouped_folds(groups, num_folds, seed)
        return
    folds = grouped_folds(groups, num_folds, seed)
    check_parts(groups, folds)
    sizes = [len(fold) for fold in folds]
    assert max(sizes) - min(sizes) <= max(names.count(n) for n in set(names))


def test_seeds_differ_and_shares_are_close():
    groups = np.random.default_rng(0).integers(0, 4000, 10_000)
    shares = [len(grouped_split(groups, 0.1, seed)[1]) for seed in range(5)]
    assert all(abs(share - 1000) <= 5 for share in shares)
    first, second = (set(grouped_split(groups, 0.1, seed)[1]) for seed in (0, 1))
    assert len(first & second) < 300
    assert {len(f) for f in grouped_folds(np.arange(10), 5, 0)} == {2}
    assert not np.array_equal(grouped_folds(np.arange(99), 3, 0)[0], np.arange(33))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (([1, 2], 0, 0), r"`fraction` must be in \(0, 1\). Received: fraction=0"),
        (([1, 2], 1.0, 0), r"`fraction` must be in"),
        (([1, 2], float("nan"), 0), r"`fraction` must be in"),
        (([1, 2], 0.5, -1), r"`seed` must be an integer >= 0"),
        (([0.5, 2.0], 0.5, 0), r"`groups` must be one integer or text per row"),
        (([[1], [2]], 0.5, 0), r"`groups` must be one integer or text per row"),
        (([3, 3, 3], 0.5, 0), r"at least 2 different groups. Received: groups='1 groups'"),
    ],
)
def test_bad_arguments(arguments, text):
    with pytest.raises(InputError, match=text):
        grouped_split(*arguments)


def test_bad_number_of_folds():
    with pytest.raises(InputError, match="`num_folds` must be an integer >= 2"):
        grouped_folds([1, 2], 1, 0)
