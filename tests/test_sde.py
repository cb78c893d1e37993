"""The simulators against known laws, against each other, and their independence of threads."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import integrate, stats

from sgnoise import sde, sde_kernels, stable, theory
from sgnoise.sde import (
    Exits,
    LevySystem,
    Schedule,
    first_exit,
    first_exit_by_jumps,
    levy_constant,
    simulate_paths,
)

SEED = 20
SLACK = 1.7  # 95 % intervals stretched to 99.9 %: a fixed seed may be an unlucky one


def agree(first: Exits, second: Exits, tolerance: float) -> bool:
    """Whether two mean exit times differ by no more than ``tolerance`` and their errors."""
    a, a_low, a_high = first.mean_time()
    b, b_low, b_high = second.mean_time()
    error = math.hypot(a_high - a_low, b_high - b_low) / 2
    return abs(a - b) <= tolerance * b + SLACK * error


# --- the law of the noise -------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.5, 0.8, 1.0, 1.3, 1.9])
def test_levy_constant_is_the_integral_of_the_levy_measure(alpha: float) -> None:
    def smooth(v: float) -> float:
        y = v ** (1 / (2 - alpha))  # takes the singularity at 0 away
        return 2 * (math.sin(y / 2) / y) ** 2 / (2 - alpha) if y > 0 else 0.5 / (2 - alpha)

    near, _ = integrate.quad(smooth, 0, 1)
    wave, _ = integrate.quad(
        lambda y: y ** (-1 - alpha), 1, np.inf, weight="cos", wvar=1.0, epsabs=1e-10
    )
    assert levy_constant(alpha) == pytest.approx(2 * (near + 1 / alpha - wave), rel=1e-6)


def test_levy_constant_is_pi_for_the_cauchy_law() -> None:
    assert levy_constant(1.0) == pytest.approx(math.pi)


@pytest.mark.parametrize("alpha", [0.5, 0.55, 0.9, 1.0, 1.3, 1.9, 2.0])
def test_increments_have_the_stable_law(alpha: float) -> None:
    system = LevySystem(alpha=alpha, epsilon=0.7, row_sum=2.0, curvature=0.0)
    _, w = simulate_paths(system, start=0.0, step=0.3, steps=1, paths=100_000, seed=SEED)
    constant = 1.0 if alpha == 2 else levy_constant(alpha)
    scale = 0.7 * (2.0 * constant * 0.3) ** (1 / alpha)
    x = w[1, 0].astype(float)
    assert stats.kstest(x, lambda v: stable.cdf(v, alpha, scale)).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.7])
def test_large_increments_follow_the_levy_measure(alpha: float) -> None:
    """P(|L_t| > x) tends to 2 t x^-alpha / alpha; x is where it is 20 in 400,000."""
    paths, expected = 400_000, 20
    x = (2 * paths / (alpha * expected)) ** (1 / alpha)
    system = LevySystem(alpha=alpha, epsilon=1.0, curvature=0.0)
    _, w = simulate_paths(system, start=0.0, step=1.0, steps=1, paths=paths, seed=SEED)
    beyond = int(np.sum(np.abs(w[1, 0]) > x))
    assert stats.poisson.ppf(5e-4, expected) <= beyond <= stats.poisson.ppf(1 - 5e-4, expected)


def test_coordinates_and_steps_are_independent() -> None:
    system = LevySystem(alpha=np.array([1.0, 1.0]), epsilon=1.0, curvature=0.0)
    _, w = simulate_paths(system, start=0.0, step=1.0, steps=2, paths=50_000, seed=SEED)
    first, second = np.sign(np.diff(w, axis=0))
    for pair in ((first[0], first[1]), (first[0], second[0]), (first[0, 1:], first[0, :-1])):
        assert abs(float(np.mean(pair[0] * pair[1]))) < 3.3 / math.sqrt(50_000)


@pytest.mark.parametrize("alpha", [0.7, 1.5])
def test_stationary_scale_of_the_ornstein_uhlenbeck_process(alpha: float) -> None:
    """With drift -h w, scale^alpha tends to epsilon^alpha C(alpha) / (alpha h)."""
    h, epsilon, step = 2.0, 0.3, 0.01
    system = LevySystem(alpha=alpha, epsilon=epsilon, curvature=h)
    _, w = simulate_paths(
        system, start=0.0, step=step, steps=600, every=600, paths=20_000, seed=SEED
    )
    # The sum over steps in place of the integral: a geometric series.
    keep = (1 - h * step) ** alpha
    scale = epsilon * (levy_constant(alpha) * step / (1 - keep)) ** (1 / alpha)
    limit = epsilon * (levy_constant(alpha) / (alpha * h)) ** (1 / alpha)
    assert scale == pytest.approx(limit, rel=0.02)
    x = w[1, 0].astype(float)
    assert stats.kstest(x, lambda v: stable.cdf(v, alpha, scale)).pvalue > 1e-3


# --- schedules ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "schedule",
    [Schedule(), Schedule(0.6), Schedule(milestones=(1.0, 2.5), factor=0.1), Schedule(0.8, (2.0,))],
)
@pytest.mark.parametrize("alpha", [0.6, 1.0, 1.8])
def test_clock_is_the_integral_of_the_scheduled_intensity(schedule: Schedule, alpha: float) -> None:
    def intensity(t: float) -> float:
        passed = sum(t >= milestone for milestone in schedule.milestones)
        return (t ** (schedule.gamma - 1) * schedule.factor**passed) ** (alpha - 1)

    edges = (0.0, *schedule.milestones, 4.0)
    parts = [integrate.quad(intensity, start, end)[0] for start, end in itertools.pairwise(edges)]
    assert schedule.clock(alpha, np.array(4.0)) == pytest.approx(sum(parts), rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0.0,), "gamma"), ((1.0, (2.0, 1.0)), "milestones"), ((1.0, (1.0,), 0.0), "factor")],
)
def test_schedule_rejects(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schedule(*arguments)


# --- exits ----------------------------------------------------------------------------------------


def ornstein_uhlenbeck_exit_time(h: float, diffusion: float, edge: float) -> float:
    """Mean exit time from 0 out of [-edge, edge] of dX = -h X dt + sqrt(2 diffusion) dB."""

    def outer(y: float) -> float:
        z = np.linspace(0, y, 401)
        inner = np.trapezoid(np.exp(-h * z**2 / (2 * diffusion)), z)
        return math.exp(h * y**2 / (2 * diffusion)) * float(inner)

    return integrate.quad(outer, 0, edge)[0] / diffusion


def test_brownian_exit_time_is_the_known_one() -> None:
    """alpha = 2: looking only at the steps acts like an edge 0.5826 standard deviations further."""
    h, epsilon, edge = 1.0, 0.5, 1.0
    system = LevySystem(alpha=2.0, epsilon=epsilon, curvature=h)
    exact = ornstein_uhlenbeck_exit_time(h, epsilon**2, edge)
    gaps = []
    for step in (0.02, 0.005):
        exits = first_exit(
            system, -edge, edge, step=step, max_steps=100_000, paths=20_000, seed=SEED
        )
        mean, low, high = exits.mean_time()
        shift = 0.5826 * epsilon * math.sqrt(2 * step)
        shifted = ornstein_uhlenbeck_exit_time(h, epsilon**2, edge + shift)
        assert abs(mean - shifted) <= 0.01 * shifted + SLACK * (high - low) / 2
        gaps.append(mean - exact)
    # The error is of the order of the root of the step.
    assert gaps[1] == pytest.approx(gaps[0] / 2, abs=0.1 * exact)
    assert gaps[0] > gaps[1] > 0


@pytest.mark.parametrize("alpha", [0.7, 1.2, 1.6])
def test_exit_time_of_the_stable_process_itself(alpha: float) -> None:
    """Without drift the mean exit time from (-1, 1) is 1 / (Gamma(1 + alpha) c) (Getoor 1961)."""
    epsilon = 0.3
    system = LevySystem(alpha=alpha, epsilon=epsilon, curvature=0.0)
    exact = 1 / (math.gamma(1 + alpha) * levy_constant(alpha) * epsilon**alpha)
    walked = first_exit(
        system, -1.0, 1.0, step=exact / 2000, max_steps=10**6, paths=10_000, seed=SEED
    )
    jumped = first_exit_by_jumps(
        system, -1.0, 1.0, cutoff=0.03, max_events=10**6, paths=10_000, seed=SEED
    )
    for exits, tolerance in ((walked, 0.02), (jumped, 0.01)):
        mean, low, high = exits.mean_time()
        assert abs(mean - exact) <= tolerance * exact + SLACK * (high - low) / 2


@pytest.mark.parametrize("simulator", ["euler_maruyama", "by_jumps"])
def test_way_out_in_the_limit_of_small_noise(simulator: str) -> None:
    alpha = np.array([0.8, 1.4])
    lower, upper = np.array([-1.0, -2.0]), np.array([1.5, 0.5])
    system = LevySystem(alpha=alpha, epsilon=0.01, row_sum=np.array([1.0, 3.0]), curvature=1.0)
    if simulator == "by_jumps":
        exits = first_exit_by_jumps(
            system, lower, upper, cutoff=0.1, max_events=10**6, paths=20_000, seed=SEED
        )
    else:
        exits = first_exit(
            system, lower, upper, step=0.02, max_steps=20_000, paths=4_000, seed=SEED
        )
    expected = theory.small_noise_exit_probability(
        alpha, 0.01, lower, upper, row_sum=system.row_sum
    )
    found = [
        int(np.sum((exits.coordinate == c) & (exits.side == side)))
        for c in (0, 1)
        for side in (-1, 1)
    ]
    assert not exits.censored.any()
    assert stats.chisquare(found, expected.ravel() * sum(found)).pvalue > 1e-3
    mean, low, high = exits.mean_time()
    limit = theory.small_noise_exit_time(alpha, 0.01, lower, upper, row_sum=system.row_sum)
    assert abs(mean - limit) <= 0.03 * limit + SLACK * (high - low) / 2


@pytest.mark.parametrize(
    ("alpha", "epsilon", "schedule", "tolerance"),
    [
        ([0.75], 0.1, Schedule(), 0.01),
        ([1.25], 0.1, Schedule(0.6), 0.01),
        ([1.5], 0.1, Schedule(milestones=(3.0,), factor=0.1), 0.01),
        ([1.75], 0.1, Schedule(), 0.02),
        ([0.7, 1.3], 0.15, Schedule(0.8), 0.01),
    ],
)
def test_simulators_agree(
    alpha: list[float], epsilon: float, schedule: Schedule, tolerance: float
) -> None:
    system = LevySystem(alpha=np.array(alpha), epsilon=epsilon, curvature=1.0, schedule=schedule)
    walked = first_exit(system, -1.0, 1.0, step=0.005, max_steps=10**6, paths=8_000, seed=SEED)
    jumped = first_exit_by_jumps(
        system, -1.0, 1.0, cutoff=0.1, max_events=10**6, paths=8_000, seed=SEED
    )
    assert agree(jumped, walked, tolerance)
    assert stats.ks_2samp(jumped.time, walked.time).pvalue > 1e-4
    share = np.mean(jumped.coordinate == 0), np.mean(walked.coordinate == 0)
    assert abs(share[0] - share[1]) < 3.3 * math.sqrt(0.5 / 8_000)


def test_exit_time_converges_with_the_step() -> None:
    """The error shrinks from a step of 0.05 to 0.0025, towards the event-driven result."""
    system = LevySystem(alpha=1.75, epsilon=0.2, curvature=1.0)
    means = [
        first_exit(system, -1.0, 1.0, step=step, max_steps=10**5, paths=20_000, seed=SEED)
        for step in (0.05, 0.01, 0.0025)
    ]
    reference = first_exit_by_jumps(
        system, -1.0, 1.0, cutoff=0.03, max_events=10**6, paths=20_000, seed=SEED
    )
    coarse, middle, fine = (exits.mean_time()[0] for exits in means)
    assert coarse > 1.05 * middle
    assert middle > 1.02 * fine
    assert agree(means[2], reference, 0.04)
    assert not agree(means[0], reference, 0.1)


def test_normal_variables_have_the_normal_law() -> None:
    words = np.random.default_rng(SEED).integers(0, 2**32, 20_000, dtype=np.uint32)
    normal = np.array([float(sde_kernels._normal(word)) for word in words])
    assert stats.kstest(normal, "norm").pvalue > 1e-3
    # The far ends: u of 2^-32 and of nearly 1.
    extreme = [sde_kernels._normal(np.uint32(word)) for word in (1, 0, 2**32 - 1)]
    expected = -stats.norm.ppf(2.0**-33)
    np.testing.assert_allclose(extreme, [expected, -expected, 0.0], atol=3e-4)


@pytest.mark.parametrize(
    ("alpha", "activity", "cutoff", "share"),
    [(0.75, 1e-3, 0.01, 0.5), (1.2, 1e-4, 0.01, 0.5), (1.9, 1.0, 1e-3, 1.0)],
)
def test_touches_of_an_edge_by_one_jump_and_by_many(
    alpha: float, activity: float, cutoff: float, share: float
) -> None:
    """One small jump that does it is worth half of the Gaussian, many are worth the whole."""
    assert sde._touch_share(alpha, activity, cutoff) == pytest.approx(share, rel=0.03)


def test_touches_of_an_edge_against_simulated_small_jumps() -> None:
    """Where the edge's surroundings are not flat: neither a half nor the whole."""
    alpha, activity, cutoff = 0.75, 0.1, 0.6
    rng = np.random.default_rng(SEED)
    paths, horizon, least = 60_000, 0.6, 0.003
    # Starts where large jumps land, beyond the cutoff and before the edge at 1.
    d = rng.uniform(0, 1 - cutoff, paths)
    weight = (1 - d) ** (-1 - alpha)
    rate = activity / alpha * (least**-alpha - cutoff**-alpha)
    counts = rng.poisson(2 * rate * horizon, paths)
    most = int(counts.max())
    times = np.sort(np.where(np.arange(most) < counts[:, None], rng.random((paths, most)), 2.0))
    tail = (least / cutoff) ** alpha
    sizes = least * (tail + (1 - tail) * rng.random((paths, most))) ** (-1 / alpha)
    sizes *= rng.choice([-1.0, 1.0], sizes.shape)
    w, last, out = 1 - d, np.zeros(paths), np.zeros(paths, dtype=bool)
    for k in range(most):
        due = np.minimum(times[:, k], 1.0) * horizon
        w = w * np.exp(last - due) + np.where(times[:, k] <= 1, sizes[:, k], 0.0)
        last = due
        out |= w >= 1
    crossed = float(np.mean(out * weight))
    margin = SLACK * 1.96 * float(np.std(out * weight)) / math.sqrt(paths)
    variance = 2 * activity * cutoff ** (2 - alpha) / (2 - alpha)
    gaussian = float(np.mean(np.exp(-2 * d / variance) * weight))
    # 5 % for the jumps below ``least``, for the horizon and for the jumps of several.
    share = sde._touch_share(alpha, activity, cutoff)
    assert abs(crossed / gaussian - share) < 0.05 * share + margin / gaussian
    assert 0.55 * gaussian < crossed - margin
    assert crossed + margin < 0.95 * gaussian


