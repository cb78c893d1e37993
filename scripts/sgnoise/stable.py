"""The symmetric alpha-stable (SaS) law: density, distribution function and random numbers.

Parameterisation: characteristic function exp(-|scale u|^alpha), 0 < alpha <= 2. At alpha = 2 it is
the normal law of standard deviation scale * sqrt(2), at alpha = 1 the Cauchy law.

The density is f = G + (2 - alpha) q, where G is the density at alpha = 2. What is tabulated is
q (1 + x^2), smooth in both x and alpha up to the boundary alpha = 2: a quintic spline with knots
every 1/96 in alpha and ln(2)/16 in ln|x| reproduces f to 3e-8 relative up to |x| = 2^20; beyond it
the tail series takes over. The survival function has a table of the same kind. The tables are
computed when first needed (a fraction of a second); none is shipped.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sgnoise import fit_kernels as kernels

ALPHA_MIN = kernels.TABLE_ALPHA_MIN

# Quantiles are looked for between e to these powers, nearly all that a number can hold.
_LOG_LEAST, _LOG_MOST = -745.0, 709.0

_Array = NDArray[np.float64]


def _central(x: _Array, alpha: _Array) -> tuple[_Array, _Array]:
    """q and (survival - normal survival)/(2 - alpha) for |x| < 30, from the Fourier integral.

    The path of integration is turned into the complex plane, t = s exp(i pi/8), where exp(i x t)
    decays, and s = exp(v - exp(-v)) makes the trapezoid rule converge exponentially (to 1e-13).

    Args:
        x: (K,) positive points.
        alpha: (A,) values in [0.5, 2].

    Returns:
        two (A, K) arrays.
    """
    step = 0.02
    v = np.arange(-6.0, 12.0, step)
    s = np.exp(v - np.exp(-v))
    turn = np.exp(0.125j * np.pi)
    t = s * turn
    weight = s * (1.0 + np.exp(-v)) * step * turn
    log_t = np.log(t)
    power = np.exp(alpha[:, None] * log_t)
    gap = t**2 - power
    a = 2.0 - alpha[:, None]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        # exp(-t^alpha) - exp(-t^2) without cancellation; far out the second term is nothing.
        difference = np.where(gap.real < 600.0, -np.exp(-power) * np.expm1(-gap), np.exp(-power))
        difference = np.where(a > 0.0, difference / a, np.exp(-(t**2)) * t**2 * log_t)
    oscillation = np.exp(1j * np.outer(t, x))
    density = ((difference * weight) @ oscillation).real / np.pi
    survival = -((difference * weight / t) @ oscillation).imag / np.pi
    return density, survival


def _outer(x: _Array, alpha: _Array) -> tuple[_Array, _Array]:
    """The same two functions for x >= 30 from the tail series, cut at its smallest term."""
    from scipy.special import gammaln

    a = 2.0 - alpha[:, None]
    log_x = np.log(x)
    density = np.zeros((alpha.size, x.size))
    survival = np.zeros_like(density)
    previous = np.full_like(density, np.inf)
    falling = np.ones(density.shape, dtype=bool)
    for k in range(1, 61):
        ka = k * alpha[:, None]
        size = np.exp(gammaln(ka + 1.0) - gammaln(k + 1.0) - (ka + 1.0) * log_x)
        falling &= size < previous
        previous = size
        # (-1)^(k+1) sin(pi k alpha/2)/(2 - alpha), exact at alpha = 2
        sine = 0.5 * np.pi * k * np.sinc(0.5 * k * a)
        term = np.where(falling, size * sine / np.pi, 0.0)
        density += term
        survival += term * x / ka
    return density, survival


def _spline(values: _Array, size: _Array | None = None) -> _Array:
    """Coefficients (n + 4, ...) of the quintic spline through (n, ...) values on a uniform grid.

    Not-a-knot: the fifth derivative does not jump at the two knots next to each end.

    Args:
        values: at the knots.
        size: (n,) rough size of the values where it varies by many orders of magnitude; rounding
            errors are then relative to it and not to the largest.
    """
    n = len(values)
    size = np.ones(n) if size is None else size
    padded = np.pad(size, (2, 2), mode="edge")
    matrix = np.zeros((n + 4, n + 4))
    for j in range(n):
        matrix[j, j : j + 5] = np.array([1.0, 26.0, 66.0, 26.0, 1.0]) / 120.0
    jump = np.array([1.0, -6.0, 15.0, -20.0, 15.0, -6.0, 1.0])
    for row, first in enumerate((0, 1, n - 4, n - 3)):
        matrix[n + row, first : first + 7] = jump
    right = np.concatenate([(values.T / size).T, np.zeros((4, *values.shape[1:]))])
    matrix[:n] *= padded / size[:, None]
    matrix[n:] *= padded / padded.mean()
    return (np.linalg.solve(matrix, right).T * padded).T


def _lagrange() -> _Array:
    """(6 nodes, 6 powers): polynomials that are 1 at one of -2.5 ... 2.5 and 0 at the others."""
    nodes = np.arange(6) - 2.5
    return np.linalg.inv(np.vander(nodes, increasing=True)).T.copy()


def _fold() -> _Array:
    """(6, steps): Lagrange polynomials in x^2 with nodes at ``FOLD_STEPS``, at every step below."""
    nodes = 4.0 ** (-np.array(kernels.FOLD_STEPS) / kernels.PER_OCTAVE)
    x2 = 4.0 ** (-np.arange(kernels.KEEP_LOW + kernels.KEEP_HIGH + 8) / kernels.PER_OCTAVE)
    factors = np.ones((6, x2.size))
    for i in range(6):
        for j in range(6):
            if i != j:
                factors[i] *= (x2 - nodes[j]) / (nodes[i] - nodes[j])
    return factors


def _quantile_of_magnitude(probability: float, x: _Array, survival: _Array) -> _Array:
    """ln of the quantile of |x| for each row of ``survival`` (A, K)."""
    log_x = np.log(x)
    return np.array(
        [np.interp(-0.5 * (1.0 - probability), -row, log_x) for row in survival], dtype=np.float64
    )


@cache
def tables() -> kernels.Tables:
    """All that the kernels look up, computed at the first call of a process."""
    from scipy.special import erfc, k1e

    alpha = ALPHA_MIN + np.arange(round((2.0 - ALPHA_MIN) * kernels.TABLE_ALPHA_STEPS) + 1) / (
        kernels.TABLE_ALPHA_STEPS
    )
    x = np.exp(kernels.STEP * np.arange(kernels.TABLE_LOW, kernels.TABLE_HIGH + 1))
    centre = x < 30.0
    density, survival = np.empty((2, alpha.size, x.size))
    density[:, centre], survival[:, centre] = _central(x[centre], alpha)
    density[:, ~centre], survival[:, ~centre] = _outer(x[~centre], alpha)
    full = 0.5 * erfc(0.5 * x) + (2.0 - alpha[:, None]) * survival
    median = _quantile_of_magnitude(0.5, x, full)
    density *= 1.0 + x * x
    survival *= np.sqrt(1.0 + x * x)
    size = (1.0 + x * x) ** (0.5 - 0.5 * 1.25)  # of both at the middle alpha
    log_z = np.arange(
        kernels.BESSEL_LOW, kernels.BESSEL_HIGH + 0.5 * kernels.BESSEL_STEP, kernels.BESSEL_STEP
    )
    return kernels.Tables(
        density=np.ascontiguousarray(_spline(_spline(density).T, size).T),
        tail=np.ascontiguousarray(_spline(_spline(survival).T, size).T),
        ratio=_quantile_of_magnitude(0.9, x, full) - median,
        median=median,
        bessel=_spline(np.log(k1e(np.exp(log_z)))),
        octaves=4.0
        ** (np.arange(kernels.KEEP_LOW + kernels.KEEP_HIGH_ALL + 8) / kernels.PER_OCTAVE),
        lagrange=_lagrange(),
        fold=_fold(),
    )


def _evaluate(kind: int, x: ArrayLike, alpha: ArrayLike, scale: ArrayLike) -> _Array:
    values, alphas, scales = (np.asarray(v, dtype=np.float64) for v in (x, alpha, scale))
    if np.any(~((alphas >= ALPHA_MIN) & (alphas <= 2.0))):
        raise ValueError(
            f"alpha must be in [{ALPHA_MIN}, 2], but it has values outside; clip or drop them"
        )
    if np.any(~((scales > 0.0) & np.isfinite(scales))):
        raise ValueError("scale must be positive and finite, but it has other values; drop them")
    shape = np.broadcast_shapes(values.shape, alphas.shape, scales.shape)
    standard = np.array(np.broadcast_to(values / scales, shape))
    if alphas.size == 1:
        rows, form = standard.reshape(1, -1), alphas.reshape(1).copy()
    else:
        rows, form = standard.reshape(-1, 1), np.array(np.broadcast_to(alphas, shape)).reshape(-1)
    ones, zeros = np.ones(len(form)), np.zeros(len(form))
    flat = np.empty(rows.shape)
    kernels.law_rows(kernels.STABLE, kind, rows, form, ones, zeros, tables(), flat)
    out = flat.reshape(shape)
    return out - np.log(scales) if kind == kernels.LOG_DENSITY else out


def logpdf(x: ArrayLike, alpha: ArrayLike, scale: ArrayLike = 1.0) -> _Array:
    """ln of the density of the SaS law at ``x``; the arguments broadcast.

    >>> logpdf([0.0, 1.0], alpha=1.0).round(6)  # Cauchy: -ln(pi (1 + x^2))
    array([-1.14473 , -1.837877])

    Args:
        x: where; any real number.
        alpha: stability index in [0.5, 2].
        scale: positive.

    Raises:
        ValueError: alpha or scale outside its range.
    """
    return _evaluate(kernels.LOG_DENSITY, x, alpha, scale)


def pdf(x: ArrayLike, alpha: ArrayLike, scale: ArrayLike = 1.0) -> _Array:
    """Density of the SaS law at ``x``, relative error below 1e-7; arguments as for ``logpdf``.

    >>> pdf(0.0, alpha=[1.0, 2.0]).round(6)  # 1/pi, 1/sqrt(4 pi)
    array([0.31831 , 0.282095])
    """
    return np.exp(logpdf(x, alpha, scale))


def sf(x: ArrayLike, alpha: ArrayLike, scale: ArrayLike = 1.0) -> _Array:
    """Survival function of the SaS law: the probability above ``x``; arguments as for ``logpdf``.

    Its relative error is below 1e-7 for positive ``x`` however far out, where 1 - cdf would be lost
    in rounding.

    >>> print(f"{sf(1e8, alpha=1.5):.7g}")  # x^-1.5 Gamma(1.5) sin(3 pi/4)/pi
    1.994711e-13
    """
    return cdf(-np.asarray(x, dtype=np.float64), alpha, scale)


def ppf(probability: ArrayLike, alpha: ArrayLike, scale: ArrayLike = 1.0) -> _Array:
    """Quantiles of the SaS law, the inverse of ``cdf``; the arguments broadcast.

    By bisection in ln|x|: where the smaller of p and 1 - p is below 0.4, to 1e-6 of the quantile,
    and to 1e-6 of the scale towards the middle. Small probabilities keep their precision; for the
    far upper tail take -ppf(1 - p) with 1 - p as it is known.

    >>> ppf([0.25, 0.5, 0.75], alpha=1.0).round(6)
    array([-1.,  0.,  1.])

    Args:
        probability: in [0, 1]; 0 and 1 give -infinity and infinity.
        alpha: stability index in [0.5, 2].
        scale: positive.

    Raises:
        ValueError: an argument outside its range.
    """
    wanted, alphas, scales = np.broadcast_arrays(
        *(np.asarray(each, dtype=np.float64) for each in (probability, alpha, scale))
    )
    return scales * quantiles(lambda distance: cdf(-distance, alphas), wanted)


def quantiles(lower_tail: Callable[[_Array], _Array], probability: ArrayLike) -> _Array:
    """Quantiles of a law that is symmetric about 0, from its distribution function below 0.

    Args:
        lower_tail: the probability of less than -x, for positive x of the shape of
            ``probability``; NaN gives NaN.
        probability: in [0, 1].

    Raises:
        ValueError: a probability out of range.
    """
    p = np.asarray(probability, dtype=np.float64)
    if np.any(~((p >= 0.0) & (p <= 1.0))):
        raise ValueError("probability must be in [0, 1], but it has values outside")
    tail = np.minimum(p, 1.0 - p)
    low, high = np.full(p.shape, _LOG_LEAST), np.full(p.shape, _LOG_MOST)
    known = ~np.isnan(lower_tail(np.ones(p.shape)))
    # Each step halves the interval, which begins with a width of 1,450.
    for _ in range(62):
        middle = 0.5 * (low + high)
        further = lower_tail(np.exp(middle)) > tail
        low, high = np.where(further, middle, low), np.where(further, high, middle)
    distance = np.where(tail == 0.5, 0.0, np.exp(high))
    distance = np.where((high == _LOG_MOST) | (tail == 0.0), np.inf, distance)
    return np.where(known, np.copysign(distance, p - 0.5), np.nan)


def cdf(x: ArrayLike, alpha: ArrayLike, scale: ArrayLike = 1.0) -> _Array:
    """Distribution function of the SaS law at ``x``, to 1e-7; arguments as for ``logpdf``.

    >>> cdf([-1.0, 0.0, 1.0], alpha=1.0).round(6)
    array([0.25, 0.5 , 0.75])
    """
    return _evaluate(kernels.DISTRIBUTION, x, alpha, scale)


def rvs(
    alpha: ArrayLike,
    size: int | tuple[int, ...],
    *,
    scale: ArrayLike = 1.0,
    rng: np.random.Generator,
) -> _Array:
    """Random numbers of the SaS law, by the method of Chambers, Mallows and Stuck (1976).

    The angle is pi((k + 1/2)/2^52 - 1/2) with k a random integer: its cosine never vanishes.

    >>> values = rvs(1.5, 100_000, scale=2.0, rng=np.random.default_rng(0))
    >>> print(f"{np.mean(values < 2.0):.2f} {cdf(2.0, alpha=1.5, scale=2.0):.2f}")
    0.76 0.76

    Args:
        alpha: stability index in (0, 2], broadcasting with ``size``.
        size: shape of the result.
        scale: positive, broadcasting with ``size``.
        rng: source of randomness.

    Raises:
        ValueError: alpha outside (0, 2].
    """
    index = np.asarray(alpha, dtype=np.float64)
    if np.any(~((index > 0.0) & (index <= 2.0))):
        raise ValueError("alpha must be in (0, 2], but it has values outside")
    angle = np.pi * ((rng.integers(0, 2**52, size=size) + 0.5) / 2.0**52 - 0.5)
    waiting = rng.standard_exponential(size=size)
    return (
        np.asarray(scale)
        * np.sin(index * angle)
        / np.cos(angle) ** (1.0 / index)
        * (np.cos((1.0 - index) * angle) / waiting) ** ((1.0 - index) / index)
    )
