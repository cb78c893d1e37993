"""Reading what the workflow knows of each sampled parameter: its keys, its noise, its fits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sgnoise import store


def read_keys(path: str) -> pd.DataFrame:
    """The keys of the parameters of a per-parameter table."""
    return pq.read_table(path, columns=list(store.PARAMETER_COLUMNS)).to_pandas()


def parameter_name(keys: pd.Series) -> str:
    """A parameter's name: module, tensor and flat index."""
    return f"{keys['layer']}.{keys['tensor']}[{keys['offset']}]"


def read_noise(noise_path: str, parameters: Sequence[int]) -> np.ndarray:
    """The noise of some parameters, (parameter, draw) in the order asked for; by row group.

    Raises:
        ValueError: a parameter is not in the table.
    """
    wanted = pa.array(parameters, type=pa.int32())
    found: dict[int, np.ndarray] = {}
    for group in store.read_row_groups(noise_path, columns=["parameter_index", "noise"]):
        kept = group.filter(pc.is_in(group["parameter_index"], value_set=wanted))
        if len(kept):
            values = store.matrix(kept, "noise").astype(np.float64)
            found.update(zip(kept["parameter_index"].to_pylist(), values, strict=True))
    missing = [index for index in parameters if index not in found]
    if missing:
        raise ValueError(f"{noise_path}: no noise of the parameters {missing}")
    return np.stack([found[index] for index in parameters])


def read_all_noise(path: str) -> tuple[pd.DataFrame, np.ndarray]:
    """The key columns, and the noise (P, M) in single precision, read by row group."""
    with pq.ParquetFile(path) as file:
        rows = file.metadata.num_rows
        draws = file.schema_arrow.field("noise").type.list_size
    noise = np.empty((rows, draws), dtype=np.float32)
    keys, start = [], 0
    for table in store.read_row_groups(path):
        noise[start : start + len(table)] = store.matrix(table, "noise")
        keys.append(table.select(list(store.PARAMETER_COLUMNS)).to_pandas())
        start += len(table)
    return pd.concat(keys, ignore_index=True), noise


def read_law(fits_path: str, law: str, columns: Sequence[str]) -> pd.DataFrame:
    """The rows of one law in a table of fits: the parameter's keys, ``flag`` and ``columns``.

    Raises:
        ValueError: the law was not fitted.
    """
    table = pq.read_table(
        fits_path,
        columns=[*store.PARAMETER_COLUMNS, "flag", *columns],
        filters=[("law", "==", law)],
    )
    if not len(table):
        raise ValueError(
            f"{fits_path}: no fits of the law {law!r}; add it to the laws of the study"
        )
    return table.to_pandas()
