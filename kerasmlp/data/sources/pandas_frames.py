"""Data frames as `DataFrame.to_hdf` lays them out, without pandas and without its pickles."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py

from kerasmlp.data.sources.hdf5_values import ValueReader
from kerasmlp.data.sources.source import PICKLED, SourceArrays, as_text, named_codes
from kerasmlp.utils.checks import reject_file

_WAY_OUT = "(`DataFrame.to_parquet` writes one that can be read)"


def frames_of(file: h5py.File, attributes: Mapping[str, Any]) -> dict[str, h5py.Group]:
    """The data frames of an HDFStore by their names; none in other files."""
    frames: dict[str, h5py.Group] = {}

    def visit(name: str, item: Any) -> None:
        described = isinstance(item, h5py.Group) and "pandas_type" in item.attrs
        if described and "meta" not in name.split("/"):  # those hold the names of categories
            frames[name] = item

    if "PYTABLES_FORMAT_VERSION" in attributes:
        file.visititems(visit)
    return frames


def read_frame(path: Path, frames: Mapping[str, h5py.Group], reader: ValueReader) -> SourceArrays:
    """Reads the one frame of a file; its row index is no label unless it is asked for."""
    frames = {name: group for name, group in frames.items() if not reader.drops(name)}
    if len(frames) != 1:
        reject_file(path, "must hold one data frame (--drop leaves others out)", ", ".join(frames))
    ((name, group),) = frames.items()
    kind = as_text(group.attrs["pandas_type"])
    if kind == "frame":
        _read_fixed(path, group, reader)
    elif kind == "frame_table" and isinstance(group.get("table"), h5py.Dataset):
        _read_table(path, group, reader)
    else:
        reject_file(path, f"must hold a data frame {_WAY_OUT}", f"pandas' {kind!r} in {name!r}")
    return SourceArrays(reader.columns, {}, reader.left_out, ["index"], table=True)


def _read_fixed(path: Path, group: h5py.Group, reader: ValueReader) -> None:
    rows = None
    for block in range(int(group.attrs.get("nblocks", 0))):
        names = _labels(path, group, f"block{block}_items", reader)
        dataset = group.get(f"block{block}_values")
        if not isinstance(dataset, h5py.Dataset):
            reject_file(path, "must be a complete HDFStore", f"no block{block}_values")
        said = as_text(dataset.attrs.get("value_type", ""))
        wanted = [name for name in names if not reader.drops(name)]
        if dataset.dtype.kind not in "iufb" or "shape" in dataset.attrs or said:
            why = "dates" if said.startswith(("date", "time", "period")) else PICKLED
            reader.left_out |= dict.fromkeys(wanted, why)
            continue
        values = reader.values(dataset)
        values = values if dataset.attrs.get("transposed", 0) else values.T
        if values.ndim != 2 or values.shape[1] != len(names) or rows not in (None, len(values)):
            came = f"values of shape {values.shape} for {len(names)} columns"
            reject_file(path, "must be a complete HDFStore", came)
        rows = len(values)
        for place, name in enumerate(names):
            if name in reader.columns:
                reject_file(path, "must hold each column once", f"{name!r} twice")
            if name not in reader.drop:
                reader.columns[name] = values[:, place]
    index = group.get("axis1")
    plain = isinstance(index, h5py.Dataset) and index.ndim == 1 and index.dtype.kind in "iufS"
    if plain and "index" not in reader.columns:
        reader.columns["index"] = reader.values(index)


def _labels(path: Path, group: h5py.Group, key: str, reader: ValueReader) -> list[str]:
    dataset = group.get(key)
    if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 1 or dataset.dtype.kind not in "iS":
        reject_file(path, f"must hold column names as text {_WAY_OUT}", f"others in {key!r}")
    return [as_text(name) for name in reader.values(dataset).tolist()]


def _read_table(path: Path, group: h5py.Group, reader: ValueReader) -> None:
    table = group["table"]
    reader.require(table)
    for name in table.dtype.names or ():
        if name.startswith("values_block_"):
            requirement = f"must hold a table with `data_columns=True` {_WAY_OUT}"
            reject_file(path, requirement, "columns whose names are pickled")
        kind = table.dtype[name]
        said = as_text(table.attrs.get(f"{name}_dtype", ""))
        if reader.drops(name):
            continue
        if kind.kind not in "iufbS" or said.startswith(("date", "time", "period")):
            reader.left_out[name] = "dates" if said else f"values of type {kind}"
            continue
        values = table.fields(name)[()]
        if as_text(table.attrs.get(f"{name}_meta", "")) == "category":
            names = _categories(group, name, reader)
            if names is None:
                reader.left_out[name] = "categories without their names"
                continue
            values = named_codes(path, name, names, values)
        reader.columns[name] = values.astype(bool) if said == "bool" else values


def _categories(group: h5py.Group, name: str, reader: ValueReader) -> list[str] | None:
    table = group.get(f"meta/{name}/meta/table")
    if not isinstance(table, h5py.Dataset) or "values" not in (table.dtype.names or ()):
        return None
    reader.require(table)
    return [as_text(value) for value in table.fields("values")[()].tolist()]
