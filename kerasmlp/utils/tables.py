"""Rows as JSON lines or CSV, to the screen or into a file that appears whole."""

import contextlib
import csv
import os
import sys
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
    # This line end has `csv` put quotes around carriage returns, too, which end a line for others.
    writer = csv.DictWriter(SimpleNamespace(write=lines.append), columns, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return "".join(f"{line[:-2]}\n" for line in lines)


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
            it is written at the end, with the columns of all rows. Bytes of a
            file name that are not UTF-8 are escaped as by `files.write_text`.

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
        rows: list[dict] = []
        yield lambda row: rows.append(dict(_flatten(row)))
        file.write(csv_of(rows))


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
