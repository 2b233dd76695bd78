"""The journal of a store: what is committed survives, torn tails are cut, others keep out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kerasmlp.checks import InputError
from kerasmlp.stores.embedding_store import EmbeddingStore
from kerasmlp.stores.partial_store import PartialStore, partial_folder
from kerasmlp.stores.store_info import StoreInfo

WIDTH = 8
SETTINGS = {"face": "only", "inputs": "abc"}
ROWS = np.eye(WIDTH, dtype=np.float32)


def begin(target, **options):
    options = {"settings": SETTINGS, "width": WIDTH, **options}
    return PartialStore(target, **options)


def fill(partial, start, stop):
    for i in range(start, stop):
        keep = i % 3 != 2
        reason = None if keep else "no face"
        partial.append({"key": f"{i}.jpg", "reason": reason}, ROWS[i % WIDTH] if keep else None)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "faces.h5"


def test_commit_resume_finish(target):
    with begin(target) as partial:
        fill(partial, 0, 5)
        partial.commit()
    with begin(target, resume=True) as partial:
        assert len(partial) == 5
        assert [e["reason"] for e in partial.entries] == [None, None, "no face", None, None]
        fill(partial, 5, 9)
        keys = [e["key"] for e in partial.entries if e["reason"] is None]
        partial.finish({"path": keys}, StoreInfo(source="test"))
    store = EmbeddingStore.open(target)
    assert store.labels["path"].tolist() == keys
    assert np.array_equal(store.embeddings, ROWS[[0, 1, 3, 4, 6, 7]])
    assert not partial_folder(target).exists()


def test_a_store_that_came_meanwhile_is_not_replaced(target):
    with begin(target) as partial:
        fill(partial, 0, 2)
        EmbeddingStore(ROWS[:3]).save(target)
        with pytest.raises(InputError, match="faces.h5` must not exist yet"):
            partial.finish({}, StoreInfo())
    assert len(EmbeddingStore.open(target)) == 3 and partial_folder(target).is_dir()
    with begin(target, force=True) as partial:
        fill(partial, 0, 2)
        partial.finish({}, StoreInfo())
    assert len(EmbeddingStore.open(target)) == 2


@pytest.mark.parametrize("cut_lines", range(0, 90, 7))
@pytest.mark.parametrize("cut_rows", [0, 1, 31, 32, 33])
def test_any_torn_tail_is_repaired(target, cut_lines, cut_rows):
    with begin(target) as partial:
        fill(partial, 0, 6)
        partial.commit()
        whole = partial.entries
    folder = partial_folder(target)
    for name, cut in (("records.jsonl", cut_lines), ("embeddings.f32", cut_rows)):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) - cut])
    with begin(target, resume=True) as partial:
        kept = len(partial)
        assert partial.entries == whole[:kept]
        assert kept >= 6 - cut_lines // 30 - 1 - (cut_rows + 31) // 32 * 2
        fill(partial, kept, 6)
        assert np.array_equal(partial.embeddings(), ROWS[[0, 1, 3, 4]])


def test_damaged_row_is_cut(target):
    with begin(target) as partial:
        fill(partial, 0, 6)
        partial.commit()
    path = partial_folder(target) / "embeddings.f32"
    content = bytearray(path.read_bytes())
    content[40] ^= 1  # in the second row, as a page that never reached the disk
    path.write_bytes(content)
    with begin(target, resume=True) as partial:
        assert len(partial) == 1


def test_garbage_line_is_cut(target):
    with begin(target) as partial:
        fill(partial, 0, 3)
        partial.commit()
    with open(partial_folder(target) / "records.jsonl", "ab") as file:
        file.write(b"\0" * 40 + b"\n")
    with begin(target, resume=True) as partial:
        assert len(partial) == 3


def test_changed_settings_are_refused(target):
    begin(target).close()
    with pytest.raises(InputError, match=r"same inputs and settings.*another face, another width"):
        begin(target, settings={**SETTINGS, "face": "centre"}, width=16, resume=True)
    begin(target, resume=True).close()


def test_existing_journal_needs_a_decision(target):
    with begin(target) as partial:
        fill(partial, 0, 3)
        partial.commit()
    with pytest.raises(InputError, match=r"must be resumed \(--resume\) or thrown away \(--force"):
        begin(target)
    with begin(target, force=True) as partial:
        assert len(partial) == 0


def test_folder_without_meta_starts_anew(target):
    with begin(target) as partial:
        fill(partial, 0, 3)
        partial.commit()
    (partial_folder(target) / "meta.json").unlink()
    with begin(target, resume=True) as partial:
        assert len(partial) == 0


def test_second_process_is_refused(target):
    code = (
        "import sys; from kerasmlp.stores.partial_store import PartialStore\n"
        f"p = PartialStore(sys.argv[1], settings={json.dumps(SETTINGS)}, width={WIDTH})\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(target)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
        text=True,
    )
    try:
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(InputError, match="must not be in use"):
            begin(target, resume=True)
    finally:
        other.kill()
        other.communicate()
    begin(target, resume=True).close()


def test_missing_folder(tmp_path):
    with pytest.raises(InputError, match="must lie in an existing folder"):
        begin(tmp_path / "none" / "faces.h5")
