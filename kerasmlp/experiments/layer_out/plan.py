"""What LayerOut's experiments are: networks, modes, hyperparameters, and the runs of a plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kerasmlp.experiments.image_plan import ImagePlan, ImageRun
from kerasmlp.utils.checks import check_choice, check_each_once, check_int, reject

if TYPE_CHECKING:
    from kerasmlp.training.image_batches import ImageSet

_MNIST_V = (0.9, 0.7, 0.6, 0.5, 0.4, 0.3, 0.1)
_VGG_V = (0.9, 0.8, 0.8, 0.7, 0.7, 0.6, 0.6, 0.5, 0.5, 0.4, 0.4, 0.3, 0.3, 0.2, 0.2, 0.1)
MODES = {  # name: as the paper's tables call it
    "baseline": "Baseline model",
    "since-start": "LayerOut since start",
    "warm-up": "LayerOut with warm-up",
    "dfreeze": "LayerOut-dfreeze",
    "efreeze": "LayerOut-efreeze",
}
ERASING = {"no": (False,), "yes": (True,), "both": (False, True)}


@dataclass(frozen=True)
class Network:
    """A network of the paper, how it is trained, and its probabilities to freeze.

    Attributes:
        channels: Of its images.
        efreeze: Its probabilities where they fall; None leaves them to `LayerOut`.
        epochs: Of a run.
        learning_rate: At the start, or after a gentle start.
        falls_at: Shares of the run at which the rate falls to a tenth.
        batch_size: Rows per step.
        l2: Weight decay.
        gentle: Share of the run at the beginning that has a tenth of the rate.
    """

    channels: int
    efreeze: tuple[float, ...] | None
    epochs: int
    learning_rate: float
    falls_at: tuple[float, ...] = ()
    batch_size: int = 128
    l2: float = 5e-4  # Deviation for ResNet-110: 1e-4, as He et al., to whom the paper points
    gentle: float = 0.0

    @property
    def modes(self) -> tuple[str, ...]:
        """What the paper does with it."""
        modes = tuple(MODES)
        return modes if self.efreeze else tuple(m for m in modes if "freeze" not in m)


NETWORKS = {
    "mnist": Network(1, _MNIST_V, 100, 0.01),
    "vgg16": Network(3, _VGG_V, 300, 0.1, (0.5, 0.75)),
    "resnet-110": Network(3, None, 164, 0.1, (0.5, 0.75), batch_size=32, l2=1e-4, gentle=4 / 164),
}


@dataclass(frozen=True, kw_only=True)
class LayerOutPlan(ImagePlan):
    """Modes × seeds on one network, trained as in the paper where nothing is given.

    Attributes:
        network: Of `NETWORKS`.
        modes: Of `MODES`; the paper's for the network by default.
        erasing: Random erasing: `"no"`, `"yes"` or `"both"`.
        warmup_epochs: Before layers freeze, in the modes that have a warm-up.

    Raises:
        InputError: if a value is out of range.

    Example:

    >>> plan = LayerOutPlan(network="mnist", modes=("baseline", "efreeze"), seeds=(0,))
    >>> [run.name for run in plan.runs()], plan.epochs, plan.learning_rate
    (['baseline_seed0', 'efreeze_seed0'], 100, 0.01)
    """

    network: str
    modes: tuple[str, ...] | None = None
    erasing: str = "no"
    epochs: int | None = None
    warmup_epochs: int = 20
    batch_size: int | None = None
    learning_rate: float | None = None

    def __post_init__(self):
        of = NETWORKS[check_choice("network", self.network, NETWORKS)]
        for name in ("modes", "epochs", "batch_size", "learning_rate"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(of, name))
        for mode in self.modes:
            check_choice("modes", mode, MODES)
        check_each_once("modes", self.modes)
        check_choice("erasing", self.erasing, ERASING)
        super().__post_init__()
        check_int("warmup_epochs", self.warmup_epochs, minimum=0)
        if set(self.modes) - {"baseline", "since-start"} and self.warmup_epochs >= self.epochs:
            requirement = f"must be less than the {self.epochs} epochs"
            reject("warmup_epochs", requirement, self.warmup_epochs)

    def check(self, data: ImageSet) -> None:
        if data.channels != NETWORKS[self.network].channels:
            kind = "grey" if data.channels == 1 else "colour"
            reject("network", f"must be one for {kind} images, as the data holds", self.network)
        super().check(data)

    def runs(self) -> list[ImageRun]:
        return [
            ImageRun(
                f"{mode}{'-erasing' * erasing}_seed{seed}",
                seed,
                {"mode": mode, "random_erasing": erasing},
            )
            for erasing in ERASING[self.erasing]
            for mode in self.modes
            for seed in self.seeds
        ]

    def layer_out(self, run: ImageRun) -> dict[str, Any] | None:
        """Arguments of the callback of a run; None trains all layers."""
        mode = run.about["mode"]
        if mode == "baseline":
            return None
        values = NETWORKS[self.network].efreeze
        named = {"efreeze": values, "dfreeze": values[::-1]} if values else {}
        # Without a list of its own, a network has the line of `LayerOut` of that name.
        schedule = named.get(mode, mode if "freeze" in mode else "random")
        warmup = 0 if mode == "since-start" else self.warmup_epochs
        return {"warmup_epochs": warmup, "schedule": schedule, "seed": run.seed}

    def rates(self) -> dict[int, float]:
        """Learning rates by the epochs that they begin with."""
        of, rate = NETWORKS[self.network], self.learning_rate
        gentle, *falls = (max(1, round(x * self.epochs)) for x in (of.gentle, *of.falls_at))
        rates = {0: 0.1 * rate, gentle: rate} if of.gentle else {0: rate}
        return rates | {epoch: rate * 0.1**k for k, epoch in enumerate(falls, 1)}

    def to_config(self) -> dict[str, Any]:
        return super().to_config() | {"l2": NETWORKS[self.network].l2}
