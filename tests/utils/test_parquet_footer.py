"""The end of a Parquet file, held against pyarrow where it is whole, and damaged."""

import io
import subprocess
import sys

import numpy as np
import pytest
from data_sets import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasmlp.utils.parquet_footer import column_chunks

pa = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402


def written(**how):
    rng, file = np.random.default_rng(0), io.BytesIO()
    columns = {
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(rng.random(3000)), 6),
        "a name.with points": pa.array([None, *range(499)]),
        "flag": pa.array(rng.random(500) < 0.5),
        "text": pa.array([f"word {k % 7}" for k in range(500)]),
        "nested": pa.array([{"x": 1, "y": [2.0, 3.0]}] * 500),
        "half": pa.array(rng.random(500).astype("float16")),
    }
    table = pa.table(columns).replace_schema_metadata({"said": "x" * 300})
    parquet.write_table(table, file, row_group_size=170, **how)
    return file.getvalue()


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"compression": "none", "use_dictionary": False, "write_statistics": False},
        {"compression": "zstd", "write_page_index": True, "version": "1.0"},
        {"compression": {"embedding.list.element": "none", "text": "snappy"}},
    ],
)
def test_it_says_what_pyarrow_says(how):
    content = written(**how)
    metadata, expected = parquet.ParquetFile(io.BytesIO(content)).metadata, []
    for group in range(metadata.num_row_groups):
        for place in range(metadata.num_columns):
            c = metadata.row_group(group).column(place)
            sizes = c.compression != "UNCOMPRESSED", c.num_values, c.total_uncompressed_size
            expected.append((c.path_in_schema, c.physical_type, *sizes))
    found = [
        (".".join(c.path), c.kind, c.compressed, c.values, c.unpacked_bytes)
        for c in column_chunks(io.BytesIO(content))
    ]
    assert len(found) == 3 * 7 and found == expected


WHOLE = written()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_is_one_kind_of_error(data):
    content = bytearray(WHOLE)
    footer = int.from_bytes(content[-8:-4], "little")
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(len(content) - 8 - footer, len(content) - 1))
        content[place] ^= data.draw(st.integers(1, 255))
    try:
        for chunk in column_chunks(io.BytesIO(bytes(content))):
            assert chunk.values >= 0 and chunk.unpacked_bytes >= 0
    except ValueError:
        pass


@pytest.mark.parametrize("content", [b"", b"PAR1", b"x" * 100, WHOLE[:-1], WHOLE[:4] + WHOLE[-8:]])
def test_what_is_no_parquet(content):
    with pytest.raises(ValueError, match="footer"):
        list(column_chunks(io.BytesIO(content)))


def test_a_codec_of_which_pyarrow_dies_is_one_sentence(tmp_path):
    """`ColumnChunkMetaData.compression` ends the process where a codec is unknown."""
    content = written(compression="none")
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    path = b"\x04half"  # of the last column, behind which its codec stands: field 4, an i32
    at = content.rindex(path, start, len(content)) + len(path)
    assert content[at : at + 2] == b"\x15\x00"
    (tmp_path / "a.parquet").write_bytes(content[: at + 1] + b"\x05" + content[at + 2 :])
    told = ["import-embeddings", tmp_path / "a.parquet", "-o", tmp_path / "a.h5"]
    command = [sys.executable, ROOT / "bin" / told[0], *told[1:]]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "must be a complete table" in done.stderr
    assert not (tmp_path / "a.h5").exists()
