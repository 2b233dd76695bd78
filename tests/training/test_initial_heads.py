"""Heads that two runs share, where one of them answers more labels than the other."""

import numpy as np
import pytest
from data_sets import make_store

from kerasmlp import Recipe, choose_target, load_model, train
from kerasmlp.data.other_targets import SeveralTargets

RECIPE = Recipe(epochs=1, batch_size=32)
GENTLE = RECIPE.replace(learning_rate=1e-9)


@pytest.mark.parametrize("members", [1, 2])
def test_a_head_goes_with_its_label(tmp_path, members):
    store = make_store(rows=300)
    side = (store.embeddings[:, 0] > 0).astype(int)
    store = store.with_labels({**store.labels, "side": side})
    one = choose_target(store, "gender")
    both = SeveralTargets((one, choose_target(store, "side")))
    how = {"pictures": False, "seed": 3}
    train(store, both, RECIPE.replace(members=members), tmp_path / "both", **how)
    how["seed"], gentle = 8, GENTLE.replace(members=members)
    for target, before, after in ((one, "both", "one"), (both, "one", "again")):
        train(store, target, gentle, tmp_path / after, init=tmp_path / before, **how)
    models = {name: load_model(tmp_path / name) for name in ("both", "one", "again")}
    kernels = [
        np.array(models[name].get_layer(layer).get_weights()[0])
        for name, layer in (
            ("both", "logits_gender"), ("one", "logits"), ("again", "logits_gender"),
            ("both", "logits_side"), ("again", "logits_side"),
        )
    ]  # fmt: skip
    np.testing.assert_allclose(kernels[1], kernels[0], atol=1e-6)
    np.testing.assert_allclose(kernels[2], kernels[0], atol=1e-6)
    assert np.abs(kernels[4] - kernels[3]).max() > 0.01  # `one` has no such head