def test_a_coarse_cutoff_is_accurate_where_noise_is_small() -> None:
    system = LevySystem(alpha=0.75, epsilon=0.05, curvature=1.0)
    coarse, fine = (
        first_exit_by_jumps(
            system, -1.0, 1.0, cutoff=cutoff, max_events=10**6, paths=2_000_000, seed=SEED
        )
        for cutoff in (0.3, 0.06)
    )
    assert agree(coarse, fine, 0.001)


def test_small_jumps_matter_where_alpha_is_large() -> None:
    system = LevySystem(alpha=1.75, epsilon=0.2, curvature=1.0)
    same = {"cutoff": 0.1, "max_events": 10**6, "paths": 4_000, "seed": SEED}
    with_them = first_exit_by_jumps(system, -1.0, 1.0, **same)  # type: ignore[arg-type]
    without = first_exit_by_jumps(system, -1.0, 1.0, small_jumps="none", **same)  # type: ignore[arg-type]
    assert without.mean_time()[1] > 1.5 * with_them.mean_time()[2]


def test_without_jumps_beyond_the_edge_nothing_leaves_at_once() -> None:
    """The process of small jumps leaves later than the whole process, and never by a large jump."""
    system = LevySystem(alpha=0.75, epsilon=0.1, curvature=1.0)
    cut = first_exit_by_jumps(
        system, -1.0, 1.0, cutoff=0.05, largest=0.6, max_events=2_000, paths=2_000, seed=SEED
    )
    whole = first_exit_by_jumps(
        system, -1.0, 1.0, cutoff=0.05, max_events=2_000, paths=2_000, seed=SEED
    )
    assert cut.mean_time()[0] > 2 * whole.mean_time()[0]
    assert float(cut.jump.max()) <= 0.6 * (1 + 1e-5)
    assert float(whole.jump.max()) > 1.0


