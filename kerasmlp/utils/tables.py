"""Rows as JSON lines or CSV, to the screen or into a file that appears whole."""

import contextlib
import csv
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

from kerasmlp.utils import strict_json
from kerasmlp.utils.checks import reject
from kerasmlp.utils.files import atomic_path


def csv_of(rows: Sequence[dict]) -> str:
    """Rows as the text of a CSV file, with the columns of all of them.

    Example:

    >>> print(csv_of([{"seed": 0}, {"seed": 1, "nll": 0.5}]), end="")
    seed,nll
    0,
    1,0.5
    """
    lines: list[str] = []
    columns = list(dict.fromkeys(name for row in rows for name in row))
    write = _csv_lines(lines.append)
    for cells in (columns, *([row.get(name) for name in columns] for row in rows)):
        write(cells)
    return "".join(lines)


def _csv_lines(write: Callable[[str], object]) -> Callable[[Sequence], object]:
    """What writes cells as a line of a CSV file."""
    file = SimpleNamespace(write=lambda line: write(f"{line[:-2]}\n"))
    # This line end has `csv` put quotes around carriage returns, too, which end a line for others.
    return csv.writer(file, lineterminator="\r\n").writerow


def read_csv(path: str | os.PathLike) -> list[dict[str, str]]:
    """Rows of a CSV file as `csv_of` makes it; values stay text."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@contextlib.contextmanager
def row_writer(path: Path | None, form: str) -> Iterator[Callable[[dict], None]]:
    """Yields what writes one row.

    Args:
        path: Of the file, or None for standard output.
        form: `"jsonl"` or `"csv"`; CSV flattens nested rows to dotted columns;
            it is written at the end, with the columns of all rows, which lie in
            a temporary file until then. Bytes of a file name that are not UTF-8
            are escaped as by `files.write_text`.

    Example:

    >>> with row_writer(None, "csv") as write:
    ...     write({"input": "a", "age": {"age_years": 31.5}})
    input,age.age_years
    a,31.5
    """
    with contextlib.ExitStack() as stack:
        file = sys.stdout
        if path is not None:
            temporary = stack.enter_context(atomic_path(path))
            how = {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
            file = stack.enter_context(open(temporary, "w", **how))
        if form == "jsonl":
            yield lambda row: file.write(json_line(row))
            return
        folder = None if path is None else os.path.dirname(temporary)
        kept = stack.enter_context(tempfile.TemporaryFile("w+", dir=folder, encoding="ascii"))
        columns: dict[str, None] = {}

        def keep(row: dict) -> None:
            """The cells of the columns until now: later ones stand behind them."""
            flat = dict(_flatten(row))
            columns.update(dict.fromkeys(flat))
            cells = [flat.get(name) for name in columns]
            kept.write(json.dumps(["" if cell is None else str(cell) for cell in cells]) + "\n")

        yield keep
        kept.seek(0)
        write = _csv_lines(file.write)
        write(list(columns))
        for cells in map(json.loads, kept):
            write(cells + [""] * (len(columns) - len(cells)))


def json_line(row: dict) -> str:
    """A row as a line of JSON.

    Raises:
        InputError: if it holds numbers that JSON does not know.
    """
    try:
        return strict_json.dumps(row, ensure_ascii=False) + "\n"
    except ValueError:
        reject("answer", "must hold finite numbers", row)


def _flatten(row: dict, prefix: str = ""):
    for key, value in row.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            yield f"{prefix}{key}", " ".join(str(v) for v in value)
        else:
            yield f"{prefix}{key}", value
