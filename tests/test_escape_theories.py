"""Censored escape times: bias, coverage, the exponential law; theories found in their own data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import kstest

from fit_escape import compare_theories
from sgnoise.escape import survival, theories

RATES = np.geomspace(0.05, 0.2, 8)
TRUTH = {"levy": (math.log(0.05), 3.2), "diffusion": (math.log(20), 0.25), "kramers": (0.5, 0.2)}


def exponential_sample(
    mean: float, count: int, budget: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    times = np.ceil(rng.exponential(mean, count))
    return np.minimum(times, budget).astype(np.int64), times <= budget


def theory_totals(
    name: str, replicas: int, budget: int, rng: np.random.Generator, samples: int = 300
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Events and exposure of data made by a theory, and those of bootstrap samples."""
    means = np.exp(theories.THEORIES[name].log_time(RATES, *TRUTH[name]))
    events, exposure, again = [], [], []
    for mean in means:
        times, escaped = exponential_sample(mean, replicas, budget, rng)
        events.append(escaped.sum())
        exposure.append(times.sum())
        again.append(survival.resampled_totals(times, escaped, samples, rng=rng))
    drawn = np.array(again)
    return np.array(events, float), np.array(exposure, float), drawn[:, 0].T, drawn[:, 1].T


# --- means with censoring ------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [300, 100])
def test_censoring_does_not_bias_the_mean(budget: int) -> None:
    rng = np.random.default_rng(0)
    estimates, naive = [], []
    for _ in range(4000):
        times, escaped = exponential_sample(100, 100, budget, rng)
        estimates.append(survival.exponential_mean(escaped.sum(), times.sum()))
        naive.append(times[escaped].mean())
    # Rounding up adds half an iteration; the estimator's own bias is below 1 % at 63 events.
    assert np.mean(estimates) == pytest.approx(100.5, rel=0.015)
    assert np.mean(naive) < 85


@pytest.mark.parametrize("count", [50, 100])
def test_the_interval_covers_the_mean(count: int) -> None:
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(600):
        times, escaped = exponential_sample(100, count, 120, rng)
        low, high = survival.mean_interval(*survival.resampled_totals(times, escaped, 400, rng=rng))
        covered.append(low <= 100.5 <= high)
    # 94 to 95 % in 2500 samples; three standard errors of 600 samples about 94.5 %.
    assert np.mean(covered) == pytest.approx(0.945, abs=0.028)


def test_without_escapes_the_mean_is_infinite() -> None:
    assert survival.exponential_mean(np.array(0), np.array(500)) == np.inf
    assert survival.mean_interval(np.zeros(50), np.full(50, 500.0)) == (np.inf, np.inf)


def test_kaplan_meier_of_a_small_sample() -> None:
    times = np.array([2, 3, 3, 5, 8, 8])
    escaped = np.array([True, True, False, True, False, False])
    at, surviving, median = survival.kaplan_meier(times, escaped)
    np.testing.assert_array_equal(at, [2, 3, 5])
    np.testing.assert_allclose(surviving, [5 / 6, 4 / 6, 4 / 9])
    assert median == 5
    assert math.isnan(survival.kaplan_meier(times, np.zeros(6, bool))[2])


def test_quantiles_of_exponential_times_lie_on_the_diagonal() -> None:
    times, escaped = exponential_sample(200, 2000, 300, np.random.default_rng(2))
    expected, observed, median = survival.exponential_quantiles(times, escaped)
    assert np.max(np.abs(expected - observed)) < 30
    assert observed.max() <= 300
    assert median == pytest.approx(200 * math.log(2), rel=0.1)


# --- the exponential law -------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [3, 100])
def test_p_values_are_uniform_on_exponential_times(mean: float) -> None:
    rng = np.random.default_rng(3)
    found = []
    for _ in range(120):
        times, escaped = exponential_sample(mean, 40, math.ceil(1.5 * mean), rng)
        found.append(survival.exponential_p(times, escaped, math.ceil(1.5 * mean), rng=rng))
    # Whole iterations make ties, so the p-values are a little large rather than too small.
    assert np.mean(np.array(found) < 0.05) <= 0.1
    assert kstest(found, "uniform", alternative="greater").pvalue > 0.01