def test_any_potential_by_its_gradient() -> None:
    h = 1.5
    shared = {"alpha": np.array([1.2, 0.9]), "epsilon": 0.2}
    bent = LevySystem(curvature=h, **shared)  # type: ignore[arg-type]
    sloped = LevySystem(gradient=lambda w: h * w, **shared)  # type: ignore[arg-type]
    same = {"step": 0.01, "max_steps": 400, "paths": 300, "seed": SEED}
    a = first_exit(bent, -1.0, 1.0, **same)  # type: ignore[arg-type]
    b = first_exit(sloped, -1.0, 1.0, **same)  # type: ignore[arg-type]
    # Rounding differs, so a path in a thousand may leave a step apart.
    assert np.mean(a.time == b.time) > 0.99
    assert np.mean(a.coordinate == b.coordinate) > 0.99


def test_steeper_walls_hold_the_process_longer() -> None:
    """The gradient of w^2/2 + 4 w^4 against that of w^2/2."""
    same = {"step": 0.005, "max_steps": 4_000, "paths": 300, "seed": SEED}
    free = LevySystem(alpha=1.8, epsilon=0.2, gradient=lambda w: w)
    walled = LevySystem(alpha=1.8, epsilon=0.2, gradient=lambda w: w + 16 * w**3)
    early = first_exit(free, -1.0, 1.0, **same)  # type: ignore[arg-type]
    late = first_exit(walled, -1.0, 1.0, **same)  # type: ignore[arg-type]
    assert late.mean_time()[1] > early.mean_time()[2]


