"""Near-duplicates: what is found against all cosines by NumPy, the threshold, groups, copies."""

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasmlp import EmbeddingStore, InputError, StoreInfo, join_stores, near_duplicates
from kerasmlp.data.duplicates.cells import Cells
from kerasmlp.data.duplicates.comparisons import all_tiles, nearest_cosines, pairs_above
from kerasmlp.data.duplicates.components import components
from kerasmlp.data.duplicates.crossings import Crossings
from kerasmlp.data.duplicates.grouped_copies import write_groups
from kerasmlp.data.duplicates.near_copies import can_have_copies, looked_at, near_copies
from kerasmlp.data.duplicates.row_access import RowAccess
from kerasmlp.data.duplicates.valley import valley_threshold
from kerasmlp.data.stores.half_rows import as_single
from kerasmlp.data.stores.stored_rows import StoredRows
from kerasmlp.data.stores.streamed_rows import StreamedRows

RAW = StoreInfo(normalized=False)


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def turned(x: np.ndarray, cosines: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows at these cosines to others, in random directions."""
    towards = rng.normal(size=x.shape)
    towards = unit(towards - np.vecdot(towards, x)[:, None] * x)
    return (cosines[:, None] * x + np.sqrt(1 - cosines[:, None] ** 2) * towards).astype(np.float32)


def planted(rows=600, copies=40, width=64, seed=0, least=0.95) -> tuple[np.ndarray, np.ndarray]:
    """Random rows and copies of the first of them; and the cosines between."""
    rng = np.random.default_rng(seed)
    x = unit(rng.normal(size=(rows, width)))
    cosines = rng.uniform(least, 0.999, copies)
    return np.concatenate([x, turned(x[:copies], cosines, rng)]), cosines


def by_numpy(x: np.ndarray, threshold: float) -> set[tuple[int, int]]:
    x = x.astype(np.float64)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    x = np.divide(x, norms, out=np.zeros_like(x), where=norms > 0)
    equal = (x[:, None] == x[None]).all(axis=2)
    a, b = np.nonzero(np.triu((x @ x.T >= threshold) | equal, 1))
    return {(int(i), int(j)) for i, j in zip(a, b, strict=True)}


def as_set(pairs: np.ndarray) -> set[tuple[int, int]]:
    assert (pairs[:, 0] < pairs[:, 1]).all() and len(np.unique(pairs, axis=0)) == len(pairs)
    return {(int(a), int(b)) for a, b in pairs}


def test_copies_are_found_and_nothing_else():
    x, cosines = planted()
    found = near_duplicates(EmbeddingStore(x))
    pairs, values = found.pairs()
    assert as_set(pairs) == {(k, 600 + k) for k in range(40)}
    np.testing.assert_allclose(values, np.sort(cosines), atol=1e-6)
    assert found.derived and 0.85 <= found.threshold < 0.95 and found.recall is None
    nearest = (x @ x.T - 2 * np.eye(len(x))).max(axis=1)
    np.testing.assert_allclose(found.nearest, nearest, atol=1e-6)
    groups = found.groups()
    assert (groups[600:] == np.arange(40)).all() and (groups[:600] == np.arange(600)).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 40), st.integers(1, 6), st.floats(0.3, 1))
def test_any_rows_of_any_stores_as_numpy_has_them(seed, rows, width, threshold):
    rng = np.random.default_rng(seed)
    x = rng.integers(-2, 3, (rows, width)).astype(np.float32)  # many are equal, some are zeros
    cut = int(rng.integers(1, rows))
    stores = [EmbeddingStore(x[:cut], info=RAW), EmbeddingStore(x[cut:], info=RAW)]
    found = near_duplicates(stores, threshold=threshold)
    pairs, _ = found.pairs()
    bare = {(a, b) for a, b in as_set(pairs) if x[a].any() and x[b].any()}
    margin = 1e-5
    above = {pair for pair in by_numpy(x, threshold + margin) if x[list(pair)].any(axis=1).all()}
    assert above <= bare <= by_numpy(x, threshold - margin)
    zeros = np.flatnonzero(~x.any(axis=1))  # equal to each other, and like nothing else
    assert {(a, b) for a, b in as_set(pairs)} - bare == {
        (int(a), int(b)) for a in zeros for b in zeros if a < b
    }
    assert (found.groups() == components(rows, pairs)).all()
    assert found.store_of(np.arange(rows)).tolist() == [0] * cut + [1] * (rows - cut)


def test_equal_rows_are_pairs_without_a_threshold():
    x = unit(np.random.default_rng(0).normal(size=(300, 48)))
    found = near_duplicates(EmbeddingStore(x[[*range(300), 5, 5, 9]].astype(np.float16)))
    assert found.threshold is None and found.recall is None
    assert as_set(found.pairs()[0]) == {(5, 300), (5, 301), (300, 301), (9, 302)}
    assert (found.nearest[[5, 300, 301, 9, 302]] == 1).all() and np.sort(found.nearest)[-6] < 0.9


def test_of_very_many_equal_rows_one_stands_for_all():
    x = np.ones((5000, 2), np.float32)
    x[4000:, 1] = -1
    found = near_duplicates(EmbeddingStore(x, info=RAW))
    pairs, cosines = found.pairs()  # of 8 million
    assert len(pairs) == 4998 and (cosines == 1).all()
    assert set(pairs[:, 0].tolist()) == {0, 4000}
    assert Crossings(found.kinds, found.near, np.zeros(5000, int)).pairs.tolist() == [
        [4000 * 3999 // 2 + 1000 * 999 // 2]
    ]


def test_too_many_pairs_are_refused():
    x = unit(np.random.default_rng(0).normal(size=(5000, 2)))
    with pytest.raises(InputError, match="`threshold` must be higher: more than 5,000,000 pairs"):
        near_duplicates(EmbeddingStore(x), threshold=1e-3)


@pytest.mark.parametrize("threshold", [0, 1.1, True, "0.9", float("nan")])
def test_a_threshold_is_a_cosine(threshold):
    with pytest.raises(InputError, match=r"`threshold` must be in \(0, 1\]"):
        near_duplicates(EmbeddingStore(np.eye(3)), threshold=threshold)


def test_stores_must_belong_together(tmp_path):
    a, b = EmbeddingStore(np.eye(3), name="a.h5"), EmbeddingStore(np.eye(4), name="b.h5")
    with pytest.raises(InputError, match="`b.h5` must have width 3, as `a.h5` has"):
        near_duplicates([a, b])
    with pytest.raises(InputError, match="must name one or more files, each once"):
        near_duplicates([a, a])
    with pytest.raises(InputError, match="must name one or more files"):
        near_duplicates([])
    with pytest.raises(InputError, match="must be an HDF5 file"):
        near_duplicates(tmp_path / "no.h5")


def test_one_row_and_rows_of_zeros():
    assert near_duplicates(EmbeddingStore(np.eye(1))).threshold is None
    found = near_duplicates(EmbeddingStore(np.zeros((3, 2)), info=RAW), threshold=0.5)
    assert as_set(found.pairs()[0]) == {(0, 1), (0, 2), (1, 2)}


def test_views_of_a_face_are_no_duplicates():
    x, _ = planted(rows=200, copies=20)
    views = np.stack([x, turned(x, np.full(len(x), 0.99), np.random.default_rng(1))], axis=1)
    face = np.arange(len(x))
    labels = {"view": np.tile([0, 1], len(x)), "group": np.repeat(face, 2)}
    found = near_duplicates(EmbeddingStore(views.reshape(-1, 64), labels))
    assert as_set(found.pairs()[0]) == {(2 * k, 400 + 2 * k) for k in range(20)}
    assert np.isnan(found.nearest[1::2]).all() and (found.kinds[1::2] == -1).all()
    assert (found.groups()[1::2] == found.groups()[::2]).all()
    assert len(np.unique(found.groups(known=False))) == 2 * 220 - 20


# --- many rows ---


@pytest.fixture(scope="module")
def access():
    rng = np.random.default_rng(3)
    people = rng.normal(size=(1500, 96)) * np.linspace(2, 0.5, 96)
    x = unit(np.repeat(people, 4, axis=0) + 0.8 * rng.normal(size=(6000, 96)))
    copies = turned(x[:300], rng.uniform(0.9, 0.999, 300), rng)
    return RowAccess([StoredRows(EmbeddingStore(np.concatenate([x, copies]).astype(np.float16)))])


def test_cells_find_what_all_comparisons_find(access):
    cells = Cells(access, 0.9, seed=1)
    everything = pairs_above(0.9, len(access), all_tiles(access))
    found = pairs_above(0.9, len(access), cells.tiles())
    exact, quick = (
        dict(zip(map(tuple, p.tolist()), c, strict=True)) for p, c in (everything, found)
    )
    assert len(exact) >= 300 and quick.keys() <= exact.keys()
    assert len(quick) >= 0.99 * len(exact)
    assert all(abs(quick[pair] - exact[pair]) < 1e-5 for pair in quick)
    assert cells.recall_at(0.9) > 0.98 and cells.recall_at(0.99) >= cells.recall_at(0.9)
    assert cells.recall_at(0.6) < cells.recall_at(0.9)
    compared = sum(cosines.size for *_, cosines in cells.tiles())
    assert compared < 0.25 * len(access) ** 2
    nearest = nearest_cosines(len(access), all_tiles(access))
    near = nearest >= 0.9
    by_cells = nearest_cosines(len(access), cells.tiles())
    assert (by_cells <= nearest + 1e-5).all()
    assert np.mean(np.abs(by_cells[near] - nearest[near]) < 1e-5) > 0.99
    some = np.zeros(len(access), bool)
    some[:4000] = True
    chosen = pairs_above(0.9, len(access), cells.tiles(some))[0]
    assert set(map(tuple, chosen.tolist())) <= {p for p in exact if max(p) < 4000}


def test_the_same_seed_sorts_rows_alike(access):
    one, same, other = (Cells(access, 0.95, seed=seed) for seed in (0, 0, 1))
    assert [t[1].tolist() for t in one.tiles()] == [t[1].tolist() for t in same.tiles()]
    assert [t[1].tolist() for t in one.tiles()] != [t[1].tolist() for t in other.tiles()]


def test_more_rows_than_are_compared_each_with_each():
    x, _ = planted(rows=50_200, copies=60, width=32, least=0.97)
    found = near_duplicates(EmbeddingStore(x), threshold=0.97)
    assert found.recall > 0.98
    missed = {(k, 50_200 + k) for k in range(60)} - as_set(found.pairs()[0])
    assert len(missed) <= 2
    assert not found.derived and found.nearest[50_200:].min() > 0


# --- the threshold ---


def people(rng, within, rows=8000):
    """Nearest cosines where most have another photo of theirs, some have none."""
    return np.concatenate([rng.normal(within, 0.05, rows), rng.normal(0.33, 0.04, rows // 2)])


@pytest.mark.parametrize("within", [0.5, 0.6, 0.7, 0.8])
@pytest.mark.parametrize("seed", range(5))
def test_photos_of_one_person_are_no_duplicates(within, seed):
    rng = np.random.default_rng(seed)
    faces = people(rng, within)
    assert valley_threshold(faces) is None
    copies = np.repeat(1 - rng.gamma(2, 0.005, 100), 2)
    found = valley_threshold(np.concatenate([faces, copies]))
    assert max(0.85, within + 0.1) <= found < 0.99


@pytest.mark.parametrize("seed", range(5))
def test_the_valley_is_none_of_chance(seed):
    rng = np.random.default_rng(seed)
    for rows in (30, 300, 3000):
        assert valley_threshold(rng.normal(0.4, 0.08, rows)) is None
    assert valley_threshold(rng.beta(6, 3, 3000)) is None  # one mode that reaches up to 1
    assert valley_threshold(rng.normal(0.93, 0.01, 3000)) is None  # all rows in a cone
    in_a_cone = np.append(rng.normal(0.93, 0.01, 3000), 1 - rng.exponential(0.001, 60))
    assert 0.96 < valley_threshold(in_a_cone) < 0.99


def test_few_pairs_make_no_mode():
    rest = np.random.default_rng(0).normal(0.4, 0.06, 5000)
    pairs = {n: np.append(rest, np.repeat(np.linspace(0.98, 0.99, n), 2)) for n in (5, 20)}
    assert valley_threshold(pairs[5]) is None and valley_threshold(pairs[20]) is not None


@given(st.lists(st.floats(-1, 1, width=32), max_size=50))
def test_any_cosines_have_a_threshold_or_none(cosines):
    found = valley_threshold(np.array(cosines, np.float32))
    assert found is None or 0.85 <= found <= 1


# --- counting ---


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_counts_are_those_of_all_pairs(seed):
    rng = np.random.default_rng(seed)
    rows, number = int(rng.integers(1, 14)), int(rng.integers(1, 8))
    kinds, parts = rng.integers(-1, number, rows), rng.integers(-1, 3, rows)
    there = np.unique(kinds[kinds >= 0])
    near = {(a, b) for a in there for b in there if a < b and rng.random() < 0.3}
    found = Crossings(kinds, np.array(sorted(near), int).reshape(-1, 2), parts)
    same = kinds[:, None] == kinds
    alike = np.array([[(min(a, b), max(a, b)) in near for b in kinds] for a in kinds])
    known = (kinds >= 0) & (parts >= 0)
    pair = (same | alike) & ~np.eye(rows, dtype=bool) & known[:, None] & known
    for p in range(len(found.pairs)):
        for q in range(len(found.pairs)):
            block = pair[np.ix_(parts == p, parts == q)]
            assert found.pairs[p, q] == block.sum() // (1 + (p == q))
            assert found.rows[p, q] == block.any(axis=1).sum()
        assert found.elsewhere[p] == pair[np.ix_(parts == p, parts != p)].any(axis=1).sum()


@given(st.integers(1, 30), st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29))))
def test_components_are_what_hangs_together(count, pairs):
    pairs = [(a % count, b % count) for a, b in pairs]
    lowest = list(range(count))
    for _ in range(count):
        for a, b in pairs:
            lowest[a] = lowest[b] = min(lowest[a], lowest[b])
    assert components(count, np.array(pairs, int).reshape(-1, 2)).tolist() == lowest


# --- files ---


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    x, _ = planted(rows=3000, copies=30)
    labels = {"group": np.append(np.arange(3020) // 2, np.full(10, -1)), "path": ["ü.jpg"] * 3030}
    path = tmp_path_factory.mktemp("near") / "a.h5"
    info = StoreInfo(embedder="made.onnx", licence="none")
    EmbeddingStore(x.astype(np.float16), labels, info).save(path)
    return path


def test_rows_of_a_file_are_those_of_the_store(file, tmp_path):
    rows, store = StoredRows(file), EmbeddingStore.open(file)
    assert isinstance(rows.values, StreamedRows) and rows.values.stored_dtype == np.float16
    np.testing.assert_array_equal(rows.values, store.embeddings)
    assert rows.info == store.info and rows.labels.keys() == store.labels.keys()
    np.testing.assert_allclose(rows.scales, 1 / np.linalg.norm(store.embeddings, axis=1), rtol=1e-6)
    from_file, from_memory = near_duplicates(file), near_duplicates(store)
    np.testing.assert_array_equal(from_file.pairs()[0], from_memory.pairs()[0])
    assert from_file.threshold == from_memory.threshold and len(from_file.near) == 30
    rows.save_as(tmp_path / "b.h5", store.labels)
    assert (tmp_path / "b.h5").read_bytes() == file.read_bytes()
    with h5py.File(file) as old, h5py.File(tmp_path / "packed.h5", "w") as new:
        for name, value in old.attrs.items():
            new.attrs[name] = value
        new.create_dataset("embedding", data=old["embedding"], chunks=(100, 64), compression="lzf")
        old.copy("labels", new)
    np.testing.assert_array_equal(StoredRows(tmp_path / "packed.h5").values, store.embeddings)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_damage_is_named_as_when_the_store_is_opened(file, tmp_path, share):
    content = bytearray(file.read_bytes())
    with h5py.File(file) as opened:
        offset, size = opened["embedding"].id.get_offset(), opened["embedding"].nbytes
    content[offset + int(share * size)] ^= 1
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(InputError) as whole:
        EmbeddingStore.open(tmp_path / "a.h5", verify=True)
    with pytest.raises(InputError) as ranges:
        StoredRows(tmp_path / "a.h5")
    assert str(ranges.value) == str(whole.value)
    (tmp_path / "a.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError):
        StoredRows(tmp_path / "a.h5")


def test_every_half_becomes_the_same_single():
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)].reshape(-1, 2048)
    out = np.empty(halves.shape, np.float32)
    as_single(halves, out)
    np.testing.assert_array_equal(out.view(np.uint32), halves.astype(np.float32).view(np.uint32))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, -np.nan])
def test_halves_that_are_not_finite_stay_so(value):
    halves = np.full((600, 3), -2, np.float16)
    halves[300, 1] = value
    out = np.empty(halves.shape, np.float32)
    as_single(halves, out)
    np.testing.assert_array_equal(out, halves.astype(np.float32))


def test_copies_of_stores_hold_groups(file, tmp_path):
    found, store = near_duplicates(file), EmbeddingStore.open(file)
    write_groups(found, [file], [tmp_path / "new.h5"])
    new = EmbeddingStore.open(tmp_path / "new.h5", verify=True)
    np.testing.assert_array_equal(new.embeddings, store.embeddings)
    assert new.info == store.info and new.storage_dtype == np.float16
    assert new.labels.keys() == store.labels.keys()
    old, groups = store.labels["group"], new.labels["group"]
    pairs = [(k, 3000 + k) for k in range(30)]
    edges = [(int(np.flatnonzero(old == g)[0]), k) for k, g in enumerate(old) if g >= 0]
    expected = components(3030, np.array(pairs + edges))
    assert (
        np.unique(groups, return_inverse=True)[1] == np.unique(expected, return_inverse=True)[1]
    ).all()
    assert as_set(near_duplicates(tmp_path / "new.h5").pairs()[0]) == set(pairs)
    with pytest.raises(InputError, match="must not exist yet"):
        write_groups(found, [file], [tmp_path / "new.h5"])


def test_groups_across_stores_are_known_when_these_are_joined(tmp_path):
    x, _ = planted(rows=300, copies=30)
    a = EmbeddingStore(x[:200], {"group": np.arange(200) // 2}, name="a.h5")
    b = EmbeddingStore(x[200:], {"group": np.arange(130) // 2}, name="b.h5")
    found = near_duplicates([a, b])
    paths = [tmp_path / "a.h5", tmp_path / "b.h5"]
    write_groups(found, [a, b], paths)
    groups = join_stores([EmbeddingStore.open(path) for path in paths]).labels["group"]
    assert (groups[300:] == groups[:30]).all()
    assert len(np.unique(groups)) == len(np.unique(found.groups())) == 165 - 15


def test_groups_named_in_words_are_known_in_all_stores():
    a = EmbeddingStore(np.eye(4), {"group": ["p", "q", "", ""]}, name="a")
    b = EmbeddingStore(-np.eye(4), {"group": ["q", "r", "", "p"]}, name="b")
    c = EmbeddingStore(np.eye(4)[:2] + 2, {"group": [0, -1]}, RAW, name="c")
    assert near_duplicates([a, b]).groups().tolist() == [0, 1, 2, 3, 1, 5, 6, 0]
    with pytest.raises(InputError, match="`c` must hold embeddings that are normalised"):
        near_duplicates([a, c])


# --- a look at little cost ---


def test_rows_held_out_are_counted_as_numpy_counts_them():
    x, _ = planted(rows=2000, copies=50, least=0.9)
    held_out, others = x[1900:], x[:1900]
    found = near_copies(held_out, others)
    expected = ((held_out @ others.T).max(axis=1) >= 0.95).sum()
    assert (found.rows, found.looked_at, found.held_out) == (expected, 150, 150)
    assert 10 < expected < 50
    in_a_cone = unit(0.2 * x + unit(np.ones((1, 64))))
    nearest = (in_a_cone[1900:] @ in_a_cone[:1900].T).max(axis=1)
    assert np.median(nearest) > 0.96
    assert 30 < near_copies(in_a_cone[1900:], in_a_cone[:1900]).rows <= 50


def test_of_very_many_rows_some_are_looked_at():
    assert looked_at(50, 10**6, 0).tolist() == list(range(50))
    some = looked_at(10**6, 512 * 10**6, 0)
    assert len(some) == 97 and (np.diff(some) > 0).all()
    assert len(looked_at(100, 10**15, 0)) == 20
    assert can_have_copies(32, normalized=True)
    assert not can_have_copies(31, normalized=True) and not can_have_copies(64, normalized=False)
