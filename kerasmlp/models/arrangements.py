"""Where batch norm, dropout and ReLU sit around the convolutions of a ResNet, and its depths."""

from dataclasses import dataclass

from kerasmlp.utils.checks import check_bool, check_choice, check_int, reject


@dataclass(frozen=True)
class Order:
    """What comes before and after each convolution of a residual unit.

    Attributes:
        before: Of `"relu"`, `"ic"` and `"norm"`, in their order.
        after: Likewise. What a unit has after its convolutions also follows the
            first one of the network, and what it has before them precedes the end:
            so each network has the same number of parameters.
        relu_after_sum: The last ReLU of a unit follows the sum with the skip connection.
    """

    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    relu_after_sum: bool = False


_ORDERS = {
    "relu-ic-conv": Order(before=("relu", "ic")),
    "ic-conv-relu": Order(before=("ic",), after=("relu",)),
    "conv-relu-ic": Order(after=("relu", "ic")),
    "baseline": Order(after=("norm", "relu"), relu_after_sum=True),
}
_PRE_ACTIVATION = Order(before=("norm", "relu"))
ARRANGEMENTS = {  # name: as the paper's tables call it
    "relu-ic-conv": "ReLU-IC-Conv2D",
    "ic-conv-relu": "IC-Conv2D-ReLU",
    "conv-relu-ic": "Conv2D-ReLU-IC",
    "baseline": "Baseline",
}


def order_of(arrangement: str, bottleneck: bool) -> Order:
    """The order of an arrangement.

    Example:

    >>> order_of("baseline", bottleneck=True).before  # He et al. 2016b: pre-activation
    ('norm', 'relu')
    """
    check_choice("arrangement", arrangement, ARRANGEMENTS)
    if check_bool("bottleneck", bottleneck) and arrangement == "baseline":
        return _PRE_ACTIVATION
    return _ORDERS[arrangement]


def units_per_group(depth: int, bottleneck: bool) -> int:
    """The n of a depth 6n + 2, or 9n + 2 with bottlenecks.

    Raises:
        InputError: where there is none, with the next depths that have one.

    Example:

    >>> units_per_group(110, False), units_per_group(110, True)
    (18, 12)
    """
    check_int("depth", depth, minimum=1)
    per_unit = 9 if bottleneck else 6
    if depth < per_unit + 2 or (depth - 2) % per_unit:
        low = max(1, (depth - 2) // per_unit)
        near = " or ".join(str(per_unit * n + 2) for n in (low, low + 1))
        kind = "with" if bottleneck else "without"
        reject("depth", f"must be {per_unit}n + 2 {kind} bottlenecks, such as {near}", depth)
    return (depth - 2) // per_unit
