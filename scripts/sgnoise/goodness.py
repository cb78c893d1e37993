"""How well a fitted law describes the noise of each parameter.

Arrays of noise are (P, M): parameter, draw. One array function serves all P parameters at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numba import njit

from sgnoise import fitting, seeds
from sgnoise.rows import quantile


class FittedLaw(Protocol):
    """What is needed of a batched fit; ``sgnoise.fitting`` makes them. NaN gives NaN."""

    def logpdf(self, x: np.ndarray) -> np.ndarray:
        """Log density at x, (P, K) -> (P, K)."""

    def cdf(self, x: np.ndarray) -> np.ndarray:
        """Probability of at most x, (P, K) -> (P, K)."""


def without_atom(noise: np.ndarray) -> np.ndarray:
    """The draws that a law is fitted to, in double precision; the others are NaN, (P, M).

    As in the fits: where two or more draws are exactly 0, they are an atom (an inactive unit),
    which no density describes. In a row with a value that is not finite no draw is used.
    """
    used = np.array(noise, dtype=np.float64)
    zero = used == 0
    used[zero & (zero.sum(axis=1, keepdims=True) > 1)] = np.nan
    used[~np.isfinite(noise).all(axis=1)] = np.nan
    return used


@dataclass(frozen=True)
class Histogram:
    """Histograms of P parameters, each over a range of its own.

    Attributes:
        edges: (P, bins + 1), increasing.
        shares: part of all draws in use that falls in each bin, (P, bins).
        scale: median absolute deviation from the median, (P,).
        draws: draws in use, (P,).
    """

    edges: np.ndarray
    shares: np.ndarray
    scale: np.ndarray
    draws: np.ndarray


def histogram(used: np.ndarray, *, bins: int, span: str | float) -> Histogram:
    """Bins of equal width over the range of each parameter's draws.

    Args:
        used: (P, M), NaN where a draw is not in use, see ``without_atom``.
        bins: number of bins.
        span: ``"full"``, from the smallest draw to the largest, or q in (0, 1): the central range
            that holds the share q of the draws; the others are in no bin.

    A row without spread has NaN for edges and shares.

    Raises:
        ValueError: ``bins`` or ``span`` is out of range.
    """
    if bins < 1:
        raise ValueError(f"bins is {bins}; at least 1 is needed")
    share = 1.0 if span == "full" else span
    if not (isinstance(share, int | float) and 0 < share <= 1):
        raise ValueError(f"span is {span!r}; it must be 'full' or a number in (0, 1)")
    ordered = np.sort(used, axis=1)  # NaN last
    draws = np.isfinite(ordered).sum(axis=1)
    low = quantile(ordered, draws, (1 - share) / 2)
    high = quantile(ordered, draws, (1 + share) / 2)
    spread = high > low
    low, high = np.where(spread, low, np.nan), np.where(spread, high, np.nan)
    steps = np.arange(bins + 1) / bins
    edges = low[:, None] * (1 - steps) + high[:, None] * steps
    shares = np.full((len(used), bins), np.nan)
    shares[spread] = _counts(used[spread], edges[spread]) / draws[spread, None]
    deviation = np.sort(np.abs(used - quantile(ordered, draws, 0.5)[:, None]), axis=1)
    return Histogram(edges, shares, quantile(deviation, draws, 0.5), draws)


@njit(nogil=True, cache=True)
def _counts(used: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Draws in each bin of each row; the last bin is closed above. NaN falls in none."""
    rows, bins = used.shape[0], edges.shape[1] - 1
    counts = np.zeros((rows, bins))
    for row in range(rows):
        low, high = edges[row, 0], edges[row, bins]
        steps_per_unit = bins / (high - low)
        for value in used[row]:
            if low <= value <= high:
                index = min(int((value - low) * steps_per_unit), bins - 1)
                # The product may round to the wrong side of an edge.
                if value < edges[row, index]:
                    index -= 1
                elif index < bins - 1 and value >= edges[row, index + 1]:
                    index += 1
                counts[row, index] += 1
    return counts


