"""What the readers of data sets are given and give, and the choices that they share."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sgnoise import seeds

logger = logging.getLogger("sgnoise")


@dataclass(frozen=True)
class Workspace:
    """Where a reader works.

    Attributes:
        downloads: folder that keeps downloaded files.
        mirror: folder that is searched before the network; None for none.
        scratch: folder for arrays that are too large for memory; None: all stay in memory.
        threads: to decode images with.
        seed: of splits and subsets.
    """

    downloads: Path
    mirror: Path | None
    scratch: Path | None
    threads: int
    seed: int

    def room(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """An array of bytes to fill: in memory, or in a scratch file if it is large."""
        if self.scratch is None or np.prod(shape, dtype=np.int64) <= _IN_MEMORY_BYTES:
            return np.empty(shape, np.uint8)
        path = self.scratch / f"{name}.npy"
        return np.lib.format.open_memmap(path, "w+", np.dtype(np.uint8), shape)


_IN_MEMORY_BYTES = 2**30


@dataclass(frozen=True)
class Raw:
    """Samples as a reader finds them.

    Attributes:
        kind: as in ``sgnoise.data.datasets.Dataset``.
        inputs: of the training part, or of all: bytes (uint8) or floating-point numbers, to be
            standardised; or token ids (int64).
        targets: int64: class numbers, or token ids of ``image_text``.
        class_names: in the order of their numbers; empty for ``image_text``.
        description: plain values: name, title, source, licence, and whatever else is worth knowing.
        test: inputs and targets of the test part, if the source has one of its own.
        vocabulary: the number of token ids, of texts.
        statistics: mean and deviation of each channel, in shares of the largest byte, to
            standardise images with instead of their own.
    """

    kind: str
    inputs: np.ndarray
    targets: np.ndarray
    class_names: list[str]
    description: dict[str, Any]
    test: tuple[np.ndarray, np.ndarray] | None = None
    vocabulary: int | None = None
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None


def class_numbers(labels: np.ndarray, where: str) -> tuple[np.ndarray, list[str]]:
    """Labels as numbers from 0, in the order of the sorted labels, and their names.

    Raises:
        ValueError: a label is missing, or they are no classes; with ``where`` in front.
    """
    if labels.dtype.kind in "cmM":
        raise ValueError(
            f"{where}: the target has the type {labels.dtype}; expected classes, as whole numbers "
            "or text"
        )
    if pd.isna(labels).any():
        rows = np.flatnonzero(pd.isna(labels))
        raise ValueError(
            f"{where}: the target has missing values in {len(rows)} rows (first: row {rows[0]}, "
            "counted from 0); leave these rows out"
        )
    if np.issubdtype(labels.dtype, np.floating) and np.isinf(labels).any():
        raise ValueError(f"{where}: the target has infinite values; leave these rows out")
    if np.issubdtype(labels.dtype, np.floating) and (labels != np.round(labels)).any():
        raise ValueError(
            f"{where}: the target has fractions, which look like numbers to predict (regression); "
            "expected classes, as whole numbers or text"
        )
    # Text from a table arrives as objects, which numpy sorts but cannot name the type of.
    if labels.dtype == object:
        labels = labels.astype(str)
    if labels.dtype.kind == "U" and (np.char.strip(labels) == "").any():
        row = np.flatnonzero(np.char.strip(labels) == "")[0]
        raise ValueError(
            f"{where}: the target is blank in row {row}, counted from 0; name the class, or leave "
            "such rows out"
        )
    names, numbers = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"{where}: the target has one class only")
    if len(names) == len(labels) > 2:
        raise ValueError(
            f"{where}: the target has as many classes as there are samples; numbers to predict "
            "(regression), row numbers and names are no classes: name another target"
        )
    if 2 * len(names) > len(labels) > 20:
        logger.warning(
            "%s: the target has %d classes for %d samples; is it one of classes?",
            *(where, len(names), len(labels)),
        )
    return numbers.astype(np.int64), [str(name) for name in names]


def stratified(targets: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Choose ``count`` samples at random, of each class its share, give or take one.

    Returns:
        Boolean, (n,).
    """
    chosen = np.zeros(len(targets), dtype=bool)
    if count:
        # Equally spaced positions in a list sorted by class take the same share of every class.
        order = np.lexsort((rng.random(len(targets)), targets))
        positions = (np.arange(count) + 0.5) * len(targets) / count
        chosen[order[positions.astype(int)]] = True
    return chosen


def held_back_rows(targets: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Which rows are held back for the test: in each class its share, give or take one.

    A class that would lose all of its samples keeps one for the training.

    Returns:
        Boolean, (n,).

    Raises:
        ValueError: none would be left.
    """
    wanted = math.ceil(len(targets) * fraction)
    if 0 < len(targets) <= wanted:
        raise ValueError(f"test_fraction {fraction} leaves none of {len(targets)} samples to train")
    chosen = stratified(targets, wanted, seeds.generator(seed, "split"))
    lost = np.setdiff1d(targets, targets[~chosen])
    if len(lost):
        _, first = np.unique(targets, return_index=True)
        chosen[first[np.isin(targets[first], lost)]] = False
        logger.warning(
            "%d classes have too few samples for a test part of %g; one of each stays for the "
            "training",
            *(len(lost), fraction),
        )
    return chosen


def subset_rows(
    targets: np.ndarray, subset: dict[str, int] | None, part: str, workspace: Workspace
) -> np.ndarray:
    """The rows of a part that ``subset`` asks for, in their order; all where it says nothing.

    Raises:
        ValueError: there are fewer.
    """
    count = (subset or {}).get(part)
    if count is None:
        return np.arange(len(targets))
    if count > len(targets):
        raise ValueError(f"subset.{part} is {count}, but there are {len(targets)} samples only")
    rng = seeds.generator(workspace.seed, "subset", part)
    return np.flatnonzero(stratified(targets, count, rng))
