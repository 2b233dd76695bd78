"""Trains one ICResNet into one run folder."""

from __future__ import annotations

import os
from collections.abc import Callable

import keras
import numpy as np

from kerasmlp.experiments.ic_resnet.plan import CifarPlan, CifarRun
from kerasmlp.models.ic_resnet import ICResNet
from kerasmlp.training.image_batches import ImageSet
from kerasmlp.training.images import compile_classifier, scheduled_rate, train_on_images


def train_cifar(
    data: ImageSet,
    plan: CifarPlan,
    run: CifarRun,
    run_dir: str | os.PathLike,
    *,
    data_digest: str,
    on_epoch: Callable[[], None] = lambda: None,
) -> dict:
    """Trains one run of a plan, or goes on with it; a finished one is not computed again.

    Args:
        data: Images; the test part is measured after every epoch, as in the paper.
        plan: Hyperparameters.
        run: Arrangement and seed.
        run_dir: Folder of this run.
        data_digest: Of `data`.
        on_epoch: Called after each epoch.

    Returns:
        The report, as in `report.json`. The saved model is float32 and takes pixels,
        0 to 255: it subtracts the mean of each pixel itself.

    Raises:
        InputError: if the folder cannot be used or the weights diverge.

    Reference: Chen et al., "Rethinking the Usage of Batch Normalization and
    Dropout in the Training of Deep Neural Networks", 2019, section 4.2.
    Deviation: what a shift leaves empty is black before the mean image is
    subtracted; He et al. fill up with the mean.
    """
    settings = plan.to_config()
    config = {
        "kind": "cifar-run",
        "arrangement": run.arrangement,
        "seed": run.seed,
        **{k: v for k, v in settings.items() if k not in ("arrangements", "seeds")},
        "data_digest": data_digest,
    }
    model = None

    def make(steps: int) -> keras.Model:
        nonlocal model
        model = build(data, plan, run)
        compile_classifier(model, keras.optimizers.Adam(scheduled_rate(plan, steps)))
        return model

    def finish(history: list[dict]) -> tuple[keras.Model, dict]:
        plain = build(data, plan, run)
        plain.set_weights(model.get_weights())
        accuracies = np.array([row["val_accuracy"] for row in history])
        return plain, {
            "arrangement": run.arrangement,
            "depth": plan.depth,
            "bottleneck": plan.bottleneck,
            "mean_test_accuracy": float(accuracies.mean()),
            "mean_fall": float(np.maximum(-np.diff(accuracies), 0).sum() / plan.epochs),
        }

    return train_on_images(
        data,
        plan,
        run_dir,
        config,
        seed=run.seed,
        make=make,
        finish=finish,
        normalized=False,
        on_epoch=on_epoch,
    )


def build(data: ImageSet, plan: CifarPlan, run: CifarRun) -> keras.Model:
    """The network of a run, with pixels 0 to 255 as its input."""
    classes = {"num_classes": data.num_classes, "channels": data.channels}
    network = ICResNet(**plan.network(run), **classes)
    mean = data.x_train.mean(axis=0, dtype=np.float64) / 255
    inputs = keras.Input(network.input.shape[1:], name="image")
    scaling = {"offset": (-mean).tolist(), "dtype": "float32", "name": "less_the_mean_image"}
    return keras.Model(inputs, network(keras.layers.Rescaling(1 / 255, **scaling)(inputs)))
