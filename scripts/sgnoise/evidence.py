"""What the fits of many parameters say together: shares, spread, and alpha as the batch grows.

The draws of one parameter share their data set and those of one mini-batch share their samples, so
neither draws nor parameters are truly independent; standard errors here treat them as if they were,
which makes them too small rather than too large.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from sgnoise.numerals import wilson_interval

# Differences that may be rounding: of SSE in relation to its size (2e-8 was seen between equal
# laws, 4e-6 at least between different ones), and of mean log densities.
_SSE_TIE = 1e-6
_LOG_DENSITY_TIE = 1e-7

# In torchvision's MobileNetV3 the second convolution of a squeeze-and-excitation block feeds a
# hard sigmoid.
_BEFORE_HARD_SIGMOID = r"features\.\d+\.block\.\d+\.fc2"


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
    return Share(*wilson_interval(int(np.sum(hits)), len(hits)), len(hits))


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
        critical: of the likelihood ratio, see ``goodness.null_quantile``.
    """
    ratio = 2 * (log_likelihood_stable - log_likelihood_gaussian)
    return share_of(ratio[np.isfinite(ratio)] > critical)


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
    half = float(special.stdtrit(degrees_of_freedom, 0.975)) * se
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


def before_hard_sigmoid(layers: pd.DataFrame) -> pd.Series:
    """Which rows are layers that feed a hard sigmoid; the paper reports a higher alpha in them."""
    return layers["layer"].str.fullmatch(_BEFORE_HARD_SIGMOID)


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
