"""How well fitted laws describe the noise of each parameter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sgnoise import fitting, goodness
from sgnoise.laws import LAWS

DRAWS = 1000


@dataclass(frozen=True)
class Truth:
    """A law that was not fitted but is known, the same for each of P parameters."""

    law: Any

    def logpdf(self, x: np.ndarray) -> np.ndarray:
        return self.law.logpdf(x)

    def cdf(self, x: np.ndarray) -> np.ndarray:
        return self.law.cdf(x)


TRUTH = Truth(stats.t(4))


@pytest.fixture(scope="module")
def student() -> np.ndarray:
    return stats.t(4).rvs((2000, DRAWS), random_state=np.random.default_rng(1))


@given(
    bins=st.integers(1, 40),
    span=st.sampled_from(["full", 0.5, 0.9]),
    seed=st.integers(0, 2**32 - 1),
    exponent=st.integers(-30, 8),
)
@settings(max_examples=30, deadline=None)
def test_histogram_agrees_with_numpy(
    bins: int, span: str | float, seed: int, exponent: int
) -> None:
    noise = np.random.default_rng(seed).standard_t(2, (3, 200)) * 10.0**exponent
    found = goodness.histogram(noise, bins=bins, span=span)
    for row in range(3):
        expected = np.histogram(noise[row], bins=found.edges[row])[0] / 200
        np.testing.assert_allclose(found.shares[row], expected, rtol=0, atol=1e-15)
    inside = 1.0 if span == "full" else float(span)
    np.testing.assert_allclose(found.shares.sum(axis=1), inside, atol=2 / 200)


def test_a_row_without_a_histogram_is_nan_and_leaves_the_others() -> None:
    noise = np.random.default_rng(0).standard_normal((4, 50))
    noise[0] = 0.0
    noise[1, 7] = np.nan
    noise[2] = 1.0
    found = goodness.histogram(goodness.without_atom(noise), bins=5, span="full")
    assert np.isnan(found.shares[:3]).all()
    assert found.shares[3].sum() == pytest.approx(1)
    np.testing.assert_array_equal(found.draws, [0, 0, 50, 50])


def test_an_atom_at_zero_is_taken_out_and_a_single_zero_is_not() -> None:
    noise = np.arange(1.0, 9.0).reshape(2, 4)
    noise[0, :2], noise[1, 0] = 0.0, 0.0
    np.testing.assert_array_equal(
        goodness.without_atom(noise), [[np.nan, np.nan, 3, 4], [0, 6, 7, 8]]
    )


def test_evidence_with_an_atom_is_that_of_the_other_draws() -> None:
    rng = np.random.default_rng(8)
    noise = rng.standard_normal((5, 400))
    with_atom = np.hstack([noise, np.zeros((5, 100))])[:, rng.permutation(500)]
    used = goodness.without_atom(with_atom)
    fit, fit_with_atom = fitting.fit_gaussian(noise), fitting.fit_gaussian(with_atom)
    for span in ("full", 0.8):
        plain = goodness.histogram(noise, bins=20, span=span)
        found = goodness.histogram(used, bins=20, span=span)
        np.testing.assert_allclose(
            goodness.sum_of_squared_errors(found, fit_with_atom, scaling="density"),
            goodness.sum_of_squared_errors(plain, fit, scaling="density"),
        )
    np.testing.assert_allclose(
        fit_with_atom.kolmogorov_smirnov(np.sort(used, axis=1)),
        fit.kolmogorov_smirnov(np.sort(noise, axis=1)),
    )
    np.testing.assert_allclose(
        goodness.held_out_log_likelihood(used, fit_with_atom),
        goodness.held_out_log_likelihood(noise, fit),
    )


@pytest.mark.parametrize(("bins", "span"), [(0, "full"), (5, "half"), (5, 0.0), (5, 1.5)])
def test_histogram_refuses_settings_out_of_range(bins: int, span: str | float) -> None:
    with pytest.raises(ValueError, match=r"bins is 0|span is"):
        goodness.histogram(np.zeros((2, 30)), bins=bins, span=span)


@pytest.mark.parametrize("scaling", ["mass", "density"])
def test_error_of_the_true_law_is_what_chance_gives(student: np.ndarray, scaling: str) -> None:
    # The range ends at quantiles here, which hardly depend on single draws.
    histograms = goodness.histogram(student, bins=40, span=0.95)
    sse, floor = goodness.sum_of_squared_errors(histograms, TRUTH, scaling=scaling)
    # The mean over 2,000 parameters has a standard error of about 0.6 %; the ends of the range move
    # with the draws, which makes the outer bins fit a little better.
    assert sse.mean() / floor.mean() == pytest.approx(1, abs=0.05)


def test_error_of_a_wrong_law_is_far_above_chance(student: np.ndarray) -> None:
    histograms = goodness.histogram(student, bins=100, span="full")
    wrong = fitting.fit_gaussian(student)
    right = fitting.fit_student_t(student)
    sse_wrong, floor = goodness.sum_of_squared_errors(histograms, wrong, scaling="mass")
    sse_right, floor_right = goodness.sum_of_squared_errors(histograms, right, scaling="mass")
    assert sse_wrong.mean() > 2 * floor.mean()
    assert np.all(sse_wrong > sse_right)
    assert sse_right.mean() / floor_right.mean() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("scaling", ["mass", "density"])
def test_error_has_no_unit(student: np.ndarray, scaling: str) -> None:
    few = student[:20]
    results = []
    for scale in (1.0, 1e-12):
        histograms = goodness.histogram(few * scale, bins=30, span="full")
        fit = fitting.fit_gaussian(few * scale)
        results.append(goodness.sum_of_squared_errors(histograms, fit, scaling=scaling)[0])
    np.testing.assert_allclose(results[0], results[1], rtol=1e-6)


def test_density_error_agrees_with_a_direct_computation(student: np.ndarray) -> None:
    histograms = goodness.histogram(student[:3], bins=25, span="full")
    sse, _ = goodness.sum_of_squared_errors(histograms, TRUTH, scaling="density")
    for row in range(3):
        unit = stats.median_abs_deviation(student[row])
        density, edges = np.histogram(student[row] / unit, bins=25, density=True)
        width = edges[1] - edges[0]
        expected = np.diff(stats.t(4).cdf(edges * unit)) / width
        assert sse[row] == pytest.approx(np.sum((density - expected) ** 2), rel=1e-9)


def test_unknown_scaling_is_refused(student: np.ndarray) -> None:
    histograms = goodness.histogram(student[:2], bins=10, span="full")
    with pytest.raises(ValueError, match="scaling is 'count'"):
        goodness.sum_of_squared_errors(histograms, TRUTH, scaling="count")


@pytest.mark.parametrize("law", [law.name for law in LAWS.values() if not law.shared])
def test_kolmogorov_smirnov_agrees_with_scipy(student: np.ndarray, law: str) -> None:
    rows = student[:5]
    fit = fitting.fit_law(law, rows)
    found = fit.kolmogorov_smirnov(np.sort(rows, axis=1))
    ordered = np.sort(rows, axis=1)
    for row, probability in enumerate(fit.cdf(ordered)):
        # scipy asks for the law at the ordered values.
        expected = stats.kstest(rows[row], lambda x, p=probability: p).statistic
        assert found[row] == pytest.approx(expected, abs=1e-12)


def test_kolmogorov_smirnov_of_nothing_is_nan(student: np.ndarray) -> None:
    rows = student[:3, :40].copy()
    fit = fitting.fit_gaussian(rows)
    rows[0] = np.nan
    rows[1, 30:] = np.nan
    found = fit.kolmogorov_smirnov(np.sort(rows, axis=1))
    assert np.isnan(found[0])
    expected = stats.kstest(rows[1, :30], stats.norm(0, fit.scale[1]).cdf).statistic
    assert found[1] == pytest.approx(expected, abs=1e-12)


def held_out(
    noise: np.ndarray, fitter: Callable[[np.ndarray], fitting.Fit], fraction: float
) -> np.ndarray:
    used, rest = goodness.split_draws(noise, fraction)
    return goodness.held_out_log_likelihood(rest, fitter(used))


def test_held_out_likelihood_is_of_draws_that_were_not_fitted(student: np.ndarray) -> None:
    rows = student[:10]
    found = held_out(rows, fitting.fit_gaussian, 0.3)
    for row in range(10):
        expected = stats.norm(0, np.sqrt(np.mean(rows[row, :700] ** 2)))
        assert found[row] == pytest.approx(expected.logpdf(rows[row, 700:]).mean(), rel=1e-6)


def test_held_out_likelihood_prefers_the_true_law(student: np.ndarray) -> None:
    rows = student[:500]
    gains = held_out(rows, fitting.fit_student_t, 0.5) - held_out(rows, fitting.fit_stable, 0.5)
    assert gains.mean() > 3 * gains.std() / np.sqrt(500)


def test_held_out_likelihood_of_nothing_is_nan(student: np.ndarray) -> None:
    rest = student[:2, :5].copy()
    rest[0] = np.nan
    found = goodness.held_out_log_likelihood(rest, TRUTH)
    assert np.isnan(found[0])
    assert found[1] == pytest.approx(stats.t(4).logpdf(rest[1]).mean())


@pytest.mark.parametrize("fraction", [0.0, 1.0, 0.001])
def test_a_split_with_an_empty_side_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="leaves nothing on one side"):
        goodness.split_draws(np.zeros((1, 100)), fraction)


def test_information_criteria() -> None:
    log_likelihood = np.array([-10.0])
    assert goodness.aic(log_likelihood, 3) == pytest.approx(26)
    assert goodness.bic(log_likelihood, 3, np.array([100])) == pytest.approx(20 + 3 * np.log(100))


def test_null_quantile_is_a_constant_of_the_number_of_draws() -> None:
    assert goodness.null_quantile(50, rows=500) == goodness.null_quantile(50, rows=500)
