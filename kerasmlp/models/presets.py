"""Recipes: network, optimiser and data hyperparameters under one name each."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from kerasmlp.utils.checks import (
    check_bool,
    check_choice,
    check_int,
    check_optional_int,
    check_positive,
    check_rate,
    reject,
)

MAX_BLOCKS = 16
MAX_RESIDUALS_PER_BLOCK = 64
MAX_MEMBERS = 64
"""As many as there are passes by default: fewer would leave some unasked."""
MAX_BATCH_SIZE = 1 << 20
MAX_EPOCHS = 100_000
MAX_STEPS = 1 << 20
"""Of an epoch."""
MAX_HIDDEN_WIDTH = 1 << 16
MAX_PARAMETERS = 1 << 27
"""Of a network: 2 GiB while AdamW trains it in float32."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides a training, apart from data and seed.

    Attributes:
        num_blocks: Stages of the network; see `ResidualMLP`.
        hidden_width: Of the first stage; None takes that of the embeddings, of rows that
            are not normalised at least `LEAST_WIDTH`.
        residuals_per_block: Residual blocks in each stage.
        dropout_rate: Of all IC layers.
        use_ic: False leaves the IC layers out (ablation).
        use_residual: False leaves the skip connections out (ablation).
        use_output_ic: An IC layer before the head.
        members: Networks that learn apart, from the seed on one by one, and answer as one.
        scale_inputs: Bring columns to unit size: embeddings of norm 1 times the root of
            their width, others by mean and deviation of each column (`Standardize`).
        batch_size: Rows per step.
        epochs: At most.
        min_steps: Of an epoch: rows that fill fewer steps are gone through again, in another
            order each time.
        learning_rate: Of AdamW, at the start.
        weight_decay: Of AdamW.
        decay_all: Decay biases and batch norm too, as PyTorch does, and not
            kernels alone.
        schedule: `"cosine"` to zero over the run after a warm-up, or
            `"exponential"`, once per epoch, as in the paper.
        warmup_share: Part of the run in which a cosine schedule rises.
        gamma: Factor per epoch of the exponential schedule.
        patience: Epochs without a better validation loss until training stops
            and the best weights are taken; None trains to the end.
        label_sigma_years: Standard deviation of the soft label around an age:
            the head has years, groups are sums of them. 0: the head has the
            classes that are measured.
        rps_weight: Of the ranked probability score beside the cross-entropy;
            for ages only.
        mixup_alpha: Of mixup, 0 turns it off.
        noise_std: Largest standard deviation of the noise on embeddings of norm 1; on
            others as large against the deviations of their columns.
        calibrate: Fit a temperature, age intervals and abstention on the validation part.
        conformal_by: Columns of labels whose groups get intervals and sets of their own, so
            that each keeps the promise; `predicted` stands for the class that is predicted.
        refit: Then train once more from the same beginning, on all rows, the validation part
            among them, as many epochs; what was measured and fitted stays.

    Raises:
        InputError: if a value is out of range.

    Example:

    >>> PRESETS["paper-gender"].num_blocks
    4
    """

    num_blocks: int = 1
    hidden_width: int | None = None
    residuals_per_block: int = 1
    dropout_rate: float = 0.5
    use_ic: bool = True
    use_residual: bool = True
    use_output_ic: bool = True
    members: int = 1
    scale_inputs: bool = True
    batch_size: int = 256
    epochs: int = 50
    min_steps: int = 1
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    decay_all: bool = False
    schedule: str = "cosine"
    warmup_share: float = 0.05
    gamma: float = 1.0
    patience: int | None = None
    label_sigma_years: float = 2.0
    rps_weight: float = 1.0
    mixup_alpha: float = 0.4
    noise_std: float = 0.05
    calibrate: bool = True
    conformal_by: tuple[str, ...] = ()
    refit: bool = False

    def __post_init__(self):
        for field in dataclasses.fields(self):  # numbers of NumPy, which no JSON holds
            if hasattr(value := getattr(self, field.name), "item"):
                object.__setattr__(self, field.name, value.item())
        check_int("num_blocks", self.num_blocks, minimum=0, maximum=MAX_BLOCKS)
        check_optional_int("hidden_width", self.hidden_width, minimum=1, maximum=MAX_HIDDEN_WIDTH)
        residuals = self.residuals_per_block
        check_int("residuals_per_block", residuals, minimum=0, maximum=MAX_RESIDUALS_PER_BLOCK)
        # Two rows are the fewest that batch norm can take statistics of.
        check_int("batch_size", self.batch_size, minimum=2, maximum=MAX_BATCH_SIZE)
        check_int("members", self.members, minimum=1, maximum=MAX_MEMBERS)
        check_int("epochs", self.epochs, minimum=1, maximum=MAX_EPOCHS)
        check_int("min_steps", self.min_steps, minimum=1, maximum=MAX_STEPS)
        check_optional_int("patience", self.patience, minimum=1, maximum=MAX_EPOCHS)
        for name in ("dropout_rate", "warmup_share"):
            check_rate(name, getattr(self, name))
        for name, kind in self.__annotations__.items():
            if kind == "bool":
                check_bool(name, getattr(self, name))
        self._check_conformal_by()
        check_choice("schedule", self.schedule, ("cosine", "exponential"))
        for name in ("learning_rate", "gamma"):
            check_positive(name, getattr(self, name))
        for name in (
            "weight_decay", "label_sigma_years", "rps_weight", "mixup_alpha", "noise_std"
        ):  # fmt: skip
            check_positive(name, getattr(self, name), zero=True)

    def network(self, width: int, *, normalized: bool = True) -> dict:
        """The arguments of `ResidualMLP` for embeddings of a width, all of norm 1 or not.

        Raises:
            InputError: as of `check_width`.
        """
        self.check_width(width, normalized=normalized)
        names = (
            "num_blocks",
            "residuals_per_block",
            "dropout_rate",
            "use_ic",
            "use_residual",
            "use_output_ic",
            "members",
        )
        scale = width**0.5 if self.scale_inputs and normalized else 1.0
        columns = {"input_scale": scale, "standardize": self.standardizes(normalized)}
        columns["hidden_width"] = self.first_width(width, normalized)
        return {"width": width} | columns | {n: getattr(self, n) for n in names}

    def steps(self, rows: int) -> int:
        """Of an epoch of so many rows."""
        return max(rows // min(self.batch_size, rows), self.min_steps)

    def standardizes(self, normalized: bool) -> bool:
        """Whether the network brings each column to one scale by itself."""
        return self.scale_inputs and not normalized

    def first_width(self, width: int, normalized: bool) -> int:
        """Of the first stage."""
        least = 1 if normalized else LEAST_WIDTH
        return self.hidden_width or max(width, least)

    def check_width(self, width: int, *, normalized: bool) -> None:
        """Rejects embeddings that the network cannot halve as often as it has stages, or whose
        network would be too large for a machine that trains it."""
        first = self.first_width(width, normalized)
        if first < 2**self.num_blocks:
            requirement = f"must leave a width of at least 1, starting at {first}"
            reject("num_blocks", requirement, self.num_blocks)
        squares = self.members * self._squares(width, first)
        if squares > MAX_PARAMETERS:
            requirement = f"must make a network of at most {MAX_PARAMETERS} parameters"
            reject(
                "num_blocks", f"{requirement} on a width of {width}, not {squares}", self.num_blocks
            )

    def most_members(self, width: int, *, normalized: bool) -> int:
        """So many networks at most fit into one program."""
        squares = self._squares(width, self.first_width(width, normalized))
        return min(MAX_MEMBERS, max(1, MAX_PARAMETERS // max(squares, 1)))

    def _squares(self, width: int, first: int) -> int:
        """About as many parameters one network has."""
        stages = [first >> k for k in range(self.num_blocks)]
        squares = sum(self.residuals_per_block * 2 * w * w + w * w // 2 for w in stages)
        return squares + (width * first if width != first else 0)

    def _check_conformal_by(self) -> None:
        by = self.conformal_by
        of_texts = isinstance(by, list | tuple) and all(isinstance(name, str) for name in by)
        if not of_texts or len(set(by)) < len(by):
            reject("conformal_by", "must be different names of columns", by)
        object.__setattr__(self, "conformal_by", tuple(by))

    def replace(self, **changes) -> Recipe:
        return dataclasses.replace(self, **changes)

    def to_config(self) -> dict:
        return dataclasses.asdict(self) | {"conformal_by": list(self.conformal_by)}


_PAPER = Recipe(
    dropout_rate=0.05,
    epochs=30,
    use_output_ic=False,
    scale_inputs=False,
    decay_all=True,
    schedule="exponential",
    patience=5,
    label_sigma_years=0.0,
    rps_weight=0.0,
    mixup_alpha=0.0,
    noise_std=0.0,
    calibrate=False,
)

PRESETS = {
    "age": Recipe(conformal_by=("predicted",)),
    "age-groups": Recipe(epochs=30, label_sigma_years=1.0, conformal_by=("predicted",)),
    "gender": Recipe(),
    "number": Recipe(
        dropout_rate=0.05,
        learning_rate=0.01,
        batch_size=128,
        epochs=60,
        min_steps=100,
        mixup_alpha=0.0,
        noise_std=0.0,
        refit=True,
    ),
    "paper-age": _PAPER.replace(
        num_blocks=2,
        batch_size=128,
        learning_rate=0.00116701,
        weight_decay=0.000123372,
        gamma=0.394794,
    ),
    "paper-gender": _PAPER.replace(
        num_blocks=4,
        batch_size=512,
        learning_rate=0.0243983,
        weight_decay=0.00473539,
        gamma=0.0662042,
    ),
}
"""`age`, `age-groups` (no years known), `gender` and `number` are ours, the others the
original's."""


FINE_TUNING = {"learning_rate": 3e-4, "patience": 25}
"""What `--init` changes in a preset: steps small enough to keep what is known already; a short
patience would stop on the noise of a few rows kept back."""

LEAST_WIDTH = 64
"""Of the first stage on rows that are not normalised: half of a few columns says nothing."""

SMALL_STORE = {"batch_size": 64}
"""What fewer than `SMALL_STORE_ROWS` rows change in a preset: else there are too few steps."""

SMALL_STORE_ROWS = 2000
