"""Where data sets come from: from a short specification to arrays with a training and a test part.

A specification is a mapping with a ``source`` and what that source takes (the keyword arguments of
its reader):

- ``bundled``: real data that comes with scikit-learn (``name``: breast_cancer, digits, wine);
- ``table``: a table of one's own, as CSV, TSV, Parquet, or NPZ, see ``sgnoise.data.tables``;
- ``adbench``: tables of the ADBench collection (``name``: breastw, cardio, satellite);
- ``cola``: sentences, see ``sgnoise.data.texts``;
- ``cifar10``, ``cifar100``, ``cinic10``, ``image_folder``, ``imagenet``, ``webdataset``: images,
  see ``sgnoise.data.images``.

``form`` is ``table`` unless said otherwise: each sample a row of features. With ``image`` it is
(channels, height, width), which the digits and a four-dimensional array ``inputs`` can be.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sgnoise.data import images, tables, texts
from sgnoise.data.datasets import Dataset
from sgnoise.data.downloads import RemoteFile, obtain
from sgnoise.data.reading import Raw, Workspace, class_numbers, held_back_rows
from sgnoise.messages import unknown_name

logger = logging.getLogger("sgnoise")

_LICENCE_UCI = "CC BY 4.0"


@dataclass(frozen=True)
class _Bundled:
    title: str
    origin: str
    loader: str
    image_shape: tuple[int, int, int] | None = None


BUNDLED = {
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


@dataclass(frozen=True)
class _Adbench:
    title: str
    origin: str
    file: RemoteFile


def _adbench_file(name: str, digest: str) -> RemoteFile:
    commit = "3dac8221081e190f157d78e93bfa8867f90d0965"
    folder = f"Minqi824/ADBench/{commit}/adbench/datasets/Classical"
    return RemoteFile(name, f"https://raw.githubusercontent.com/{folder}/{name}", "sha256", digest)


ADBENCH = {
    "breastw": _Adbench(
        "BreastW",
        "https://archive.ics.uci.edu/dataset/15",
        _adbench_file(
            "4_breastw.npz", "4f37ce07dbc25ddad8178fdc6d664ab46d2d0000ee28c2787c3c7ff3c03ef9f6"
        ),
    ),
    "cardio": _Adbench(
        "Cardio",
        "https://archive.ics.uci.edu/dataset/193",
        _adbench_file(
            "6_cardio.npz", "bc5009bde6930b4d298b594f31b34485a9a17210cff0e8fb00a8c3068b885a2d"
        ),
    ),
    "satellite": _Adbench(
        "Satellite",
        "https://archive.ics.uci.edu/dataset/146",
        _adbench_file(
            "30_satellite.npz", "1f048f5686f1b8c16a227fdfa3c81a62cd9a92715714a6b24c69b1c5ad96b46e"
        ),
    ),
}


def prepare(
    spec: Mapping[str, Any],
    *,
    seed: int,
    downloads: str | Path = "results/data/downloads",
    mirror: str | Path | None = None,
    scratch: str | Path | None = None,
    threads: int = 1,
) -> Dataset:
    """Read the data set that ``spec`` describes, split it, and standardise it.

    A split or subset keeps the proportions of the classes and depends on ``seed`` alone. Columns of
    a table are scaled to mean 0 and variance 1 over the training part, channels of images likewise
    (or by given numbers); what is constant there becomes 0.

    Args:
        spec: see the module. ``test_fraction`` (0 if there is none) is held back for the test,
            where the source has no test part of its own.
        seed: of the split and of subsets.
        downloads: folder that keeps downloaded files.
        mirror: folder that is searched before the network.
        scratch: folder for arrays that are too large for memory; None: all stay in memory.
        threads: to decode images with.

    Raises:
        ValueError: an unknown source, name, form or option; or data that cannot be had or used.
    """
    options = dict(spec)
    if "source" not in options:
        raise ValueError(f"the specification of a data set needs 'source'; found {sorted(options)}")
    source = options.pop("source")
    reader = SOURCES.get(source)
    if reader is None:
        raise unknown_name("source of data", source, SOURCES)
    fraction = float(options.get("test_fraction", 0.0))
    if not 0 <= fraction < 1:
        raise ValueError(f"test_fraction is {fraction}; it must be at least 0 and below 1")
    workspace = Workspace(
        downloads=Path(downloads),
        mirror=None if mirror is None else Path(mirror),
        scratch=None if scratch is None else Path(scratch),
        threads=threads,
        seed=seed,
    )
    try:
        inspect.signature(reader).bind(workspace, **options)
    except TypeError as error:
        raise ValueError(f"a data set with source {source!r}: {error}") from error
    try:
        raw = reader(workspace, **options)
    except OSError as error:
        raise ValueError(f"a data set with source {source!r}: {error}") from error

    (inputs, targets), test = (raw.inputs, raw.targets), raw.test
    if test is None:
        chosen = held_back_rows(targets, fraction, seed)
        test = inputs[chosen], targets[chosen]
        inputs, targets = inputs[~chosen], targets[~chosen]
    test_inputs, test_targets = test
    if not len(inputs):
        raise ValueError(f"{raw.description['title']}: no samples to train with")
    scaling = None
    if inputs.dtype == np.uint8:
        mean, deviation = _byte_statistics(inputs) if raw.statistics is None else raw.statistics
        scaling = _byte_scaling(np.array(mean), np.array(deviation))
    elif inputs.dtype != np.int64:
        inputs, test_inputs = _standardised(inputs, test_inputs)
        if not (np.isfinite(inputs).all() and np.isfinite(test_inputs).all()):
            where = spec.get("path", raw.description["title"])
            raise ValueError(
                f"{where}: values so large or so far apart that they cannot be standardised; scale "
                "them down, or leave outliers out"
            )
    absent = np.setdiff1d(np.arange(len(raw.class_names)), targets)
    if len(absent):
        logger.warning(
            "%s: %d classes have no samples to train with, %r for one",
            *(raw.description["title"], len(absent), raw.class_names[absent[0]]),
        )
    return Dataset(
        train_inputs=inputs,
        train_targets=targets,
        test_inputs=test_inputs,
        test_targets=test_targets,
        classes=len(raw.class_names),
        description={
            **raw.description,
            "class_names": raw.class_names,
            "train_samples": len(inputs),
            "test_samples": len(test_inputs),
            "split_seed": seed,
        },
        kind=raw.kind,
        vocabulary=raw.vocabulary,
        scaling=scaling,
    )


def _read_bundled(
    workspace: Workspace, *, name: str, form: str = "table", test_fraction: float = 0.0
) -> Raw:
    from sklearn import datasets as bundled

    if name not in BUNDLED:
        raise unknown_name("bundled data set", name, BUNDLED)
    known = BUNDLED[name]
    forms = ["table"] if known.image_shape is None else ["table", "image"]
    if form not in forms:
        raise unknown_name(f"form of the data set {name!r}", form, forms)
    loaded = getattr(bundled, known.loader)()
    inputs = loaded.data.astype(np.float64)
    if form == "image":
        # Whole numbers from 0 to 16.
        inputs = inputs.reshape(-1, *(known.image_shape or ())).astype(np.uint8)
    return Raw(
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


def _read_adbench(workspace: Workspace, *, name: str, test_fraction: float = 0.0) -> Raw:
    if name not in ADBENCH:
        raise unknown_name("data set of ADBench", name, ADBENCH)
    known = ADBENCH[name]
    path = obtain(known.file, folder=workspace.downloads, mirror=workspace.mirror)
    inputs, labels = tables.read_npz(path, "y", "X")
    targets, _ = class_numbers(labels, known.title)
    return Raw(
        kind="table",
        inputs=inputs.astype(np.float64),
        targets=targets,
        class_names=["normal", "anomaly"],
        description={
            "name": name,
            "title": known.title,
            "source": f"{known.file.url}; originally {known.origin}",
            "source_sha256": known.file.digest,
            "licence": "BSD-2-Clause (ADBench)",
        },
    )


SOURCES: dict[str, Callable[..., Raw]] = {
    "bundled": _read_bundled,
    "table": tables.read_table,
    "adbench": _read_adbench,
    "cola": texts.read_cola,
    "cifar10": partial(images.read_cifar, source="cifar10"),
    "cifar100": partial(images.read_cifar, source="cifar100"),
    "cinic10": images.read_cinic10,
    "image_folder": images.read_image_folder,
    "imagenet": images.read_imagenet,
    "webdataset": images.read_webdataset,
}


def _standardised(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both parts with the training part's mean and deviation, by column or by image channel."""
    axes = (0, 2, 3) if train.ndim == 4 else (0,)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = train.mean(axis=axes, keepdims=True)
        deviation = train.std(axis=axes, keepdims=True)
    if not np.isfinite(deviation).all():
        deviation = np.full_like(deviation, np.nan)
    # A constant column keeps a rounding error for a deviation, not always an exact zero.
    constant = deviation <= 1e-12 * np.abs(mean)
    deviation = np.where(constant, 1.0, deviation)
    return tuple(
        np.where(constant, 0.0, (part - mean) / deviation).astype(np.float32)
        for part in (train, test)
    )  # type: ignore[return-value]


def _byte_statistics(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each channel of bytes, in shares of 255; exact whatever the size."""
    counts = np.zeros((train.shape[1], 256), np.int64)
    for first in range(0, len(train), 1024):
        block = train[first : first + 1024]
        for channel, count in enumerate(counts):
            count += np.bincount(block[:, channel].reshape(-1), minlength=256)
    levels = np.arange(256.0)
    weights = counts / counts.sum(axis=1, keepdims=True)
    mean = weights @ levels
    deviation = np.sqrt((weights * (levels - mean[:, None]) ** 2).sum(axis=1))
    return mean / 255, deviation / 255


def _byte_scaling(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """What each byte becomes, float32, (channels, 256); 0 in a channel of no deviation."""
    levels = np.arange(256.0)
    constant = (deviation == 0)[:, None]
    scaled = (levels - 255 * mean[:, None]) / np.where(constant, 1.0, 255 * deviation[:, None])
    return np.where(constant, 0.0, scaled).astype(np.float32)
