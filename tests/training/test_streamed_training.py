"""Trainings on rows that stay as they are stored: the same weights, or blocks that are shuffled."""

import json

import keras
import numpy as np
import pytest
from data_sets import make_store
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasmlp import EmbeddingStore, Recipe, StoreInfo, choose_target, distil, load_model, train
from kerasmlp.data.examples import Examples
from kerasmlp.data.other_targets import NumberTarget, SeveralTargets
from kerasmlp.data.stores.store_folder import shard_name, write_manifest
from kerasmlp.data.stores.store_paths import save_store
from kerasmlp.data.stores.streamed_rows import HeldPart, StreamedRows
from kerasmlp.data.targets import age_target
from kerasmlp.experiments.tuning.plan import TuningPlan
from kerasmlp.experiments.tuning.trial import TrialRunner
from kerasmlp.training import blocks as blocks_module
from kerasmlp.training.blocks import Blocks, at_hand, notes_of_blocks
from kerasmlp.training.columns import StandardRows
from kerasmlp.training.compiled_models import Workbench
from kerasmlp.training.draws import Draws
from kerasmlp.training.fit import chunk_maker, drawn_by_recipe
from kerasmlp.training.target_rows import TargetRows

RECIPE = Recipe(epochs=2, batch_size=32, num_blocks=1, learning_rate=0.01)
AGE = age_target("age_years", "adience", by_years=True)


