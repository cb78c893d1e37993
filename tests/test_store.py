"""Parquet files: the contract of the tables, atomic writes and reading by row group."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sgnoise import store


def test_a_table_carries_its_provenance(tmp_path: Path) -> None:
    path = tmp_path / "new" / "table.parquet"
    metadata = store.provenance(study="test", seed=3, run="mlp", draws=10)
    store.write_table(path, pd.DataFrame({"x": [1.0, 2.0]}), metadata)
    found = store.read_metadata(path)
    assert found["study"] == "test"
    assert found["seed"] == 3
    assert found["settings"] == {"run": "mlp", "draws": 10}
    assert found["software"]["numpy"] == np.__version__
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"
    assert pd.read_parquet(path)["x"].tolist() == [1.0, 2.0]


def test_a_foreign_table_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "foreign.parquet")
    with pytest.raises(ValueError, match=r"foreign\.parquet: no provenance"):
        store.read_metadata(tmp_path / "foreign.parquet")


def test_matrices_survive_the_round_trip_by_row_group(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float32).reshape(6, 4)
    schema = pa.schema({"noise": pa.list_(pa.float32(), 4)})
    path = tmp_path / "noise.parquet"
    with store.table_writer(path, schema, store.provenance(study="test")) as writer:
        for rows in (values[:4], values[4:]):
            writer.write_table(pa.table({"noise": store.list_column(rows)}, schema=writer.schema))
    groups = [store.matrix(table, "noise") for table in store.read_row_groups(path)]
    assert [len(group) for group in groups] == [4, 2]
    np.testing.assert_array_equal(np.concatenate(groups), values)


def test_a_slice_of_a_matrix_keeps_its_rows() -> None:
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    table = pa.table({"noise": store.list_column(values)}).slice(2, 3)
    np.testing.assert_array_equal(store.matrix(table, "noise"), values[2:5])
