"""Where data sets come from: reading, splitting, standardising."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgnoise.data import sources
from sgnoise.data.downloads import RemoteFile
from sgnoise.data.reading import held_back_rows, stratified
from sgnoise.data.sources import prepare

DIGITS = {"source": "bundled", "name": "digits", "form": "image", "test_fraction": 0.2}


def test_digits_as_images() -> None:
    dataset = prepare(DIGITS, seed=1)
    assert dataset.train_inputs.shape == (1437, 1, 8, 8)
    assert dataset.test_inputs.shape == (360, 1, 8, 8)
    assert dataset.train_inputs.dtype == np.uint8
    assert dataset.train_targets.dtype == np.int64
    assert dataset.classes == 10
    assert dataset.input_shape == (1, 8, 8)
    assert dataset.kind == "image"
    inputs, _ = dataset.batch("train", slice(None))
    assert abs(inputs.mean()) < 1e-5
    assert abs(inputs.std() - 1) < 1e-5
    # The test part keeps its own mean: it is scaled by the training part's.
    assert 1e-5 < abs(dataset.batch("test", slice(None))[0].mean()) < 0.1
    assert dataset.description["train_samples"] == 1437
    assert dataset.description["licence"] == "CC BY 4.0"


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [("breast_cancer", (569, 30), 2), ("wine", (178, 13), 3), ("digits", (1797, 64), 10)],
)
def test_tables_are_standardised(name: str, shape: tuple[int, int], classes: int) -> None:
    dataset = prepare({"source": "bundled", "name": name, "form": "table"}, seed=1)
    assert dataset.train_inputs.shape == shape
    assert dataset.test_inputs.shape == (0, shape[1])
    assert len(dataset.test_targets) == 0
    assert dataset.classes == classes
    np.testing.assert_array_equal(np.unique(dataset.train_targets), np.arange(classes))
    deviation = dataset.train_inputs.std(axis=0)
    # Three pixels of the digits are always black.
    assert (deviation == 0).sum() == (3 if name == "digits" else 0)
    np.testing.assert_allclose(deviation[deviation > 0], 1, atol=1e-4)
    np.testing.assert_allclose(dataset.train_inputs.mean(axis=0), 0, atol=1e-5)


@given(
    counts=st.lists(st.integers(1, 40), min_size=2, max_size=6),
    fraction=st.floats(0, 0.9),
    seed=st.integers(0, 2**62),
)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_the_split_takes_the_same_share_of_every_class(
    counts: list[int], fraction: float, seed: int
) -> None:
    targets = np.repeat(np.arange(len(counts)), counts)
    wanted = int(np.ceil(len(targets) * fraction))
    if wanted >= len(targets):
        return
    chosen = stratified(targets, wanted, np.random.default_rng(seed))
    assert chosen.sum() == wanted
    taken = np.bincount(targets[chosen], minlength=len(counts))
    assert (np.abs(taken - np.array(counts) * wanted / len(targets)) < 1 + 1e-9).all()
    held_back = held_back_rows(targets, fraction, seed)
    # No class is lost to the training, and no more than that is changed.
    assert (np.bincount(targets[~held_back], minlength=len(counts)) > 0).all()
    assert wanted - len(counts) <= held_back.sum() <= wanted


def test_the_split_depends_on_the_seed_alone() -> None:
    first, again, other = (prepare(DIGITS, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.train_inputs, again.train_inputs)
    assert not np.array_equal(first.train_targets, other.train_targets)


def own_table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "width": rng.normal(3, 2, 30),
            "kind": rng.choice(["b", "a", "c"], 30),
            "constant": np.full(30, 0.1),
            "count": rng.integers(0, 9, 30),
        }
    )


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_of_ones_own(tmp_path: Path, suffix: str) -> None:
    frame = own_table()
    path = tmp_path / f"mine.{suffix}"
    if suffix == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    spec = {"source": "table", "path": str(path), "target": "kind", "form": "table"}
    dataset = prepare(spec, seed=1)
    assert dataset.train_inputs.shape == (30, 3)
    assert dataset.description["class_names"] == ["a", "b", "c"]
    names = np.array(dataset.description["class_names"])[dataset.train_targets]
    assert names.tolist() == frame["kind"].to_list()
    assert (dataset.train_inputs[:, 1] == 0).all()
    np.testing.assert_allclose(dataset.train_inputs[:, [0, 2]].std(axis=0), 1, atol=1e-5)


def test_images_of_ones_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 3, 4, 4), dtype=np.uint8)
    labels = np.arange(20) % 2 * 7
    np.savez(tmp_path / "mine.npz", inputs=images, label=labels)
    spec = {"source": "table", "path": str(tmp_path / "mine.npz"), "target": "label"}
    dataset = prepare({**spec, "form": "image", "test_fraction": 0.5}, seed=1)
    assert dataset.train_inputs.shape == (10, 3, 4, 4)
    assert dataset.description["class_names"] == ["0", "7"]
    inputs, _ = dataset.batch("train", slice(None))
    expected = dataset.train_inputs - dataset.train_inputs.mean(axis=(0, 2, 3), keepdims=True)
    expected /= dataset.train_inputs.std(axis=(0, 2, 3), keepdims=True)
    np.testing.assert_allclose(inputs, expected, atol=1e-6)
    assert prepare(spec, seed=1).train_inputs.shape == (20, 48)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "digits"}, "a data set needs 'source'; found"),
        ({"source": "bundle", "name": "digits"}, "unknown source of data 'bundle'; did you mean"),
        ({"source": "bundled"}, "source 'bundled': missing a required argument: 'name'"),
        (
            {"source": "bundled", "name": "digit"},
            r"unknown bundled data set 'digit'; did you mean 'digits'\? \(valid: breast_cancer,",
        ),
        (
            {"source": "bundled", "name": "wine", "form": "image"},
            r"form of the data set 'wine' 'image' \(valid: table\)",
        ),
        ({"source": "bundled", "name": "wine", "split": 1}, "unexpected keyword argument 'split'"),
        ({"source": "bundled", "name": "wine", "test_fraction": 1}, "at least 0 and below 1"),
        ({"source": "bundled", "name": "wine", "test_fraction": 0.999}, "leaves none of 178"),
        ({"source": "table", "path": "no.csv", "target": "y"}, "no.csv: no such file"),
    ],
)
def test_wrong_specifications_are_explained(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(spec, seed=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"form": "image"}, r"unknown form of .*: 'image' \(valid: table\)"),
        ({"target": "kinds"}, r"unknown target column of .*: 'kinds'; did you mean 'kind'\?"),
        ({"extra": list("xyz" * 10)}, "columns that are not numbers: extra"),
        ({"width": [np.nan, *range(29)]}, r"1 rows have missing or infinite values \(first: row 0"),
        ({"kind": [None, *"ab" * 14, "a"]}, "the target has missing values"),
        ({"kind": ["a"] * 30}, "one class only"),
        ({"kind": np.linspace(0, 1, 30)}, "the target has fractions"),
    ],
)
def test_wrong_tables_are_explained(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    spec = {"source": "table", "path": str(tmp_path / "mine.csv"), "target": "kind"}
    frame = own_table()
    for key, value in change.items():
        if key in ("target", "form"):
            spec[key] = value
        else:
            frame[key] = value
    frame.to_csv(tmp_path / "mine.csv", index=False)
    with pytest.raises(ValueError, match=message):
        prepare(spec, seed=1)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"inputs": np.zeros((3, 2, 2)), "y": np.arange(3)}, r"shape \(3, 2, 2\); expected"),
        ({"inputs": np.zeros((3, 2)), "y": np.arange(4)}, r"3 inputs, but 'y' has shape \(4,\)"),
        ({"input": np.zeros((3, 2)), "y": np.arange(3)}, "'inputs'; did you mean 'input'"),
        ({"inputs": np.zeros((0, 2)), "y": np.arange(0)}, "the table has no rows"),
    ],
)
def test_wrong_arrays_are_explained(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, allow_pickle=False, **arrays)
    with pytest.raises(ValueError, match=message):
        prepare({"source": "table", "path": str(path), "target": "y"}, seed=1)


def test_an_unknown_suffix_is_explained(tmp_path: Path) -> None:
    (tmp_path / "mine.xlsx").write_text("")
    spec = {"source": "table", "path": str(tmp_path / "mine.xlsx"), "target": "y"}
    with pytest.raises(ValueError, match=r"suffix of the table .*'.xlsx' \(valid: .csv, .npz"):
        prepare(spec, seed=1)


def test_adbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "mirror" / "4_breastw.npz"
    path.parent.mkdir()
    table = rng.integers(1, 11, (50, 9), dtype=np.uint8)
    np.savez(path, X=table, y=np.repeat([0, 1], [40, 10]))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    real = sources.ADBENCH["breastw"]
    pinned = replace(real, file=RemoteFile(real.file.name, None, "sha256", digest))
    monkeypatch.setitem(sources.ADBENCH, "breastw", pinned)
    spec = {"source": "adbench", "name": "breastw", "test_fraction": 0.2}
    dataset = prepare(spec, seed=1, mirror=path.parent)
    assert dataset.kind == "table"
    assert dataset.train_inputs.dtype == np.float32
    assert np.bincount(dataset.train_targets).tolist() == [32, 8]
    assert np.bincount(dataset.test_targets).tolist() == [8, 2]
    np.testing.assert_allclose(dataset.train_inputs.mean(axis=0), 0, atol=1e-6)
    assert dataset.description["source_sha256"] == digest
    with pytest.raises(ValueError, match="data set of ADBench 'breast'; did you mean 'breastw'"):
        prepare({**spec, "name": "breast"}, seed=1)


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    objects = np.array([{}, {}], dtype=object)
    np.savez(tmp_path / "mine.npz", inputs=np.zeros((2, 2)), y=objects)
    spec = {"source": "table", "path": str(tmp_path / "mine.npz"), "target": "y"}
    with pytest.raises(ValueError, match="allow_pickle=False"):
        prepare(spec, seed=1)