def test_paths_without_noise_follow_the_flow() -> None:
    system = LevySystem(alpha=np.array([1.5, 1.5]), epsilon=1e-6, curvature=np.array([1.0, 2.0]))
    times, w = simulate_paths(
        system, start=np.array([1.0, -1.0]), step=0.001, steps=1000, every=100, paths=3, seed=SEED
    )
    assert w.shape == (11, 2, 3)
    assert times[-1] == pytest.approx(1.0)
    flow = np.array([1.0, -1.0]) * np.exp(-np.outer(times, [1.0, 2.0]))
    np.testing.assert_allclose(w, np.repeat(flow[:, :, None], 3, axis=2), atol=2e-3)


def test_censored_paths_are_marked() -> None:
    system = LevySystem(alpha=1.5, epsilon=0.01, curvature=1.0)
    walked = first_exit(system, -1.0, 1.0, step=0.1, max_steps=7, paths=100, seed=SEED)
    jumped = first_exit_by_jumps(system, -1.0, 1.0, cutoff=0.1, max_events=2, paths=100, seed=SEED)
    for exits in (walked, jumped):
        assert exits.censored.sum() > 90
        assert np.all(exits.coordinate[exits.censored] == -1)
        assert np.all(exits.side[exits.censored] == 0)
        assert np.all(exits.side[~exits.censored] != 0)
    assert np.all(walked.time[walked.censored] == pytest.approx(0.7))
    none = Exits(walked.time[walked.censored], *[np.full(walked.censored.sum(), -1)] * 3)
    assert math.isnan(none.mean_time()[0])


