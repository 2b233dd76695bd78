"""`leaks`: what it prints and writes, across stores and folds, and what it refuses."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from kerasmlp import EmbeddingStore, StoreInfo
from kerasmlp.cli import run_command

ROWS, COPIES = 500, 40


def command(*words) -> int:
    return run_command("leaks", [str(word) for word in words])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two stores, of which the second has 30 copies from the first; photos of some rows."""
    folder = tmp_path_factory.mktemp("leaks")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2 * ROWS, 64))
    x[ROWS - COPIES : ROWS] = x[:COPIES] + 0.1 * rng.normal(size=(COPIES, 64))
    x[ROWS : ROWS + 30] = x[100:130] + 0.1 * rng.normal(size=(30, 64))
    x[ROWS + 30] = x[99]
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16)
    names = [f"{k}.png" for k in range(2 * ROWS)]
    names[6] = "../outside.png"
    folds = np.arange(ROWS) % 3
    groups = np.append(np.arange(ROWS - COPIES), np.arange(ROWS, ROWS + COPIES))
    groups[ROWS - COPIES : ROWS - COPIES + 5] = np.arange(5)
    labels = {"fold": folds, "group": groups, "path": names[:ROWS]}
    EmbeddingStore(x[:ROWS], labels, StoreInfo(embedder="a")).save(folder / "a.h5")
    EmbeddingStore(x[ROWS:], {"path": names[ROWS:]}, StoreInfo()).save(folder / "b.h5")
    (folder / "photos").mkdir()
    for k in (3, 4, 5, 6, 7, *range(ROWS - COPIES, ROWS - COPIES + 8)):
        size, color = (300, 200), (9 * (k % COPIES), 100, 255 - 9 * (k % COPIES))
        path = folder / ("outside.png" if k == 6 else f"photos/{k}.png")
        Image.new("L" if k == 4 else "RGB", size, color[0] if k == 4 else color).save(path)
    (folder / "photos" / "7.png").write_bytes(b"no picture")
    return folder


def table(path) -> list[dict]:
    return list(csv.DictReader(path.open(encoding="utf-8")))


def test_one_store(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    out = tmp_path / "out"
    assert command("a.h5", "--output", out, "--photos", "photos", "--json") == 0
    printed, said = capsys.readouterr()
    assert "could not be drawn" not in said
    lines = printed.splitlines()
    assert lines[0].startswith("threshold: a cosine of 0.")
    assert lines[2].split() == ["pairs", "in", "one", "group", "already", "rows", "groups"]
    assert lines[3].split() == ["within", "a.h5", "40", "5", "80", "40"]
    report = json.loads(lines[-1])
    assert report == json.loads((out / "report.json").read_text())
    assert report["threshold_from"] == "valley" and report["recall"] is None
    within = {"store": "a.h5", "rows": 80, "pairs": 40, "groups": 40, "grouped_already": 5}
    assert report["within"] == [within | {"of_rows": ROWS}] and report["across"] == []
    kept = np.arange(COPIES) % 3 == np.arange(ROWS - COPIES, ROWS) % 3
    crossing = [
        sum(k % 3 == fold for p in range(COPIES) for k in (p, ROWS - COPIES + p) if not kept[p])
        for fold in range(3)
    ]
    assert [part["rows"] for part in report["folds"]] == crossing and sum(crossing) == 80
    assert (
        f"note: {crossing[1]} of the 167 rows of fold 1 have a duplicate in another fold" in printed
    )
    rows = table(out / "pairs.csv")
    assert {(int(r["row_a"]), int(r["row_b"])) for r in rows} == {
        (k, ROWS - COPIES + k) for k in range(COPIES)
    }
    assert sum(int(r["grouped"]) for r in rows) == 5
    cosines = [float(r["cosine"]) for r in rows]
    assert cosines == sorted(cosines) and cosines[0] > report["threshold"]
    assert {p.name for p in out.iterdir()} == {
        "report.json",
        "pairs.csv",
        "nearest.png",
        "pairs.png",
    }
    assert Image.open(out / "pairs.png").width > 600


def test_two_stores(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    new = [tmp_path / "a.h5", tmp_path / "b.h5"]
    assert command("a.h5", "b.h5", "--threshold", "0.9", "--write-groups", *new) == 0
    printed = capsys.readouterr().out
    assert "threshold: a cosine of 0.9, as given\n" in printed
    assert printed.splitlines()[5].split() == ["a.h5", "and", "b.h5", "31", "31", "+", "31"]
    assert "note: 31 of the 500 rows of b.h5 have a duplicate in a.h5\n" in printed
    groups = np.concatenate([EmbeddingStore.open(path).labels["group"] for path in new])
    assert groups.dtype.kind == "U" and (groups[100:130] == groups[ROWS : ROWS + 30]).all()
    assert groups[99] == groups[ROWS + 30] != groups[98]
    assert command(*new, "--threshold", "0.9", "--output", tmp_path / "out") == 0
    assert all(row["grouped"] == "1" for row in table(tmp_path / "out" / "pairs.csv"))
    stores = {(row["store_a"], row["store_b"]) for row in table(tmp_path / "out" / "pairs.csv")}
    assert stores == {(str(new[0]), str(new[0])), (str(new[0]), str(new[1]))}


def test_without_a_valley_only_equal_rows_count(folder, tmp_path, capsys):
    x = np.random.default_rng(1).normal(size=(200, 64))
    x = x[[*range(200), 3]] / np.linalg.norm(x[[*range(200), 3]], axis=1, keepdims=True)
    EmbeddingStore(x).save(tmp_path / "c.h5")
    assert command(tmp_path / "c.h5", "--output", tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert printed.startswith(
        "note: nearest neighbours show no second mode near 1, so no threshold follows from them: "
        "only equal rows are counted (--threshold counts others)\n"
    )
    (row,) = table(tmp_path / "out" / "pairs.csv")
    assert (row["row_a"], row["row_b"], float(row["cosine"])) == ("3", "200", 1)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["a.h5", "a.h5"], "`store` must name one or more files, each once"),
        (["no.h5"], "`no.h5` must be an HDF5 file. Received: no such file or folder"),
        (
            ["a.h5", "--threshold", "2"],
            "`--threshold` must be in (0, 1]. Received: --threshold=2.0",
        ),
        (["a.h5", "--photos", "photos"], "`--photos` must come with --output, and be one folder"),
        (["a.h5", "--output", "photos"], "`photos` must not exist yet, or be an empty folder"),
        (["a.h5", "--write-groups", "a.h5"], "`a.h5` must not exist yet"),
        (["a.h5", "--write-groups", "no/a.h5"], "`no/a.h5` must lie in an existing folder"),
        (
            ["a.h5", "b.h5", "--write-groups", "new.h5"],
            "`--write-groups` must name a new file for each of the 2 stores",
        ),
        (
            ["bare.h5", "--output", "out", "--photos", "photos"],
            "`bare.h5` must name photos in a column `path` or in one alone, for --photos. Received: no",
        ),
    ],
)
def test_what_is_refused(folder, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(folder)
    EmbeddingStore(np.eye(4)).save("bare.h5", overwrite=True)
    before = sorted(p.name for p in folder.iterdir())
    assert command(*words) == 2
    assert capsys.readouterr().err.startswith(f"error: {sentence}")
    assert sorted(p.name for p in folder.iterdir()) == before
