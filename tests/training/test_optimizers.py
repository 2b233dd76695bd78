"""The table of learning rates is Keras' own schedules, and variables change a compiled step."""

import json

import keras
import numpy as np
import pytest

from kerasmlp.models.presets import PRESETS, Recipe
from kerasmlp.training.optimizers import RecipeAdamW, learning_rates

schedules = keras.optimizers.schedules


@pytest.mark.parametrize(("epochs", "steps", "share"), [(10, 7, 0.05), (3, 1, 0.9), (1, 1, 0.0)])
def test_cosine_is_that_of_keras(epochs, steps, share):
    recipe = Recipe(epochs=epochs, learning_rate=3e-3, warmup_share=share)
    total = epochs * steps
    warmup = min(round(share * total), total - 1)
    peak = {"warmup_target": 3e-3, "warmup_steps": warmup} if warmup else {}
    theirs = schedules.CosineDecay(0.0 if warmup else 3e-3, total - warmup, **peak)
    rates = [float(theirs(step)) for step in range(total)]
    np.testing.assert_allclose(learning_rates(recipe, steps), rates, rtol=2e-5, atol=3e-9)


@pytest.mark.parametrize("preset", ["paper-age", "paper-gender"])
def test_exponential_is_that_of_keras(preset):
    recipe = PRESETS[preset]
    theirs = schedules.ExponentialDecay(recipe.learning_rate, 10, recipe.gamma, staircase=True)
    rates = [float(theirs(step)) for step in range(10 * recipe.epochs)]
    np.testing.assert_allclose(learning_rates(recipe, 10), rates, rtol=5e-5)


def test_our_schedule_warms_up_and_the_papers_decays_once_per_epoch():
    ours = learning_rates(Recipe(epochs=10, learning_rate=1e-3), 10)
    assert len(ours) == 100 and ours[0] == 0 and ours[5] == ours.max() == np.float32(1e-3)
    assert 0 < ours[-1] < 1e-6
    papers, gamma = learning_rates(PRESETS["paper-age"], 10), 0.394794
    expected = 0.00116701 * np.array([1, 1, gamma, gamma**2])
    np.testing.assert_allclose(papers[[0, 9, 10, 20]], expected, rtol=1e-6)


def step_with(recipe, follow=None, steps=3):
    """Weights after some steps on the same gradient, with a step that is traced once."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile(RecipeAdamW(recipe, steps_per_epoch=steps), "mse", jit_compile=True)
    x, y = np.ones((8, 4), "float32"), np.ones((8, 2), "float32")
    before = model.get_weights()
    if follow:
        model.fit(x, y, epochs=1, verbose=0)
        model.set_weights(before)
        model.optimizer.build(model.trainable_variables)
        for variable in model.optimizer.variables:
            variable.assign(np.zeros(variable.shape))
        model.optimizer.follow(follow)
    model.fit(x, y, epochs=steps, verbose=0)
    return model


def test_a_traced_step_follows_another_recipe():
    one = Recipe(epochs=1, learning_rate=1e-2, weight_decay=0.5, schedule="exponential")
    other = one.replace(learning_rate=3e-2, weight_decay=0.1)
    turned, alone = step_with(one, follow=other), step_with(other)
    for a, b in zip(turned.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (alone.get_weights()[0] != step_with(one).get_weights()[0]).any()


def test_is_keras_adamw_with_the_originals_epsilon():
    recipe = Recipe(epochs=1, learning_rate=1e-2, weight_decay=0.5, gamma=1, schedule="exponential")
    ours = step_with(recipe)
    assert ours.optimizer.epsilon == 1e-8
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    theirs = keras.optimizers.AdamW(1e-2, weight_decay=0.5, epsilon=1e-8)
    theirs.exclude_from_weight_decay(var_names=["bias"])
    model.compile(theirs, "mse", jit_compile=True)
    model.fit(np.ones((8, 4), "float32"), np.ones((8, 2), "float32"), epochs=3, verbose=0)
    for a, b in zip(ours.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_rates_and_decay_are_in_no_checkpoint_of_tensorflow():
    optimizer = step_with(Recipe(epochs=1)).optimizer
    inside = {id(v) for v in optimizer.variables}
    under_jax = keras.backend.backend() == "jax"  # where a step knows only what it is given
    for variable in (optimizer.schedule.table, optimizer.weight_decay):
        assert (id(variable) in inside) is under_jax


def test_an_optimizer_is_made_again_of_its_config():
    recipe = Recipe(epochs=2, weight_decay=0.3, learning_rate=0.25)
    optimizer = RecipeAdamW(Recipe(epochs=2), steps_per_epoch=3)
    optimizer.follow(recipe)
    again = RecipeAdamW.from_config(json.loads(json.dumps(optimizer.get_config())))
    assert (
        float(again.weight_decay) == np.float32(0.3) and again.get_config()["steps_per_epoch"] == 3
    )
    np.testing.assert_array_equal(np.array(again.schedule.table), learning_rates(recipe, 3))
