"""The paper's formulas: against integrals, and in their limits."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from sgnoise import theory

ALPHA = np.array([0.7, 1.2, 1.8])
EDGES = (np.array([-1.0, -2.0, -1.5]), np.array([1.0, 0.8, 3.0]))


# --- one result each ------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.6, 1.0, 1.7])
@pytest.mark.parametrize("schedule", [1.0, 0.1])
def test_jump_intensity_is_the_measure_of_the_large_jumps(alpha: float, schedule: float) -> None:
    epsilon, rho = 0.05, 0.4
    edge = epsilon**-rho * schedule ** (-rho * (alpha - 1) / alpha)
    above, _ = integrate.quad(lambda y: y ** (-1 - alpha), edge, np.inf)
    found = theory.jump_intensity(alpha, epsilon, rho=rho, schedule=schedule)
    assert found[0] == pytest.approx(2 * above, rel=1e-6)


def test_relaxation_time_of_a_quadratic_potential() -> None:
    found = theory.relaxation_time(lambda y: 3.0 * y, 0.1, -1.0, 2.0, zeta=2.0)
    assert found == pytest.approx(math.log(2.0 / 0.01) / 3.0)


def test_relaxation_time_of_another_potential() -> None:
    found = theory.relaxation_time(lambda y: y + y**3, 0.1, -0.5, 2.0, zeta=1.0)
    expected, _ = integrate.quad(lambda y: 1 / (y + y**3), 0.1, 2.0)
    assert found == pytest.approx(expected, rel=1e-9)


def test_deterministic_bound_is_reached_in_a_round_basin() -> None:
    w, mu, time = 0.7, 2.0, np.array([0.0, 0.3, 2.0])
    bound = theory.deterministic_bound(0.5 * mu * w**2, mu, time)
    np.testing.assert_allclose(bound, (w * np.exp(-mu * time)) ** 2)


@pytest.mark.parametrize("alpha", [0.6, 1.5])
def test_small_jump_variance_is_the_second_moment_of_the_measure(alpha: float) -> None:
    epsilon, rho = 0.1, 0.5
    half, _ = integrate.quad(lambda y: y ** (1 - alpha), 0, epsilon**-rho)
    assert theory.small_jump_variance(alpha, epsilon, rho=rho)[0] == pytest.approx(2 * half)


def test_first_moment_is_the_papers_integral_and_continuous_at_one() -> None:
    epsilon, rho, time = 0.1, 0.5, 1.5
    for alpha in (0.6, 1.0, 1.7):
        half, _ = integrate.quad(lambda y, a=alpha: y**-a, 1, epsilon**-rho)
        found = theory.first_moment(alpha, epsilon, rho=rho, time=time)[0]
        assert found == pytest.approx(2 * time * half, rel=1e-9)
    beside = theory.first_moment(1 + 1e-9, epsilon, rho=rho, time=time)[0]
    assert beside == pytest.approx(theory.first_moment(1.0, epsilon, rho=rho, time=time)[0])


def test_deviation_bound_of_the_text_is_a_power() -> None:
    exponent = theory.small_jump_deviation_exponent(0.8, theta=0.2, rho=0.5)
    assert exponent == pytest.approx(2 - 0.4 - 0.1)
    big, small = (
        theory.small_jump_deviation_bound(0.8, e, theta=0.2, rho=0.5) for e in (0.1, 0.01)
    )
    assert big / small == pytest.approx(10**exponent)


def test_deviation_bound_of_the_appendix_has_another_power() -> None:
    """Its "constant" holds the intensity of large jumps, which is a power of the noise."""
    alpha, theta, rho = 0.8, 0.2, 0.5
    exponent = theory.small_jump_deviation_exponent(alpha, theta=theta, rho=rho)
    big, small = (
        theory.small_jump_deviation_bound(alpha, e, theta=theta, rho=rho, variant="appendix")
        for e in (0.1, 0.01)
    )
    assert big / small == pytest.approx(10 ** (exponent - rho * alpha * (2 + exponent)))
    with pytest.raises(ValueError, match="below 1"):
        theory.small_jump_deviation_bound(1.2, 0.1, theta=0.1, rho=rho, variant="appendix")


def test_cross_moment_starts_at_the_start_and_is_symmetric() -> None:
    start, bend = np.array([0.5, -0.2, 1.0]), np.array([1.0, 2.0, 0.5])
    same = {"rho": 0.5}
    np.testing.assert_allclose(
        theory.cross_moment(0.0, start, bend, ALPHA, 0.1, **same), np.outer(start, start)
    )
    later = theory.cross_moment(0.7, start, bend, ALPHA, 0.1, **same)
    np.testing.assert_allclose(later, later.T)
    # One entry written out from Eq. 6 and 33.
    mean = [2 * 0.7 * (0.1 ** (-0.5 * (1 - a)) - 1) / (1 - a) for a in ALPHA]
    flow = start * np.exp(-bend * 0.7)
    bracket = 2 * 0.7 + (1 - np.exp(-bend * 0.7)) / bend
    expected = (
        flow[0] * flow[1]
        + 0.1 * flow[1] * mean[0] * bracket[0]
        + 0.1 * flow[0] * mean[1] * bracket[1]
    )
    assert later[0, 1] == pytest.approx(expected)


def covariance_case() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    gradients = rng.standard_normal((20, 5))
    hessians = rng.standard_normal((20, 5, 5))
    hessians += hessians.transpose(0, 2, 1)
    moment = rng.standard_normal((5, 5))
    return gradients, hessians, moment @ moment.T


@pytest.mark.parametrize("variant", theory.VARIANTS)
def test_row_sum_is_the_sum_of_the_papers_terms(variant: theory.Variant) -> None:
    gradients, hessians, moment = covariance_case()
    found = theory.noise_covariance_row_sum(
        gradients, hessians, moment, batch_size=4, variant=variant
    )
    u = np.einsum("dl,dj->lj", gradients, gradients) / 20
    mean = hessians.mean(axis=0)
    h = np.einsum("dlm,dpj->lmpj", hessians, hessians) / 20 - np.einsum("lm,pj->lmpj", mean, mean)
    away = np.einsum("lmpj,mp->l", h, moment)
    first = u.sum(axis=1) / (20 if variant == "appendix" else 1)
    np.testing.assert_allclose(found, (first + away) / 4, rtol=1e-9)


def test_row_sum_of_the_text_is_exact_for_shifted_parabolas() -> None:
    """Samples that differ in their minimum alone: the noise is the same everywhere."""
    rng = np.random.default_rng(5)
    centres = rng.standard_normal((30, 3))
    centres -= centres.mean(axis=0)
    bend = np.diag([1.0, 2.0, 3.0])
    hessians = np.repeat(bend[None], 30, axis=0)
    away = np.array([0.3, -1.0, 2.0])
    measured = np.cov((away - centres) @ bend, rowvar=False, bias=True).sum(axis=1) / 8
    found = theory.noise_covariance_row_sum(
        -centres @ bend, hessians, np.outer(away, away), batch_size=8
    )
    np.testing.assert_allclose(found, measured, rtol=1e-9)


# --- limits and relations -------------------------------------------------------------------------


@pytest.mark.parametrize("variant", theory.VARIANTS)
def test_theorem_4_1_is_continuous_at_no_decay(variant: theory.Variant) -> None:
    near, at = (
        theory.mean_exit_time(ALPHA, 0.05, *EDGES, rho=0.5, gamma=gamma, variant=variant)
        for gamma in (1 - 1e-7, 1.0)
    )
    assert near == pytest.approx(at, rel=1e-5)


@pytest.mark.parametrize("variant", theory.VARIANTS)
def test_theorem_4_1_without_decay_is_twice_corollary_4_2(variant: theory.Variant) -> None:
    """The paper takes the limit gamma -> 1 for the corollary; it loses a factor 2 on the way."""
    theorem = theory.mean_exit_time(ALPHA, 0.05, *EDGES, rho=0.5, gamma=1.0, variant=variant)
    corollary = theory.mean_exit_time_without_decay(ALPHA, 0.05, *EDGES, rho=0.5, variant=variant)
    assert theorem == pytest.approx(2 * corollary)


def test_with_another_noise_level_only_the_appendix_keeps_that_factor() -> None:
    """The text has the power alpha of the noise level in the theorem and 1 in the corollary."""
    level, alpha = 0.5, np.full(3, 1.4)
    found = {
        variant: theory.mean_exit_time(
            alpha, 0.05, *EDGES, rho=0.5, gamma=1.0, row_sum=level, variant=variant
        )
        / theory.mean_exit_time_without_decay(
            alpha, 0.05, *EDGES, rho=0.5, row_sum=level, variant=variant
        )
        for variant in theory.VARIANTS
    }
    assert found["appendix"] == pytest.approx(2)
    assert found["text"] == pytest.approx(2 * level ** (1 - 1.4))


@given(
    alphas=st.lists(st.floats(0.55, 1.95), min_size=2, max_size=6),
    epsilon=st.floats(0.001, 0.2),
    rho=st.floats(0.1, 0.9),
)
@settings(max_examples=50, deadline=None)
def test_theorem_4_1_bounds_the_limit_of_small_noise_without_decay(
    alphas: list[float], epsilon: float, rho: float
) -> None:
    alpha = np.array(alphas)
    limit = theory.small_noise_exit_time(alpha, epsilon, -1.0, 1.0)
    for variant in theory.VARIANTS:
        bound = theory.mean_exit_time(
            alpha, epsilon, -1.0, 1.0, rho=rho, gamma=1.0, variant=variant
        )
        assert bound >= limit


def test_only_the_texts_theorem_4_1_bounds_it_under_fast_decay() -> None:
    alpha, epsilon, gamma = np.full(2, 1.75), 0.01, 0.5
    limit = theory.small_noise_exit_time(alpha, epsilon, -1.0, 1.0, gamma=gamma)
    text, appendix = (
        theory.mean_exit_time(alpha, epsilon, -1.0, 1.0, rho=0.5, gamma=gamma, variant=variant)
        for variant in theory.VARIANTS
    )
    assert appendix < 0.2 * limit
    assert text > limit


def test_faster_decay_prolongs_the_exit_above_alpha_one_and_shortens_it_below() -> None:
    for alpha, longer in ((1.5, True), (0.7, False)):
        basin = (np.full(2, alpha), 0.01, -1.0, 1.0)
        bounds = [theory.mean_exit_time(*basin, rho=0.5, gamma=g) for g in (1.0, 0.8, 0.6)]
        limits = [theory.small_noise_exit_time(*basin, gamma=g) for g in (1.0, 0.8, 0.6)]
        for values in (bounds, limits):
            assert (np.diff(values) > 0).all() if longer else (np.diff(values) < 0).all()


def test_nearly_gaussian_noise_under_the_fastest_decay_never_leaves() -> None:
    slow, fast = (
        theory.mean_exit_time(np.full(2, 1.99), 0.1, -1.0, 1.0, rho=0.5, gamma=gamma)
        for gamma in (0.5, 0.1)
    )
    assert fast > 1e9 * slow


def test_a_single_parameter_has_no_finite_bound() -> None:
    assert theory.mean_exit_time(1.5, 0.1, -1.0, 1.0, rho=0.5, gamma=0.9) == math.inf
    assert theory.mean_exit_time_without_decay(1.5, 0.1, -1.0, 1.0, rho=0.5) == math.inf


@pytest.mark.parametrize("variant", theory.VARIANTS)
def test_theorem_4_3_is_a_time(variant: theory.Variant) -> None:
    """For equal parameters and edges at 1 its "probability" is Theorem 4.1's bound on the time."""
    basin = (np.full(3, 1.3), 0.05, -1.0, 1.0)
    probability = theory.exit_probability(*basin, rho=0.5, gamma=0.8, variant=variant)
    time = theory.mean_exit_time(*basin, rho=0.5, gamma=0.8, variant=variant)
    np.testing.assert_allclose(probability, time)
    assert probability[0] > 1


