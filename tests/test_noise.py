"""The noise of mini-batches, drawn from the gradients of samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from draw_noise import draw_noise
from sgnoise import seeds, store
from sgnoise.noise import batch_noise, mini_batch_noise, mini_batches, selection_matrix

PARAMETERS, SAMPLES = 7, 23


def gradients(samples: int = SAMPLES) -> np.ndarray:
    scale = np.logspace(-6, 3, PARAMETERS)[:, None]
    values = np.random.default_rng(0).normal(1, 1, (PARAMETERS, samples))
    return (scale * values).astype(np.float32)


def write_gradients(path: Path, **settings: Any) -> str:
    """A table of gradients in two row groups."""
    values = gradients()
    frame = pd.DataFrame(
        {
            "parameter_index": np.arange(PARAMETERS, dtype=np.int32),
            "layer": "fc",
            "layer_index": np.zeros(PARAMETERS, dtype=np.int16),
            "layer_type": "Linear",
            "tensor": "weight",
            "offset": np.arange(PARAMETERS),
            "stratum": "uniform",
        }
    )
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.append_column("value", pa.array(np.ones(PARAMETERS, np.float32)))
    table = table.append_column("full_gradient", pa.array(values.mean(axis=1)))
    table = table.append_column("gradient", store.list_column(values))
    metadata = store.provenance(study="test", seed=1, **settings)
    with store.table_writer(path, table.schema, metadata) as writer:
        for part in (table.slice(0, 4), table.slice(4)):
            writer.write_table(part.cast(writer.schema))
    return str(path)


def draw(path: str, folder: Path, **options: Any) -> pa.Table:
    options = {"batch_size": 5, "draws": 9, "replacement": False, "seed": 3, **options}
    noise_path = str(folder / "noise.parquet")
    draw_noise(gradients_path=path, noise_path=noise_path, study="test", run="r", **options)
    return pq.read_table(noise_path)


@given(samples=st.integers(1, 60), batch_size=st.integers(1, 60), draws=st.integers(1, 90))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_pass_takes_each_sample_at_most_once(samples: int, batch_size: int, draws: int) -> None:
    batch_size = min(batch_size, samples)
    rng = np.random.default_rng(1)
    batches = mini_batches(samples, batch_size, draws, replacement=False, rng=rng)
    assert batches.shape == (draws, batch_size)
    in_a_pass = samples // batch_size
    for first in range(0, draws, in_a_pass):
        taken = batches[first : first + in_a_pass].ravel()
        assert len(np.unique(taken)) == len(taken)


def test_noise_has_mean_zero_over_a_full_pass() -> None:
    values = gradients(20)
    rng = np.random.default_rng(1)
    batches = mini_batches(20, 5, 12, replacement=False, rng=rng)
    noise = batch_noise(values, selection_matrix(batches, 20))
    by_pass = noise.reshape(PARAMETERS, 3, 4).mean(axis=2)
    size = np.abs(noise).max(axis=1, keepdims=True)
    assert (np.abs(by_pass) < 1e-13 * size + 1e-15 * np.abs(values).max()).all()
    assert (np.abs(by_pass) < 1e-12 * size).all()


@pytest.mark.parametrize("replacement", [False, True])
def test_noise_is_full_gradient_minus_batch_mean(replacement: bool) -> None:
    values = gradients()
    rng = np.random.default_rng(1)
    batches = mini_batches(SAMPLES, 5, 9, replacement=replacement, rng=rng)
    noise = batch_noise(values, selection_matrix(batches, SAMPLES))
    exact = values.astype(np.float64)
    for k in range(PARAMETERS):
        for m, batch in enumerate(batches):
            expected = exact[k].mean() - np.mean([exact[k, sample] for sample in batch])
            np.testing.assert_allclose(noise[k, m], expected, rtol=1e-9, atol=1e-20)


def test_a_batch_of_everything_has_no_noise() -> None:
    rng = np.random.default_rng(1)
    batches = mini_batches(SAMPLES, SAMPLES, 3, replacement=False, rng=rng)
    noise = batch_noise(gradients(), selection_matrix(batches, SAMPLES))
    assert (np.abs(noise) < 1e-14 * np.abs(gradients()).max(axis=1, keepdims=True)).all()


def test_replacement_repeats_samples_and_has_the_variance_of_independent_draws() -> None:
    rng = np.random.default_rng(1)
    values = gradients()
    batches = mini_batches(SAMPLES, 10, 20000, replacement=True, rng=rng)
    assert any(len(np.unique(batch)) < 10 for batch in batches[:10])
    noise = batch_noise(values, selection_matrix(batches, SAMPLES))
    expected = values.astype(np.float64).var(axis=1) / 10
    np.testing.assert_allclose(noise.var(axis=1), expected, rtol=0.05)


def test_noise_in_one_call() -> None:
    values = gradients()
    noise = mini_batch_noise(values, 5, 9, seed=3)
    assert noise.shape == (PARAMETERS, 9)
    np.testing.assert_array_equal(mini_batch_noise(torch.from_numpy(values), 5, 9, seed=3), noise)
    assert not np.array_equal(mini_batch_noise(values, 5, 9, seed=4), noise)
    rng = seeds.generator(3, "mini-batches", 5)
    batches = mini_batches(SAMPLES, 5, 9, replacement=True, rng=rng)
    np.testing.assert_array_equal(
        mini_batch_noise(values, 5, 9, replacement=True, seed=3),
        batch_noise(values, selection_matrix(batches, SAMPLES)),
    )
    with pytest.raises(ValueError, match="batch_size is 24; there are 23 samples"):
        mini_batch_noise(values, 24, 9, seed=3)
    with pytest.raises(ValueError, match="draws is 0; it must be at least 1"):
        mini_batch_noise(values, 5, 0, seed=3)
    with pytest.raises(
        ValueError, match=r"shape \(23,\); it must be a matrix, one row a parameter"
    ):
        mini_batch_noise(values[0], 5, 9, seed=3)


def test_the_table_of_noise(tmp_path: Path) -> None:
    path = write_gradients(tmp_path / "gradients.parquet", mode="per_sample")
    table = draw(path, tmp_path)
    assert table.schema.names == [*store.PARAMETER_COLUMNS, "noise"]
    assert table.schema.field("noise").type == pa.list_(pa.float32(), 9)
    noise = store.matrix(table, "noise")
    # The same mini-batches for all parameters: four of a pass without three samples.
    spread = gradients().astype(np.float64)
    centred = spread.mean(axis=1, keepdims=True) - spread
    weights = np.linalg.lstsq(centred[:, :SAMPLES], noise.astype(np.float64), rcond=None)[0]
    np.testing.assert_allclose(centred @ weights, noise, rtol=1e-5, atol=1e-10)
    assert pq.ParquetFile(tmp_path / "noise.parquet").num_row_groups == 2
    assert store.read_metadata(tmp_path / "noise.parquet")["settings"] == {
        "run": "r",
        "mode": "per_sample",
        "batch_size": 5,
        "draws": 9,
        "replacement": False,
    }
    np.testing.assert_array_equal(store.matrix(draw(path, tmp_path), "noise"), noise)
    assert not np.array_equal(store.matrix(draw(path, tmp_path, seed=4), "noise"), noise)


def test_gradients_of_mini_batches_are_taken_as_they_are(tmp_path: Path) -> None:
    path = write_gradients(tmp_path / "gradients.parquet", mode="mini_batch", batch_size=5)
    noise = store.matrix(draw(path, tmp_path), "noise")
    values = gradients().astype(np.float64)
    expected = values.mean(axis=1, keepdims=True) - values[:, :9]
    np.testing.assert_allclose(noise, expected, rtol=1e-5, atol=1e-12)
    with pytest.raises(
        ValueError, match="mini-batches of 5 samples, so the batch size cannot be 6"
    ):
        draw(path, tmp_path, batch_size=6)
    with pytest.raises(ValueError, match="gradients of 23 mini-batches, 24 draws are asked for"):
        draw(path, tmp_path, draws=24)


def test_a_batch_larger_than_the_data_is_refused(tmp_path: Path) -> None:
    path = write_gradients(tmp_path / "gradients.parquet", mode="per_sample")
    with pytest.raises(ValueError, match="batch_size is 24, but there are gradients of 23 samples"):
        draw(path, tmp_path, batch_size=24)
    assert not (tmp_path / "noise.parquet").exists()
