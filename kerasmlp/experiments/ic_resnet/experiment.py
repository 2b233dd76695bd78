"""The IC paper's experiments on CIFAR: arrangements × seeds, a run folder each, one table."""

import keras
import numpy as np

from kerasmlp.experiments.ic_resnet.plan import CifarPlan
from kerasmlp.experiments.image_plan import ImageRun
from kerasmlp.experiments.image_runs import ImageExperiment, percent_of, whole_seconds
from kerasmlp.models.arrangements import ARRANGEMENTS
from kerasmlp.models.ic_resnet import ICResNet
from kerasmlp.runs.model import in_float32
from kerasmlp.training.image_batches import ImageSet
from kerasmlp.training.images import ImageTraining, scheduled_rate


class CifarTraining(ImageTraining):
    """One run of a plan, as `train_run` takes it.

    The saved model is float32 and takes pixels, 0 to 255: it subtracts the mean of each
    pixel itself.

    Reference: Chen et al., "Rethinking the Usage of Batch Normalization and
    Dropout in the Training of Deep Neural Networks", 2019, section 4.2.
    Deviation: what a shift leaves empty is black before the mean image is
    subtracted; He et al. fill up with the mean.
    """

    normalized = False

    def __init__(self, data: ImageSet, plan: CifarPlan, run: ImageRun, data_digest: str):
        self.run, config = run, {"kind": "cifar-run", **run.about, "seed": run.seed}
        super().__init__(data, plan, config, data_digest)

    def network(self) -> keras.Model:
        data, inner = self.data, self.plan.network(self.run)
        network = ICResNet(**inner, num_classes=data.num_classes, channels=data.channels)
        mean = data.train.inputs.mean(axis=0, dtype=np.float64) / 255
        inputs = keras.Input(network.input.shape[1:], name="image")
        scaling = {"offset": (-mean).tolist(), "dtype": "float32", "name": "less_the_mean_image"}
        return keras.Model(inputs, network(keras.layers.Rescaling(1 / 255, **scaling)(inputs)))

    def optimizer(self) -> keras.optimizers.Optimizer:
        return keras.optimizers.Adam(scheduled_rate(self.plan, self.steps))

    def outcome(self, model: keras.Model, history: list[dict]) -> tuple[keras.Model, dict]:
        accuracies = np.array([row["val_accuracy"] for row in history])
        return in_float32(model, self.network), {
            **self.run.about,
            "depth": self.plan.depth,
            "bottleneck": self.plan.bottleneck,
            "mean_test_accuracy": float(accuracies.mean()),
            "mean_fall": float(np.maximum(-np.diff(accuracies), 0).sum() / self.plan.epochs),
        }


def cifar_experiment(plan: CifarPlan) -> ImageExperiment:
    """A plan, its results as the paper's Table 1 and Figure 4 show them.

    Example:

    >>> row = {"arrangement": "relu-ic-conv", "bottleneck": True, "seed": 0, "seconds": 60.4,
    ...     "test_accuracy": 0.9292, "best_test_accuracy": 0.9301, "mean_test_accuracy": 0.88,
    ...     "mean_fall": 0.0051}
    >>> shown = cifar_experiment(CifarPlan(depth=164, bottleneck=True))
    >>> print(shown.markdown_of(shown.summarize([row])).splitlines()[-1])
    | ResNet-B | 164 | 3×{ReLU-IC-Conv2D} | 92.92 | 93.01 | 88.00 | 0.51 | 60 |
    """
    return ImageExperiment(
        kind="cifar",
        plan=plan,
        training=CifarTraining,
        keys=("arrangement", "bottleneck", "seed"),
        numbers=("test_accuracy", "best_test_accuracy", "mean_test_accuracy", "mean_fall"),
        panels={"val_accuracy": "test accuracy", "loss": "training loss"},
        title_of=_title_of,
        caption="Test accuracy at the end of training, mean ± standard deviation of {seeds}.\n"
        "The mean of all epochs tells how fast it learns; the mean fall, the sum of all falls of "
        "test accuracy from an epoch to the next by the number of epochs, how unsteadily.",
        columns={
            "Model": lambda _: "ResNet-B" if plan.bottleneck else "ResNet",
            "Depth": lambda _: str(plan.depth),
            "Layers in residual unit": lambda values: values["title"],
            "Test accuracy (%)": percent_of("test_accuracy"),
            "Best epoch (%)": percent_of("best_test_accuracy"),
            "Mean of all epochs (%)": percent_of("mean_test_accuracy"),
            "Mean fall per epoch (%)": percent_of("mean_fall"),
            "Training (s)": whole_seconds,
        },
    )


def _title_of(row: dict) -> str:
    title = ARRANGEMENTS[row["arrangement"]]
    return title if title == "Baseline" else f"{3 if row['bottleneck'] else 2}×{{{title}}}"
