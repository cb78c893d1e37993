"""What the fits of many parameters say together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sgnoise import evidence, fitting, goodness, stable

DRAWS = 1000


@pytest.fixture(scope="module")
def student() -> np.ndarray:
    return stats.t(4).rvs((2000, DRAWS), random_state=np.random.default_rng(1))


@pytest.fixture(scope="module")
def gaussian_fits() -> tuple[fitting.Fit, fitting.Fit]:
    noise = np.random.default_rng(2).standard_normal((4000, DRAWS), dtype=np.float32)
    return fitting.fit_gaussian(noise), fitting.fit_stable(noise)


def test_share_of_nothing_is_nan() -> None:
    assert np.isnan(evidence.share_of(np.array([], dtype=bool)).share)


def test_wins_leave_out_missing_pairs() -> None:
    first, second = np.array([2.0, 1.0, np.nan, 3.0]), np.array([1.0, 2.0, 0.0, np.nan])
    for found in (
        evidence.sse_wins(first, second),
        evidence.likelihood_wins(first, second),
    ):
        assert (found.share, found.n) == (0.5, 2)
    assert evidence.sse_wins(first[:1], second[:1]).share == 0
    assert evidence.likelihood_wins(first[:1], second[:1]).share == 1


def test_gaussian_rows_at_alpha_two_are_ties(
    gaussian_fits: tuple[fitting.Fit, fitting.Fit],
) -> None:
    gaussian, stable_fit = gaussian_fits
    noise = np.random.default_rng(2).standard_normal((4000, DRAWS), dtype=np.float32)
    histograms = goodness.histogram(noise.astype(np.float64), bins=100, span="full")
    found = [
        goodness.sum_of_squared_errors(histograms, fit, scaling="mass")[0]
        for fit in (stable_fit, gaussian)
    ]
    boundary = stable_fit.parameters["alpha"] == 2
    assert boundary.mean() > 0.7
    for sse, rival in (found, found[::-1]):
        assert evidence.sse_wins(sse[boundary], rival[boundary]).share == 0
    # Elsewhere there is a decision.
    either = sum(
        evidence.sse_wins(sse[~boundary], rival[~boundary]).share
        for sse, rival in (found, found[::-1])
    )
    assert either > 0.99


def test_calibrated_wins_are_five_percent_on_gaussian_noise(
    gaussian_fits: tuple[fitting.Fit, fitting.Fit],
) -> None:
    gaussian, stable_fit = gaussian_fits
    critical = goodness.null_quantile(DRAWS)
    found = evidence.calibrated_wins(stable_fit.log_likelihood, gaussian.log_likelihood, critical)
    # Binomial error of these 4,000 rows and of those behind the critical value, together 0.5 %.
    assert found.share == pytest.approx(0.05, abs=0.015)
    # The asymptotic mixture would have put it at 2.71.
    assert 0.5 < critical < 2.71


def test_calibrated_wins_find_heavy_tails(student: np.ndarray) -> None:
    rows = student[:500]
    ratio = evidence.calibrated_wins(
        fitting.fit_stable(rows).log_likelihood,
        fitting.fit_gaussian(rows).log_likelihood,
        goodness.null_quantile(DRAWS),
    )
    assert ratio.low > 0.99


# --- tables of fits -----------------------------------------------------------------------------


def test_a_parameter_is_compared_by_all_laws_or_by_none() -> None:
    fits = pd.DataFrame(
        {
            "parameter_index": [0, 0, 1, 1, 2, 2],
            "law": ["gaussian", "stable"] * 3,
            "converged": [True, True, True, False, True, True],
            "sse": [0.2, 0.1, 0.3, 0.3, np.nan, 0.4],
        }
    )
    found = evidence.by_law(fits, ["stable", "gaussian"], "sse")
    assert list(found.columns) == ["stable", "gaussian"]
    assert found.to_dict("index") == {0: {"stable": 0.1, "gaussian": 0.2}}
    with pytest.raises(ValueError, match="no fits of laplace"):
        evidence.by_law(fits, ["laplace", "stable"], "sse")


def test_mean_and_error_of_few() -> None:
    assert evidence.mean_and_error(np.array([1.0, 3.0])) == (2.0, 1.0)
    assert np.isnan(evidence.mean_and_error(np.array([1.0]))[1])
    assert np.isnan(evidence.mean_and_error(np.array([]))[0])


# --- alpha over parameters ----------------------------------------------------------------------


def test_heterogeneity_recovers_a_planted_spread() -> None:
    rng = np.random.default_rng(3)
    errors = rng.uniform(0.02, 0.08, 4000)
    alpha = 1.6 + 0.05 * rng.standard_normal(4000) + errors * rng.standard_normal(4000)
    found = evidence.heterogeneity(alpha, errors)
    assert found.mean == pytest.approx(1.6, abs=4 * found.mean_se)
    assert found.sd == pytest.approx(0.05, abs=0.004)
    assert found.p_value < 1e-10
    assert not found.clipped


def test_heterogeneity_in_fits_of_planted_alphas() -> None:
    rng = np.random.default_rng(4)
    planted = np.clip(1.5 + 0.1 * rng.standard_normal(600), 1.2, 1.8)
    noise = np.vstack([stable.rvs(alpha, (1, DRAWS), rng=rng) for alpha in planted])
    fit = fitting.fit_stable(noise)
    found = evidence.heterogeneity(fit.parameters["alpha"], fit.parameters["alpha_se"])
    assert found.sd == pytest.approx(planted.std(), abs=0.012)
    one = fitting.fit_stable(stable.rvs(1.5, (600, DRAWS), rng=rng))
    alike = evidence.heterogeneity(one.parameters["alpha"], one.parameters["alpha_se"])
    assert alike.p_value > 0.001
    assert alike.sd < 0.02


def test_heterogeneity_clips_and_says_so() -> None:
    found = evidence.heterogeneity(np.array([1.5, 1.5, 1.51]), np.full(3, 0.1))
    assert (found.sd, found.clipped) == (0.0, True)


def test_heterogeneity_keeps_estimates_at_the_end_of_the_range() -> None:
    found = evidence.heterogeneity(
        np.array([1.5, 1.7, 2.0, np.nan]), np.array([0.05, 0.05, np.nan, 0.1])
    )
    assert (found.n, found.degrees_of_freedom) == (3, 1)
    assert found.mean == pytest.approx(np.mean([1.5, 1.7, 2.0]))


@pytest.mark.parametrize("n", [0, 1])
def test_heterogeneity_of_too_few_is_nan(n: int) -> None:
    found = evidence.heterogeneity(np.full(n, 1.5), np.full(n, 0.1))
    assert found.n == n
    assert np.isnan(found.sd)


def test_line_slope_agrees_with_scipy() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.uniform(size=30), rng.uniform(size=30)
    expected = stats.linregress(x, y)
    found = evidence.line_slope(x, y)
    assert (found.slope, found.se) == pytest.approx((expected.slope, expected.stderr))
    half = stats.t(28).ppf(0.975) * expected.stderr
    assert (found.low, found.high) == pytest.approx((found.slope - half, found.slope + half))


def test_slopes_of_too_little_are_refused() -> None:
    with pytest.raises(ValueError, match="give no slope"):
        evidence.line_slope(np.array([1.0, 1.0, 1.0]), np.array([1.0, 2.0, 3.0]))
    with pytest.raises(ValueError, match="at least 2"):
        evidence.mean_slope(np.array([0.1]))


# --- stability under addition -------------------------------------------------------------------


def _alphas_by_batch_size(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """alpha and its error, (P, 3), of means of 1, 4 and 16 of ``values`` (P, 16 M)."""
    batch_sizes = np.array([1, 4, 16])
    fits = []
    for batch_size in batch_sizes:
        means = values.reshape(len(values), -1, batch_size).mean(axis=2)[:, :DRAWS]
        fits.append(fitting.fit_stable(means).parameters)
    alpha = np.column_stack([fit["alpha"] for fit in fits])
    return alpha, np.column_stack([fit["alpha_se"] for fit in fits]), batch_sizes


def test_alpha_of_stable_noise_does_not_depend_on_the_batch_size() -> None:
    rng = np.random.default_rng(6)
    slopes, errors = evidence.stability_under_addition(
        *_alphas_by_batch_size(stable.rvs(1.5, (200, 16 * DRAWS), rng=rng))
    )
    found = evidence.mean_slope(slopes)
    assert abs(found.slope) < 3 * found.se
    # The errors of single slopes, from the errors of alpha, are those that are seen.
    assert errors.mean() == pytest.approx(slopes.std(), rel=0.2)


def test_alpha_of_student_t_noise_grows_with_the_batch_size() -> None:
    rng = np.random.default_rng(7)
    slopes, _ = evidence.stability_under_addition(
        *_alphas_by_batch_size(rng.standard_t(3, (200, 16 * DRAWS)))
    )
    found = evidence.mean_slope(slopes)
    assert found.low > 0.02


def test_stability_slope_of_a_line() -> None:
    batch_sizes = np.array([8, 32, 64])
    alpha = 1.2 + 0.1 * np.log(batch_sizes)[None]
    slopes, errors = evidence.stability_under_addition(alpha, np.full((1, 3), 0.05), batch_sizes)
    x = np.log(batch_sizes)
    assert slopes[0] == pytest.approx(0.1)
    assert errors[0] == pytest.approx(0.05 / np.sqrt(np.sum((x - x.mean()) ** 2)))


@pytest.mark.parametrize(
    ("shape", "batch_sizes", "message"),
    [((2, 3), [8, 32], "do not match"), ((2, 1), [8], "at least two")],
)
def test_stability_needs_two_batch_sizes(
    shape: tuple[int, int], batch_sizes: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        evidence.stability_under_addition(np.zeros(shape), np.zeros(shape), np.array(batch_sizes))