def sum_of_squared_errors(
    histograms: Histogram, fit: FittedLaw, *, scaling: str
) -> tuple[np.ndarray, np.ndarray]:
    """The paper's measure of fit, histogram against law, and what chance alone would give.

    The paper does not say which range, bins or scaling it used. ``mass``, the default of the
    study, compares the share of draws in each bin with the law's probability of that bin: it has
    no unit, so parameters whose gradients differ by orders of magnitude can be averaged. A density
    needs a unit; here it is the robust scale of the draws, the same for every law that is compared
    (the range would make it depend on one draw). One far draw widens all bins of the full range,
    so that most draws fall in a few of them: the heavier the tail, the less this measure sees.

    Args:
        histograms: of P parameters.
        fit: of the same P parameters.
        scaling: ``"mass"`` or ``"density"``.

    Returns:
        ``sse`` (P,), the sum of squared differences over the bins, and ``sse_floor`` (P,), its
        expectation were the fitted law the truth: the variance p(1 - p)/M of each bin's share.
        Fitting takes a little of it away, and a range that ends at draws changes it a little.

    Raises:
        ValueError: unknown ``scaling``.
    """
    masses = np.diff(fit.cdf(histograms.edges), axis=1)
    sse = np.sum((histograms.shares - masses) ** 2, axis=1)
    floor = np.sum(masses * (1 - masses), axis=1) / np.maximum(histograms.draws, 1)
    if scaling == "mass":
        return sse, floor
    if scaling == "density":
        width = (histograms.edges[:, 1] - histograms.edges[:, 0]) / histograms.scale
        return sse / width**2, floor / width**2
    raise ValueError(f"scaling is {scaling!r}; it must be 'mass' or 'density'")


def split_draws(noise: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """The first draws, to fit on, and the last ``fraction`` of them, to be held out.

    The draws are in random order already, so the split needs no seed. Both parts come from one
    data set: held-out draws are new mini-batches, not new data.

    Raises:
        ValueError: ``fraction`` leaves nothing on one side.
    """
    held_out = round(noise.shape[1] * fraction)
    if not 0 < held_out < noise.shape[1]:
        raise ValueError(
            f"held_out_fraction {fraction} of {noise.shape[1]} draws leaves nothing on one side"
        )
    return noise[:, :-held_out], noise[:, -held_out:]


def held_out_log_likelihood(held_out: np.ndarray, fit: FittedLaw) -> np.ndarray:
    """Mean log density of held-out draws, (P,); NaN where none is in use.

    Args:
        held_out: draws that were not fitted, NaN where not in use, (P, K).
        fit: to the other draws of the same parameters, see ``split_draws``.
    """
    known = np.isfinite(held_out)
    total = np.where(known, fit.logpdf(held_out), 0.0).sum(axis=1)
    draws = known.sum(axis=1)
    return np.where(draws > 0, total / np.maximum(draws, 1), np.nan)


def aic(log_likelihood: np.ndarray, free_parameters: float) -> np.ndarray:
    """Akaike's information criterion, 2 k - 2 log L."""
    return 2 * free_parameters - 2 * log_likelihood


def bic(log_likelihood: np.ndarray, free_parameters: float, draws: np.ndarray) -> np.ndarray:
    """Schwarz's information criterion, k log M - 2 log L, with M draws in use, (P,)."""
    return free_parameters * np.log(np.maximum(draws, 1)) - 2 * log_likelihood


def null_quantile(draws: int, *, level: float = 0.95, rows: int = 4000) -> float:
    """Critical value of 2 (log L_stable - log L_Gaussian) for ``draws`` truly Gaussian draws.

    The Gaussian is the SαS law with alpha = 2, the end of its range, so the ratio tends to half a
    point mass at 0 and half a chi-squared law with one degree of freedom. It does so slowly: one
    far draw in a thousand moves alpha. Hence a parametric bootstrap: ``rows`` Gaussian parameters
    are drawn and fitted like all others. The ratio does not depend on their scale, so this value is
    a function of ``draws`` alone, with a seed of its own, and not a random part of a study.
    """
    ratios = []
    for block in range(0, rows, 1000):
        rng = seeds.generator(0, "gaussian null", draws, block)
        noise = rng.standard_normal((min(1000, rows - block), draws), dtype=np.float32)
        stable, gaussian = fitting.fit_stable(noise), fitting.fit_gaussian(noise)
        ratios.append(2 * (stable.log_likelihood - gaussian.log_likelihood))
    return float(np.quantile(np.concatenate(ratios), level))
