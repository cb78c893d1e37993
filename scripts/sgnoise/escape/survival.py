"""Escape times of replicas of which some did not escape within the budget (right-censored).

A sample is two arrays of shape (replicas,): ``times`` in iterations and ``escaped``, False where
the budget ended the replica. Under the exponential law that the theories of escape imply, all that
the sample says about the mean is in two numbers: how many escaped, and the sum of the times.
"""

from __future__ import annotations

import math

import numpy as np

_SIMULATIONS = 2000


def exponential_mean(events: np.ndarray, exposure: np.ndarray) -> np.ndarray:
    """Maximum-likelihood mean of exponential times with censoring: exposure / events.

    The same holds for the geometric law, the exponential law's counterpart in whole iterations.

    >>> exponential_mean(np.array([4, 0]), np.array([100.0, 100.0]))
    array([25., inf])

    Args:
        events: how many escaped, any shape.
        exposure: the sum of the times of all replicas, escaped or not, same shape.

    Returns:
        The mean, infinite where nothing escaped.
    """
    counts = np.asarray(events, dtype=np.float64)
    return np.divide(exposure, counts, out=np.full(counts.shape, np.inf), where=counts > 0)


def resampled_totals(
    times: np.ndarray, escaped: np.ndarray, samples: int, *, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Events and exposure, each (samples,), of bootstrap samples of the replicas."""
    count = len(times)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=samples)
    return drawn @ escaped.astype(np.int64), drawn @ times.astype(np.float64)


def mean_interval(events: np.ndarray, exposure: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of the mean from bootstrap totals; may be infinite above.

    Of exponential times it covers the mean in 93 % of samples of 25 replicas, in 94 % of samples of
    50 or 100 (measured on 2500 samples each; where it misses it is more often too low).
    """
    means = exponential_mean(events, exposure)
    # Order statistics and not interpolation, which makes NaN of infinities.
    low, high = np.quantile(means, [0.025, 0.975], method="nearest")
    return float(low), float(high)


def kaplan_meier(times: np.ndarray, escaped: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """The Kaplan-Meier estimate.

    >>> times, escaped = np.array([2, 3, 5, 8]), np.array([True, True, False, True])
    >>> at, surviving, median = kaplan_meier(times, escaped)
    >>> surviving
    array([0.75, 0.5 , 0.  ])
    >>> median
    3.0

    Returns:
        The times at which somebody escaped, in order; the share not escaped after each; and the
        median, NaN where less than half escaped.
    """
    from lifelines import KaplanMeierFitter

    fitter = KaplanMeierFitter().fit(times, event_observed=escaped)
    table = fitter.event_table
    at = table.index[table["observed"] > 0]
    surviving = fitter.survival_function_["KM_estimate"].loc[at]
    median = float(fitter.median_survival_time_)
    return (
        at.to_numpy(dtype=float),
        surviving.to_numpy(),
        median if np.isfinite(median) else math.nan,
    )


def exponential_quantiles(
    times: np.ndarray, escaped: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Q-Q data against the exponential law: (its quantiles, observed times, median).

    The quantiles are those of the exponential law with the censored maximum-likelihood mean, at
    the Kaplan-Meier estimate halfway down each step, so that censoring is allowed for.
    """
    at, surviving, median = kaplan_meier(times, escaped)
    middle = (surviving + np.concatenate([[1.0], surviving[:-1]])) / 2
    mean = exponential_mean(np.sum(escaped), np.sum(times))
    return -mean * np.log(middle), at, median


def cox_oakes(times: np.ndarray, escaped: np.ndarray) -> np.ndarray:
    """Score statistic of the exponential law against Weibull laws (Cox and Oakes 1984), censored.

    Positive where the hazard rises with time, negative where it falls, about N(0, 1) if it is
    constant; 0 where nothing escaped.

    >>> times = np.array([9.0, 10.0, 10.0, 11.0] * 5)
    >>> bool(cox_oakes(times, np.ones(20, dtype=bool)) > 3)
    True

    Args:
        times: above 0, (..., replicas).
        escaped: bool, same shape.

    Returns:
        (...,)
    """
    events = escaped.sum(axis=-1)
    mean = exponential_mean(events, times.sum(axis=-1))
    log_times = np.log(times)
    scaled = times / mean[..., None]
    score = events + (escaped * log_times).sum(-1) - (scaled * log_times).sum(-1)
    information = events + (scaled * log_times**2).sum(-1)
    safe_events = np.maximum(events, 1)
    information = information - (scaled * log_times).sum(-1) ** 2 / safe_events
    return np.where(events > 0, score / np.sqrt(np.maximum(information, 1e-300)), 0.0)


def exponential_p(
    times: np.ndarray, escaped: np.ndarray, budget: int, *, rng: np.random.Generator
) -> float:
    """Probability, if escape times are exponential, of a Cox-Oakes statistic as far from 0 as this.

    By simulation of exponential times with the sample's mean, rounded up to whole iterations and
    cut at ``budget`` as the replicas were; so neither censoring nor short times bias the test.
    NaN with fewer than 3 escapes.

    >>> times = np.array([9, 10, 10, 11] * 5)
    >>> p = exponential_p(times, times < 20, 20, rng=np.random.default_rng(0))
    >>> bool(p < 0.01)  # too regular
    True
    """
    if np.sum(escaped) < 3:
        return math.nan
    mean = float(exponential_mean(np.sum(escaped), np.sum(times)))
    # The geometric law with the same mean: a rounded-up exponential time.
    rate = -math.log1p(-1 / mean) if mean > 1 else math.inf
    drawn = np.ceil(rng.exponential(1 / rate, size=(_SIMULATIONS, len(times))))
    drawn = np.maximum(drawn, 1.0)
    simulated = np.abs(cox_oakes(np.minimum(drawn, budget), drawn <= budget))
    observed = np.abs(cox_oakes(times.astype(np.float64), escaped.astype(bool)))
    return float((1 + np.sum(simulated >= observed)) / (1 + _SIMULATIONS))
