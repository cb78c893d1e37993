"""How well laws fit the noise of parameters, and what the fits of many parameters say together.

Arrays of noise are (P, M): parameter, draw. One array function serves all P parameters at once.
The draws of one parameter share their data set and those of one mini-batch share their samples, so
neither draws nor parameters are truly independent; standard errors here treat them as if they were,
which makes them too small rather than too large.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numba
import numpy as np
import pandas as pd
from scipy import special, stats

from sgnoise import fitting, seeds

# Two-sided 95 % of a normal law.
_Z95 = 1.959963984540054

# Differences that may be rounding: of SSE in relation to its size (2e-8 was seen between equal
# laws, 4e-6 at least between different ones), and of mean log densities.
_SSE_TIE = 1e-6
_LOG_DENSITY_TIE = 1e-7


class FittedLaw(Protocol):
    """What is needed of a batched fit; ``sgnoise.fitting`` makes them. NaN gives NaN."""

    def logpdf(self, x: np.ndarray) -> np.ndarray:
        """Log density at x, (P, K) -> (P, K)."""

    def cdf(self, x: np.ndarray) -> np.ndarray:
        """Probability of at most x, (P, K) -> (P, K)."""


# --- one law, one parameter at a time -----------------------------------------------------------


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
    low = _quantile(ordered, draws, (1 - share) / 2)
    high = _quantile(ordered, draws, (1 + share) / 2)
    spread = high > low
    low, high = np.where(spread, low, np.nan), np.where(spread, high, np.nan)
    steps = np.arange(bins + 1) / bins
    edges = low[:, None] * (1 - steps) + high[:, None] * steps
    shares = np.full((len(used), bins), np.nan)
    shares[spread] = _counts(used[spread], edges[spread]) / draws[spread, None]
    deviation = np.sort(np.abs(used - _quantile(ordered, draws, 0.5)[:, None]), axis=1)
    return Histogram(edges, shares, _quantile(deviation, draws, 0.5), draws)


def _quantile(ordered: np.ndarray, draws: np.ndarray, share: float) -> np.ndarray:
    """The quantile of the first ``draws`` values of each row, interpolated; NaN without any."""
    rows = np.arange(len(ordered))
    position = np.maximum(draws - 1, 0) * share
    below = np.floor(position).astype(np.int64)
    above = np.minimum(below + 1, np.maximum(draws - 1, 0))
    weight = position - below
    return ordered[rows, below] * (1 - weight) + ordered[rows, above] * weight


@numba.njit(parallel=True, cache=True)
def _counts(used: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Draws in each bin of each row; the last bin is closed above. NaN falls in none."""
    rows, bins = used.shape[0], edges.shape[1] - 1
    counts = np.zeros((rows, bins))
    for row in numba.prange(rows):
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


def kolmogorov_smirnov(ordered: np.ndarray, fit: FittedLaw) -> np.ndarray:
    """Largest distance between the empirical and the fitted distribution function, (P,).

    Args:
        ordered: draws in use in increasing order, NaN (not in use) last, (P, M).
        fit: of the same parameters.
    """
    draws = np.maximum(np.isfinite(ordered).sum(axis=1, keepdims=True), 1)
    probability = fit.cdf(ordered)
    above = np.arange(1, ordered.shape[1] + 1) / draws
    distance = np.maximum(above - probability, probability - above + 1 / draws)
    return np.fmax.reduce(distance, axis=1)


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


# --- shares of parameters -----------------------------------------------------------------------


def usable_parameters(fits: pd.DataFrame, laws: list[str], column: str) -> pd.Series:
    """Which parameters can enter a comparison of ``laws``: all fits converged, ``column`` finite.

    Args:
        fits: one row a parameter and law, with ``parameter_index``, ``law`` and ``converged``.
        laws: the laws that are compared; a parameter enters for all of them or for none.
        column: what is compared.

    Returns:
        True or False by ``parameter_index``.

    Raises:
        ValueError: a law was not fitted.
    """
    chosen = fits[fits["law"].isin(laws)]
    missing = set(laws) - set(chosen["law"])
    if missing:
        raise ValueError(
            f"no fits of {', '.join(sorted(missing))}; add the law to the setting fits.laws"
        )
    fine = chosen["converged"] & np.isfinite(chosen[column])
    return fine.groupby(chosen["parameter_index"]).all()