# --- reproducibility ------------------------------------------------------------------------------

SYSTEM = LevySystem(alpha=np.array([0.8, 1.5]), epsilon=0.1, curvature=1.0, schedule=Schedule(0.8))
Simulator = Callable[..., Exits]


def by_steps(**changes: int) -> Exits:
    options = {"paths": 300, "seed": SEED, "threads": 1} | changes
    return first_exit(SYSTEM, -1.0, 1.0, step=0.01, max_steps=2_000, **options)


def by_jumps(**changes: int) -> Exits:
    options = {"paths": 300, "seed": SEED, "threads": 1} | changes
    return first_exit_by_jumps(SYSTEM, -1.0, 1.0, cutoff=0.1, max_events=500, **options)  # type: ignore[arg-type]


def assert_same(first: Exits, second: Exits) -> None:
    for name in ("time", "coordinate", "side", "jump"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize("simulate", [by_steps, by_jumps])
def test_threads_and_chunks_change_nothing(
    simulate: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = simulate()
    assert_same(whole, simulate(threads=3))
    monkeypatch.setattr(sde, "_STEPS_A_CALL", 7)
    assert_same(whole, simulate(threads=2))


@pytest.mark.parametrize("simulate", [by_steps, by_jumps])
def test_a_path_does_not_depend_on_how_many_there_are(simulate: Simulator) -> None:
    many, few = simulate(), simulate(paths=70)
    kept = Exits(*(getattr(many, name)[:70] for name in ("time", "coordinate", "side", "jump")))
    assert_same(kept, few)


@pytest.mark.parametrize("simulate", [by_steps, by_jumps])
def test_seeds_differ(simulate: Simulator) -> None:
    assert np.mean(simulate().time == simulate(seed=SEED + 1).time) < 0.1


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 0.3}, "alpha"),
        ({"alpha": 2.1}, "alpha"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"row_sum": -1.0}, "row_sum"),
        ({"curvature": -1.0}, "curvature"),
        ({"curvature": None}, "potential"),
        ({"epsilon": np.ones(3)}, "epsilon"),
    ],
)
def test_system_rejects(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LevySystem(**{"alpha": 1.5, "epsilon": 0.1, "curvature": 1.0} | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lower": 0.1}, "origin"),
        ({"step": 0.0}, "step"),
        ({"step": 2.0}, "curvature"),
        ({"paths": 0}, "paths"),
        ({"start": 1.5}, "start"),
        ({"max_steps": 0}, "max_steps"),
    ],
)
def test_first_exit_rejects(changes: dict, message: str) -> None:
    arguments = {"lower": -1.0, "upper": 1.0, "step": 0.1, "max_steps": 5, "paths": 4, "seed": 1}
    with pytest.raises(ValueError, match=message):
        first_exit(LevySystem(alpha=1.5, epsilon=0.1, curvature=1.0), **arguments | changes)


