"""What models answered for rows that they have not learned from: one Parquet file per head."""

from __future__ import annotations

import importlib.util
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from kerasmlp.data.examples import Examples
from kerasmlp.data.labels import age_classes
from kerasmlp.data.other_targets import NumberTarget
from kerasmlp.data.targets import Target
from kerasmlp.runs.training_files import target_of
from kerasmlp.utils import strict_json
from kerasmlp.utils.checks import InputError, reject, reject_file
from kerasmlp.utils.files import atomic_path
from kerasmlp.utils.parquet_footer import column_chunks
from kerasmlp.utils.schema import (
    check_object,
    dict_of,
    kind,
    list_of,
    one_of,
    optional,
    sha256,
    text,
    whole,
)

FORMAT = "kerasmlp.predictions"
SAMPLED, PLAIN = "mc_mean", "deterministic"
_METADATA = FORMAT.encode()
_WHAT = "a file of `cross-validate --save-predictions`"
_MOST_ROWS = 10**9
_ABOUT = {
    "format": one_of(FORMAT),
    "data_digest": sha256,
    "store_rows": whole(1, _MOST_ROWS),
    "target": dict_of(kind("anything", lambda value: True)),
    "label_names": optional(list_of(text(10_000), 100_000)),
    "answers": one_of(SAMPLED, PLAIN),
    "num_samples": whole(0, 100_000),
    "rows_without_label": whole(0, _MOST_ROWS),
    "diverged": list_of(text(100), 1_000_000),
}
_SUM_TOLERANCE = 1e-3  # of single precision, in thousands of classes


@dataclass(frozen=True, eq=False)
class Predictions:
    """Answers of one head, each for a row by a model that has not learned from it.

    Attributes:
        target: Of the head.
        about: What the file says beside its columns: `data_digest` and `store_rows` of the
            store, `answers` (`mc_mean` of `num_samples` passes, or `deterministic`),
            `label_names` that the numbers of labels stand for, `rows_without_label`, which are
            left out, and the names of runs that `diverged`.
        columns: `row` of the store, `seed` and `fold` of the run, `label`; `probabilities`,
            `(rows, num_classes)`, `predictive_entropy_nats`, `mutual_information_nats`; of
            numbers `mean`, `std`, `epistemic_std`. What one pass cannot tell is not there.
    """

    target: Target | NumberTarget
    about: Mapping[str, Any]
    columns: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.columns["row"])

    def save(self, path: str | os.PathLike) -> None:
        """Writes the file, whole or not at all.

        It is not compressed: so a reader knows what it takes in memory.
        """
        import pyarrow as pa
        from pyarrow import parquet

        arrays = [_to_arrow(column) for column in self.columns.values()]
        said = {"format": FORMAT, **self.about, "target": self.target.to_config()}
        schema = pa.schema(
            [pa.field(n, a.type) for n, a in zip(self.columns, arrays, strict=True)],
            metadata={_METADATA: strict_json.dumps(said).encode()},
        )
        how = {"compression": "none", "use_dictionary": False, "store_schema": True}
        with atomic_path(path) as temporary:
            parquet.write_table(pa.Table.from_arrays(arrays, schema=schema), temporary, **how)

    @classmethod
    def read(cls, path: str | os.PathLike, content: bytes) -> Predictions:
        """What `save` wrote.

        Args:
            path: To name the file.
            content: Of it.

        Raises:
            InputError: naming the file, if it is something else, or holds what is no answer.
        """
        if not _has_pyarrow():
            need = "needs pyarrow to be read (`pip install kerasmlp[tables]`)"
            reject_file(path, need, "no such package")
        import pyarrow as pa

        try:
            return cls._read(path, content)
        except InputError:
            raise
        except (pa.ArrowException, OSError, MemoryError, ValueError, EOFError) as error:
            said = ascii(" ".join(str(error).split())[:120])
            _refuse(path, f"a damaged or foreign one ({said})")

    @classmethod
    def _read(cls, path: str | os.PathLike, content: bytes) -> Predictions:
        import pyarrow as pa
        from pyarrow import parquet

        file = parquet.ParquetFile(pa.BufferReader(content))
        said = (file.schema_arrow.metadata or {}).get(_METADATA)
        if said is None:
            _refuse(path, "a table without a word of what it holds")
        about = check_object(path, strict_json.loads(said.decode()), _ABOUT, _WHAT)
        target = target_of(path, about, _WHAT)
        if len(target.heads) > 1:
            _refuse(path, "one of several heads at once")
        _check_columns(path, file, _kinds(target, about), content)
        table = file.read()
        columns = {name: _from_arrow(path, table.column(name)) for name in table.column_names}
        found = cls(target, about, columns)
        found._check(path)
        return found

    def _check(self, path: str | os.PathLike) -> None:
        columns, about = self.columns, self.about
        _require(path, columns["row"], "row", 0, about["store_rows"] - 1)
        for name in ("seed", "fold"):
            _require(path, columns[name], name, 0, (1 << 63) - 1)
        pairs = np.stack([columns["seed"], columns["row"]])
        if len(np.unique(pairs, axis=1).T) < len(self):
            _refuse(path, "one that holds a row of a seed twice")
        if self.target.is_number:
            for name in ("label", "mean"):
                _require(path, columns[name], name)
            _require(path, columns["std"], "std", np.finfo(float).tiny)
        else:
            names = about.get("label_names")
            if tuple(names or ()) not in (self.target.class_names, self.target.measured_names):
                _refuse(path, "one whose labels are in other classes than its answers")
            _require(path, columns["label"], "label", 0, len(names) - 1)
            _require(path, columns["probabilities"], "probabilities", 0, 1)
            sums = columns["probabilities"].sum(axis=1, dtype=np.float64)
            if (worst := np.abs(sums - 1).max()) > _SUM_TOLERANCE:
                _refuse(path, f"one whose probabilities sum to another number than 1, by {worst:g}")
        for name in set(columns) - {"row", "seed", "fold", "label", "mean", "std", "probabilities"}:
            _require(path, columns[name], name, 0)

    @property
    def in_label_classes(self) -> np.ndarray:
        """Probabilities of the classes that labels are in: sums over years where those are groups.

        They are what `label` counts in, `(rows, len(label_names))`.
        """
        probabilities = self.columns["probabilities"]
        if tuple(self.about["label_names"]) == self.target.class_names:
            return probabilities
        return self.target.measured(probabilities)

    @classmethod
    def joined(cls, parts: Sequence[Predictions], **about: Any) -> Predictions:
        """Those of several runs as one; `about` says what is true of all."""
        first = parts[0]
        columns = {
            name: np.concatenate([part.columns[name] for part in parts]) for name in first.columns
        }
        without = sum(part.about["rows_without_label"] for part in parts)
        return cls(first.target, {**first.about, "rows_without_label": without, **about}, columns)


