"""The results of the paper as functions, each beside what it should be compared with.

Notation: a network of N parameters, one symmetric stable process each, with stable parameter alpha
(N,), noise amplitude epsilon (N,), noise_row_sum 1' lambda_l (N,) and the domain [lower, upper]
around the minimum at the origin. rho in (0, 1) splits small from large jumps at
epsilon^-rho; the exponential scheduler is s_t = t^(gamma - 1).

The text of the paper and its appendix differ in several constants; ``variant`` chooses:

* the noise level in m_l: (1' lambda_l)^alpha_l where Theorem 4.1 defines it ("text"),
  (1' lambda_l)^(1/alpha_l) in Section 3.2, on which the proofs in the appendix build ("appendix").
  The intensity of Eq. 2 contains (1' lambda_l) to the power one, which is Eq. 9's choice.
* the denominator 1 + (gamma - 1)(alpha_l - 1) ("text") or 1 + (gamma - 1) rho (alpha_l - 1)
  ("appendix") in C_{l,nu,p}, in C_l and in front of the gamma function. Integrating the
  intensity of jumps out of the domain, s_t^(alpha_l - 1) m_l Phi_l, gives the text's.

``small_noise_exit_time`` and ``small_noise_exit_probability`` are not in the paper: they are the
limit of small noise that its bounds estimate (Imkeller and Pavlyukevich 2006), in which only single
jumps from the minimum lead out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import numpy as np

Variant = Literal["text", "appendix"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
Values = float | np.ndarray  # one number for all parameters, or (N,)


class Basin(NamedTuple):
    """The quantities of a basin that the theorems share, each (N,) with means for the index nu."""

    alpha: np.ndarray
    escape_rate: np.ndarray  # m_l Phi_l
    intensity: np.ndarray  # beta_l
    factor: np.ndarray  # A_{l,nu}
    rho: float


def jump_intensity(
    alpha: Values, epsilon: Values, *, rho: float, schedule: float = 1.0
) -> np.ndarray:
    """Eq. 8: intensity beta_l of the jumps of L^l beyond epsilon^-rho s^(-rho (alpha-1)/alpha).

    Args:
        alpha: stable parameters, (N,), in (0, 2).
        epsilon: noise amplitudes, (N,) or a number, positive.
        rho: in (0, 1).
        schedule: s_t, the learning rate relative to its start.

    Returns:
        Jumps per unit of time, (N,).
    """
    alpha, epsilon = _parameters(alpha, epsilon)
    _check_rho(rho)
    if schedule <= 0:
        raise ValueError(f"schedule = {schedule}: s_t must be positive")
    return 2 / alpha * schedule ** (rho * (alpha - 1)) * epsilon ** (rho * alpha)


def relaxation_time(
    slope: Callable[[np.ndarray], np.ndarray],
    epsilon: float,
    lower: float,
    upper: float,
    *,
    zeta: float,
) -> float:
    """Eq. 15: time that the drift takes from either edge to within epsilon^zeta of the minimum.

    Args:
        slope: U' of one coordinate, with the sign of its argument; takes and returns arrays.
        epsilon: noise amplitude, in (0, 1).
        lower, upper: edges of the domain, lower < 0 < upper.
        zeta: positive exponent of the neighbourhood.

    Raises:
        ValueError: an edge within the neighbourhood, or a slope that does not point to the minimum.
    """
    if not 0 < epsilon < 1 or zeta <= 0:
        raise ValueError(f"epsilon = {epsilon}, zeta = {zeta}: need 0 < epsilon < 1 and zeta > 0")
    near = epsilon**zeta
    if not (lower < -near and near < upper):
        raise ValueError(f"[{lower}, {upper}] must contain the neighbourhood of radius {near:g}")
    nodes, weights = np.polynomial.legendre.leggauss(64)
    times = []
    for edge in (lower, upper):
        # In ln |y| the integrand y / U'(y) is smooth: it is constant for a quadratic potential.
        span = math.log(abs(edge) / near)
        y = math.copysign(1, edge) * near * np.exp(span * (nodes + 1) / 2)
        speed = slope(y) / y
        if not np.all(speed > 0):
            raise ValueError(f"slope: must have the sign of its argument between 0 and {edge}")
        times.append(span / 2 * float(np.sum(weights / speed)))
    return max(times)


def deterministic_bound(excess: Values, mu: float, time: Values) -> np.ndarray:
    """Lemma 3.1: bound 2 (U(w) - U(W*)) / mu * exp(-2 mu t) on the squared distance |Y_t - W*|^2.

    Args:
        excess: U(w) - U(W*) at the start, not negative.
        mu: constant of strong convexity, positive.
        time: not negative.
    """
    if mu <= 0 or np.any(np.asarray(excess) < 0) or np.any(np.asarray(time) < 0):
        raise ValueError("need mu > 0, excess >= 0 and time >= 0")
    return np.asarray(2 * np.asarray(excess) / mu * np.exp(-2 * mu * np.asarray(time)))


def small_jump_deviation_exponent(alpha: float, *, theta: float, rho: float) -> float:
    """Proposition 3.2: the exponent theta_bar = 2 - 2 theta - rho (1 - alpha).

    Raises:
        ValueError: theta outside (0, (2 - alpha)/4), alpha outside (0, 2) or rho outside (0, 1).
    """
    _parameters(np.array([alpha]), 1.0)
    _check_rho(rho)
    if not 0 < theta < (2 - alpha) / 4:
        raise ValueError(f"theta = {theta}: must lie in (0, (2 - alpha)/4 = {(2 - alpha) / 4:g})")
    return 2 - 2 * theta - rho * (1 - alpha)


def small_jump_deviation_bound(
    alpha: float,
    epsilon: float,
    *,
    theta: float,
    rho: float,
    constant: float = 1.0,
    variant: Variant = "text",
) -> float:
    """Proposition 3.2: bound on P(sup |Z - Y| >= c epsilon^theta) until the next large jump.

    The text's bound is C epsilon^theta_bar with an unnamed constant C (``constant``). The appendix
    (Eqs. 26 and 27) has, with x = 2 + theta_bar, C = 8 C_Z^2 / (c^2 (1 - alpha)) Gamma(x) / beta^x:
    ``constant`` is then C_Z^2 / c^2. Two things speak against that form. Through beta it depends on
    epsilon, so it is no constant and the exponent of epsilon is lower by rho alpha (2 + theta_bar).
    And its step from (epsilon^(-rho (1-alpha)) - 1)/(1 - alpha) needs alpha < 1; beyond, it is
    negative. Both start from a second moment of the small jumps that integrates y^-alpha from 1;
    the Lévy measure gives 2 t epsilon^(-rho (2-alpha))/(2 - alpha), see ``small_jump_variance``.

    Raises:
        ValueError: parameters outside the proposition, or alpha >= 1 in the appendix's variant.
    """
    exponent = small_jump_deviation_exponent(alpha, theta=theta, rho=rho)
    if epsilon <= 0 or constant <= 0:
        raise ValueError(f"epsilon = {epsilon}, constant = {constant}: must be positive")
    if variant == "text":
        return constant * epsilon**exponent
    _check_variant(variant)
    if alpha >= 1:
        raise ValueError(f"alpha = {alpha}: the appendix's constant is positive only below 1")
    beta = float(jump_intensity(np.array([alpha]), epsilon, rho=rho)[0])
    prefactor = 8 * constant / (1 - alpha) * math.gamma(2 + exponent) / beta ** (2 + exponent)
    return prefactor * epsilon**exponent


def small_jump_variance(alpha: Values, epsilon: Values, *, rho: float) -> np.ndarray:
    """Variance per unit of time of the jumps of L^l below epsilon^-rho, (N,).

    The integral of y^2 |y|^(-1-alpha) over |y| <= epsilon^-rho. Not in the paper, which uses
    ``first_moment`` in its place.
    """
    alpha, epsilon = _parameters(alpha, epsilon)
    _check_rho(rho)
    return 2 * epsilon ** (-rho * (2 - alpha)) / (2 - alpha)


def first_moment(alpha: Values, epsilon: Values, *, rho: float, time: float) -> np.ndarray:
    """Eq. 33: mu_xi = 2 t (epsilon^(-rho (1-alpha)) - 1)/(1 - alpha), (N,).

    The paper's mean of the small jumps up to ``time``. It integrates over positive jumps of size
    above 1 and doubles; the process is symmetric, and its mean is zero.
    """
    alpha, epsilon = _parameters(alpha, epsilon)
    _check_rho(rho)
    # (e^x - 1)/(1 - alpha) with x = rho (alpha - 1) ln epsilon; at alpha = 1 it is -rho ln epsilon.
    log_edge = -rho * np.log(epsilon)
    x = (1 - alpha) * log_edge
    ratio = np.where(np.abs(x) > 1e-12, np.expm1(x) / np.where(x == 0, 1, x), 1.0)
    return 2 * time * log_edge * ratio


def cross_moment(
    time: float,
    start: Values,
    curvature: Values,
    alpha: Values,
    epsilon: Values,
    *,
    rho: float,
) -> np.ndarray:
    """Lemma 3.3 (Eq. 6): E[Z^l Z^j] between large jumps, to first order in epsilon, as (N, N).

    w^l w^j e^(-(h_l + h_j) t) + A_lj + A_jl with
    A_lj = epsilon_l w^j e^(-h_j t) mu_l (2t + (1 - e^(-h_l t))/h_l), mu of :func:`first_moment`.
    Two slips enter A: the mean of the symmetric small jumps is not mu but zero, and the integral in
    Eq. 32 gives (1 - e^(-h t))/h in place of the bracket. Without A the lemma is exact for l != j.

    Args:
        time: since the last large jump, not negative.
        start: position after it, (N,).
        curvature: diagonal of the Hessian, (N,), positive.
        alpha, epsilon: as everywhere; for a schedule pass s_t^((alpha-1)/alpha) epsilon.
        rho: in (0, 1).
    """
    alpha, epsilon = _parameters(alpha, epsilon)
    start = _like("start", start, alpha)
    curvature = _like("curvature", curvature, alpha)
    if time < 0 or not np.all(curvature > 0):
        raise ValueError("need time >= 0 and a positive curvature")
    drifted = start * np.exp(-curvature * time)
    bracket = 2 * time - np.expm1(-curvature * time) / curvature
    mean = epsilon * first_moment(alpha, epsilon, rho=rho, time=time) * bracket
    correction = mean[:, None] * drifted[None, :]
    return drifted[:, None] * drifted[None, :] + correction + correction.T


def noise_covariance_row_sum(
    gradients: np.ndarray,
    hessians: np.ndarray,
    moment: np.ndarray,
    *,
    batch_size: int,
    variant: Variant = "text",
) -> np.ndarray:
    """Proposition 3.4 (Eq. 7): 1' lambda_l, the sums of the rows of the noise covariance, (N,).

    (1/B) [sum_j u_lj + sum_jmp h_lmpj E(Z^m Z^p)] with u the mean over samples of the products of
    gradients and h the mean of the products of Hessians less the product of the means.
    "text" divides u by B (Eq. 7); "appendix" by B D (Eq. 42), though u is a mean over D already.

    Args:
        gradients: per-sample gradients at the minimum, (D, N).
        hessians: per-sample Hessians there, (D, N, N).
        moment: E(Z^m Z^p), e.g. of :func:`cross_moment`, (N, N).
        batch_size: B, drawn with replacement.
    """
    samples, size = gradients.shape
    if hessians.shape != (samples, size, size) or moment.shape != (size, size):
        raise ValueError(
            f"gradients {gradients.shape}, hessians {hessians.shape} and moment {moment.shape} "
            "must be (D, N), (D, N, N) and (N, N)"
        )
    _check_variant(variant)
    if batch_size < 1:
        raise ValueError(f"batch_size = {batch_size}: at least 1")
    at_minimum = gradients.T @ gradients.sum(axis=1) / samples
    if variant == "appendix":
        at_minimum = at_minimum / samples
    mean = hessians.mean(axis=0)
    ones = np.ones(size)
    by_sample = np.einsum("dlm,mp,dp->l", hessians, moment, hessians @ ones, optimize=True)
    away = by_sample / samples - mean @ moment @ (mean @ ones)
    return (at_minimum + away) / batch_size


def mean_exit_time(
    alpha: Values,
    epsilon: Values,
    lower: Values,
    upper: Values,
    *,
    rho: float,
    gamma: float,
    row_sum: Values = 1.0,
    variant: Variant = "text",
) -> float:
    """Theorem 4.1: bound on the mean exit time under the scheduler s_t = t^(gamma - 1).

    sum_l A_{l,nu}^-1 beta_l (m_l Phi_l)^(1-C_l) Gamma(C_l) / (beta_S a_l), with
    C_l = (2 + (gamma-1)(alpha_l - 1 + rho (alpha_l - alpha_nu))) / a_l and
    a_l = 1 + (gamma-1)(alpha_l-1) ("text") or 1 + (gamma-1) rho (alpha_l-1) ("appendix").
    The index nu stands for the network's mean parameter: the means of alpha, epsilon, row_sum and
    edges. The sum runs over l = 1..N; the paper's starts at 0.

    A parameter that makes all the jumps (N = 1 above all) has A = 0 and the bound is infinite.

    Raises:
        ValueError: values outside their range, or noise so large that the mean parameter leaves at
            its first large jump with certainty (A would not be positive).
    """
    basin = _basin(alpha, epsilon, lower, upper, rho, row_sum, variant)
    shape = _time_power(basin, gamma, variant)
    deviation = basin.alpha - 1 + rho * (basin.alpha - basin.alpha.mean())
    exponent = (2 + (gamma - 1) * deviation) / shape
    share = basin.intensity / basin.intensity.sum()
    terms = share * basin.escape_rate ** (1 - exponent) * _gamma(exponent) / shape
    return _divided_sum(terms, basin.factor)


def mean_exit_time_without_decay(
    alpha: Values,
    epsilon: Values,
    lower: Values,
    upper: Values,
    *,
    rho: float,
    row_sum: Values = 1.0,
    variant: Variant = "text",
) -> float:
    """Corollary 4.2: sum_l A_{l,nu}^-1 / (beta_S noise_l epsilon_l^(alpha_l (1-rho)) Phi_l).

    noise_l is 1' lambda_l ("text", Eq. 9) or its power 1/alpha_l ("appendix", Eq. 20). Both are
    printed as the limit gamma -> 1 of Theorem 4.1, and neither is: the limit of beta_l / m_l has a
    factor 2 that is lost, and the text's Theorem has the power alpha_l where Eq. 9 has one.

    Raises:
        ValueError: as :func:`mean_exit_time`.
    """
    basin = _basin(alpha, epsilon, lower, upper, rho, row_sum, variant)
    noise = _like("row_sum", row_sum, basin.alpha)
    if variant == "appendix":
        noise = noise ** (1 / basin.alpha)
    edges = _edge_sum(basin.alpha, *_edges(lower, upper, basin.alpha))
    _, epsilon = _parameters(alpha, epsilon)
    rate = noise * epsilon ** (basin.alpha * (1 - rho)) * edges
    return _divided_sum(1 / (basin.intensity.sum() * rate), basin.factor)


def exit_probability(
    alpha: Values,
    epsilon: Values,
    lower: Values,
    upper: Values,
    *,
    rho: float,
    gamma: float,
    row_sum: Values = 1.0,
    variant: Variant = "text",
) -> np.ndarray:
    """Theorem 4.3 (Eq. 10): bounds on the probability to leave through each upper edge, (N,).

    (m_i Phi_i / beta_i) (d_i^+)^-alpha_i
      * sum_l A_{l,nu}^-1 beta_l^2 (m_l Phi_l)^-C_l Gamma(C_l) / (beta_S a_l)
    with C_l = (2 + (gamma-1)(alpha_l - 1 + rho (alpha_l - alpha_nu))) / a_l and a_l as in
    :func:`mean_exit_time`; the appendix's last display is illegible in the copy at hand, and its
    a_l is taken as in B.1. The value is returned as printed; it can exceed 1, and does for small
    noise, by about beta / (m Phi), as the sum over jump numbers integrates t times a density.
    It also carries Phi_i beside (d_i^+)^-alpha_i.

    Raises:
        ValueError: as :func:`mean_exit_time`.
    """
    basin = _basin(alpha, epsilon, lower, upper, rho, row_sum, variant)
    _, high = _edges(lower, upper, basin.alpha)
    shape = _time_power(basin, gamma, variant)
    deviation = basin.alpha - 1 + rho * (basin.alpha - basin.alpha.mean())
    exponent = (2 + (gamma - 1) * deviation) / shape
    weight = basin.intensity**2 / basin.intensity.sum()
    terms = weight * basin.escape_rate**-exponent * _gamma(exponent) / shape
    own = basin.escape_rate / basin.intensity * high**-basin.alpha
    return own * _divided_sum(terms, basin.factor)


def exit_probability_ratio(
    alpha: Values,
    epsilon: Values,
    upper: Values,
    *,
    rho: float,
    row_sum: Values = 1.0,
) -> np.ndarray:
    """Corollary 4.4 (Eq. 11): bound on P(exit by l) / P(exit by j), as (N, N) with [l, j].

    weight_l / weight_j with weight = (1' lambda)^alpha * epsilon^(alpha (1-rho)) * (d^+)^-alpha.
    With epsilon_l = eta^((alpha_l-1)/alpha_l), the paper's reading of the learning rate eta, the
    middle factor is Eq. 11's eta^((alpha_l-alpha_j)(1-rho)).
    Eq. 12 is the same without the 1 - rho, which is what the ratio of intensities gives, times
    alpha_j / alpha_l: the corollary conditions on a large jump of each parameter and leaves out how
    often each one has one.
    """
    alpha, epsilon = _parameters(alpha, epsilon)
    _check_rho(rho)
    high = _like("upper", upper, alpha)
    noise = _like("row_sum", row_sum, alpha)
    if not (np.all(high > 0) and np.all(noise > 0)):
        raise ValueError("upper and row_sum must be positive")
    weight = noise**alpha * epsilon ** (alpha * (1 - rho)) * high**-alpha
    return weight[:, None] / weight[None, :]


def small_noise_exit_time(
    alpha: Values,
    epsilon: Values,
    lower: Values,
    upper: Values,
    *,
    gamma: float = 1.0,
    row_sum: Values = 1.0,
) -> float:
    """The mean exit time in the limit of small noise: integral of exp(-H(t)) over t > 0.

    H(t) = sum_l (1' lambda_l) epsilon_l^alpha_l Phi_l t^p_l / (alpha_l p_l), where
    p_l = 1 + (gamma-1)(alpha_l-1), is the integrated intensity of jumps that lead out from the
    minimum; for gamma = 1 the result is 1 / sum_l m_l Phi_l. Not a result of the paper.
    """
    times, _, survival = _survival(alpha, epsilon, lower, upper, gamma, row_sum)
    # The grid is uniform in ln t; what lies before its first point counts as survived.
    return float(times[0] + np.trapezoid(survival * times, np.log(times)))


def small_noise_exit_probability(
    alpha: Values,
    epsilon: Values,
    lower: Values,
    upper: Values,
    *,
    gamma: float = 1.0,
    row_sum: Values = 1.0,
) -> np.ndarray:
    """The probability to leave through each edge in the limit of small noise, (N, 2): lower, upper.

    The intensities of jumps out through each edge, as shares of their sum; under a schedule
    averaged over the exit time. Not a result of the paper.
    """
    times, hazard, survival = _survival(alpha, epsilon, lower, upper, gamma, row_sum)
    through = np.trapezoid(hazard * survival * times, np.log(times), axis=1)
    shares = through / through.sum()
    exponents = np.atleast_1d(np.asarray(alpha, dtype=np.float64))
    low, high = _edges(lower, upper, exponents)
    sides = np.stack([(-low) ** -exponents, high**-exponents], axis=1)
    return shares[:, None] * sides / sides.sum(axis=1, keepdims=True)


def _survival(
    alpha: Values,
    epsilon: Values,
    lower: Values,
    upper: Values,
    gamma: float,
    row_sum: Values,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times (T,), intensities of leaving (N, T) and the probability to be inside (T,)."""
    alpha, epsilon = _parameters(alpha, epsilon)
    _check_gamma(gamma)
    rate = _like("row_sum", row_sum, alpha) * epsilon**alpha / alpha
    rate = rate * _edge_sum(alpha, *_edges(lower, upper, alpha))
    power = 1 + (gamma - 1) * (alpha - 1)
    scale = float(np.min((power / rate) ** (1 / power)))
    # From 1e-12 of the typical exit time to where exp(-H) is below 1e-60.
    log_times = math.log(scale) + np.linspace(-28.0, 5.0 / power.min(), 8001)
    times = np.exp(log_times)
    hazard = rate[:, None] * times ** (power[:, None] - 1)
    integrated = (hazard * times / power[:, None]).sum(axis=0)
    return times, hazard, np.exp(-integrated)


def _basin(
    alpha: Values,
    epsilon: Values,
    lower: Values,
    upper: Values,
    rho: float,
    row_sum: Values,
    variant: Variant,
) -> Basin:
    _check_variant(variant)
    alpha, epsilon = _parameters(alpha, epsilon)
    noise = _like("row_sum", row_sum, alpha)
    if not np.all(noise > 0):
        raise ValueError(f"row_sum = {row_sum}: must be positive")
    low, high = _edges(lower, upper, alpha)

    def escape_rate(
        a: np.ndarray, e: np.ndarray, n: np.ndarray, d_minus: np.ndarray, d_plus: np.ndarray
    ) -> np.ndarray:
        power = a if variant == "text" else 1 / a
        return n**power * e**a / a * _edge_sum(a, d_minus, d_plus)

    intensity = jump_intensity(alpha, epsilon, rho=rho)
    nu = [np.atleast_1d(v.mean()) for v in (alpha, epsilon, noise, low, high)]
    leaves = float((escape_rate(*nu) / jump_intensity(nu[0], nu[1], rho=rho))[0])
    if leaves >= 1:
        raise ValueError(
            f"the mean parameter leaves at a large jump with 'probability' {leaves:.3g} >= 1: "
            "the theorems need a smaller epsilon or a wider domain"
        )
    factor = (1 - leaves) * (1 - intensity / intensity.sum())
    return Basin(alpha, escape_rate(alpha, epsilon, noise, low, high), intensity, factor, rho)


def _time_power(basin: Basin, gamma: float, variant: Variant) -> np.ndarray:
    _check_gamma(gamma)
    slower = 1.0 if variant == "text" else basin.rho
    return 1 + (gamma - 1) * slower * (basin.alpha - 1)


def _divided_sum(terms: np.ndarray, factor: np.ndarray) -> float:
    """sum terms / factor, infinite where a factor vanishes."""
    if np.any(factor <= 0):
        return math.inf
    return float(np.sum(terms / factor))


def _gamma(x: np.ndarray) -> np.ndarray:
    return np.array([math.gamma(value) for value in x])


def _edge_sum(alpha: Values, lower: Values, upper: Values) -> np.ndarray:
    """Phi_l = (-d_l^-)^-alpha_l + (d_l^+)^-alpha_l."""
    return (-lower) ** -alpha + upper**-alpha


def _edges(lower: Values, upper: Values, alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low, high = _like("lower", lower, alpha), _like("upper", upper, alpha)
    if not (np.all(low < 0) and np.all(high > 0)):
        raise ValueError(f"need lower < 0 < upper, got lower = {lower}, upper = {upper}")
    return low, high


def _like(name: str, values: Values, alpha: np.ndarray) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.size not in (1, alpha.size) or array.ndim > 1:
        raise ValueError(f"{name}: shape {array.shape}, but alpha has {alpha.size} parameters")
    return np.broadcast_to(array.reshape(-1), alpha.shape)


def _parameters(alpha: Values, epsilon: Values) -> tuple[np.ndarray, np.ndarray]:
    exponents = np.atleast_1d(np.asarray(alpha, dtype=np.float64))
    if exponents.ndim != 1 or not np.all((exponents > 0) & (exponents < 2)):
        raise ValueError(f"alpha = {alpha}: the stable parameters must lie in (0, 2)")
    amplitudes = _like("epsilon", epsilon, exponents)
    if not np.all(amplitudes > 0):
        raise ValueError(f"epsilon = {epsilon}: the noise amplitudes must be positive")
    return exponents, amplitudes


def _check_rho(rho: float) -> None:
    if not 0 < rho < 1:
        raise ValueError(f"rho = {rho}: the split of the jumps lies in (0, 1)")


def _check_gamma(gamma: float) -> None:
    if not 0 < gamma <= 1:
        raise ValueError(f"gamma = {gamma}: the cooling rate lies in (0, 1]")


def _check_variant(variant: str) -> None:
    if variant not in VARIANTS:
        raise ValueError(f"variant = {variant!r}: {' or '.join(map(repr, VARIANTS))}")
