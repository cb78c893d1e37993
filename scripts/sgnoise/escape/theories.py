"""Theories of the mean escape time τ against the learning rate η, fitted to censored replicas.

Each has two free parameters, a coefficient c and an exponent k, and is linear in (log c, k):
log τ = log c + k·x(η) + o(η). A further one needs an entry of ``THEORIES`` and one of ``LOOKS`` and
nothing else: it is fitted, tabulated and drawn like the others.

The data are totals for each learning rate: ``events``, how many replicas escaped, and
``exposure``, the iterations of all replicas, escaped or not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sgnoise.escape.survival import exponential_mean

_NEWTON_STEPS = 60
_LARGEST_STEP = 2.0  # in log τ at one standard deviation of x; keeps exp() in range


@dataclass(frozen=True)
class Theory:
    """What a theory says about log τ.

    Attributes:
        regressor: x(η), (rates,) to (rates,).
        offset: o(η), likewise.
    """

    regressor: Callable[[np.ndarray], np.ndarray]
    offset: Callable[[np.ndarray], np.ndarray]

    def log_time(
        self,
        learning_rates: np.ndarray,
        log_coefficient: float | np.ndarray,
        exponent: float | np.ndarray,
    ) -> np.ndarray:
        """log τ(η), (rates,)."""
        return (
            log_coefficient
            + exponent * self.regressor(learning_rates)
            + self.offset(learning_rates)
        )


@dataclass(frozen=True)
class Look:
    """A theory as readers see it, apart from ``Theory`` so that another colour refits nothing.

    Attributes:
        label: name in legends.
        formula: τ(η), as matplotlib's mathematical text.
        colour: of its line, in hexadecimal digits.
        line: style of its line, as matplotlib names it.
    """

    label: str
    formula: str
    colour: str
    line: Literal["-", "--", "-.", ":"]


THEORIES = {
    # The paper's (Corollary 4.2; in iterations it predicts k = α).
    "levy": Theory(regressor=lambda rate: -np.log(rate), offset=np.zeros_like),
    # Xie et al. (arXiv 2002.03495) without its prefactor.
    "diffusion": Theory(regressor=lambda rate: 1 / rate, offset=np.zeros_like),
    # Kramers' law in iterations with its prefactor.
    "kramers": Theory(regressor=lambda rate: 1 / rate, offset=lambda rate: -np.log(rate)),
}

LOOKS = {
    "levy": Look("Lévy", r"$\tau = c\,\eta^{-k}$", "#0072b2", "-"),
    "diffusion": Look("diffusion", r"$\tau = c\,e^{k/\eta}$", "#d55e00", "--"),
    "kramers": Look("Kramers", r"$\tau = (c/\eta)\,e^{k/\eta}$", "#009e73", ":"),
}

# The theory that the others are compared with.
REFERENCE = "levy"


@dataclass(frozen=True)
class TheoryFit:
    """Estimates, (...,) each: one for each sample of totals. NaN where they do not exist.

    Attributes:
        log_coefficient: log c.
        exponent: k.
        log_likelihood: of all replicas, each escape time exponential with the theory's mean.
    """

    log_coefficient: np.ndarray
    exponent: np.ndarray
    log_likelihood: np.ndarray


def log_likelihood(log_times: np.ndarray, events: np.ndarray, exposure: np.ndarray) -> np.ndarray:
    """Σ over rates of −events·log τ − exposure/τ: censored exponential replicas.

    Args:
        log_times: log τ at each learning rate, (..., rates).
        events: (..., rates).
        exposure: (..., rates).
    """
    return -(events * log_times + exposure * np.exp(-log_times)).sum(axis=-1)


def saturated_log_likelihood(events: np.ndarray, exposure: np.ndarray) -> np.ndarray:
    """The largest log-likelihood of any theory: every learning rate has a mean of its own."""
    ratio = np.divide(exposure, events, out=np.ones(np.shape(events)), where=events > 0)
    return -(events * np.log(ratio) + events).sum(axis=-1)


def fit_by_likelihood(
    theory: Theory, learning_rates: np.ndarray, events: np.ndarray, exposure: np.ndarray
) -> TheoryFit:
    """Maximum likelihood over all replicas, censored ones and fully censored rates included.

    The log-likelihood is concave in (log c, k) and has one maximum if replicas escaped at two
    learning rates or more, so Newton's method with capped steps finds it.

    >>> import numpy as np
    >>> rates = np.array([0.1, 0.2, 0.4])
    >>> fit = fit_by_likelihood(THEORIES["levy"], rates, np.full(3, 50), 50 * 7.0 * rates**-1.5)
    >>> round(float(fit.exponent), 6), round(float(np.exp(fit.log_coefficient)), 6)
    (1.5, 7.0)

    Args:
        learning_rates: (rates,), distinct.
        events: (..., rates).
        exposure: (..., rates), above 0.
    """
    events = np.asarray(events, dtype=np.float64)
    exposure = np.asarray(exposure, dtype=np.float64)
    regressor = theory.regressor(learning_rates)
    offset = theory.offset(learning_rates)
    # Standardised, or x = 1/η and a constant are nearly the same direction.
    centre, spread = regressor.mean(), regressor.std()
    x = (regressor - centre) / spread
    exists = (events > 0).sum(axis=-1) >= 2

    total = np.maximum(events.sum(-1), 1)
    level = np.log(exposure.sum(-1) / total) - (events * offset).sum(-1) / total
    slope = np.zeros_like(level)
    for _ in range(_NEWTON_STEPS):
        log_times = level[..., None] + slope[..., None] * x + offset
        expected = exposure * np.exp(-log_times)
        gradient_level = (expected - events).sum(-1)
        gradient_slope = ((expected - events) * x).sum(-1)
        h00, h01, h11 = expected.sum(-1), (expected * x).sum(-1), (expected * x * x).sum(-1)
        determinant = np.maximum(h00 * h11 - h01 * h01, 1e-12 * h00 * h11 + 1e-300)
        step_level = (h11 * gradient_level - h01 * gradient_slope) / determinant
        step_slope = (h00 * gradient_slope - h01 * gradient_level) / determinant
        size = np.maximum(np.abs(step_level), np.abs(step_slope))
        cap = np.minimum(1, _LARGEST_STEP / np.maximum(size, 1e-300))
        level = level + cap * step_level
        slope = slope + cap * step_slope
        if not np.any(size[exists] > 1e-10):
            break

    log_times = level[..., None] + slope[..., None] * x + offset
    found = [
        level - slope * centre / spread,
        slope / spread,
        log_likelihood(log_times, events, exposure),
    ]
    return TheoryFit(*(np.where(exists, value, np.nan) for value in found))


def fit_by_least_squares(
    theory: Theory, learning_rates: np.ndarray, events: np.ndarray, exposure: np.ndarray
) -> tuple[float, float, float]:
    """Weighted least squares on log τ over the rates at which replicas escaped.

    The weights are the numbers of escapes: the log of a censored mean has variance 1/events.

    >>> import numpy as np
    >>> rates = np.array([0.1, 0.2, 0.4])
    >>> found = fit_by_least_squares(
    ...     THEORIES["levy"], rates, np.full(3, 50), 50 * 7.0 * rates**-1.5
    ... )
    >>> np.round(found[1:], 6)
    array([1.5, 1. ])

    Returns:
        log c, k, and R²: the share of the weighted variance of log τ that the theory explains, at
        most 1 and negative where a constant does better. NaN with fewer than 3 such rates.
    """
    used = events > 0
    if used.sum() < 3:
        return math.nan, math.nan, math.nan
    rates, weights = learning_rates[used], events[used]
    observed = np.log(exponential_mean(events, exposure)[used])
    target = observed - theory.offset(rates)
    x = theory.regressor(rates)
    x_mean, target_mean = np.average(x, weights=weights), np.average(target, weights=weights)
    deviation = x - x_mean
    exponent = np.sum(weights * deviation * target) / np.sum(weights * deviation**2)
    log_coefficient = target_mean - exponent * x_mean
    residual = observed - theory.log_time(rates, log_coefficient, exponent)
    variation = observed - np.average(observed, weights=weights)
    r_squared = 1 - np.sum(weights * residual**2) / np.sum(weights * variation**2)
    return float(log_coefficient), float(exponent), float(r_squared)


def leave_one_out_error(
    theory: Theory, learning_rates: np.ndarray, events: np.ndarray, exposure: np.ndarray
) -> float:
    """Root mean square error of log τ at a learning rate, predicted by a fit to all the others.

    Over the rates at which replicas escaped; the fits are by likelihood. NaN with fewer than 3.
    """
    held_out = np.flatnonzero(events > 0)
    if len(held_out) < 3:
        return math.nan
    kept = ~np.eye(len(learning_rates), dtype=bool)[held_out]
    # Without events and with next to no exposure a rate has no say.
    fit = fit_by_likelihood(theory, learning_rates, events * kept, np.where(kept, exposure, 1e-12))
    rates = learning_rates[held_out]
    predicted = theory.log_time(rates, fit.log_coefficient, fit.exponent)
    observed = np.log(exponential_mean(events, exposure)[held_out])
    return float(np.sqrt(np.mean((observed - predicted) ** 2)))


def aicc(log_likelihood_value: float, events: float, free_parameters: int = 2) -> float:
    """Akaike's criterion corrected for the sample size: the number of escapes, as censored
    replicas tell little."""
    spare = events - free_parameters - 1
    if spare <= 0:
        return math.nan
    correction = 2 * free_parameters * (free_parameters + 1) / spare
    return 2 * free_parameters - 2 * log_likelihood_value + correction