def require_pyarrow(argument: str) -> None:
    """Rejects an argument that means a Parquet file, where none can be written."""
    if not _has_pyarrow():
        need = "needs pyarrow to write its file (`pip install kerasmlp[tables]`)"
        reject(argument, need, True)


def _has_pyarrow() -> bool:
    return importlib.util.find_spec("pyarrow") is not None


def label_numbers(rows: Examples) -> tuple[np.ndarray, list[str] | None]:
    """Labels as such a file has them, and the names of its classes; numbers stay numbers.

    An age in years is a year where the head answers in years, and the number of its group where
    the store knows the group alone.

    Args:
        rows: With their target.
    """
    target = rows.target
    if target.is_number:
        return rows.targets, None
    if target.is_age and rows.labels[target.label].dtype.kind != "U":
        return age_classes(target.head).encode(rows.labels[target.label]), list(target.class_names)
    return rows.targets.astype(np.int64), list(target.measured_names)


def _kinds(target: Target | NumberTarget, about: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that a file of a head has, and their types."""
    import pyarrow as pa

    found: dict[str, Any] = dict.fromkeys(("row", "seed", "fold"), pa.int64())
    sampled = about["answers"] == SAMPLED
    if target.is_number:
        names = ["label", "mean", "std", *["epistemic_std"] * sampled]
        return found | dict.fromkeys(names, pa.float64())
    found |= {"label": pa.int64(), "probabilities": pa.list_(pa.float32(), target.num_classes)}
    names = ["predictive_entropy_nats", *["mutual_information_nats"] * sampled]
    return found | dict.fromkeys(names, pa.float64())


def _check_columns(path: Any, file: Any, kinds: Mapping[str, Any], content: bytes) -> None:
    """Rejects other columns, and more rows than the file has room for: they are not read."""
    came = dict(zip(file.schema_arrow.names, file.schema_arrow.types, strict=True))
    if list(came.items()) != list(kinds.items()) or len(file.schema_arrow) != len(kinds):
        expected = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
        listed = ", ".join(f"{name} ({kind})" for name, kind in came.items())[:200]
        reject_file(path, f"must hold the columns {expected}", listed)
    rows, size = file.metadata.num_rows, len(content)
    width = sum(8 if "list" not in str(kind) else 4 * kind.list_size for kind in kinds.values())
    if not 0 < rows * width <= size:
        _refuse(path, f"one of {size:,} bytes that says it has {rows:,} rows")
    for chunk in column_chunks(io.BytesIO(content)):
        if chunk.compressed or chunk.unpacked_bytes > size:
            _refuse(path, "one that is compressed")


def _to_arrow(column: np.ndarray) -> Any:
    import pyarrow as pa

    if column.ndim == 1:
        return pa.array(column)
    return pa.FixedSizeListArray.from_arrays(pa.array(column.reshape(-1)), column.shape[1])


def _from_arrow(path: Any, column: Any) -> np.ndarray:
    import pyarrow as pa

    whole = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    width = whole.type.list_size if pa.types.is_fixed_size_list(whole.type) else None
    values = whole if width is None else whole.flatten()
    if whole.null_count or values.null_count or len(values) != len(whole) * (width or 1):
        _refuse(path, "one with gaps")
    found = values.to_numpy(zero_copy_only=False)
    return found if width is None else found.reshape(len(whole), width)


def _require(
    path: Any, column: np.ndarray, name: str, low: float = -np.inf, high: float = np.inf
) -> None:
    """Rejects numbers out of a range, or none."""
    good = np.isfinite(column) & (column >= low) & (column <= high)
    if not good.all():
        where = f"from {low:g} to {high:g}" if np.isfinite(high) else f"of at least {low:g}"
        where = where if np.isfinite(low) else "that are finite"
        row = int(np.flatnonzero(~good.reshape(len(column), -1).all(axis=1))[0])
        came = column[row][~good[row]][0] if column.ndim > 1 else column[row]
        reject_file(path, f"must hold numbers {where} in {name!r}", f"{came} at place {row}")


def _refuse(path: Any, came: str) -> NoReturn:
    reject_file(path, f"must be {_WHAT}", came)