@pytest.mark.parametrize(
    ("system", "changes", "message"),
    [
        ({"curvature": None, "gradient": np.copy}, {}, "quadratic"),
        ({"alpha": 2.0}, {}, "no jumps"),
        ({}, {"cutoff": 1.0}, "cutoff"),
        ({}, {"largest": 0.05}, "largest"),
        ({}, {"start": -1.5}, "start"),
        ({}, {"paths": 0}, "paths"),
        ({}, {"max_events": 2**31}, "max_events"),
    ],
)
def test_first_exit_by_jumps_rejects(system: dict, changes: dict, message: str) -> None:
    given_system = LevySystem(**{"alpha": 1.5, "epsilon": 0.1, "curvature": 1.0} | system)
    arguments = {"cutoff": 0.1, "max_events": 5, "paths": 4, "seed": 1} | changes
    with pytest.raises(ValueError, match=message):
        first_exit_by_jumps(given_system, -1.0, 1.0, **arguments)


def test_gradient_must_keep_the_shape() -> None:
    system = LevySystem(alpha=1.5, epsilon=0.1, gradient=lambda w: w[0])
    with pytest.raises(ValueError, match="gradient"):
        first_exit(system, -1.0, 1.0, step=0.1, max_steps=5, paths=4, seed=1)
