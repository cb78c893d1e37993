"""The symmetric alpha-stable law against 30-digit arithmetic, closed forms and its tail law."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from sgnoise import stable

PDF_ERROR = 1e-7  # relative, for alpha in [0.5, 2] and |x| up to 1e6
CDF_ERROR = 1e-7  # absolute

# Values of x around the features of the density: its peak, the shoulder where the normal core gives
# way to the tail, both sides of the change from integral to series, the end of the stated range.
CASES = [
    (alpha, x)
    for alpha, points in {
        0.5: (0.0, 1e-5, 0.004, 0.11, 2.7, 29.9, 1e6),
        0.512: (0.3, 30.1, 4e3),
        0.77: (0.02, 4.4, 1e6),
        0.995: (0.9, 60.0),
        1.3: (0.0, 0.9, 3.3, 29.9, 1e6),
        1.505: (2.7, 5.1, 500.0),
        1.8: (0.03, 4.4, 5.7, 30.1, 1e6),
        1.95: (2.0, 5.9, 6.9, 12.0, 1e5),
        1.995: (5.6, 6.6, 8.0, 1e3),
        1.99999: (1.0, 7.7, 9.0, 1e6),
    }.items()
    for x in points
]


def ray_integral(x: float, alpha: float, divide: bool) -> tuple[mpmath.mpf, mpmath.mpf]:
    """Integral of exp(i x t - t^alpha) (over t, if ``divide``) along arg t = pi/9, in 30 digits."""
    with mpmath.workdps(30):
        angle = mpmath.pi / 9
        turn = mpmath.expj(angle)
        slope, index = mpmath.mpc(0, 1) * x * turn, mpmath.mpf(alpha)
        power = mpmath.expj(angle * index)

        def integrand(v: mpmath.mpf) -> mpmath.mpc:
            s = mpmath.exp(v)
            value = mpmath.exp(slope * s - power * mpmath.exp(index * v))
            return value if divide else value * s

        # Beyond ``high`` the exponent is below -80; below ``low`` nothing is left that counts.
        high = math.log(80.0) / alpha + 0.5
        if x > 0.0:
            high = min(high, math.log(80.0 / (x * math.sin(math.pi / 9))) + 0.5)
        pieces = mpmath.linspace(high - (80.0 if divide else 55.0), high, 16 if divide else 12)
        total = mpmath.quad(integrand, pieces, method="gauss-legendre")
        return (total if divide else total * turn), angle


def exact_pdf(x: float, alpha: float) -> float:
    return float(ray_integral(x, alpha, False)[0].real / mpmath.pi)


def exact_cdf(x: float, alpha: float) -> float:
    if x == 0.0:
        return 0.5
    total, angle = ray_integral(x, alpha, True)
    return float(0.5 + (total.imag + angle) / mpmath.pi)


def series_pdf(x: float, alpha: float) -> float:
    """The density by its convergent series: in 1/x for alpha < 1, in x for alpha > 1."""
    with mpmath.workdps(120):
        a, y = mpmath.mpf(alpha), mpmath.mpf(x)
        if alpha < 1.0:
            terms = (
                (-1) ** (k + 1)
                * mpmath.gamma(k * a + 1)
                / mpmath.factorial(k)
                * mpmath.sin(mpmath.pi * k * a / 2)
                * y ** (-k * a - 1)
                for k in range(1, 400)
            )
        else:
            terms = (
                (-1) ** k
                * mpmath.gamma((2 * k + 1) / a)
                / (a * mpmath.factorial(2 * k))
                * y ** (2 * k)
                for k in range(400)
            )
        return float(mpmath.fsum(terms) / mpmath.pi)


@pytest.mark.parametrize(
    ("alpha", "x"), [(0.5, 0.7), (0.77, 4.4), (1.3, 0.9), (1.8, 5.7), (1.95, 6.9)]
)
def test_the_reference_agrees_with_the_convergent_series(alpha: float, x: float) -> None:
    assert exact_pdf(x, alpha) == pytest.approx(series_pdf(x, alpha), rel=1e-14)


@pytest.mark.parametrize(("alpha", "x"), CASES)
def test_pdf_to_seven_digits(alpha: float, x: float) -> None:
    assert stable.pdf(x, alpha) == pytest.approx(exact_pdf(x, alpha), rel=PDF_ERROR)


@pytest.mark.parametrize(("alpha", "x"), [case for case in CASES if case[1] > 0.0][::3])
def test_cdf_to_seven_digits(alpha: float, x: float) -> None:
    assert stable.cdf(x, alpha) == pytest.approx(exact_cdf(x, alpha), abs=CDF_ERROR)


def test_pdf_between_the_knots_of_alpha() -> None:
    """Many points at once, against the same contour integral in double precision, finely."""
    alpha = np.random.default_rng(1).uniform(0.5, 2.0, 40)
    x = np.exp(np.random.default_rng(2).uniform(-6.0, 3.0, 200))
    v = np.arange(-40.0, 12.0, 0.01)
    t = np.exp(v) * np.exp(1j * np.pi / 9)
    kernel = np.exp(-(t[None, :] ** alpha[:, None])) * t * 0.01
    exact = (kernel @ np.exp(1j * np.outer(t, x))).real / np.pi
    ours = stable.pdf(x[None, :], alpha[:, None])
    solid = exact > 1e-8  # what double precision leaves of the integral
    np.testing.assert_allclose(ours[solid], exact[solid], rtol=PDF_ERROR)


X = np.concatenate([[0.0, 1e-300, 1e-9], np.geomspace(1e-6, 1e6, 4001)])


def test_cauchy() -> None:
    np.testing.assert_allclose(stable.pdf(X, 1.0), 1.0 / (np.pi * (1.0 + X**2)), rtol=PDF_ERROR)
    np.testing.assert_allclose(stable.cdf(X, 1.0), 0.5 + np.arctan(X) / np.pi, atol=CDF_ERROR)
    far = np.geomspace(2e6, 1e150, 50)
    np.testing.assert_allclose(
        stable.logpdf(far, 1.0), -np.log(np.pi) - 2.0 * np.log(far), rtol=1e-14
    )


def test_normal() -> None:
    normal = stats.norm(scale=np.sqrt(2.0))
    np.testing.assert_allclose(stable.logpdf(X, 2.0), normal.logpdf(X), rtol=1e-12)
    np.testing.assert_allclose(stable.cdf(X, 2.0), normal.cdf(X), atol=1e-15)


@pytest.mark.parametrize("alpha", [0.5, 0.9, 1.4, 1.9, 1.9999])
def test_far_tail(alpha: float) -> None:
    """Beyond the table, two terms of the tail law leave an error of order x^(-2 alpha)."""
    x = np.geomspace(2e8, 1e14, 20)
    power = x**-alpha
    first = math.gamma(alpha + 1.0) * math.sin(math.pi * alpha / 2.0) / math.pi
    second = math.gamma(2.0 * alpha + 1.0) / 2.0 * math.sin(math.pi * alpha) / math.pi
    pdf = (first - second * power) * power / x
    upper = (first - 0.5 * second * power) * power / alpha
    np.testing.assert_allclose(stable.pdf(x, alpha), pdf, rtol=1e-7)
    np.testing.assert_allclose(1.0 - stable.cdf(x, alpha), upper, atol=1e-15)
    # The two branches meet.
    edge = 2.0**20 * np.array([1.0 - 1e-9, 1.0 + 1e-9])
    low, high = stable.logpdf(edge, alpha)
    assert low == pytest.approx(high, abs=1e-7)


def test_value_at_zero() -> None:
    alpha = np.linspace(0.5, 2.0, 301)
    exact = [math.gamma(1.0 + 1.0 / a) / math.pi for a in alpha]
    np.testing.assert_allclose(stable.pdf(0.0, alpha), exact, rtol=PDF_ERROR)


@given(st.floats(0.5, 2.0), st.floats(-1e8, 1e8), st.floats(-60.0, 20.0))
@settings(max_examples=60, deadline=None)
def test_symmetry_and_scale(alpha: float, x: float, log_scale: float) -> None:
    scale = math.exp(log_scale)
    assert stable.logpdf(-x, alpha) == stable.logpdf(x, alpha)
    assert stable.cdf(-x, alpha) + stable.cdf(x, alpha) == pytest.approx(1.0, abs=1e-15)
    scaled = stable.logpdf(x * scale, alpha, scale)
    assert scaled + log_scale == pytest.approx(stable.logpdf(x, alpha), rel=1e-9, abs=1e-9)
    assert stable.cdf(x * scale, alpha, scale) == pytest.approx(stable.cdf(x, alpha), abs=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 0.8, 1.2, 1.7, 1.99])
def test_cdf_is_the_integral_of_pdf(alpha: float) -> None:
    nodes, weights = np.polynomial.legendre.leggauss(20)
    edges = np.sinh(np.linspace(0.0, 12.0, 200))
    half = 0.5 * np.diff(edges)[:, None]
    mass = (stable.pdf(edges[:-1, None] + half * (nodes + 1.0), alpha) * half) @ weights
    np.testing.assert_allclose(0.5 + np.cumsum(mass), stable.cdf(edges[1:], alpha), atol=CDF_ERROR)
    assert (np.diff(stable.cdf(edges, alpha)) >= 0.0).all()


def test_broadcasting() -> None:
    x = np.linspace(-3.0, 90.0, 12).reshape(3, 1, 4)
    alpha = np.array([[0.7], [2.0]])
    scale = np.array([1.0, 0.2, 3.0, 1e-4])
    out = stable.logpdf(x, alpha, scale)
    assert out.shape == (3, 2, 4)
    for i, j, k in np.ndindex(out.shape):
        one = stable.logpdf(x[i, 0, k], alpha[j, 0], scale[k])
        assert out[i, j, k] == pytest.approx(one, rel=1e-13)
    assert stable.pdf(1.0, 1.5).shape == ()


def test_many_points_and_few_agree() -> None:
    """A long row reads the table in another way than a short one."""
    x = np.concatenate([np.linspace(-60.0, 60.0, 300), [np.inf, -np.inf, np.nan]])
    whole = stable.logpdf(x, 1.6)
    parts = np.concatenate([stable.logpdf(x[i : i + 30], 1.6) for i in range(0, x.size, 30)])
    np.testing.assert_allclose(whole, parts, rtol=1e-13)
    assert np.isneginf(whole[-3:-1]).all()
    assert np.isnan(whole[-1])
    np.testing.assert_array_equal(stable.cdf(x, 1.6)[-3:], [1.0, 0.0, np.nan])


@pytest.mark.parametrize(
    ("alpha", "scale", "message"), [(0.4, 1.0, "alpha"), (2.1, 1.0, "alpha"), (1.0, 0.0, "scale")]
)
def test_arguments_out_of_range(alpha: float, scale: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stable.logpdf(1.0, alpha, scale)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.5, 1.9, 2.0])
def test_rvs_follow_the_law(alpha: float) -> None:
    sample = stable.rvs(alpha, 20_000, scale=0.3, rng=np.random.default_rng(11))
    assert np.isfinite(sample).all()
    assert stats.kstest(sample, lambda x: stable.cdf(x, alpha, 0.3)).pvalue > 0.01


def test_rvs_are_reproducible_and_broadcast() -> None:
    alpha = np.array([[0.6], [1.9]])
    one = stable.rvs(alpha, (2, 500), scale=np.array([[1e-8], [1.0]]), rng=np.random.default_rng(3))
    two = stable.rvs(alpha, (2, 500), scale=np.array([[1e-8], [1.0]]), rng=np.random.default_rng(3))
    np.testing.assert_array_equal(one, two)
    assert np.median(np.abs(one[0])) < 1e-7 < np.median(np.abs(one[1]))
    with pytest.raises(ValueError, match="alpha"):
        stable.rvs(0.0, 3, rng=np.random.default_rng(0))


@pytest.mark.parametrize("alpha", [0.5, 0.93, 1.0, 1.5, 1.99, 2.0])
def test_survival_is_precise_however_far_out(alpha: float) -> None:
    x = np.array([0.3, 5.0, 40.0, 1e4, 1e9, 1e30])
    if alpha == 2.0:
        np.testing.assert_allclose(stable.sf(x, 2.0, 3.0), stats.norm.sf(x, scale=3 * 2**0.5))
        return
    if alpha == 1.0:
        np.testing.assert_allclose(stable.sf(x, 1.0, 3.0), stats.cauchy.sf(x, scale=3), rtol=1e-7)
        return
    # One term of the tail series with the first correction.
    far = x[4:]
    first = special.gamma(alpha) * np.sin(np.pi * alpha / 2) / np.pi * far**-alpha
    second = special.gamma(2 * alpha) * np.sin(np.pi * alpha) / (2 * np.pi) * far ** (-2 * alpha)
    np.testing.assert_allclose(stable.sf(far, alpha), first - second, rtol=2e-6)
    np.testing.assert_allclose(stable.sf(x, alpha) + stable.cdf(x, alpha), 1, rtol=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 0.93, 1.0, 1.5, 1.99, 2.0])
def test_quantiles_invert_the_distribution_function(alpha: float) -> None:
    p = np.array([1e-100, 1e-12, 1e-3, 0.2, 0.4])
    x = stable.ppf(p, alpha, 2.5)
    np.testing.assert_allclose(stable.cdf(x, alpha, 2.5), p, rtol=1e-7)
    np.testing.assert_allclose(stable.ppf(1 - p[2:], alpha, 2.5), -x[2:], rtol=1e-13)
    assert stable.ppf(0.5, alpha) == 0
    np.testing.assert_array_equal(stable.ppf([0, 1], alpha), [-np.inf, np.inf])
    law = {1.0: stats.cauchy(scale=2.5), 2.0: stats.norm(scale=2.5 * 2**0.5)}.get(alpha)
    if law is not None:
        np.testing.assert_allclose(x, law.ppf(p), rtol=1e-6)
        np.testing.assert_allclose(stable.ppf(0.5 + 1e-4, alpha, 2.5), law.ppf(0.5 + 1e-4), 1e-2)


def test_quantiles_broadcast_and_refuse_what_is_no_probability() -> None:
    assert stable.ppf([[0.1], [0.2]], [1.2, 1.5, 1.8]).shape == (2, 3)
    with pytest.raises(ValueError, match=r"probability must be in \[0, 1\]"):
        stable.ppf(1.2, 1.5)
