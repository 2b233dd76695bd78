"""Whether rows are in memory is decided once for all runs of a folder, and by all its workers."""

import numpy as np
import pytest
from data_sets import make_store

from kerasmlp import EmbeddingStore, Recipe, choose_target, load_model
from kerasmlp.experiments.cross_validation import ray_runs, trainer
from kerasmlp.experiments.cross_validation.cross_validate import cross_validate
from kerasmlp.experiments.cross_validation.plan import CrossValidationPlan
from kerasmlp.experiments.tuning import search
from kerasmlp.experiments.tuning.plan import Cost, TuningPlan
from kerasmlp.experiments.tuning.space import SPACES, Choice, LogRange
from kerasmlp.experiments.tuning.spread import work
from kerasmlp.experiments.tuning.trial import TrialRunner
from kerasmlp.experiments.tuning.tune import tune
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.training import blocks
from kerasmlp.utils.checks import InputError

ROWS, WIDTH = 300, 32
HELD = ROWS * WIDTH * 2  # in half precision
RECIPE = Recipe(epochs=1, batch_size=32, num_blocks=1, learning_rate=0.01)


@pytest.fixture
def left(monkeypatch):
    """Has a store stay in its file, blocks be small, and says how much memory there is."""
    monkeypatch.setattr("kerasmlp.data.stores.embedding_store.STREAMED_BYTES", 0)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 4 * 4 * WIDTH)
    monkeypatch.setattr(blocks, "WINDOW_BYTES", 64 * 4 * WIDTH)
    trainer._store_at.cache_clear()
    yield lambda number: monkeypatch.setattr(blocks, "available_bytes", lambda: number)
    trainer._store_at.cache_clear()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path, store = tmp_path_factory.mktemp("rows") / "half.h5", make_store(ROWS, WIDTH)
    half = EmbeddingStore(store.embeddings.astype("float16"), store.labels, store.info)
    half.save(path)
    return path


class Here:
    """What workers do, in this process; the memory is another before each run."""

    def __init__(self, number, left, memory):
        self.number, self._left, self._memory = number, left, memory

    def train(self, settings, pending, steps, **how):
        for run in pending:
            if not self._memory:
                raise KeyboardInterrupt
            self._left(self._memory.pop(0))
            trainer._store_at.cache_clear()  # each run has another worker
            trainer._prepare(settings)[1]([run])
            yield run


def weights(run_dir, fold):
    return np.concatenate([
        weight.ravel() for weight in load_model(run_dir / f"seed0_fold{fold}").get_weights()
    ])  # fmt: skip


def test_the_runs_of_a_cross_validation_shuffle_alike(path, tmp_path, left):
    store = EmbeddingStore.open(path)
    plan = CrossValidationPlan(
        target=choose_target(store, "gender"), recipe=RECIPE, seeds=(0,), num_folds=2
    )
    # What one process can hold two cannot, however much there is by the second run.
    for name, number, memory in [("four", 4, [9 * HELD, 0]), ("one", 1, [0, 9 * HELD])]:
        left(3 * HELD)
        pool = Here(number, left, memory)
        cross_validate(path, plan, tmp_path / name, pool=pool)
        assert RunFolder(tmp_path / name).config()["in_memory"] == (name == "one")
        for fold in (0, 1):
            config = RunFolder(tmp_path / name / f"seed0_fold{fold}").config()
            expected = None if name == "one" else {"rows": 4, "window": 64}
            assert config.get("blocks") == expected
    with pytest.raises(KeyboardInterrupt):
        left(3 * HELD)
        cross_validate(path, plan, tmp_path / "killed", pool=Here(4, left, [0]))
    left(99 * HELD)
    pool = Here(1, left, [99 * HELD])
    cross_validate(path, plan, tmp_path / "killed", pool=pool, resume=True)
    assert RunFolder(tmp_path / "killed").config()["in_memory"] is False
    for fold in (0, 1):
        four = weights(tmp_path / "four", fold)
        np.testing.assert_array_equal(weights(tmp_path / "killed", fold), four)
        assert (weights(tmp_path / "one", fold) != four).any()


def test_workers_that_cannot_all_hold_the_rows_are_refused(path, tmp_path, left):
    store = EmbeddingStore.open(path)
    left(3 * HELD)
    blocks.require_room(store, True, 3)
    blocks.require_room(store, False, 9)
    with pytest.raises(InputError, match="`workers` must be at most 3, since .* workers=4"):
        blocks.require_room(store, True, 4)
    left(0)
    blocks.require_room(store, True, 1)


def test_a_store_in_memory_says_nothing_and_an_older_folder_goes_on(path, left):
    store = EmbeddingStore.open(path, streamed=False)
    assert blocks.in_memory_in_config(store, 8) == {}
    left(2 * 3 * HELD)
    store = EmbeddingStore.open(path)
    found = [blocks.in_memory_in_config(store, number)["in_memory"] for number in (1, 3, 4)]
    assert found == [True, True, False]
    assert blocks.at_hand(store, blocks.bytes_as_told(False)) is store
    left(0)
    assert blocks.at_hand(store, blocks.bytes_as_told(True)).embeddings.in_memory
    assert blocks.at_hand(store, blocks.bytes_as_told(None)) is store


def test_nodes_of_a_cluster_are_taken_to_be_like_this_one(monkeypatch):
    pytest.importorskip("ray.data", reason="needs Ray (the extra `ray`)")
    monkeypatch.setattr(ray_runs, "num_cores", lambda: 4)
    assert ray_runs.trainers_of("local", 9)[1] == 9
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert ray_runs.trainers_of("ray", 9)[1] == 9
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert [ray_runs.trainers_of("ray", n)[1] for n in (3, 9)] == [3, 4]


def test_a_search_that_is_resumed_draws_rows_as_it_began(path, tmp_path, left, monkeypatch):
    space = {"learning_rate": LogRange(1e-4, 1e-1), "num_blocks": Choice((0, 1))}
    space["residuals_per_block"] = Choice((0,))
    monkeypatch.setitem(SPACES, "tiny", space)
    monkeypatch.setattr(TrialRunner, "measure_cost", lambda self, xla: Cost(1.0, 1.0))
    plan = {"base": RECIPE.replace(num_blocks=0), "space": "tiny", "max_epochs": 1}
    plan = TuningPlan(target=choose_target(EmbeddingStore.open(path), "gender"), **plan)
    left(2 * 3 * HELD)

    def killed(self, xla):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TrialRunner, "measure_cost", killed)
        # Three workers, and the process that asks them.
        tune(path, plan, tmp_path / "run", workers=3)
    assert RunFolder(tmp_path / "run").config()["in_memory"] is False

    left(99 * HELD)
    seen, train = [], TrialRunner.run

    def noted(self, *given, **how):
        seen.append(self.rows.inputs.in_memory)
        return train(self, *given, **how)

    class OneTrial:
        """Instead of a search that asks its chief."""

        def __init__(self, plan, folder, config, runner):
            self.run = lambda: runner.run(plan.recipe, tmp_path / "later.npz", stop_after=1)

    monkeypatch.setattr(TrialRunner, "run", noted)
    with monkeypatch.context() as patch:
        patch.setattr(search, "Search", OneTrial)
        work(path, tmp_path / "run")
    tune(path, plan, tmp_path / "run", resume=True)
    assert seen == [False, False]
    tune(path, plan, tmp_path / "run", force=True)
    assert RunFolder(tmp_path / "run").config()["in_memory"] is True and seen[2:] == [True]