@pytest.mark.parametrize("variant", theory.VARIANTS)
def test_theorem_4_3_without_decay_is_equation_23(variant: theory.Variant) -> None:
    """At gamma = 1 the gamma function and its argument are out of play."""
    epsilon, rho = 0.05, 0.5
    found = theory.exit_probability(ALPHA, epsilon, *EDGES, rho=rho, gamma=1.0, variant=variant)
    edges = (-EDGES[0]) ** -ALPHA + EDGES[1] ** -ALPHA
    rate, beta = epsilon**ALPHA / ALPHA * edges, 2 / ALPHA * epsilon ** (rho * ALPHA)
    mean, low, high = ALPHA.mean(), -EDGES[0].mean(), EDGES[1].mean()
    leaves = epsilon**mean / mean * (low**-mean + high**-mean)
    leaves /= 2 / mean * epsilon ** (rho * mean)
    factor = (1 - leaves) * (1 - beta / beta.sum())
    total = np.sum(beta**2 / (beta.sum() * rate**2 * factor))
    np.testing.assert_allclose(found, rate / beta * EDGES[1] ** -ALPHA * total)


def test_corollary_4_4_in_terms_of_the_learning_rate() -> None:
    eta, rho = 0.01, 0.3
    epsilon = eta ** ((ALPHA - 1) / ALPHA)
    ratios = theory.exit_probability_ratio(ALPHA, epsilon, 1.0, rho=rho)
    np.testing.assert_allclose(ratios, eta ** ((ALPHA[:, None] - ALPHA) * (1 - rho)))
    np.testing.assert_allclose(ratios * ratios.T, 1)


