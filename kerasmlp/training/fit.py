"""One `model.fit`: how a model is compiled, what it is given, what is kept of every epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from tqdm import tqdm

from kerasmlp.callbacks.checkpoint import Checkpoint
from kerasmlp.callbacks.divergence import Divergence
from kerasmlp.data.stores.streamed_rows import AnyRows
from kerasmlp.layers.members import members_apart, members_of
from kerasmlp.models.presets import Recipe
from kerasmlp.training.blocks import Blocks
from kerasmlp.training.chunk_model import ChunkModel
from kerasmlp.training.chunks import chunks_of
from kerasmlp.training.losses import MemberLoss, MemberLosses
from kerasmlp.training.optimizers import RecipeAdamW
from kerasmlp.training.target_rows import TargetRows
from kerasmlp.utils.backends import on_gpu
from kerasmlp.utils.tensorflow_import import require_backend

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True, kw_only=True)
class Course:
    """What a model goes through.

    Attributes:
        batches: From the numbers of epochs to what is drawn in them, such as `model.fit`
            takes it; what an epoch draws hangs on its number alone.
        epochs: At most.
        steps: Calls of the model's step in an epoch.
        learning_rate: To be named where the weights diverge.
        monitor: Of an epoch, what is the better the smaller it is.
        patience: Epochs without a better one until training stops, and takes the best
            weights; None trains to the end and takes the last.
        validation: Batches to measure on after every epoch, by what the model is compiled
            with; None where one of the callbacks measures.
        callbacks: What they log of an epoch is kept with it.
    """

    batches: Callable[[range], Any]
    epochs: int
    steps: int
    learning_rate: float
    monitor: str = "val_loss"
    patience: int | None = None
    validation: tf.data.Dataset | None = None
    callbacks: Sequence[keras.callbacks.Callback] = ()


def fit(
    model: keras.Model,
    course: Course,
    *,
    checkpoint_path: Path,
    history_path: Path | None = None,
    on_epoch: Callable[[int], None] = lambda done: None,
    progress: bool = False,
) -> tuple[list[dict], bool]:
    """Runs `model.fit` from the last checkpoint on.

    Args:
        model: Compiled; it ends with the weights that are the result.
        course: What it goes through.
        checkpoint_path: Where every epoch is kept.
        history_path: CSV that grows by a line with every epoch.
        on_epoch: Told the number of epochs done, when an epoch is kept.
        progress: Show a bar.

    Returns:
        The history, one dict per epoch, and whether it stopped early.

    Raises:
        DivergedError: if the weights diverge.
    """
    watching = watchers(course)
    stopper = watching[1] if course.patience else None
    checkpoint = Checkpoint(checkpoint_path, stopper, history_path=history_path)
    first_epoch = checkpoint.restore(model)
    if first_epoch < course.epochs and not checkpoint.stopped:
        with tqdm(
            total=course.epochs, initial=first_epoch, unit="epoch", disable=not progress
        ) as bar:

            def kept(epoch, logs):
                bar.set_postfix({k: f"{v:.4g}" for k, v in logs.items()}, refresh=False)
                bar.update()
                on_epoch(epoch + 1)

            shown = keras.callbacks.LambdaCallback(on_epoch_end=kept)
            model.fit(
                course.batches(range(first_epoch, course.epochs)),
                epochs=course.epochs,
                initial_epoch=first_epoch,
                steps_per_epoch=course.steps,
                shuffle=False,
                validation_data=course.validation,
                verbose=0,
                callbacks=[*course.callbacks, *watching, checkpoint, shown],
            )
    if stopper and stopper.best_weights is not None:
        model.set_weights(stopper.best_weights)
    return checkpoint.history, checkpoint.stopped


def watchers(course: Course) -> list[keras.callbacks.Callback]:
    """What ends a training: weights that diverge and, with a patience, early stopping."""
    watching = [Divergence(course.learning_rate)]
    if course.patience:
        how = {"patience": course.patience, "mode": "min", "restore_best_weights": True}
        watching.append(keras.callbacks.EarlyStopping(course.monitor, **how))
    return watching


def compile_model(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    loss: str | keras.losses.Loss,
    *,
    metrics: Iterable[str | keras.metrics.Metric] = (),
    xla: bool | None = None,
    steps_per_execution: int = 1,
) -> None:
    """Compiles a model, with loss scaling where it computes in float16.

    Args:
        model: To be trained.
        optimizer: Of its weights.
        loss: To be minimised.
        metrics: To be logged beside it.
        xla: Compile steps by XLA; None does so on a GPU, where Keras sees no reason against
            it: XLA's convolutions are slow on CPUs.
        steps_per_execution: As of Keras.
    """
    require_backend()
    if any(layer.compute_dtype == "float16" for layer in model.layers):
        # Keras adds loss scaling by itself only where the whole model has the policy.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    if keras.backend.backend() == "jax":
        xla = True  # else each operation is compiled by itself
    elif xla is None:
        xla = "auto" if on_gpu() else False
    model.compile(
        optimizer,
        loss,
        metrics=list(metrics) or None,
        jit_compile=xla,
        steps_per_execution=steps_per_execution,
    )
    # Variables that are made while a step is traced have it traced twice.
    model.optimizer.build(model.trainable_variables)


def chunk_maker() -> ModuleType:
    """The module whose `training_chunks` the backend takes that Keras runs on."""
    if keras.backend.backend() == "jax":
        from kerasmlp.training import jax_batches as maker
    else:
        from kerasmlp.training import batches as maker
    return maker


def course_by_recipe(
    x: AnyRows,
    y: np.ndarray | TargetRows,
    recipe: Recipe,
    *,
    steps: int,
    seed: int,
    callbacks: Sequence[keras.callbacks.Callback],
    noise_units: np.ndarray | None = None,
    view_starts: np.ndarray | None = None,
) -> Course:
    """What a recipe has a model of `compile_by_recipe` go through.

    Args:
        x: Embeddings.
        y: Target probabilities.
        recipe: Hyperparameters.
        steps: Of an epoch.
        seed: Decides what is drawn; member m gets what a training of `seed + m` would, but for
            rows in files: see `Blocks.of`.
        callbacks: The `Validation`, above all.
        noise_units: As of `training_chunks`.
        view_starts: As of `training_chunks`.
    """
    batch_size = min(recipe.batch_size, len(x) if view_starts is None else len(view_starts))
    how = {"steps": steps, "noise_units": noise_units, "view_starts": view_starts}
    how["abreast"] = recipe.members
    x, y = chunk_maker().at_hand(x, y)  # once for all members
    members = [
        drawn_by_recipe(x, y, recipe, seed=seed + member, **how) for member in range(recipe.members)
    ]
    return Course(
        batches=drawn_abreast(members),
        epochs=recipe.epochs,
        steps=chunks_of(steps, recipe.members * batch_size)[0],
        learning_rate=recipe.learning_rate,
        patience=recipe.patience,
        callbacks=callbacks,
    )


def drawn_by_recipe(
    x: Any,
    y: Any,
    recipe: Recipe,
    *,
    steps: int,
    seed: int,
    noise_units: np.ndarray | None = None,
    view_starts: np.ndarray | None = None,
    abreast: int = 1,
) -> Callable[[range], Any]:
    """From the numbers of epochs to what one network learns from in them.

    Args:
        x, y: As of `course_by_recipe`, or what `at_hand` of `chunk_maker` made of them.
        abreast: Networks that are trained at once, whose chunks are as long.
    """
    batch_size = min(recipe.batch_size, len(x) if view_starts is None else len(view_starts))

    def batches(epochs: range) -> Any:
        return chunk_maker().training_chunks(
            x,
            y,
            batch_size=batch_size,
            num_epochs=epochs.stop,
            seed=seed,
            first_epoch=epochs.start,
            steps_per_epoch=steps,
            mixup_alpha=recipe.mixup_alpha,
            noise_std=recipe.noise_std,
            noise_units=noise_units,
            view_starts=view_starts,
            members=abreast,
            blocks=Blocks.of(x, recipe.members),
        )

    return batches


def drawn_abreast(drawn: Sequence[Callable[[range], Any]]) -> Callable[[range], Any]:
    """What several networks learn from at once, each what it would learn from alone."""
    if len(drawn) == 1:
        return drawn[0]
    return lambda epochs: chunk_maker().side_by_side([each(epochs) for each in drawn])


def compile_by_recipe(
    model: keras.Model,
    recipe: Recipe,
    *,
    steps: int,
    loss: keras.losses.Loss,
    batch_size: int | None = None,
    xla: bool = True,
    each_loss: bool = False,
    make: Callable[..., ChunkModel] = ChunkModel,
) -> ChunkModel:
    """Returns the model, on the same layers, compiled for epochs of `steps` steps.

    They come in `training_chunks` of batches of `batch_size` rows, by default those of the
    recipe. Of its executions one is an epoch. Several members learn apart; `answering` gives
    the model back, in which they answer as one; with `each_loss` the loss of each is logged.

    XLA makes a step of a small network faster and takes seconds per network, the
    more the deeper it is: what is trained for a few epochs alone does without
    (see `xla_pays`). `make` makes the model of its ends.
    """
    members = members_of(model)
    ends = members_apart(model) if members > 1 else model
    chunked = make(ends.input, ends.output, name=model.name)
    chunked.__dict__["_answering"] = lambda: model  # no layer of its own, nor one to save
    compile_model(
        chunked,
        RecipeAdamW(recipe, steps_per_epoch=steps),
        MemberLoss(loss, members) if members > 1 else loss,
        metrics=[MemberLosses(loss, members)] if each_loss else [],
        xla=xla,
        steps_per_execution=chunks_of(steps, members * (batch_size or recipe.batch_size))[0],
    )
    if keras.backend.backend() == "jax":
        chunked.build_losses()
    return chunked


def answering(model: keras.Model) -> keras.Model:
    """The model that answers with what one of `compile_by_recipe` has learned."""
    return model.__dict__.get("_answering", lambda: model)()
