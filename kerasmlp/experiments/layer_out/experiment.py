"""The LayerOut paper's experiments: modes × seeds, a run folder each, one table."""

import functools

import keras

from kerasmlp.callbacks.layer_out import LayerOut
from kerasmlp.experiments.image_plan import ImageRun
from kerasmlp.experiments.image_runs import ImageExperiment, percent_of, whole_seconds
from kerasmlp.experiments.layer_out.plan import MODES, NETWORKS, LayerOutPlan
from kerasmlp.layers.random_erasing import RandomErasing
from kerasmlp.models.ic_resnet import ICResNet
from kerasmlp.models.mnist_net import MNISTNet
from kerasmlp.models.vgg16 import VGG16
from kerasmlp.runs.model import in_float32
from kerasmlp.training.image_batches import ImageSet, normalization
from kerasmlp.training.images import ImageTraining, scheduled_rate
from kerasmlp.training.l2_sgd import L2SGD

_BUILDERS = {
    "mnist": MNISTNet,
    "vgg16": VGG16,
    "resnet-110": functools.partial(ICResNet, depth=110, arrangement="baseline"),
}


class LayerOutTraining(ImageTraining):
    """One run of a plan, as `train_run` takes it.

    The saved model is float32 and takes pixels, 0 to 255: it normalises them itself.
    """

    def __init__(self, data: ImageSet, plan: LayerOutPlan, run: ImageRun, data_digest: str):
        config = {"kind": "layerout-run", **run.about, "seed": run.seed}
        super().__init__(data, plan, config, data_digest)
        self.run, freezing = run, plan.layer_out(run)
        self.layer_out = None if freezing is None else LayerOut(**freezing)
        if self.layer_out:
            self.callbacks.append(self.layer_out)

    def network(self) -> keras.Model:
        network = self._bare()
        if not self.run.about["random_erasing"]:
            return network
        inputs = keras.Input(network.input.shape[1:], name="image")
        erasing = RandomErasing(seed=self.run.seed, name="random_erasing")
        return keras.Model(inputs, network(erasing(inputs)))

    def _bare(self) -> keras.Model:
        builder = _BUILDERS[self.plan.network]
        return builder(num_classes=self.data.num_classes, seed=self.run.seed)

    def optimizer(self) -> keras.optimizers.Optimizer:
        rate, l2 = scheduled_rate(self.plan, self.steps), NETWORKS[self.plan.network].l2
        return L2SGD(rate, momentum=0.9, l2=l2)

    def outcome(self, model: keras.Model, history: list[dict]) -> tuple[keras.Model, dict]:
        epochs, layer_out = self.plan.epochs, self.layer_out
        free, expected = epochs, 0.0
        if layer_out:
            layer_out.follow(model)
            free, expected = layer_out.warmup_epochs, layer_out.expected_share
            for row in history:
                row["frozen"] = " ".join(layer_out.names(int(row["epoch"])))
        plain = in_float32(
            model.layers[-1] if self.run.about["random_erasing"] else model, self._bare
        )
        inputs = keras.Input(plain.input.shape[1:], name="image")
        outputs = plain(normalization(self.data.channels)(inputs))
        return keras.Model(inputs, outputs), {
            **self.run.about,
            "frozen_share": sum(row.get("frozen_share", 0.0) for row in history) / epochs,
            "expected_frozen_share": expected * (epochs - free) / epochs,
            "probabilities": layer_out.probabilities.tolist() if layer_out else [],
        }


def layer_out_experiment(plan: LayerOutPlan) -> ImageExperiment:
    """A plan, its results as the paper's tables show them.

    Example:

    >>> row = {"mode": "efreeze", "random_erasing": False, "seed": 0, "test_accuracy": 0.99,
    ...     "best_test_accuracy": 0.9908, "frozen_share": 0.223, "expected_frozen_share": 0.2,
    ...     "seconds": 61.2}
    >>> shown = layer_out_experiment(LayerOutPlan(network="mnist"))
    >>> print(shown.markdown_of(shown.summarize([row])).splitlines()[-1])
    | 1 | LayerOut-efreeze | 99.00 | 99.08 | 22.3 (20.0) | 61 |
    """
    return ImageExperiment(
        kind="layerout",
        plan=plan,
        training=LayerOutTraining,
        keys=("mode", "random_erasing", "seed"),
        numbers=("test_accuracy", "best_test_accuracy", "frozen_share", "expected_frozen_share"),
        panels={
            "loss": "training loss",
            "val_accuracy": "test accuracy",
            "frozen_share": "share of parameters frozen",
        },
        title_of=lambda row: MODES[row["mode"]] + ", random erasing" * row["random_erasing"],
        caption="Test accuracy, mean ± standard deviation of {seeds}.",
        columns={
            "S.No": lambda values: str(values["place"]),
            "Architecture": lambda values: values["title"],
            "Accuracy (%)": percent_of("test_accuracy"),
            "Best epoch (%)": percent_of("best_test_accuracy"),
            "Parameters frozen (expected) (%)": _frozen,
            "Training (s)": whole_seconds,
        },
    )


def _frozen(values: dict) -> str:
    observed, expected = values["frozen_share"]["mean"], values["expected_frozen_share"]["mean"]
    return f"{100 * observed:.1f} ({100 * expected:.1f})" if expected else "-"
