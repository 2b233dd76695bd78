"""Trainings under JAX: the compiled step, half precision, mixup."""

import keras
import numpy as np
import pytest
from data_sets import make_store

from kerasmlp import Recipe, ResidualMLP, choose_target, load_model, train
from kerasmlp.training import embedding_training
from kerasmlp.training.fit import chunk_maker, compile_by_recipe, compile_model
from kerasmlp.training.losses import recipe_loss
from kerasmlp.training.optimizers import RecipeAdamW

if keras.backend.backend() != "jax":
    pytest.skip("is about JAX", allow_module_level=True)

training_chunks = chunk_maker().training_chunks


def test_a_chunk_trains_as_its_batches_one_by_one():
    """Keras' own step, batch by batch, ends with the same weights, up to rounding."""
    rng, recipe = np.random.default_rng(0), Recipe(batch_size=4, epochs=2, dropout_rate=0.3)
    x, y = rng.normal(size=(150, 8)).astype("float32"), np.eye(2, dtype="float32")[[0, 1] * 75]
    how = {"batch_size": 4, "num_epochs": 2, "seed": 1}
    loss, ends = recipe_loss(recipe, ordered=False), []
    for chunked in (False, True):
        model = ResidualMLP(num_classes=2, seed=0, **recipe.network(8))
        chunks = training_chunks(x, y, **how)
        if chunked:
            model = compile_by_recipe(model, recipe, steps=37, loss=loss)
            how_long = {"epochs": 2, "steps_per_epoch": 2, "shuffle": False, "verbose": 0}
            history = model.fit(chunks, **how_long).history
            assert len(history["loss"]) == 2 and history["loss"][1] < history["loss"][0]
        else:
            compile_model(model, RecipeAdamW(recipe, steps_per_epoch=37), loss)
            for rows, labels, count in chunks:
                for i in range(int(count)):
                    model.train_on_batch(rows[i], labels[i])
        assert int(model.optimizer.iterations) == 74
        ends.append(model.get_weights())
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_half_precision_ends_near_single(tmp_path, monkeypatch):
    """Its loss is scaled: without, most gradients of so small a loss are zeros."""
    store, recipe = make_store(rows=300), Recipe(epochs=3, batch_size=32, dropout_rate=0.0)
    recipe = recipe.replace(mixup_alpha=0.0, noise_std=0.0)
    target, nll = choose_target(store, "gender"), {}
    for precision in ("float32", "mixed_float16"):
        monkeypatch.setattr(
            embedding_training, "default_policy", lambda precision=precision: precision
        )
        run = tmp_path / precision
        report = train(store, target, recipe, run, pictures=False)
        assert report["precision"] == precision and report["backend"] == "jax"
        nll[precision] = report["validation"]["nll"]
        assert load_model(run).compute_dtype == "float32"
    assert nll["mixed_float16"] == pytest.approx(nll["float32"], abs=0.02)


def test_mixup_mixes_rows_and_labels_alike_and_noise_keeps_the_norm():
    x = np.eye(8, dtype="float32")[np.random.default_rng(0).integers(0, 8, 640)]
    how = {"batch_size": 640, "num_epochs": 1, "seed": 0}
    ((mixed,), (labels,), _), *_ = training_chunks(x, x, mixup_alpha=0.4, **how)
    np.testing.assert_allclose(mixed, labels, atol=1e-6)
    np.testing.assert_allclose(np.sum(labels, axis=1), 1, atol=1e-6)
    shares = np.max(labels, axis=1)
    assert ((shares > 0.6) & (shares < 0.9)).any()
    ((noisy,), _, _), *_ = training_chunks(x, x, noise_std=0.1, **how)
    np.testing.assert_allclose(np.linalg.norm(noisy, axis=1), 1, atol=1e-5)
    assert 0.001 < np.abs(np.array(noisy) - np.round(noisy)).mean() < 0.1
    again = [next(iter(training_chunks(x, x, noise_std=0.1, **how)))[0][0] for _ in range(2)]
    np.testing.assert_array_equal(*again)


def test_a_resumed_run_draws_what_an_uninterrupted_one_would():
    x = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
    how = {"batch_size": 8, "num_epochs": 3, "seed": 5, "mixup_alpha": 0.4, "noise_std": 0.1}
    whole = list(training_chunks(x, x, **how))[1:]
    rest = list(training_chunks(x, x, first_epoch=1, **how))
    for one, other in zip(whole, rest, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
    others = list(training_chunks(x, x, **how | {"seed": 6}))[1:]
    assert (np.array(others[0][0]) != np.array(whole[0][0])).any()