def stored(path, store):
    """A store in half precision, and the same rows once more in three shards; all of its file."""
    half = EmbeddingStore(store.embeddings.astype("float16"), store.labels, store.info)
    half.save(path / "a.h5")
    (path / "shards").mkdir()
    rows = {}
    for number, some in enumerate(np.split(np.arange(len(store)), [1, len(store) // 3])):
        half.subset(some).save(path / "shards" / shard_name(number))
        rows[shard_name(number)] = len(some)
    write_manifest(path / "shards", rows, store.info)
    whole = EmbeddingStore.open(path / "a.h5")
    return whole, *(EmbeddingStore.open(path / k, streamed=True) for k in ("a.h5", "shards"))


def without_times(report):
    return json.dumps({k: v for k, v in report.items() if k != "seconds"}, default=str)


def same_weights(one, other):
    return all(
        np.array_equal(a, b)
        for a, b in zip(load_model(one).get_weights(), load_model(other).get_weights(), strict=True)
    )


@pytest.fixture(scope="module")
def bench():
    return Workbench()


def people(rows=300):
    store = make_store(rows=rows, age_group=["0-2", "4-6", ""] * (rows // 3))
    unknown = np.where(np.arange(rows) % 7, store.labels["gender"], -1)
    return store.with_labels(store.labels | {"gender": unknown})


def views(faces=120):
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(faces, 1, 16)), 2, axis=1) + 0.1 * rng.normal(
        size=(faces, 2, 16)
    )
    x = x.reshape(-1, 16) / np.linalg.norm(x.reshape(-1, 16), axis=1, keepdims=True)
    labels = {
        "gender": (x[::2, 0] > 0).astype(int).repeat(2),
        "group": np.arange(faces).repeat(2),
        "view": np.tile(np.arange(2), faces),
        "weight": rng.random(2 * faces),
    }
    return EmbeddingStore(x.astype("float32"), labels)


def table(rows=200):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(rows, 6)) * [1, 9, 2, 1, 1, 0] + 3).astype("float16")
    labels = {"height": 170 + 2 * x[:, 1].astype(float) + rng.normal(size=rows)}
    return EmbeddingStore(x, labels, StoreInfo(normalized=False))


CASES = {
    "heads": (
        people(),
        lambda s: SeveralTargets((AGE, choose_target(s, "gender"))),
        RECIPE.replace(members=2, refit=True, patience=None),
        {"test_share": 0.2},
    ),
    "views": (views(), lambda s: choose_target(s, "gender"), RECIPE, {"weight": "weight"}),
    "columns": (table(), lambda s: NumberTarget("height"), RECIPE.replace(dropout_rate=0.1), {}),
}


@pytest.mark.parametrize("case", CASES)
def test_rows_as_they_are_stored_give_the_same_weights(tmp_path, bench, case):
    store, choose, recipe, how = CASES[case]
    reports = []
    for number, some in enumerate(stored(tmp_path, store)):
        run = tmp_path / f"run{number}"
        target = choose(some)
        report = train(some, target, recipe, run, workbench=bench, pictures=False, **how)
        reports.append(without_times(report))
        assert same_weights(tmp_path / "run0", run)
        for name in ("calibration.json", "reference.json", "history.csv", "config.json"):
            if (tmp_path / "run0" / name).exists():
                assert (run / name).read_bytes() == (tmp_path / "run0" / name).read_bytes()
    assert reports[0] == reports[1] == reports[2]


def test_a_student_and_a_trial_learn_the_same_from_streamed_rows(tmp_path, bench):
    whole, streamed, _ = stored(tmp_path, people())
    target = choose_target(whole, "gender")
    plan = TuningPlan(target=target, base=RECIPE, space="narrow")
    losses = [
        TrialRunner(s, plan).run(RECIPE, tmp_path / f"{k}.npz", stop_after=1)["val_loss"]
        for k, s in enumerate([whole, streamed])
    ]
    assert losses[0] == losses[1]
    if keras.backend.backend() != "tensorflow":
        return
    train(whole, target, RECIPE, tmp_path / "teacher", workbench=bench, pictures=False)
    for name, some in {"one": whole, "two": streamed}.items():
        distil(tmp_path / "teacher", some, tmp_path / name, recipe=RECIPE)
    assert same_weights(tmp_path / "one", tmp_path / "two")


@pytest.fixture
def small_blocks(monkeypatch):
    """Of 4 rows of 32 columns, 16 of them at once."""
    monkeypatch.setattr(blocks_module, "BLOCK_BYTES", 4 * 4 * 32)
    monkeypatch.setattr(blocks_module, "WINDOW_BYTES", 64 * 4 * 32)


def test_rows_past_memory_are_drawn_from_blocks(tmp_path, bench, small_blocks):
    whole, streamed, shards = stored(tmp_path, people())
    how = {"workbench": bench, "pictures": False, "most_bytes": 32 * 300 * 2 - 1}
    target = choose_target(whole, "gender")
    full = train(whole, target, RECIPE, tmp_path / "full", **how)
    assert not any("blocks" in note for note in full["notes"])
    report = train(streamed, target, RECIPE, tmp_path / "blocks", **how)
    assert "shuffled blocks of 4 rows, 64 rows at once" in report["notes"][0]
    assert not same_weights(tmp_path / "full", tmp_path / "blocks")
    assert abs(report["validation"]["nll"] - full["validation"]["nll"]) < 0.3
    train(shards, target, RECIPE, tmp_path / "of_shards", **how)
    assert same_weights(tmp_path / "blocks", tmp_path / "of_shards")

    class Killed(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(streamed, target, RECIPE, tmp_path / "killed", callbacks=[Killed()], **how)
    # There is more memory by now.
    train(streamed, target, RECIPE, tmp_path / "killed", resume=True, **how | {"most_bytes": None})
    assert same_weights(tmp_path / "blocks", tmp_path / "killed")


def test_rows_past_memory_in_parquet_are_called_slow(tmp_path, small_blocks):
    pytest.importorskip("pyarrow")
    save_store(EmbeddingStore(np.eye(3, 32, dtype="f2")), tmp_path / "a.parquet")
    rows = EmbeddingStore.open(tmp_path / "a.parquet", streamed=True).embeddings
    one, other = notes_of_blocks(rows)
    assert "64 rows at once" in one and "`export-embeddings`" in other
    assert notes_of_blocks(StandardRows(rows, np.zeros(32), np.ones(32))) == [one, other]


def test_a_store_is_in_memory_once_and_as_it_is_stored(tmp_path, monkeypatch):
    whole, streamed, shards = stored(tmp_path, people())
    monkeypatch.setattr(blocks_module, "VIEWED_BYTES", 300 * 32 * 4)
    assert at_hand(whole) is whole
    monkeypatch.setattr(blocks_module, "VIEWED_BYTES", 300 * 32 * 4 - 1)
    viewed = at_hand(whole).embeddings.subset(np.array([5, 3]))
    assert np.shares_memory(viewed.parts[0].read(0, 300), whole.embeddings)
    assert at_hand(streamed, 300 * 32 * 2 - 1) is streamed
    for store in (at_hand(streamed), at_hand(shards, 300 * 32 * 2)):
        assert store.embeddings.in_memory and store.embeddings.stored_dtype == np.float16
        assert at_hand(store, 0) is store and store.digest() == whole.digest()
        part = Examples.of(store, choose_target(store, "gender")).subset(np.array([5, 3]))
        assert part.inputs.parts[0] is store.embeddings.parts[0]
        np.testing.assert_array_equal(part.inputs, whole.embeddings[[5, 3]])


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 60), st.integers(1, 9), st.integers(1, 5), st.integers(0, 9), st.integers(1, 20)
)
def test_windows_hold_whole_blocks_in_random_order(rows, size, number, seed, chunk):
    blocks = Blocks(size, size * number)
    order = blocks.order(rows, (seed, 0))
    np.testing.assert_array_equal(np.sort(order), np.arange(rows))
    np.testing.assert_array_equal(order, blocks.order(rows, (seed, 0)))
    starts = np.arange(0, rows, blocks.window)
    of_window = [np.unique(order[s : s + blocks.window] // size) for s in starts]
    assert all(len(found) <= number + 1 for found in of_window)  # a short block shifts the rest
    order = order[: rows // chunk * chunk]
    x = np.arange(rows, dtype="float32")[:, None]
    found = list(blocks.chunks(x, order, chunk))
    assert all(len(part) == chunk for part in found) and len(found) == len(order) // chunk
    np.testing.assert_array_equal(np.concatenate([x[:0], *found])[:, 0], order)


@pytest.mark.parametrize(
    "how", [{}, {"steps_per_epoch": 23}, {"view_starts": np.arange(0, 100, 2)}], ids=str
)
def test_blocks_of_files_are_drawn_alike_by_all_backends(small_blocks, how):
    values = np.random.default_rng(0).normal(size=(100, 32)).astype("float16")
    rows = StreamedRows([FileLike(values)])
    assert Blocks.of(rows) == Blocks(4, 64)
    y = np.arange(100, dtype="float32")[:, None]
    draws = Draws(rows=100, batch_size=8, seed=3, blocks=Blocks.of(rows), **how)
    expected = [(x, t) for epoch in (1, 2) for x, t, *_ in draws.chunks(rows, y, epoch)]
    how = {"batch_size": 8, "num_epochs": 3, "first_epoch": 1, "seed": 3, **how}
    found = list(chunk_maker().training_chunks(rows, y, **how))
    assert len(found) == len(expected)
    for (x, t, _), (of_rows, of_targets) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(x, of_rows)
        np.testing.assert_array_equal(t, of_targets)
        numbers = np.array(t).ravel().astype(int)
        np.testing.assert_array_equal(
            np.array(x).reshape(-1, 32), values[numbers].astype("float32")
        )


def test_members_share_the_memory_of_a_window(small_blocks):
    values = np.random.default_rng(0).normal(size=(100, 32)).astype("float32")
    part, y = FileLike(values), np.zeros((100, 1), "float32")
    rows = StreamedRows([part])
    recipe = Recipe(batch_size=8, mixup_alpha=0.0, noise_std=0.0)
    for members, expected in [(1, Blocks(4, 64)), (2, Blocks(2, 32)), (100, Blocks(1, 1))]:
        assert Blocks.of(rows, members) == expected
    drawn = drawn_by_recipe(
        rows, y, recipe.replace(members=2), steps=12, seed=3, abreast=2
    )(range(1))  # fmt: skip
    draws = Draws(rows=100, batch_size=8, seed=3, members=2, blocks=Blocks(2, 32))
    for (found, *_), (expected, *_) in zip(drawn, draws.chunks(rows, y, 0), strict=True):
        np.testing.assert_array_equal(found, expected)
    part.most = 0
    assert len(list(Blocks(2, 32).chunks(rows, draws.order(0), 8))) == 12 and part.most == 32
    config = blocks_module.blocks_in_config(rows, 2)
    assert config == {"blocks": {"rows": 2, "window": 32}}


class FileLike:
    """A part that is none in memory; it notes the most rows that were asked for at once."""

    def __init__(self, values):
        self.shape, self.dtype, self._values = values.shape, values.dtype, values
        self.most = 0

    def read(self, start, stop):
        return self.take(np.arange(start, stop))

    def take(self, rows):
        self.most = max(self.most, len(rows))
        return self._values[rows]


def test_targets_by_their_kinds_are_those_of_each_row():
    store = people(60)
    years = np.where(np.arange(60) % 5, store.labels["age_years"] + 0.25, np.nan)
    examples = Examples.of(store.with_labels({"age_years": years}), AGE)
    targets = TargetRows([examples.kinds_of_targets(2.0)])
    density = np.exp(-0.5 * ((np.arange(101) - np.clip(years, 0, 100)[:, None]) / 2) ** 2)
    expected = np.nan_to_num(density / density.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(targets, expected, atol=1e-6)
    weights = np.linspace(0, 2, 60).astype("float32")
    both = TargetRows.side_by_side([targets, TargetRows([(np.ones((60, 1), "float32"), None)])])
    some = np.array([7, 0, 59])
    found = both.weighted(weights)[some]
    assert both.shape == (60, 102) and found.dtype == np.float32
    np.testing.assert_allclose(found[:, :101], expected[some] * weights[some, None], atol=1e-6)
    np.testing.assert_array_equal(found[:, 101], weights[some])


def test_numbers_that_are_tiny_in_half_precision_are_so_in_every_thread():
    """TensorFlow's have the processor take what float32 holds below its normal ones for 0."""
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    rows = StreamedRows([HeldPart(every[np.isfinite(every)][:, None])])
    expected = rows.parts[0].read(0, len(rows)).astype(np.float32)
    how = {"batch_size": len(rows), "num_epochs": 1, "seed": 0}
    ((found,), (numbers,), _), *_ = chunk_maker().training_chunks(
        rows, np.arange(len(rows), dtype="float32")[:, None], **how
    )
    numbers = np.array(numbers)[:, 0].astype(int)
    np.testing.assert_array_equal(np.array(found), expected[numbers])