@pytest.mark.parametrize("shape", [0.6, 1.8])
def test_other_laws_are_told_apart(shape: float) -> None:
    rng = np.random.default_rng(4)
    times = np.ceil(100 * rng.weibull(shape, 100))
    escaped = times <= 200
    times = np.minimum(times, 200)
    assert survival.exponential_p(times, escaped, 200, rng=rng) < 0.01
    assert np.sign(survival.cox_oakes(times, escaped)) == np.sign(shape - 1)


def test_two_escapes_test_nothing() -> None:
    escaped = np.array([True, True, False])
    rng = np.random.default_rng(0)
    assert math.isnan(survival.exponential_p(np.array([3, 5, 9]), escaped, 9, rng=rng))


def test_escapes_at_once_are_handled() -> None:
    ones = np.ones(20, np.int64)
    p = survival.exponential_p(ones, ones.astype(bool), 50, rng=np.random.default_rng(0))
    assert 0 < p <= 1


# --- theories ------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    name=st.sampled_from(sorted(theories.THEORIES)),
    seed=st.integers(0, 10_000),
    silent=st.integers(0, 5),
)
def test_the_fit_is_the_maximum_of_the_likelihood(name: str, seed: int, silent: int) -> None:
    rng = np.random.default_rng(seed)
    theory = theories.THEORIES[name]
    events = rng.integers(1, 100, len(RATES)).astype(float)
    events[:silent] = 0
    exposure = rng.uniform(100, 1e6, len(RATES))
    fit = theories.fit_by_likelihood(theory, RATES, events, exposure)

    def loss(shifts: np.ndarray) -> float:
        log_times = theory.log_time(
            RATES, fit.log_coefficient + shifts[0], fit.exponent + shifts[1]
        )
        return -float(theories.log_likelihood(log_times, events, exposure))

    scale = 1 / np.abs(theory.regressor(RATES)).max()
    directions = np.array([[1, 0], [-1, 0], [0, 1], [0, -1], [1, 1], [1, -1]]) * [0.1, 0.1 * scale]
    assert min(loss(direction) for direction in directions) > loss(np.zeros(2))
    best = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-9})
    assert best.fun >= loss(np.zeros(2)) - 1e-6 * abs(loss(np.zeros(2)))
    assert fit.log_likelihood == pytest.approx(-loss(np.zeros(2)))
    assert theories.saturated_log_likelihood(events, exposure) >= fit.log_likelihood


def test_log_times_are_those_of_the_formulas() -> None:
    rate = np.array([0.01, 0.1, 1.0])
    times = {
        "levy": 3 * rate**-1.5,
        "diffusion": 3 * np.exp(1.5 / rate),
        "kramers": 3 / rate * np.exp(1.5 / rate),
    }
    for name, expected in times.items():
        found = theories.THEORIES[name].log_time(rate, math.log(3), 1.5)
        np.testing.assert_allclose(found, np.log(expected), rtol=1e-12)
    assert np.isfinite(theories.THEORIES["kramers"].log_time(rate, math.log(3), 1e4)).all()


def test_theories_look_different() -> None:
    for attribute in ("label", "formula", "colour", "line"):
        looks = {getattr(look, attribute) for look in theories.LOOKS.values()}
        assert len(looks) == len(theories.THEORIES), attribute
    assert list(theories.LOOKS) == list(theories.THEORIES)


def test_a_further_theory_is_fitted_by_its_entry_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    fourth = theories.Theory(regressor=lambda rate: rate**-2, offset=np.zeros_like)
    monkeypatch.setitem(theories.THEORIES, "quadratic", fourth)
    means = np.exp(fourth.log_time(RATES, math.log(20), 0.01))
    events = np.full(len(RATES), 50.0)
    drawn = np.stack([events] * 10), np.stack([events * means] * 10)
    rows = {row["theory"]: row for row in compare_theories(RATES, events, events * means, *drawn)}
    assert list(rows) == ["levy", "diffusion", "kramers", "quadratic"]
    assert rows["quadratic"]["exponent"] == pytest.approx(0.01)
    assert rows["quadratic"]["better"] == "quadratic"
    assert rows["levy"]["better"] == ""


