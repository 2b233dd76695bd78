"""The journal of a store: what is committed survives, torn tails are cut, others keep out."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from kerasmlp import __version__
from kerasmlp.data.datasets.records import Record
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.stores.partial_store import PartialStore, partial_folder
from kerasmlp.data.stores.store_info import StoreInfo
from kerasmlp.faces.resuming import (
    check_keys,
    finished_store,
    inputs_digest,
    journal_line,
)
from kerasmlp.utils.checks import InputError

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


HASH = "a" * 64
CRC32 = zlib.crc32(ROWS[0].tobytes())
KEPT = {"key": "3.jpg", "reason": None, "sha256": HASH, "det_score": 0.7, "crc32": CRC32}


@pytest.mark.parametrize(
    ("line", "fits"),
    [
        (KEPT, True),
        ({"key": "3.jpg", "reason": "no face"}, True),
        ({}, False),
        ([], False),
        ({"reason": [1]}, False),
        ({"key": "3.jpg", "reason": 7}, False),
        ({"key": "3.jpg", "reason": "no luck"}, False),
        ({"key": "3.jpg", "reason": None}, False),  # kept, without a row
        ({"key": 3, "reason": "no face"}, False),
        (KEPT | {"reason": "no face"}, False),
        (KEPT | {"crc32": "1"}, False),
        (KEPT | {"crc32": CRC32 + 1}, False),
        (KEPT | {"sha256": 1}, False),
        (KEPT | {"det_score": "high"}, False),
        ({k: v for k, v in KEPT.items() if k != "det_score"}, False),
        (KEPT | {"det_score": float("nan")}, False),
    ],
)
def test_altered_lines_are_cut_with_all_after_them(target, line, fits):
    def open_again():
        return begin(target, line=journal_line, resume=True)

    with open_again() as partial:
        partial.append({"key": "0.jpg", "reason": None, "sha256": HASH, "det_score": 1}, ROWS[1])
        partial.append({"key": "1.jpg", "reason": "no age"})
        partial.commit()
    folder = partial_folder(target)
    after = json.dumps({"key": "4.jpg", "reason": "no face"})
    with open(folder / "records.jsonl", "a") as file:
        file.write(f"{json.dumps(line)}\n{after}\n")
    with open(folder / "embeddings.f32", "ab") as file:
        file.write(ROWS[0].tobytes())
    rows = [ROWS[1], ROWS[0]] if isinstance(line, dict) and "crc32" in line and fits else [ROWS[1]]
    for _ in range(2):
        with open_again() as partial:
            assert [e["key"] for e in partial.entries] == ["0.jpg", "1.jpg", "3.jpg", "4.jpg"][
                : 4 if fits else 2
            ]
            np.testing.assert_array_equal(partial.embeddings(), rows)


def test_lines_of_other_inputs_are_refused(target):
    records = [Record(key=f"{i}.jpg", image=None) for i in range(4)]
    with begin(target) as partial:
        fill(partial, 0, 3)
        check_keys(partial, records)
        expected = r"`.*faces.h5.partial` must hold in records.jsonl line 2 of 'other.jpg' \("
        with pytest.raises(InputError, match=expected + r"--force.*Received: '1.jpg'"):
            check_keys(partial, [records[0], Record(key="other.jpg", image=None), records[2]])
        with pytest.raises(InputError, match=r"records.jsonl 2 lines .* Received: '2.jpg'"):
            check_keys(partial, records[:2])


def test_a_finished_store_is_of_the_same_inputs_and_settings(target):
    image = target.parent / "a.jpg"
    image.write_bytes(b"abc")
    settings = {"inputs": inputs_digest([Record(key="a.jpg", image=image)]), "face": "only"}
    image.write_bytes(b"another")
    other = {**settings, "inputs": inputs_digest([Record(key="a.jpg", image=image)])}
    now = {**settings, "kerasmlp": __version__}
    counts = {"inputs": 2, "kept": 1, "removed": {"no face": 1}}

    def finished(settings=now, inputs=2, **info):
        info = {"removal_report": counts, "extraction": now, **info}
        EmbeddingStore(ROWS[:1], info=StoreInfo(**info)).save(target, overwrite=True)
        return finished_store(target, settings, inputs)

    assert finished() == {**counts, "store": str(target), "resumed_at": 2, "doubt": None}
    assert finished(extraction={**now, "kerasmlp": "0.0.1"})["doubt"] == (
        "it was made by kerasmlp 0.0.1"
    )
    assert "only their number was compared" in finished(extraction=None)["doubt"]
    for changed, name in (
        ({**other, "kerasmlp": __version__}, "inputs"),
        ({**now, "face": "centre"}, "face"),
        ({**now, "embedder": HASH}, "embedder"),
    ):
        with pytest.raises(InputError, match=f"with the same inputs and .*: another {name}$"):
            finished(changed)
    for options in (
        {"inputs": 3, "extraction": None},
        {"removal_report": None},
        {"removal_report": {**counts, "removed": 1}},
    ):
        with pytest.raises(InputError, match="must come from the same inputs"):
            finished(**options)


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
        "import sys; from kerasmlp.data.stores.partial_store import PartialStore\n"
        f"p = PartialStore(sys.argv[1], settings={json.dumps(SETTINGS)}, width={WIDTH})\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(target)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
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
