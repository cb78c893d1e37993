"""Estimators of alpha that the literature used, to compare maximum likelihood with.

The workflow writes the two cheap ones beside each fit of the stable law: what Simsekli
et al. (2019) used, and McCulloch's quantiles. The regression on the characteristic function, the
best of the three, would add 4 % to the time of the fits; it is here for one's own comparisons.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sgnoise import fit_kernels as kernels
from sgnoise import stable
from sgnoise.rows import Location, as_rows, in_blocks, locations, quantile

_Array = NDArray[np.float64]


def block_log_moment_alpha(noise: ArrayLike, *, threads: int | None = None) -> _Array:
    """alpha of each row from sums of blocks (Mohammadi et al. 2015, as in Simsekli et al. 2019).

    1/alpha = (mean ln|Y| - mean ln|X|)/ln m, with Y the sums of m consecutive values and m the
    largest divisor of M not above its root. Zeros are left out of the means. It can exceed 2.

    >>> noise = np.random.default_rng(0).standard_cauchy((1, 10_000))
    >>> block_log_moment_alpha(noise).round(1)
    array([1.])

    Args:
        noise: (P, M).
        threads: how many to use; None: one for each core that the process may use.

    Returns:
        (P,), NaN where the row has no values other than zero, or a NaN.

    Raises:
        ValueError: M has no divisor between 2 and its root (a prime).
    """
    values = as_rows(noise, "noise")
    count = values.shape[1]
    divisors = [m for m in range(2, int(np.sqrt(count)) + 1) if count % m == 0]
    if not divisors:
        raise ValueError(f"{count} values a row cannot be cut into blocks; drop one of them")
    m = divisors[-1]

    out = np.empty(len(values))

    def mean_log(block: _Array) -> _Array:
        size = np.abs(block)
        used = size > 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.where(size == 0.0, 0.0, np.log(size))
            return logs.sum(axis=1) / used.sum(axis=1)

    def estimate(block: _Array, rows: slice) -> None:
        sums = block.reshape(len(block), -1, m).sum(axis=2)
        with np.errstate(divide="ignore", invalid="ignore"):
            out[rows] = np.log(m) / (mean_log(sums) - mean_log(block))

    in_blocks(values, estimate, threads)
    return out


def quantile_alpha(noise: ArrayLike, *, threads: int | None = None) -> _Array:
    """alpha of each row from the ratio of the quantile ranges 5-95 % and 25-75 % (McCulloch 1986).

    The relation to alpha is that of the symmetric law, from this package's distribution function
    instead of McCulloch's rounded table; a ratio beyond its ends gives 0.5 or 2.

    >>> noise = np.random.default_rng(0).standard_cauchy((1, 10_000))
    >>> quantile_alpha(noise).round(1)
    array([1.])

    Args:
        noise: (P, M).
        threads: as for ``block_log_moment_alpha``.

    Returns:
        (P,), NaN where the row has a NaN or its quartiles are equal.
    """
    return _quantile_fit(as_rows(noise, "noise"), threads)[0]


def _quantile_fit(noise: NDArray[np.generic], threads: int | None) -> tuple[_Array, _Array]:
    """alpha and scale by quantiles."""
    tables = stable.tables()
    quartiles, outer = np.empty((2, len(noise)))

    def ranges(block: _Array, rows: slice) -> None:
        # Sorted whole rows take half the time of np.quantile's partial sorting.
        block.sort(axis=1)
        counts = np.full(len(block), block.shape[1])
        with np.errstate(invalid="ignore"):
            q05, q25, q75, q95 = (quantile(block, counts, p) for p in (0.05, 0.25, 0.75, 0.95))
            outer[rows] = np.where(np.isnan(block[:, -1]), np.nan, q95 - q05)
            quartiles[rows] = q75 - q25

    in_blocks(noise, ranges, threads)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(outer / quartiles)
    grid = stable.ALPHA_MIN + np.arange(tables.ratio.size) / kernels.TABLE_ALPHA_STEPS
    alpha = np.interp(ratio, tables.ratio[::-1], grid[::-1])
    alpha[~np.isfinite(ratio)] = np.nan
    scale = 0.5 * quartiles / np.exp(np.interp(alpha, grid, tables.median))
    return alpha, scale


# Number of points k of the regression by alpha (columns) and sample size, of Koutrouvelis (1980).
_POINTS_ALPHA = (0.3, 0.5, 0.7, 0.9, 1.1, 1.3, 1.5, 1.9)
_POINTS_SIZE = (200, 800, 1600)
_POINTS = (
    (134, 86, 30, 28, 24, 22, 11, 9),
    (124, 68, 24, 22, 18, 16, 11, 9),
    (118, 56, 20, 18, 15, 14, 11, 10),
)


def characteristic_function_alpha(
    noise: ArrayLike,
    *,
    location: Location = "zero",
    threads: int | None = None,
) -> _Array:
    """alpha of each row by regression on the empirical characteristic function (Koutrouvelis 1980).

    ln(-ln|phi(t)|^2) is linear in ln t with slope alpha. The row is divided by its scale (from
    quantiles first, then from the regression, three times), t = pi k/25, and the number of points
    depends on alpha.

    >>> noise = np.random.default_rng(0).standard_cauchy((1, 10_000))
    >>> characteristic_function_alpha(noise).round(1)
    array([1.])

    Args:
        noise: (P, M).
        location: as for ``fit_stable``; it only guards the precision of the angles.
        threads: as for ``fit_stable``.

    Returns:
        (P,), NaN where the row has a NaN or its quartiles are equal.
    """
    values = as_rows(noise, "noise")
    alpha, scale = _quantile_fit(values, threads)
    centres = locations(values, location, threads)
    by_size = [
        np.interp(values.shape[1], _POINTS_SIZE, column) for column in zip(*_POINTS, strict=True)
    ]
    middles = 0.05 + 0.1 * np.arange(21)
    points = np.rint(np.interp(middles, _POINTS_ALPHA, by_size)).astype(np.int64)

    def regress(block: _Array, rows: slice) -> None:
        kernels.characteristic_rows(block, centres[rows], scale[rows], points, 3, alpha[rows])

    in_blocks(values, regress, threads)
    return alpha