def by_law(fits: pd.DataFrame, laws: list[str], column: str) -> pd.DataFrame:
    """``column`` as a table with one row a usable parameter and one column a law."""
    usable = usable_parameters(fits, laws, column)
    wide = fits[fits["law"].isin(laws)].pivot(index="parameter_index", columns="law", values=column)
    return wide.loc[usable[usable].index, laws]


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """The mean and its standard error over parameters; NaN where there are too few for it."""
    n = len(values)
    mean = float(np.mean(values)) if n else np.nan
    return mean, float(np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else np.nan


@dataclass(frozen=True)
class Share:
    """A part of ``n`` parameters with its 95 % interval (Wilson); NaN where n is 0."""

    share: float
    low: float
    high: float
    n: int


def share_of(hits: np.ndarray) -> Share:
    """The share of True with Wilson's interval, which is right near 0 and 1, too."""
    n = len(hits)
    if n == 0:
        return Share(np.nan, np.nan, np.nan, 0)
    share = float(np.mean(hits))
    spread = _Z95**2 / n
    centre = (share + spread / 2) / (1 + spread)
    half = np.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return Share(share, max(0.0, float(centre - half)), min(1.0, float(centre + half)), n)


def sse_wins(sse: np.ndarray, rival_sse: np.ndarray) -> Share:
    """Share of parameters with a smaller SSE than the rival's; a NaN leaves the pair out of n.

    A tie is no win. It is frequent: where alpha = 2, SαS is the Gaussian, and the two numbers
    differ by rounding only.
    """
    usable = np.isfinite(sse) & np.isfinite(rival_sse)
    return share_of(sse[usable] < (1 - _SSE_TIE) * rival_sse[usable])


def likelihood_wins(log_density: np.ndarray, rival_log_density: np.ndarray) -> Share:
    """Share of parameters with a larger mean log density than the rival's, as for ``sse_wins``."""
    usable = np.isfinite(log_density) & np.isfinite(rival_log_density)
    return share_of(log_density[usable] > rival_log_density[usable] + _LOG_DENSITY_TIE)


def calibrated_wins(
    log_likelihood_stable: np.ndarray, log_likelihood_gaussian: np.ndarray, critical: float
) -> Share:
    """Share of parameters at which the Gaussian is rejected in favour of the SαS law.

    Args:
        log_likelihood_stable: (P,).
        log_likelihood_gaussian: (P,).
        critical: of the likelihood ratio, see ``null_quantile``.
    """
    ratio = 2 * (log_likelihood_stable - log_likelihood_gaussian)
    return share_of(ratio[np.isfinite(ratio)] > critical)


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


# --- alpha over parameters, layers and batch sizes ----------------------------------------------


@dataclass(frozen=True)
class Heterogeneity:
    """How much alpha differs between parameters.

    Attributes:
        n: parameters.
        mean: of alpha.
        mean_se: its standard error.
        sd: between-parameter standard deviation with the estimation error taken away.
        clipped: the estimates spread less than their errors say, so ``sd`` was set to 0.
        q: Cochran's Q; under one common alpha chi-squared with ``degrees_of_freedom``.
        degrees_of_freedom: parameters with a usable standard error, less one.
        p_value: of Q.
    """

    n: int
    mean: float
    mean_se: float
    sd: float
    clipped: bool
    q: float
    degrees_of_freedom: int
    p_value: float


def heterogeneity(alpha: np.ndarray, alpha_se: np.ndarray) -> Heterogeneity:
    """Set the spread of alpha between parameters apart from the error of its estimates.

    Method of moments without weights (Hedges): the variance of the estimates less the mean of
    their squared errors. The usual weights 1/se² would pull the mean to 2, as the error of alpha
    shrinks towards that end. Q needs these weights and is rough there for the same reason; both
    rest on errors that the model gives, so noise of another law can look heterogeneous without
    being so. The synthetic controls, with the same law in each parameter, show by how much.

    Args:
        alpha: (P,); rows with NaN are left out.
        alpha_se: (P,); an alpha without an error (at the lower end of its range) counts in the mean
            and in the variance, but neither in the mean squared error nor in Q.

    With fewer than two parameters, or errors, what cannot be computed is NaN.
    """
    known = np.isfinite(alpha)
    alpha, alpha_se = alpha[known], alpha_se[known]
    n = len(alpha)
    usable = np.isfinite(alpha_se) & (alpha_se > 0)
    degrees_of_freedom = max(int(usable.sum()) - 1, 0)
    mean = float(alpha.mean()) if n else np.nan
    if n < 2:
        return Heterogeneity(n, mean, np.nan, np.nan, False, np.nan, degrees_of_freedom, np.nan)
    variance = float(alpha.var(ddof=1))
    mean_se = float(np.sqrt(variance / n))
    if degrees_of_freedom == 0:
        return Heterogeneity(n, mean, mean_se, np.nan, False, np.nan, 0, np.nan)
    between = variance - float(np.mean(alpha_se[usable] ** 2))
    weight = alpha_se[usable] ** -2.0
    common = np.sum(weight * alpha[usable]) / np.sum(weight)
    q = float(np.sum(weight * (alpha[usable] - common) ** 2))
    return Heterogeneity(
        n=n,
        mean=mean,
        mean_se=mean_se,
        sd=float(np.sqrt(max(between, 0.0))),
        clipped=between < 0,
        q=q,
        degrees_of_freedom=degrees_of_freedom,
        p_value=float(special.chdtrc(degrees_of_freedom, q)),
    )


@dataclass(frozen=True)
class Slope:
    """A slope over several parameters or layers, with its standard error and 95 % interval (t)."""

    slope: float
    se: float
    low: float
    high: float
    n: int


def _slope(estimate: float, se: float, n: int, degrees_of_freedom: int) -> Slope:
    half = float(stats.t.ppf(0.975, degrees_of_freedom)) * se
    return Slope(estimate, se, estimate - half, estimate + half, n)


def mean_slope(slopes: np.ndarray) -> Slope:
    """The mean of the slopes of single parameters; its error comes from their spread.

    Raises:
        ValueError: fewer than two slopes.
    """
    n = len(slopes)
    if n < 2:
        raise ValueError(f"{n} slope(s); at least 2 are needed for a mean with an error")
    return _slope(float(slopes.mean()), float(slopes.std(ddof=1) / np.sqrt(n)), n, n - 1)


def line_slope(x: np.ndarray, y: np.ndarray) -> Slope:
    """Least-squares slope of y on x, (n,) each.

    Raises:
        ValueError: fewer than three points, or all at one x.
    """
    n = len(x)
    if n < 3 or np.ptp(x) == 0:
        raise ValueError(
            f"{n} point(s) between x = {np.min(x)} and {np.max(x)} give no slope with an error"
        )
    x, y = x - x.mean(), y - y.mean()
    slope = float(x @ y / (x @ x))
    residuals = y - slope * x
    return _slope(slope, float(np.sqrt(residuals @ residuals / (n - 2) / (x @ x))), n, n - 2)


def stability_under_addition(
    alpha: np.ndarray, alpha_se: np.ndarray, batch_sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Slope of alpha against the logarithm of the batch size, for each parameter.

    The mean of B independent SαS values is SαS with the same alpha, so the slope is 0 if the
    gradients of single samples are SαS. With finite variance, the central limit theorem takes
    alpha to 2, so the slope is above 0 where alpha starts below.

    Args:
        alpha: (P, K), at K batch sizes.
        alpha_se: (P, K).
        batch_sizes: (K,).

    Returns:
        Slope (P,) for a batch size e times larger (ordinary least squares: weights 1/se² would
        favour estimates near 2), and the standard error (P,) that the errors of alpha give it; the
        latter is NaN where one of them is missing.

    Raises:
        ValueError: fewer than two batch sizes, or shapes that do not match.
    """
    if alpha.ndim != 2 or alpha.shape != alpha_se.shape or alpha.shape[1] != len(batch_sizes):
        raise ValueError(
            f"alpha {alpha.shape}, alpha_se {alpha_se.shape} and {len(batch_sizes)} batch sizes "
            "do not match; alpha must be (parameters, batch sizes)"
        )
    if len(np.unique(batch_sizes)) < 2:
        raise ValueError(f"batch sizes {list(batch_sizes)}; at least two different ones are needed")
    x = np.log(batch_sizes)
    weights = (x - x.mean()) / np.sum((x - x.mean()) ** 2)
    return alpha @ weights, np.sqrt(alpha_se**2 @ weights**2)
