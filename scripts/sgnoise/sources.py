"""Where data sets come from: from a short specification to arrays with a training and a test part.

A specification is a mapping with a ``source``:

- ``{source: bundled, name: digits, form: image, test_fraction: 0.2}``: real data that comes with
  scikit-learn (``breast_cancer``, ``digits``, ``wine``);
- ``{source: table, path: my.csv, target: column, test_fraction: 0.2}``: a table of one's own, as
  CSV, Parquet, or NPZ (the array ``inputs``, and the one that ``target`` names).

``form`` is ``table`` unless said otherwise: each sample a row of features. With ``image`` it is
(channels, height, width), which the digits and a four-dimensional array ``inputs`` can be.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sgnoise import seeds
from sgnoise.datasets import Dataset, unknown_name

_LICENCE_UCI = "CC BY 4.0"


@dataclass(frozen=True)
class _Raw:
    """Inputs as they come, targets as class numbers, and what there is to say about them.

    A source that has a test part of its own gives it; otherwise one is split off.
    """

    kind: str
    inputs: np.ndarray
    targets: np.ndarray
    class_names: list[str]
    description: dict[str, Any]
    test: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True)
class _Bundled:
    title: str
    origin: str
    loader: str
    image_shape: tuple[int, int, int] | None = None


_BUNDLED = {
    "breast_cancer": _Bundled(
        "Breast Cancer Wisconsin (Diagnostic)",
        "https://archive.ics.uci.edu/dataset/17",
        "load_breast_cancer",
    ),
    "digits": _Bundled(
        "Optical Recognition of Handwritten Digits (its test part)",
        "https://archive.ics.uci.edu/dataset/80",
        "load_digits",
        (1, 8, 8),
    ),
    "wine": _Bundled("Wine", "https://archive.ics.uci.edu/dataset/109", "load_wine"),
}


def prepare(spec: Mapping[str, Any], *, seed: int) -> Dataset:
    """Read the data set that ``spec`` describes, split it, and standardise it.

    The split keeps the proportions of the classes and depends on ``seed`` alone. Columns of a table
    are scaled to mean 0 and variance 1 over the training part, channels of images likewise; what is
    constant there becomes 0.

    Args:
        spec: see the module; ``test_fraction`` (0 by default) is held back for the test.
        seed: of the split.

    Raises:
        ValueError: an unknown source, name, form or option; or data that cannot be used.
    """
    options = dict(spec)
    source = _required(options, "source", "data set")
    test_fraction = float(options.pop("test_fraction", 0.0))
    if not 0 <= test_fraction < 1:
        raise ValueError(f"test_fraction is {test_fraction}; it must be at least 0 and below 1")
    reader = _SOURCES.get(source)
    if reader is None:
        raise unknown_name("source of data", source, _SOURCES)
    raw = reader(options)

    train, test = (raw.inputs, raw.targets), raw.test
    if test is None:
        chosen = _test_rows(raw.targets, test_fraction, seeds.generator(seed, "split"))
        train, test = ((raw.inputs[rows], raw.targets[rows]) for rows in (~chosen, chosen))
    scaling = None
    inputs, test_inputs = train[0], test[0]
    if inputs.dtype == np.uint8:
        scaling = _byte_scaling(inputs)
    elif inputs.dtype != np.int64:
        inputs, test_inputs = _standardised(inputs, test_inputs)
    return Dataset(
        train_inputs=inputs,
        train_targets=train[1],
        test_inputs=test_inputs,
        test_targets=test[1],
        classes=len(raw.class_names),
        description={
            **raw.description,
            "class_names": raw.class_names,
            "train_samples": len(inputs),
            "test_samples": len(test_inputs),
            "split_seed": seed,
        },
        kind=raw.kind,
        scaling=scaling,
    )


def _read_bundled(options: dict[str, Any]) -> _Raw:
    from sklearn import datasets as bundled

    name = _required(options, "name", "bundled data set")
    form = options.pop("form", "table")
    _none_left(options, f"bundled data set {name!r}")
    if name not in _BUNDLED:
        raise unknown_name("bundled data set", name, _BUNDLED)
    known = _BUNDLED[name]
    forms = ["table"] if known.image_shape is None else ["table", "image"]
    if form not in forms:
        raise unknown_name(f"form of the data set {name!r}", form, forms)
    loaded = getattr(bundled, known.loader)()
    inputs = loaded.data.astype(np.float64)
    if form == "image":
        # Whole numbers from 0 to 16.
        inputs = inputs.reshape(-1, *(known.image_shape or ())).astype(np.uint8)
    return _Raw(
        kind=form,
        inputs=inputs,
        targets=loaded.target.astype(np.int64),
        class_names=[str(label) for label in loaded.target_names],
        description={
            "name": name,
            "title": known.title,
            "source": f"scikit-learn; originally {known.origin}",
            "licence": _LICENCE_UCI,
            "form": form,
        },
    )


def _read_table(options: dict[str, Any]) -> _Raw:
    path = Path(_required(options, "path", "table"))
    target = str(_required(options, "target", "table"))
    form = options.pop("form", "table")
    _none_left(options, f"table {path}")
    if not path.is_file():
        raise ValueError(f"{path}: no such file (relative paths start at {Path.cwd()})")
    if path.suffix not in _TABLE_READERS:
        raise unknown_name(f"suffix of the table {path}:", path.suffix, _TABLE_READERS)
    inputs, labels = _TABLE_READERS[path.suffix](path, target)
    forms = ["table", "image"] if inputs.ndim == 4 else ["table"]
    if form not in forms:
        raise unknown_name(f"form of {path}:", form, forms)
    if form == "table":
        inputs = inputs.reshape(len(inputs), int(np.prod(inputs.shape[1:]))).astype(np.float64)
    if not len(inputs):
        raise ValueError(f"{path}: the table has no rows")
    if not np.isfinite(inputs).all():
        rows = np.unique(np.nonzero(~np.isfinite(inputs))[0])
        raise ValueError(
            f"{path}: {len(rows)} rows have missing or infinite values (first: row {rows[0]}); "
            "fill them in or leave these rows out"
        )
    targets, class_names = _class_numbers(labels, f"{path}: {target!r}")
    return _Raw(
        kind=form,
        inputs=inputs,
        targets=targets,
        class_names=class_names,
        description={
            "name": path.stem,
            "title": path.stem,
            "source": path.name,
            "source_sha256": _sha256(path),
            "licence": "that of the file",
            "form": form,
        },
    )


def _read_frame(frame: pd.DataFrame, path: Path, target: str) -> tuple[np.ndarray, np.ndarray]:
    if target not in frame.columns:
        raise unknown_name(f"target column of {path}:", target, map(str, frame.columns))
    features = frame.drop(columns=target)
    if features.columns.empty:
        raise ValueError(f"{path}: no column but the target {target!r}")
    wrong = [str(c) for c in features.columns if not pd.api.types.is_numeric_dtype(features[c])]
    if wrong:
        raise ValueError(
            f"{path}: columns that are not numbers: {', '.join(wrong)}; encode them or leave "
            "them out"
        )
    return features.to_numpy(np.float64, na_value=np.nan), frame[target].to_numpy()


def _read_csv(path: Path, target: str) -> tuple[np.ndarray, np.ndarray]:
    return _read_frame(pd.read_csv(path), path, target)


def _read_parquet(path: Path, target: str) -> tuple[np.ndarray, np.ndarray]:
    return _read_frame(pd.read_parquet(path), path, target)


def _read_npz(path: Path, target: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        for name in ("inputs", target):
            if name not in arrays:
                raise unknown_name(f"array of {path}:", name, arrays.files)
        inputs, labels = arrays["inputs"], arrays[target]
    if inputs.dtype != np.uint8:
        inputs = inputs.astype(np.float64)
    if inputs.ndim not in (2, 4):
        raise ValueError(
            f"{path}: 'inputs' has shape {inputs.shape}; expected (samples, features) or "
            "(samples, channels, height, width)"
        )
    if labels.shape != inputs.shape[:1]:
        raise ValueError(f"{path}: {len(inputs)} inputs, but {target!r} has shape {labels.shape}")
    return inputs, labels


_SOURCES: dict[str, Callable[[dict[str, Any]], _Raw]] = {
    "bundled": _read_bundled,
    "table": _read_table,
}
_TABLE_READERS: dict[str, Callable[[Path, str], tuple[np.ndarray, np.ndarray]]] = {
    ".csv": _read_csv,
    ".npz": _read_npz,
    ".parquet": _read_parquet,
}


def _class_numbers(labels: np.ndarray, where: str) -> tuple[np.ndarray, list[str]]:
    """Labels as numbers from 0, in the order of the sorted labels, and their names."""
    if pd.isna(labels).any():
        raise ValueError(f"{where}: the target has missing values; leave these rows out")
    if np.issubdtype(labels.dtype, np.floating) and (labels != np.round(labels)).any():
        raise ValueError(f"{where}: the target has fractions; expected classes")
    # Text from a table arrives as objects, which numpy sorts but cannot name the type of.
    if labels.dtype == object:
        labels = labels.astype(str)
    names, numbers = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"{where}: the target has one class only")
    return numbers.astype(np.int64), [str(name) for name in names]


def _test_rows(targets: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Which rows are held back: in each class its share, give or take one. Boolean, (n,)."""
    chosen = np.zeros(len(targets), dtype=bool)
    wanted = math.ceil(len(targets) * fraction)
    if wanted >= len(targets):
        raise ValueError(f"test_fraction {fraction} leaves none of {len(targets)} samples to train")
    if wanted:
        # Equally spaced places in a list sorted by class take the same share of every class.
        order = np.lexsort((rng.random(len(targets)), targets))
        places = (np.arange(wanted) + 0.5) * len(targets) / wanted
        chosen[order[places.astype(int)]] = True
    return chosen