def test_corollary_4_4_approaches_the_intensities_as_rho_vanishes() -> None:
    alpha, upper = np.array([0.8, 1.4]), np.array([1.0, 2.0])
    limit = theory.small_noise_exit_probability(alpha, 0.01, -upper, upper)[:, 1]
    ratio = theory.exit_probability_ratio(alpha, 0.01, upper, rho=1e-9)[0, 1]
    assert ratio * alpha[1] / alpha[0] == pytest.approx(limit[0] / limit[1], rel=1e-6)


def test_small_noise_without_decay_in_closed_form() -> None:
    lower, upper = EDGES
    sides = np.stack([(-lower) ** -ALPHA, upper**-ALPHA], axis=1)
    rates = (2.0 * 0.05**ALPHA / ALPHA)[:, None] * sides
    basin = (ALPHA, 0.05, lower, upper)
    time = theory.small_noise_exit_time(*basin, row_sum=2.0)
    assert time == pytest.approx(1 / rates.sum(), rel=1e-6)
    shares = theory.small_noise_exit_probability(*basin, row_sum=2.0)
    np.testing.assert_allclose(shares, rates / rates.sum(), rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.7, 1.6])
def test_small_noise_with_decay_in_closed_form(alpha: float) -> None:
    gamma, size = 0.6, 3
    power = 1 + (gamma - 1) * (alpha - 1)
    rate = size * 2 * 0.05**alpha / alpha
    expected = math.gamma(1 + 1 / power) * (power / rate) ** (1 / power)
    found = theory.small_noise_exit_time(np.full(size, alpha), 0.05, -1.0, 1.0, gamma=gamma)
    assert found == pytest.approx(expected, rel=1e-6)


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 2.0}, "alpha"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"epsilon": np.ones(2)}, "epsilon"),
        ({"lower": 0.5}, "lower"),
        ({"rho": 1.0}, "rho"),
        ({"gamma": 0.0}, "gamma"),
        ({"row_sum": 0.0}, "row_sum"),
        ({"variant": "errata"}, "variant"),
        ({"epsilon": 1.5}, "smaller epsilon"),
    ],
)
def test_mean_exit_time_rejects(changes: dict, message: str) -> None:
    arguments = {
        "alpha": ALPHA,
        "epsilon": 0.1,
        "lower": -1.0,
        "upper": 1.0,
        "rho": 0.5,
        "gamma": 0.9,
    }
    with pytest.raises(ValueError, match=message):
        theory.mean_exit_time(**arguments | changes)


def test_other_results_reject_what_they_do_not_hold_for() -> None:
    with pytest.raises(ValueError, match="theta"):
        theory.small_jump_deviation_exponent(1.5, theta=0.2, rho=0.5)
    with pytest.raises(ValueError, match="schedule"):
        theory.jump_intensity(1.5, 0.1, rho=0.5, schedule=0.0)
    with pytest.raises(ValueError, match="radius"):
        theory.relaxation_time(np.copy, 0.5, -0.4, 1.0, zeta=1.0)
    with pytest.raises(ValueError, match="sign"):
        theory.relaxation_time(np.negative, 0.1, -1.0, 1.0, zeta=1.0)
    with pytest.raises(ValueError, match="mu"):
        theory.deterministic_bound(1.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="curvature"):
        theory.cross_moment(1.0, 0.5, 0.0, 1.5, 0.1, rho=0.5)
    with pytest.raises(ValueError, match="hessians"):
        theory.noise_covariance_row_sum(
            np.ones((3, 2)), np.ones((3, 2, 3)), np.eye(2), batch_size=4
        )
