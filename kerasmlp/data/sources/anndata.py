"""AnnData (`.h5ad`): `X` and `obsm` are arrays, `obs` the labels, categories by their names."""

from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from kerasmlp.data.sources.hdf5_values import ValueReader
from kerasmlp.data.sources.source import SourceArrays, as_text, named_codes
from kerasmlp.utils.checks import reject_file


def is_anndata(file: h5py.File, attributes: Mapping[str, Any]) -> bool:
    """Whether a file says so, or has its groups, as it did not say before 0.8."""
    said = attributes.get("encoding-type") == "anndata"
    return said or all(_is_table(file.get(key)) for key in ("obs", "var"))


def _is_table(item: Any) -> bool:
    return isinstance(item, h5py.Group) or getattr(item, "dtype", np.dtype("u1")).names is not None


def read_anndata(file: h5py.File, reader: ValueReader) -> SourceArrays:
    """Reads `X`, each array of `obsm`, and the columns of `obs`."""
    obs = file.get("obs")
    if not isinstance(obs, h5py.Group):
        came = "labels as one table, as AnnData before 0.7 writes them"
        reject_file(reader.path, "must be an AnnData file with a group `obs`", came)
    arrays = {"X": file["X"]} if "X" in file else {}
    arrays |= dict(file["obsm"].items()) if isinstance(file.get("obsm"), h5py.Group) else {}
    for name, item in arrays.items():
        if reader.drops(name):
            continue
        if isinstance(item, h5py.Dataset):
            reader.read(name, item)
        else:
            kind = as_text(item.attrs.get("encoding-type", "group"))
            reader.left_out[name] = f"a {kind}, not a plain array"
    index = as_text(obs.attrs.get("_index", "_index"))
    for name, item in obs.items():
        if name.startswith("__") or reader.drops(name):
            continue
        if name in reader.columns:
            reject_file(reader.path, "must hold each column once", f"{name!r} in obs and elsewhere")
        try:
            _read_label(file, name, item, reader)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            reader.left_out[name] = f"no column as AnnData writes them ({type(error).__name__})"
            reader.columns.pop(name, None)
    known = ("X", "obs", "obsm", "var")
    others = {
        k for k in file if k not in known and getattr(file[k], "shape", True) != () and len(file[k])
    }
    reader.left_out.update((name, "no rows of AnnData's `obs`") for name in sorted(others))
    return SourceArrays(reader.columns, {}, reader.left_out, [index])


def _read_label(file: h5py.File, name: str, item: Any, reader: ValueReader) -> None:
    if isinstance(item, h5py.Dataset):
        reader.read(name, item)
        if (link := item.attrs.get("categories")) is not None:  # before AnnData 0.8
            names = _names(reader, file[link])
            reader.columns[name] = named_codes(reader.path, name, names, reader.columns[name])
        return
    kind = as_text(item.attrs.get("encoding-type", "group"))
    if kind == "categorical":
        names = _names(reader, item["categories"])
        codes = reader.values(item["codes"])
        reader.columns[name] = named_codes(reader.path, name, names, codes)
    elif kind.startswith("nullable-"):
        values, mask = reader.values(item["values"]), reader.values(item["mask"])
        if values.dtype.kind == "O":
            values = np.where(mask, b"", values)
            reader.columns[name] = values
        else:
            reader.columns[name] = np.ma.array(values, mask=mask)
    else:
        reader.left_out[name] = f"a {kind}, which is no column of values"


def _names(reader: ValueReader, dataset: h5py.Dataset) -> list[str]:
    return [as_text(v) for v in reader.values(dataset).tolist()]
