"""Parquet files: one way to write them (atomic, zstd, with provenance) and to read them.

Every table of the workflow carries, in the schema metadata under the key ``sgnoise``, a JSON
object that says how it was made: study, run, settings, seed and the versions of the software.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sgnoise.files import atomic_path

if TYPE_CHECKING:
    import pandas as pd

METADATA_KEY = b"sgnoise"
COMPRESSION = "zstd"

# What identifies a sampled parameter; every per-parameter table starts with these columns.
PARAMETER_COLUMNS = (
    "parameter_index",
    "layer",
    "layer_index",
    "layer_type",
    "tensor",
    "offset",
    "stratum",
)

_VERSIONED = (
    "numpy",
    "scipy",
    "numba",
    "torch",
    "torchvision",
    "pyarrow",
    "scikit-learn",
    "timm",
    "transformers",
    "open-clip-torch",
)


def software_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that can change a number."""
    found = {"python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def provenance(*, study: str, seed: int | None = None, **settings: Any) -> dict[str, Any]:
    """The metadata that a table carries: study, seed, settings and software versions."""
    return {
        "study": study,
        "seed": seed,
        "settings": settings,
        "software": software_versions(),
    }


def with_metadata(schema: pa.Schema, metadata: Mapping[str, Any]) -> pa.Schema:
    """``schema`` with ``metadata`` as JSON under the project's key, keeping what was there."""
    text = json.dumps(metadata, sort_keys=True)
    return schema.with_metadata({**(schema.metadata or {}), METADATA_KEY: text.encode()})


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The provenance of a table.

    Raises:
        ValueError: the file carries none, so this workflow did not write it.
    """
    found = pq.read_schema(path).metadata or {}
    if METADATA_KEY not in found:
        raise ValueError(
            f"{path}: no provenance in the schema metadata; this workflow wrote no such file"
        )
    return json.loads(found[METADATA_KEY])


def write_table(
    path: str | os.PathLike[str], table: pa.Table | pd.DataFrame, metadata: Mapping[str, Any]
) -> None:
    """Write a table that fits in memory."""
    if not isinstance(table, pa.Table):
        table = pa.Table.from_pandas(table, preserve_index=False)
    schema = with_metadata(table.schema, metadata)
    with atomic_path(path) as temporary:
        pq.write_table(table.cast(schema), temporary, compression=COMPRESSION)


@contextmanager
def table_writer(
    path: str | os.PathLike[str], schema: pa.Schema, metadata: Mapping[str, Any]
) -> Iterator[pq.ParquetWriter]:
    """A writer for tables larger than memory: each ``write_table`` call makes a row group."""
    schema = with_metadata(schema, metadata)
    # Numbers hardly repeat: a dictionary of them only costs time.
    repeating = [field.name for field in schema if pa.types.is_string(field.type)]
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(
            temporary, schema, compression=COMPRESSION, use_dictionary=repeating
        ) as writer,
    ):
        yield writer


def read_row_groups(
    path: str | os.PathLike[str], columns: list[str] | None = None
) -> Iterator[pa.Table]:
    """The row groups of a table, one at a time."""
    with pq.ParquetFile(path) as file:
        for index in range(file.num_row_groups):
            yield file.read_row_group(index, columns=columns)


def list_column(values: np.ndarray) -> pa.Array:
    """A (rows, width) array as a column of fixed-size lists of float32."""
    flat = np.ascontiguousarray(values, dtype=np.float32)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])


def matrix(table: pa.Table, column: str) -> np.ndarray:
    """The fixed-size lists of ``column`` as a (rows, width) array."""
    width = table.schema.field(column).type.list_size
    combined = table[column].combine_chunks()
    values = combined.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(table), width)