def _standardised(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both parts with the training part's mean and deviation, by column or by image channel."""
    axes = (0, 2, 3) if train.ndim == 4 else (0,)
    mean = train.mean(axis=axes, keepdims=True)
    deviation = train.std(axis=axes, keepdims=True)
    # A constant column keeps a rounding error for a deviation, not always an exact zero.
    constant = deviation <= 1e-12 * np.abs(mean)
    deviation = np.where(constant, 1.0, deviation)
    return tuple(
        np.where(constant, 0.0, (part - mean) / deviation).astype(np.float32)
        for part in (train, test)
    )  # type: ignore[return-value]


def _byte_scaling(train: np.ndarray) -> np.ndarray:
    """What each byte becomes, float32, (channels, 256): mean 0 and variance 1 over ``train``."""
    counts = np.zeros((train.shape[1], 256), np.int64)
    for first in range(0, len(train), 1024):
        block = train[first : first + 1024]
        for channel, count in enumerate(counts):
            count += np.bincount(block[:, channel].reshape(-1), minlength=256)
    levels = np.arange(256.0)
    weights = counts / counts.sum(axis=1, keepdims=True)
    mean = (weights @ levels)[:, None]
    deviation = np.sqrt((weights * (levels - mean) ** 2).sum(axis=1, keepdims=True))
    constant = deviation == 0
    scaled = (levels - mean) / np.where(constant, 1.0, deviation)
    return np.where(constant, 0.0, scaled).astype(np.float32)


def _required(options: dict[str, Any], key: str, what: str) -> Any:
    if key not in options:
        raise ValueError(f"the specification of a {what} needs {key!r}; found {sorted(options)}")
    return options.pop(key)


def _none_left(options: Mapping[str, Any], where: str) -> None:
    if options:
        raise ValueError(f"{where}: unknown options {sorted(options)}")


def _sha256(path: str | os.PathLike[str]) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
