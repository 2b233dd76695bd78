"""Views of one face: one is drawn per epoch, the first is measured."""

import numpy as np

from kerasmlp import EmbeddingStore, Recipe, choose_target, train
from kerasmlp.data.examples import Examples
from kerasmlp.training.fit import chunk_maker
from kerasmlp.training.rows import Rows

training_chunks = chunk_maker().training_chunks


def store_of_views(faces: int = 60, views: int = 3) -> EmbeddingStore:
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(faces, 1, 8)), views, axis=1)
    x += 0.1 * rng.normal(size=x.shape)
    x = x.reshape(-1, 8) / np.linalg.norm(x.reshape(-1, 8), axis=1, keepdims=True)
    labels = {
        "gender": (x[::views, 0] > 0).astype(int).repeat(views),
        "group": np.arange(faces).repeat(views),
        "view": np.tile(np.arange(views), faces),
    }
    return EmbeddingStore(x, labels)


def test_an_epoch_holds_one_view_of_each_face():
    x = np.arange(9, dtype="float32")[:, None]
    starts, seen = np.array([0, 2, 6]), []
    how = {"batch_size": 3, "num_epochs": 200, "seed": 1, "view_starts": starts}
    for batches, targets, count in training_chunks(x, x, **how):
        assert count == 1
        rows = np.sort(np.array(batches).ravel().astype(int))
        assert (np.searchsorted(starts, rows, side="right") == [1, 2, 3]).all()
        np.testing.assert_array_equal(batches, targets)
        seen.append(rows)
    share = np.bincount(np.concatenate(seen), minlength=9) / 200
    expected = [1 / 2, 1 / 2, 1 / 4, 1 / 4, 1 / 4, 1 / 4, 1 / 3, 1 / 3, 1 / 3]
    np.testing.assert_allclose(share, expected, atol=0.12)
    again = [np.array(b) for b, _, _ in training_chunks(x, x, first_epoch=150, **how)]
    np.testing.assert_array_equal(np.sort(again[0].ravel()), seen[150])


def test_views_are_seen_by_their_numbers():
    store = store_of_views()
    rows = Examples.of(store, choose_target(store, "gender"))
    np.testing.assert_array_equal(rows.view_starts, np.arange(0, 180, 3))
    assert rows.subset(np.arange(6, 30)).view_starts.tolist() == list(range(0, 24, 3))
    assert rows.subset(np.arange(1, 30)).view_starts is None  # no whole faces
    other = EmbeddingStore(store.embeddings, dict(store.labels) | {"view": np.arange(180) % 2})
    assert Examples.of(other, choose_target(other, "gender")).view_starts is None


def test_only_first_views_are_measured(tmp_path, workbench):
    store = store_of_views()
    target = choose_target(store, "gender")
    how = {"validation_share": 0.2, "test_share": 0.2, "seed": 0, "group": None}
    rows = Rows.of(store, target, None, how)
    assert rows.size * 3 == len(rows.inputs)
    for part in (rows.heads[0].part, rows.heads[0].test):
        assert set(part.labels["view"]) == {0}
    recipe = Recipe(epochs=1, batch_size=16)
    report = train(
        store, target, recipe, tmp_path / "run", workbench=workbench, pictures=False,
        validation_share=0.2, test_share=0.2,
    )  # fmt: skip
    assert report["rows"]["views"] == 3 * report["rows"]["training"] == len(rows.inputs)
    assert report["test"]["rows"] == len(rows.heads[0].test)
