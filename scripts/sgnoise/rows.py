"""Arrays of which each row is a parameter: checked, cut into blocks for threads, and centred."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

_BLOCK_VALUES = 1 << 17  # values that a thread looks at in one go: 1 MB

_Array = NDArray[np.float64]
Location = Literal["zero", "median"] | ArrayLike


def as_rows(values: ArrayLike, name: str) -> NDArray[np.generic]:
    """``values`` as a matrix of real numbers, (rows, values); one dimension is one row.

    Raises:
        ValueError: something else; ``name`` is what the message calls it.
    """
    array = _unmasked(values, name) if isinstance(values, np.ma.MaskedArray) else np.asarray(values)
    if array.ndim == 1:
        array = array[None, :]
    if array.ndim != 2:
        raise ValueError(
            f"{name} has shape {array.shape}; it must be a matrix, one row a parameter, or one row"
        )
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} has type {array.dtype}; it must hold real numbers")
    return array


def _unmasked(values: np.ma.MaskedArray, name: str) -> NDArray[np.generic]:
    """The values that are not masked, row by row."""
    kept = values.count(axis=-1)
    if values.ndim > 1 and np.ptp(kept):
        raise ValueError(
            f"{name} is a masked array whose rows keep {kept.min()} to {kept.max()} values; each "
            f"must keep as many: fit the rows one by one, {name}[0].compressed()"
        )
    return values.compressed().reshape(*values.shape[:-1], -1)


def in_blocks(
    values: NDArray[np.generic], function: Callable[[_Array, slice], None], threads: int | None
) -> None:
    """Call ``function(block, rows)`` for blocks of rows as float64, on several threads.

    A block is about 1 MB, each thread has one buffer for them: whatever the type of ``values``, no
    copy of the whole is made, and the kernels are compiled for one type only. Threads of Python,
    and not numba's own, halve the time that compiling takes, and leave a process free to fork.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}; it must be at least 1")
    count, width = values.shape
    height = min(max(1, _BLOCK_VALUES // max(1, width)), max(1, count))
    blocks = [slice(start, min(start + height, count)) for start in range(0, count, height)]
    workers = max(1, min(threads or numba.config.NUMBA_NUM_THREADS, len(blocks)))

    def work(share: list[slice]) -> None:
        buffer = np.empty((height, width))
        for rows in share:
            block = buffer[: rows.stop - rows.start]
            block[...] = values[rows]
            function(block, rows)

    if workers == 1:
        work(blocks)
        return
    with ThreadPoolExecutor(workers) as pool:
        for done in [pool.submit(work, blocks[worker::workers]) for worker in range(workers)]:
            done.result()


def _medians(noise: NDArray[np.generic], threads: int | None) -> _Array:
    medians = np.zeros(len(noise))

    def median(block: _Array, rows: slice) -> None:
        # Partial sorting leaves the middle where it belongs; NaN sorts last.
        half = block.shape[1] // 2
        block.partition([half - 1, half] if half else [half], axis=1)
        odd = block.shape[1] % 2 == 1
        medians[rows] = block[:, half] if odd else 0.5 * (block[:, half - 1] + block[:, half])

    if noise.shape[1] > 0:
        with np.errstate(invalid="ignore"):
            in_blocks(noise, median, threads)
    # A row with NaN or infinity is flagged for that, whatever its location.
    return np.where(np.isfinite(medians), medians, 0.0)


def locations(noise: NDArray[np.generic], location: Location, threads: int | None) -> _Array:
    """The location of each row, (rows,), of ``noise`` (rows, values); see ``sgnoise.fitting``.

    Raises:
        ValueError: neither "zero" nor "median" nor finite numbers, one or one a row.
    """
    if isinstance(location, str):
        if location == "zero":
            return np.zeros(len(noise))
        if location == "median":
            return _medians(noise, threads)
        raise ValueError(
            f"location is {location!r}; it must be 'zero', 'median', a number or one a row"
        )
    centres = np.array(location, dtype=np.float64)
    if centres.ndim == 0:
        centres = np.full(len(noise), centres)
    if centres.shape != (len(noise),) or not np.isfinite(centres).all():
        raise ValueError(
            f"location has shape {centres.shape}; it must be {len(noise)} finite numbers, one a row"
        )
    return centres


def quantile(ordered: _Array, counts: NDArray[np.int64], share: float) -> _Array:
    """The quantile of the first ``counts`` values of each row, interpolated; NaN without any.

    Args:
        ordered: (rows, values), rising as far as they count.
        counts: (rows,).
        share: from 0 to 1.
    """
    rows = np.arange(len(ordered))
    position = np.maximum(counts - 1, 0) * share
    below = np.floor(position).astype(np.int64)
    above = np.minimum(below + 1, np.maximum(counts - 1, 0))
    weight = position - below
    return ordered[rows, below] * (1 - weight) + ordered[rows, above] * weight
