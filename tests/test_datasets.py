"""Data sets as the steps see them: batches, sizes, digests, and the file that holds them."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fetch_dataset import fetch_dataset
from sgnoise.data import datasets
from sgnoise.data.sources import prepare

DIGITS = {"source": "bundled", "name": "digits", "form": "image", "test_fraction": 0.2}


def images(count: int = 40) -> datasets.Dataset:
    rng = np.random.default_rng(0)
    return datasets.Dataset(
        train_inputs=rng.integers(0, 256, (count, 3, 4, 5), dtype=np.uint8),
        train_targets=rng.integers(0, 2, count),
        test_inputs=np.empty((0, 3, 4, 5), np.uint8),
        test_targets=np.empty(0, np.int64),
        classes=2,
        description={"title": "noise"},
        kind="image",
        scaling=rng.normal(size=(3, 256)).astype(np.float32),
    )


def texts() -> datasets.Dataset:
    rng = np.random.default_rng(1)
    return datasets.Dataset(
        train_inputs=rng.integers(0, 50, (12, 7)),
        train_targets=rng.integers(0, 2, 12),
        test_inputs=rng.integers(0, 50, (3, 7)),
        test_targets=rng.integers(0, 2, 3),
        classes=2,
        description={"title": "words"},
        kind="text",
        vocabulary=50,
    )


def saved(dataset: datasets.Dataset, folder: Path) -> datasets.Dataset:
    datasets.save(dataset, str(folder / "arrays.npz"), str(folder / "manifest.json"))
    return datasets.load(str(folder / "arrays.npz"))


ROWS = [slice(None), slice(3, 9), slice(0, 0), np.array([7, 0, 7, 3])]


@pytest.mark.parametrize("rows", ROWS)
def test_a_batch_of_images_is_standardised_by_channel(rows: datasets.Rows, tmp_path: Path) -> None:
    dataset = saved(images(), tmp_path)
    inputs, targets = dataset.batch("train", rows)
    assert inputs.dtype == np.float32
    assert dataset.scaling is not None
    stored = images().train_inputs[rows]
    expected = np.empty(stored.shape)
    for index, level in np.ndenumerate(stored):
        expected[index] = dataset.scaling[index[1], level]
    np.testing.assert_array_equal(inputs, expected)
    np.testing.assert_array_equal(targets, images().train_targets[rows])


@pytest.mark.parametrize("rows", ROWS)
def test_a_batch_of_texts_is_as_stored(rows: datasets.Rows, tmp_path: Path) -> None:
    dataset = saved(texts(), tmp_path)
    inputs, targets = dataset.batch("train", rows)
    assert inputs.dtype == targets.dtype == np.int64
    np.testing.assert_array_equal(inputs, texts().train_inputs[rows])
    assert dataset.vocabulary == 50
    assert dataset.input_shape == (7,)


def test_a_batch_is_the_callers_own(tmp_path: Path) -> None:
    for dataset in (texts(), images(), saved(texts(), tmp_path)):
        inputs, targets = dataset.batch("train", slice(None))
        before = inputs.copy(), targets.copy()
        for array in (inputs, targets):
            assert array.flags.writeable
            assert array.flags.aligned
            array += 1
        again = dataset.batch("train", slice(None))
        for old, new in zip(before, again, strict=True):
            np.testing.assert_array_equal(old, new)


def test_sizes() -> None:
    dataset = texts()
    assert (dataset.size("train"), dataset.size("test")) == (12, 3)
    assert (dataset.nbytes("train"), dataset.nbytes("test")) == (12 * 7 * 8, 3 * 7 * 8)
    assert images().nbytes("train") == 40 * 3 * 4 * 5 * 4
    assert images().size("test") == images().nbytes("test") == 0


def test_a_large_file_is_mapped_not_read(tmp_path: Path) -> None:
    dataset = saved(images(), tmp_path)
    assert isinstance(dataset.train_inputs, np.memmap)
    assert not dataset.train_inputs.flags.writeable


def test_the_digest_is_of_the_samples(tmp_path: Path) -> None:
    dataset = images()
    assert saved(replace(dataset, description={}), tmp_path).digest == dataset.digest
    assert dataset.scaling is not None
    others = [
        replace(dataset, train_targets=1 - dataset.train_targets),
        replace(dataset, train_inputs=dataset.train_inputs[::-1]),
        replace(dataset, scaling=dataset.scaling + 1),
        replace(dataset, classes=3),
    ]
    assert len({dataset.digest, *(other.digest for other in others)}) == 5


def test_wrong_names_are_explained() -> None:
    with pytest.raises(ValueError, match="unknown kind of data set 'images'; did you mean 'image'"):
        replace(images(), kind="images")
    with pytest.raises(
        ValueError, match=r"unknown part of a data set 'valid' \(valid: test, train"
    ):
        images().batch("valid", slice(None))  # type: ignore[arg-type]


def test_saving_is_reproducible_and_complete(tmp_path: Path) -> None:
    paths = [(str(tmp_path / f"{i}.npz"), str(tmp_path / f"{i}.json")) for i in range(2)]
    for arrays_path, manifest_path in paths:
        fetch_dataset(
            spec=DIGITS,
            seed=1,
            arrays_path=arrays_path,
            manifest_path=manifest_path,
            downloads=str(tmp_path),
            mirror=None,
            threads=1,
        )
    first, again = (Path(arrays_path).read_bytes() for arrays_path, _ in paths)
    assert first == again
    dataset, loaded = prepare(DIGITS, seed=1), datasets.load(paths[0][0])
    for name in ("train_inputs", "train_targets", "test_inputs", "test_targets"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(dataset, name))
    assert loaded.classes == 10
    assert loaded.description == dataset.description
    manifest = json.loads(Path(paths[0][1]).read_text("utf-8"))
    assert manifest["arrays_sha256"] == hashlib.sha256(first).hexdigest()
    assert manifest["arrays"]["train_inputs"] == {"shape": [1437, 1, 8, 8], "type": "uint8"}
    assert manifest["classes"] == 10
    assert manifest["source"].startswith("scikit-learn")


def test_a_file_that_something_else_wrote_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "arrays.npz"
    np.savez_compressed(path, train_inputs=np.zeros(3))
    with pytest.raises(ValueError, match="'train_inputs' is not as this workflow writes it"):
        datasets.load(str(path))
    np.savez(path, allow_pickle=True, train_inputs=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="'train_inputs' holds pickled objects"):
        datasets.load(str(path))
    path.write_bytes(b"torn")
    with pytest.raises(zipfile.BadZipFile):
        datasets.load(str(path))