@pytest.mark.parametrize("name", sorted(theories.THEORIES))
def test_each_theory_is_recovered_from_its_own_data(name: str) -> None:
    events, exposure, *drawn = theory_totals(name, 200, 1500, np.random.default_rng(5))
    rows = {row["theory"]: row for row in compare_theories(RATES, events, exposure, *drawn)}
    row = rows[name]
    assert events.min() < 190  # some rates are censored
    assert row["exponent"] == pytest.approx(TRUTH[name][1], abs=3 * row["exponent_se"])
    assert math.log(row["coefficient"]) == pytest.approx(
        TRUTH[name][0], abs=3 * row["log_coefficient_se"]
    )
    assert row["deviance"] < 20  # χ² with 6 degrees of freedom
    assert row["r_squared"] > 0.98
    assert max(rows, key=lambda theory: rows[theory]["log_likelihood"]) == name
    assert min(rows, key=lambda theory: rows[theory]["aicc"]) == name
    assert min(rows, key=lambda theory: rows[theory]["leave_one_out_error"]) == name
    ratios = {theory: rows[theory]["log_likelihood_ratio"] for theory in rows}
    assert ratios["levy"] == 0
    assert (ratios["diffusion"] > 0) == (name == "levy")
    if name != "kramers":
        other = "diffusion"
        low, high = (rows[other][f"log_likelihood_ratio_{end}"] for end in ("low", "high"))
        assert low < ratios[other] < high
        assert low > 0 if name == "levy" else high < 0


def test_the_error_of_the_exponent_is_that_of_the_information() -> None:
    rng = np.random.default_rng(6)
    events, exposure, *drawn = theory_totals("levy", 300, 10**9, rng, samples=1000)
    row = compare_theories(RATES, events, exposure, *drawn)[0]
    x = np.log(RATES)
    expected = 1 / math.sqrt(300 * np.sum((x - x.mean()) ** 2))
    assert row["exponent_se"] == pytest.approx(expected, rel=0.15)


def test_rates_without_escapes_count_in_the_likelihood_only() -> None:
    means = np.exp(theories.THEORIES["levy"].log_time(RATES, *TRUTH["levy"]))
    events = np.full(len(RATES), 50.0)
    exposure = events * means
    events[:2] = 0
    exposure[:2] = 50 * 10 * means[:2]  # by the theory they should have escaped long ago
    drawn = np.stack([events] * 10), np.stack([exposure] * 10)
    row = compare_theories(RATES, events, exposure, *drawn)[0]
    assert row["flag"] == f"not_in_least_squares:{RATES[0]:.6g},{RATES[1]:.6g}"
    assert row["least_squares_exponent"] == pytest.approx(3.2)
    assert row["least_squares_coefficient"] == pytest.approx(0.05)
    assert row["r_squared"] == pytest.approx(1)
    assert row["exponent"] > 3.5


def test_exact_data_leave_no_error_when_a_rate_is_left_out() -> None:
    theory = theories.THEORIES["diffusion"]
    means = np.exp(theory.log_time(RATES, *TRUTH["diffusion"]))
    error = theories.leave_one_out_error(theory, RATES, np.full(8, 20.0), 20 * means)
    assert error == pytest.approx(0, abs=1e-6)
    # Doubling one mean moves the prediction of the others and misses itself by log 2 at least.
    means[3] *= 2
    error = theories.leave_one_out_error(theory, RATES, np.full(8, 20.0), 20 * means)
    assert math.log(2) / math.sqrt(8) < error < math.log(2)


def test_too_few_rates_with_escapes_give_no_fit() -> None:
    events, exposure = np.zeros(8), np.full(8, 1e4)
    events[-1] = 30
    drawn = np.stack([events] * 5), np.stack([exposure] * 5)
    for row in compare_theories(RATES, events, exposure, *drawn):
        assert math.isnan(row["exponent"])
        assert math.isnan(row["leave_one_out_error"])
        assert row["flag"] == "too_few_escapes"


def test_aicc() -> None:
    assert theories.aicc(-100.0, 13) == pytest.approx(204 + 12 / 10)
    assert math.isnan(theories.aicc(-100.0, 3))
