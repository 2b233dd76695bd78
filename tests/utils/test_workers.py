"""The pool of workers: what is lost is replaced, and what is to blame is found out."""

import os
import signal
from collections import Counter

import pytest
from data_sets import ROOT

from kerasmlp.utils import worker as one
from kerasmlp.utils import workers as pools
from kerasmlp.utils.checks import InputError
from kerasmlp.utils.workers import Lost, Pool


@pytest.fixture(autouse=True)
def helpers(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests" / "helpers"))


def pool_of(workers, **how):
    return Pool("quick_worker", workers, **{"costly": 3, "name_of": lambda t: f"task {t}"} | how)


def work(pool, settings, tasks):
    left = list(enumerate(tasks))
    pool.start(settings)
    return pool.run(lambda worker: left.pop(0) if left else None, len(tasks))


def test_workers_answer_all_tasks_and_stay_for_the_next():
    with pool_of(2, ahead=3) as pool:
        answers = dict(work(pool, {}, range(40)))
        assert {n: a[0] for n, a in answers.items()} == {n: n for n in range(40)}
        first = {a[1] for a in answers.values()}
        assert first <= {w.process.pid for w in pool.workers} and len(pool.workers) == 2
        again = dict(work(pool, {"other": 1}, "abc"))
        assert {a[1] for a in again.values()} <= {w.process.pid for w in pool.workers}
        processes = [w.process for w in pool.workers]
    assert all(process.returncode == -signal.SIGKILL for process in processes)


def test_a_worker_that_is_killed_loses_nothing():
    with pool_of(2, ahead=4) as pool:
        numbers = []
        for number, _ in work(pool, {}, range(30)):
            numbers.append(number)
            if len(numbers) in (5, 15):
                pool.workers[0].process.kill()
    assert sorted(numbers) == list(range(30))


def test_an_idle_worker_that_is_gone_is_replaced():
    with pool_of(1) as pool:
        assert len(list(work(pool, {}, "ab"))) == 2
        pool.workers[0].process.kill()
        assert len(list(work(pool, {}, "ab"))) == 2


def test_a_worker_that_dies_once_is_replaced(tmp_path):
    with pool_of(1) as pool:
        answers = dict(work(pool, {"once": ["b", str(tmp_path / "died")]}, "abc"))
    assert {n: a[0] for n, a in answers.items()} == {0: "a", 1: "b", 2: "c"}
    assert len({a[1] for a in answers.values()}) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_a_task_that_costs_its_workers_is_given_up(workers):
    with pool_of(workers, ahead=4, costly=2) as pool:
        answers = dict(work(pool, {"fatal": ["c"]}, "abcdefgh"))
    assert answers[2] == Lost(False, "ended with signal SIGKILL out of memory")
    assert "".join(answers[n][0] for n in range(8) if n != 2) == "abdefgh"


def test_a_worker_that_stands_still_is_replaced(monkeypatch):
    monkeypatch.setattr(pools, "LOOK_SECONDS", 0.5)
    with pool_of(1, ahead=2, costly=2, still_seconds=1) as pool:
        large = "c" * (1 << 20)  # more than a pipe holds
        answers = dict(work(pool, {"hangs": ["b"]}, ["a", "b", large]))
    assert answers[1] == Lost(True, "neither answered nor computed for 1 s")
    assert (answers[0][0], answers[2][0]) == ("a", large)


@pytest.mark.parametrize("busy_seconds", [10, None])
def test_computing_is_no_standing_still(monkeypatch, busy_seconds):
    with pool_of(1) as pool:
        pool.start({})
        pool.first_ready()
        (worker,) = pool.workers
        worker.unanswered.append((1, "never sent"))
        counts = Counter()
        for busy in (True, True, True, False):  # 0.18 seconds count of the first three, or none
            ticks = worker._cpu + busy
            monkeypatch.setattr(one, "cpu_ticks", lambda pid, ticks=ticks: ticks)
            worker._looked -= 0.6
            assert not worker.stands_still(1, busy_seconds)
            counts[busy] = worker._still
        assert counts[True] == (0 if busy_seconds is None else pytest.approx(0.18, abs=0.02))
        worker._looked -= 3600  # this process was stopped for an hour: at most two seconds count
        assert worker.stands_still(1, busy_seconds) and worker._still < 3
        worker.unanswered.clear()


def test_workers_that_die_at_their_start_end_with_a_sentence():
    message = (
        r"`workers` must stay alive. Received: 4 lost in a row, the last one ended with "
        r"exit code 9 no memory at its start \(is there"
    )
    with pool_of(2, most_lost=4) as pool, pytest.raises(InputError, match=message):
        list(work(pool, {"dies": True}, "ab"))
    message = "3 lost in a row, the last one ended with signal SIGKILL out of memory at task [ab] "
    with pool_of(2, most_lost=3) as pool, pytest.raises(InputError, match=message):
        list(work(pool, {"fatal": "ab"}, "ab"))


def test_what_a_worker_refuses_is_said_and_none_works_on():
    with pool_of(2) as pool:
        with pytest.raises(InputError, match="`settings` must not be refused. Received: .*'why'"):
            list(work(pool, {"refused": "why"}, "ab"))
        assert all(worker.ready for worker in pool.workers)
        with pytest.raises(OSError, match="No space left") as caught:
            list(work(pool, {"full": ["b"]}, "ab"))
        assert (caught.value.errno, caught.value.filename) == (28, "runs/a")
        assert not any(worker.unanswered for worker in pool.workers)
        assert len(list(work(pool, {}, "abc"))) == 3


def test_a_worker_that_cannot_be_started_is_said(monkeypatch):
    def fail(*_, **__):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(one, "start_worker", fail)
    with pool_of(1) as pool, pytest.raises(OSError, match="Too many open files"):
        list(work(pool, {}, "ab"))


def test_workers_end_with_their_parent():
    pool = pool_of(1)
    pool.start({})
    pool.first_ready()
    process = pool.workers[0].process
    process.stdin.close()
    assert process.wait(10) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
