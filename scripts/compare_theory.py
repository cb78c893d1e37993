"""Every lemma, proposition, theorem and corollary beside the simulation, with a computed verdict.

A row rests on cases, each the theory's value over the simulated one with a 95 % interval. Verdicts:

* a bound holds if in no case its ratio lies below 1 by more than the interval;
* an equation holds if in every case the interval reaches within 10 % of 1;
* else either holds as scaling only if its ratio does not depend on epsilon: the slope of log ratio
  against log epsilon is 0 within its 95 % interval or 0.1;
* an order (something is the larger) holds as a bound does, but cannot hold as scaling;
* else it fails.

An infinite bound on a time, or one of at least 1 on a probability, cannot be violated: such cases
are counted as uninformative and kept out of the ratios. A bound that is uninformative in every case
("empty bound") says nothing as a bound; it is judged by its scaling alone.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from sgnoise import theory
from sgnoise.files import atomic_path
from sgnoise.jobs import running_job
from sgnoise.progress import logger
from sgnoise.sde import (
    Exits,
    LevySystem,
    Schedule,
    binomial_interval,
    first_exit_by_jumps,
)
from sgnoise.seeds import generator, integer_seed

HOLDS = "holds"
SCALING = "holds as scaling only"
FAILS = "fails"

_EQUAL_WITHIN = 0.1
_FLAT_WITHIN = 0.1
_FEW = 1e-12
_PATHS = 10000
_EARLY = 10.0  # the scheduler t^(gamma-1) is above 1 before t = 1 and takes time to bite

Rule = Literal["bound", "equation", "empty bound", "order"]


class Case(NamedTuple):
    """The theory's value over the simulated one, with its interval, at one epsilon.

    ``group`` tells which cases differ in epsilon alone.
    """

    ratio: float
    low: float
    high: float
    epsilon: float
    group: tuple[float, ...] = ()


def compare_theory(
    *,
    exit_axis_path: str,
    exit_time_path: str,
    covariance_path: str,
    theorems_path: str,
    rho: float,
    study: str,
    seed: int,
    threads: int,
) -> None:
    """Write one row a statement: what was compared and where, the ratio, its range, the verdict.

    A statement of which the study has no case is left out, with a line in the log.

    Args:
        exit_axis_path: exits of two coordinates with different alpha.
        exit_time_path: exit times over the grid.
        covariance_path: covariance of the noise of a small network beside Proposition 3.4.
        theorems_path: CSV to write.
        rho: split of the jumps, for the simulations that only this table needs.
        study: for the log.
        seed: of these simulations.
        threads: for them.
    """
    axis = pd.read_parquet(exit_axis_path)
    grid = pd.read_parquet(exit_time_path)
    covariance = pd.read_parquet(covariance_path)
    rows = [
        *deterministic_rows(),
        *deviation_rows(seed=seed, threads=threads),
        *cross_moment_rows(rho=rho, seed=seed),
        *covariance_rows(covariance),
        *exit_time_rows(grid, axis),
        *exit_probability_rows(grid),
        *ratio_rows(axis, rho=rho, seed=seed, threads=threads),
        *large_jump_rows(grid),
        *decay_rows(grid),
        *step_rows(seed=seed, threads=threads),
        *noise_level_rows(seed=seed, threads=threads),
        *basin_rows(seed=seed, threads=threads),
    ]
    judged = [row for row in rows if row["cases"]]
    for row in rows:
        logger.info("%s: %s: %s", study, row["theorem"], row.get("verdict", "no case in the study"))
    with atomic_path(theorems_path) as path:
        pd.DataFrame(judged).to_csv(path, index=False, float_format="%.6g")


# --- from cases to a row --------------------------------------------------------------------------


def verdict(cases: Sequence[Case], rule: Rule) -> str:
    """The verdict by the rules of the module's docstring."""
    reaches = {
        "bound": lambda case: case.high >= 1,
        "equation": lambda case: case.low <= 1 + _EQUAL_WITHIN and case.high >= 1 - _EQUAL_WITHIN,
        "empty bound": lambda case: False,
        "order": lambda case: case.high >= 1,
    }
    if all(reaches[rule](case) for case in cases):
        return HOLDS
    return SCALING if rule != "order" and is_flat(cases) else FAILS


def is_flat(cases: Sequence[Case]) -> bool:
    """Whether the ratio does not depend on epsilon in any group of at least two of its values."""
    groups: dict[tuple[float, ...], list[Case]] = {}
    for case in cases:
        groups.setdefault(case.group, []).append(case)
    slopes = [slope_of(group) for group in groups.values() if len({c.epsilon for c in group}) > 1]
    return bool(slopes) and all(abs(slope) <= max(_FLAT_WITHIN, error) for slope, error in slopes)


def slope_of(cases: Sequence[Case]) -> tuple[float, float]:
    """Weighted slope of log ratio against log epsilon, and the half width of its 95 % interval."""
    x = np.log([case.epsilon for case in cases])
    y = np.log([case.ratio for case in cases])
    spread = np.array([math.log(case.high / case.low) / 2 for case in cases])
    weight = 1 / np.maximum(spread, 1e-6) ** 2
    x = x - np.average(x, weights=weight)
    curvature = float(np.sum(weight * x**2))
    return float(np.sum(weight * x * y)) / curvature, 1 / math.sqrt(curvature)


def ratio_case(
    theory_value: float, mean: float, low: float, high: float, epsilon: float, *group: float
) -> Case:
    """The case of a theoretical value beside a simulated mean and its interval."""
    return Case(
        theory_value / max(mean, _FEW),
        theory_value / max(high, _FEW),
        theory_value / max(low, _FEW),
        epsilon,
        group,
    )


def row(
    theorem: str,
    statement: str,
    compared: str,
    region: str,
    cases: Sequence[Case],
    *,
    rule: Rule,
    uninformative: int = 0,
) -> dict[str, object]:
    """One row of the table: the median ratio of the cases, and the range of all their intervals."""
    if not cases:
        return {"theorem": theorem, "region": region, "cases": 0}
    return {
        "theorem": theorem,
        "statement": statement,
        "compared": compared,
        "region": region,
        "cases": len(cases),
        "uninformative": uninformative,
        "ratio": float(np.median([case.ratio for case in cases])),
        "ratio_low": min(case.low for case in cases),
        "ratio_high": max(case.high for case in cases),
        "rule": rule,
        "verdict": verdict(cases, rule),
    }


def span(name: str, values: Sequence[float] | pd.Series) -> str:
    """A range for the column ``region``, such as "alpha 0.75 to 1.75"."""
    if not len(values):
        return f"no {name}"
    least, most = min(values), max(values)
    return f"{name} {least:g}" if least == most else f"{name} {least:g} to {most:g}"


def region_of(grid: pd.DataFrame) -> str:
    """The part of the grid of exit times that ``grid`` holds."""
    return ", ".join(
        span(title, grid[column])
        for title, column in (
            ("alpha", "alpha"),
            ("epsilon", "epsilon"),
            ("gamma", "gamma"),
            ("N", "dimensions"),
        )
    )


# --- between the large jumps ----------------------------------------------------------------------


def deterministic_rows() -> list[dict[str, object]]:
    """Lemma 3.1 on three strongly convex potentials, by Runge-Kutta from 16 starts each."""
    bends = np.array([1.0, 4.0])
    potentials = {
        "isotropic quadratic": (
            lambda w: 0.5 * np.sum(w**2, axis=0),
            lambda w: w,
        ),
        "quadratic with curvatures 1 and 4": (
            lambda w: 0.5 * np.sum(bends[:, None] * w**2, axis=0),
            lambda w: bends[:, None] * w,
        ),
        "|w|^2/2 + |w|^4/4": (
            lambda w: 0.5 * np.sum(w**2, axis=0) + 0.25 * np.sum(w**2, axis=0) ** 2,
            lambda w: w * (1 + np.sum(w**2, axis=0)),
        ),
    }
    cases = []
    for potential, slope in potentials.values():
        angles = np.arange(16) * (2 * np.pi / 16)
        w = np.stack([np.cos(angles), np.sin(angles)])
        excess = potential(w)
        step, steps = 0.01, 500
        least = np.full(16, np.inf)
        for k in range(1, steps + 1):
            a = -slope(w)
            b = -slope(w + step / 2 * a)
            c = -slope(w + step / 2 * b)
            d = -slope(w + step * c)
            w = w + step / 6 * (a + 2 * b + 2 * c + d)
            bound = theory.deterministic_bound(excess, 1.0, k * step)
            least = np.minimum(least, bound / np.sum(w**2, axis=0))
        # 1e-6 stands for the error of the integrator (step^4 over the whole path).
        cases += [Case(value, value * (1 - 1e-6), value * (1 + 1e-6), 1.0) for value in least]
    return [
        row(
            "Lemma 3.1",
            "Without noise the squared distance to the minimum falls at least as exp(-2 mu t).",
            "bound / integrated flow, smallest over t in (0, 5]",
            "; ".join(potentials) + "; 16 starts each",
            cases,
            rule="bound",
        )
    ]


def deviation_rows(*, seed: int, threads: int) -> list[dict[str, object]]:
    """Proposition 3.2: how often the small jumps take the process away from the flow.

    In a quadratic potential Z - Y is the process of small jumps from 0. It leaves [-r, r],
    r = epsilon^theta, at a time tau before the next large jump with probability E exp(-beta tau).
    The constant, which the proposition leaves open, is set by the largest epsilon.
    """
    rows = []
    epsilons = (0.2, 0.1, 0.05, 0.02)
    for rho, where in ((0.5, "theta < 1 - rho"), (0.9, "theta > 1 - rho")):
        cases = []
        for alpha in (0.75, 1.25):
            theta = 0.8 * (2 - alpha) / 4
            constant = 0.0
            for epsilon in epsilons:
                shares = deviation_share(alpha, epsilon, theta, rho, seed, threads)
                power = theory.small_jump_deviation_bound(alpha, epsilon, theta=theta, rho=rho)
                if constant == 0:
                    constant = shares[0] / power
                    continue
                cases.append(ratio_case(constant * power, *shares, epsilon, alpha))
        rows.append(
            row(
                "Proposition 3.2",
                "Small jumps rarely carry the process away from the flow: C epsilon^theta_bar.",
                "bound with C fitted at epsilon 0.2 / simulated probability at smaller epsilon",
                f"rho {rho:g}, {where}, {span('alpha', (0.75, 1.25))}, "
                f"{span('epsilon', epsilons[1:])}, c = 1",
                cases,
                rule="bound",
            )
        )
    return rows


def deviation_share(
    alpha: float, epsilon: float, theta: float, rho: float, seed: int, threads: int
) -> tuple[float, float, float]:
    """Probability with interval that |Z - Y| reaches epsilon^theta before the next large jump."""
    radius, largest = epsilon**theta, epsilon ** (1 - rho)
    cutoff = 0.1 * min(radius, largest)
    beta = theory.jump_intensity(alpha, epsilon, rho=rho).item()
    # On average twelve times as many events as come before the next large jump.
    events = math.ceil(12 * 2 / alpha * (epsilon / cutoff) ** alpha / beta)
    paths = 20000
    exits = first_exit_by_jumps(
        LevySystem(alpha=alpha, epsilon=epsilon, curvature=1.0),
        -radius,
        radius,
        cutoff=cutoff,
        largest=largest,
        max_events=events,
        paths=paths,
        seed=integer_seed(seed, f"deviation {alpha:g} {epsilon:g} {rho:g}"),
        threads=threads,
    )
    # A path given up long after the next large jump counts by what is left of exp(-beta tau).
    weight = np.exp(-beta * exits.time)
    mean = float(weight.mean())
    margin = 1.96 * float(weight.std()) / math.sqrt(paths)
    # Where no path came out, the interval still reaches to three in all paths.
    return mean, max(mean - margin, 0.0), mean + max(margin, 3 / paths)


def cross_moment_rows(*, rho: float, seed: int) -> list[dict[str, object]]:
    """Lemma 3.3 for l != j, with and without its correction A, in a quadratic potential."""
    start, curvature = np.array([0.5, 0.4]), np.array([1.0, 2.0])
    alphas, epsilons, times = (0.75, 1.25, 1.75), (0.02, 0.05, 0.1), (0.25, 0.5, 1.0)
    with_correction, without = [], []
    for alpha, epsilon, time in itertools.product(alphas, epsilons, times):
        both = np.full(2, alpha)
        rng = generator(seed, f"cross moment {alpha:g} {epsilon:g} {time:g}")
        z = small_jump_positions(
            time, start, curvature, both, epsilon, rho=rho, paths=40000, rng=rng
        )
        product = z[0] * z[1]
        mean = float(product.mean())
        margin = 1.96 * float(product.std()) / math.sqrt(product.size)
        simulated = (mean, mean - margin, mean + margin)
        lemma = theory.cross_moment(time, start, curvature, both, epsilon, rho=rho)[0, 1]
        flow = float(np.prod(start * np.exp(-curvature * time)))
        with_correction.append(ratio_case(lemma, *simulated, epsilon, alpha, time))
        without.append(ratio_case(flow, *simulated, epsilon, alpha, time))
    region = (
        f"{span('alpha', alphas)}, {span('epsilon', epsilons)}, {span('t', times)}, rho {rho:g}"
    )
    statement = "Between large jumps, E[Z_l Z_j] is the product of the flows plus A_lj + A_jl."
    return [
        row(
            "Lemma 3.3",
            statement,
            "formula / simulated, l != j",
            region,
            with_correction,
            rule="equation",
        ),
        row(
            "Lemma 3.3 without A",
            "Between large jumps, E[Z_l Z_j] is the product of the flows.",
            "formula / simulated, l != j",
            region,
            without,
            rule="equation",
        ),
    ]


def small_jump_positions(
    time: float,
    start: np.ndarray,
    curvature: np.ndarray,
    alpha: np.ndarray,
    epsilon: float,
    *,
    rho: float,
    paths: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Z at ``time`` (Eq. 4) in a quadratic potential, (N, paths).

    Jumps between a thirtieth of the largest, epsilon^-rho, and it are drawn one by one; those below
    are a Gaussian of their variance.
    """
    position = np.empty((len(alpha), paths))
    largest = epsilon**-rho
    least = largest / 30
    for c, (index, bend) in enumerate(zip(alpha, curvature, strict=True)):
        rate = 2 / index * (least**-index - largest**-index)
        counts = rng.poisson(rate * time, size=paths)
        total = int(counts.sum())
        floor = (least / largest) ** index
        size = least * (floor + (1 - floor) * rng.random(total)) ** (-1 / index)
        size *= rng.choice([-1.0, 1.0], size=total)
        shrunk = epsilon * size * np.exp(-bend * time * rng.random(total))
        jumps = np.bincount(np.repeat(np.arange(paths), counts), shrunk, minlength=paths)
        variance = 2 * least ** (2 - index) / (2 - index) * -np.expm1(-2 * bend * time) / (2 * bend)
        small = epsilon * math.sqrt(variance) * rng.standard_normal(paths)
        position[c] = start[c] * math.exp(-bend * time) + jumps + small
    return position


def covariance_rows(covariance: pd.DataFrame) -> list[dict[str, object]]:
    """Proposition 3.4 and Lemma 3.3 on a small network.

    Values may be near zero, so that the vectors are compared: the coefficients of the regression
    of formula on measured and the reverse, which are both near 1 only if the vectors agree.
    """
    titles = {
        "row sums": (
            "Proposition 3.4 ({variant})",
            "The row sums of the noise covariance follow from gradients and Hessians at W*.",
        ),
        "change": (
            "Proposition 3.4, second term",
            "Away from W*, the row sums change by what the Hessians of the samples say.",
        ),
        "moment": (
            "Lemma 3.3 on a network, {variant}",
            "Between large jumps, E[Z_l Z_j] follows from the diagonal of the Hessian.",
        ),
        "row sums by Lemma 3.3": (
            "Proposition 3.4 by Lemma 3.3, {variant}",
            "Between large jumps, the row sums follow from Lemma 3.3 and the Hessians at W*.",
        ),
    }
    rows = []
    for key, part in covariance.groupby(["compared", "where", "variant"], sort=False):
        compared, where, variant = map(str, key)
        formula, measured = part["formula"].to_numpy(), part["measured"].to_numpy()
        both = formula @ measured
        # Vectors at more than a right angle have no positive ratio; 0 and infinity stand for it.
        ratios = (
            (both / (measured @ measured), formula @ formula / both)
            if both > 0
            else (0.0, math.inf)
        )
        theorem, statement = titles[compared]
        rows.append(
            row(
                theorem.format(variant=variant),
                statement,
                f"formula / measured {compared}, by regression either way",
                f"{where}, {len(part)} values",
                [Case(ratio, ratio, ratio, 1.0) for ratio in ratios],
                rule="equation",
            )
        )
    return rows


# --- exit times -----------------------------------------------------------------------------------


def exit_time_rows(grid: pd.DataFrame, axis: pd.DataFrame) -> list[dict[str, object]]:
    """Theorem 4.1 and Corollary 4.2, each as the text and as the appendix print them."""
    rows = []
    regions = {
        "no decay": grid[grid["gamma"] == 1],
        "decay, alpha < 1": grid[(grid["gamma"] < 1) & (grid["alpha"] < 1)],
        "decay, alpha > 1": grid[(grid["gamma"] < 1) & (grid["alpha"] > 1)],
    }
    for variant in ("text", "appendix"):
        for name, part in regions.items():
            rows.append(
                time_row(
                    f"Theorem 4.1 ({variant})",
                    "The mean exit time under a decaying learning rate is bounded by a sum.",
                    f"{name}: {region_of(part)}",
                    part,
                    f"bound_{variant}",
                )
            )
        rows.append(
            time_row(
                f"Corollary 4.2 ({variant})",
                "Without decay, the mean exit time is bounded by a sum of powers of the noise.",
                region_of(regions["no decay"]),
                regions["no decay"],
                f"corollary_{variant}",
            )
        )
    for title, column in (
        ("Theorem 4.1 (text)", "bound_text"),
        ("Corollary 4.2 (text)", "corollary_text"),
    ):
        cases = [
            ratio_case(bound, mean, low, high, epsilon)
            for bound, mean, low, high, epsilon in axis[
                [column, "mean_exit_time", "mean_low", "mean_high", "epsilon"]
            ].to_numpy()
        ]
        rows.append(
            row(
                title,
                "As above, for two parameters with different alpha.",
                "bound / simulated mean exit time",
                f"{span('alpha_1', axis['alpha_1'])}, {span('delta', axis['delta'])}, "
                f"{span('epsilon', axis['epsilon'])}, no decay",
                cases,
                rule="bound",
            )
        )
    rows.append(exponent_row(grid))
    return rows


def time_row(
    theorem: str, statement: str, region: str, part: pd.DataFrame, column: str
) -> dict[str, object]:
    """A row on a bound of the mean exit time."""
    informative = part[np.isfinite(part[column])]
    cases = [
        ratio_case(found[column], found["mean_exit_time"], found["low"], found["high"], *key)
        for found, key in with_groups(informative)
    ]
    return row(
        theorem,
        statement,
        "bound / simulated mean exit time",
        region,
        cases,
        rule="bound",
        uninformative=len(part) - len(informative),
    )


def with_groups(part: pd.DataFrame) -> list[tuple[dict[str, Any], tuple[float, ...]]]:
    """Each row of the grid with its epsilon and what it shares with rows of other epsilon."""
    return [
        (found, (found["epsilon"], found["alpha"], found["gamma"], found["dimensions"]))
        for found in records(part)
    ]


def records(part: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows by column name."""
    return [{str(name): value for name, value in row.items()} for row in part.to_dict("records")]


def exponent_row(grid: pd.DataFrame) -> dict[str, object]:
    """The exponent of the noise in the mean exit time: -alpha / (1 + (gamma-1)(alpha-1)).

    It is the text's: at equal parameters its bound is proportional to this power of epsilon. The
    ratio is that of exponents, from the smaller half of the epsilons, as the power is a limit.
    """
    small = grid[grid["epsilon"] <= grid["epsilon"].median()]
    cases = []
    for _, part in small.groupby(["alpha", "gamma", "dimensions"]):
        found = records(part)
        if len(found) < 2:
            continue  # one epsilon has no slope
        alpha, gamma = found[0]["alpha"], found[0]["gamma"]
        times = [measured(each) for each in found]
        slope, margin = slope_of(times)
        cases.append(exponent_case(-alpha / (1 + (gamma - 1) * (alpha - 1)), slope, margin))
    return row(
        "Theorem 4.1, exponent (text)",
        "The mean exit time is a power of the noise, and of the learning rate.",
        "predicted / simulated exponent of epsilon",
        region_of(small),
        cases,
        rule="equation",
    )


def exponent_case(predicted: float, slope: float, margin: float) -> Case:
    """A predicted exponent over a simulated one; no interval where the latter may be zero."""
    ends = (predicted / (slope - margin), predicted / (slope + margin))
    if abs(slope) <= margin:
        ends = (-math.inf, math.inf)
    return Case(predicted / slope, min(ends), max(ends), 1.0)


# --- the way out ----------------------------------------------------------------------------------


def exit_probability_rows(grid: pd.DataFrame) -> list[dict[str, object]]:
    """Theorem 4.3, as the text and as the appendix print it."""
    rows = []
    for variant in ("text", "appendix"):
        column = f"bound_probability_{variant}"
        finite = grid[np.isfinite(grid[column])]
        informative = finite[finite[column] < 1]
        empty = len(informative) == 0
        cases = [
            ratio_case(
                found[column],
                found["probability"],
                found["probability_low"],
                found["probability_high"],
                *key,
            )
            for found, key in with_groups(finite if empty else informative)
        ]
        rows.append(
            row(
                f"Theorem 4.3 ({variant})",
                "The probability to leave through one edge is bounded by a sum.",
                "bound / simulated probability of the first upper edge",
                region_of(finite if empty else informative),
                cases,
                rule="empty bound" if empty else "bound",
                uninformative=len(grid) - len(informative),
            )
        )
    return rows


def ratio_rows(
    axis: pd.DataFrame, *, rho: float, seed: int, threads: int
) -> list[dict[str, object]]:
    """Corollary 4.4 and Eq. 12: how much more often the process leaves by the lower alpha.

    The corollary is printed as a bound for any two parameters; as they can be swapped, it says that
    both sides are equal.
    """
    of_figure = [
        ratio_case(odds(corollary), odds(share), odds(low), odds(high), epsilon)
        for corollary, share, low, high, epsilon in axis[
            ["corollary", "probability", "low", "high", "epsilon"]
        ].to_numpy()
    ]
    pairs = ((0.55, 1.05), (0.75, 1.25), (1.0, 1.5))
    epsilons = (0.005, 0.01, 0.02, 0.04)
    values, limits, corollary_powers, paper_powers = [], [], [], []
    for pair in pairs:
        both = np.array(pair)
        simulated = []
        for epsilon in epsilons:
            exits = simulate_basin(
                both, epsilon, 1.0, 1.0, 1.0, f"pair {pair} {epsilon:g}", seed, threads
            )
            share = binomial_interval(int(np.sum(exits.coordinate == 0)), exits.time.size)
            found = odds(share[0]), odds(share[1]), odds(share[2])
            simulated.append(Case(found[0], found[1], found[2], epsilon))
            formula = theory.exit_probability_ratio(both, epsilon, 1.0, rho=rho)[0, 1]
            limit = theory.small_noise_exit_probability(both, epsilon, -1.0, 1.0)[0].sum()
            values.append(ratio_case(formula, *found, epsilon, *pair))
            limits.append(ratio_case(odds(limit), *found, epsilon, *pair))
        slope, margin = slope_of(simulated)
        delta = pair[0] - pair[1]
        corollary_powers.append(exponent_case(delta * (1 - rho), slope, margin))
        paper_powers.append(exponent_case(delta, slope, margin))
    region = f"pairs {', '.join(map(str, pairs))}, {span('epsilon', epsilons)}, rho {rho:g}"
    statement = "Ratio of the probabilities to leave by two parameters."
    compared = "formula / simulated ratio, lower alpha over higher"
    return [
        row(
            "Corollary 4.4",
            statement,
            compared,
            f"Figure 9: {span('alpha_1', axis['alpha_1'])}, {span('delta', axis['delta'])}, "
            f"{span('epsilon', axis['epsilon'])}, {span('rho', axis['rho'])}",
            of_figure,
            rule="equation",
        ),
        row("Corollary 4.4", statement, compared, region, values, rule="equation"),
        row(
            "Corollary 4.4, exponent",
            "The ratio is a power (alpha_l - alpha_j)(1 - rho) of the noise.",
            "predicted / simulated exponent of epsilon",
            region,
            corollary_powers,
            rule="equation",
        ),
        row(
            "Equation 12",
            "The ratio is proportional to the power alpha_l - alpha_j of the noise.",
            "predicted / simulated exponent of epsilon",
            region,
            paper_powers,
            rule="equation",
        ),
        row(
            "Small-noise limit (reference)",
            "The ratio is that of the intensities of jumps out of the domain.",
            compared,
            region,
            limits,
            rule="equation",
        ),
    ]


def odds(share: float) -> float:
    """share / (1 - share)."""
    return share / max(1 - share, _FEW)


# --- the words around the theorems ----------------------------------------------------------------


def large_jump_rows(grid: pd.DataFrame) -> list[dict[str, object]]:
    """Appendix A.6: exits coincide with large jumps, and these are rarer than returns."""
    rows = []
    middle = grid["epsilon"].median()
    walked = grid[grid["simulator"] == "euler_maruyama"]
    for part in (walked[walked["epsilon"] <= middle], walked[walked["epsilon"] > middle]):
        cases = [
            ratio_case(
                1.0,
                found["large_jump_share"],
                found["large_jump_low"],
                found["large_jump_high"],
                *key,
            )
            for found, key in with_groups(part)
        ]
        rows.append(
            row(
                "A.6, exits at large jumps",
                "The process leaves at jumps larger than epsilon^-rho.",
                "1 / simulated share of such exits",
                region_of(part),
                cases,
                rule="equation",
            )
        )
    single = grid[(grid["gamma"] == 1) & (grid["dimensions"] == grid["dimensions"].min())]
    cases = []
    for found, (epsilon, *group) in with_groups(single):
        ratio = found["jump_interval"] / (10 * found["relaxation_time"])
        cases.append(Case(ratio, ratio, ratio, epsilon, tuple(group)))
    rows.append(
        row(
            "Equations 15 and 16",
            "Large jumps of a parameter are much rarer (10 times) than returns to the minimum.",
            "mean interval / 10 relaxation times, formulas only",
            region_of(single),
            cases,
            rule="order",
        )
    )
    return rows


def decay_rows(grid: pd.DataFrame) -> list[dict[str, object]]:
    """What the text says of the learning rate's decay, after Theorem 4.1."""
    rows = []
    below: list[Case] = []
    quick: list[Case] = []
    late: list[Case] = []
    for _, cell in grid.groupby(["alpha", "epsilon", "dimensions"]):
        ordered = records(cell.sort_values("gamma", ascending=False))
        for slower, faster in itertools.pairwise(ordered):
            case = quotient_case(measured(faster), measured(slower), faster["epsilon"])
            if faster["alpha"] < 1:
                below.append(case)
            else:
                (quick if slower["mean_exit_time"] < _EARLY else late).append(case)
    for cases, where in (
        (below, "alpha < 1"),
        (quick, f"alpha > 1, mean exit time below {_EARLY:g}"),
        (late, f"alpha > 1, mean exit time above {_EARLY:g}"),
    ):
        rows.append(
            row(
                "After Theorem 4.1",
                "Faster decay of the learning rate prolongs the exit.",
                "simulated mean exit time, next smaller gamma / gamma",
                f"{where}, {span('epsilon', [case.epsilon for case in cases])}",
                cases,
                rule="order",
            )
        )
    return rows


def step_rows(*, seed: int, threads: int) -> list[dict[str, object]]:
    """The same for the multi-step scheduler: a fall to a tenth at a tenth of the mean exit time."""
    rows = []
    epsilons = (0.01, 0.03)
    for alphas, where in (((0.75,), "alpha < 1"), ((1.25, 1.75), "alpha > 1")):
        cases = []
        for alpha, epsilon in itertools.product(alphas, epsilons):
            at = theory.small_noise_exit_time(alpha, epsilon, -1.0, 1.0) / 10
            constant, stepped = (
                simulate_basin(
                    np.array([alpha]),
                    epsilon,
                    1.0,
                    1.0,
                    1.0,
                    f"{name} {alpha:g} {epsilon:g}",
                    seed,
                    threads,
                    schedule=schedule,
                )
                for name, schedule in (
                    ("constant rate", Schedule()),
                    ("stepped rate", Schedule(milestones=(at,), factor=0.1)),
                )
            )
            cases.append(
                quotient_case(
                    Case(*stepped.mean_time(), epsilon),
                    Case(*constant.mean_time(), epsilon),
                    epsilon,
                )
            )
        rows.append(
            row(
                "After Theorem 4.1, multi-step",
                "A step down of the learning rate prolongs the exit.",
                "simulated mean exit time, with / without a step to a tenth",
                f"{where}, {span('alpha', alphas)}, {span('epsilon', epsilons)}, N 1, "
                "step at a tenth of the mean exit time",
                cases,
                rule="order",
            )
        )
    return rows


def noise_level_rows(*, seed: int, threads: int) -> list[dict[str, object]]:
    """The exponent of the noise level 1' lambda: the paper prints three."""
    alphas, epsilon, levels = (0.75, 1.25, 1.75), 0.01, (0.5, 2.0)
    slopes = {}
    for alpha in alphas:
        low, high = (
            Case(
                *simulate_basin(
                    np.array([alpha]),
                    epsilon,
                    1.0,
                    1.0,
                    1.0,
                    f"level {level:g}",
                    seed,
                    threads,
                    level,
                ).mean_time(),
                epsilon,
            )
            for level in levels
        )
        grown = quotient_case(high, low, epsilon)
        scale = math.log(levels[1] / levels[0])
        slopes[alpha] = (
            math.log(grown.ratio) / scale,
            math.log(grown.high / grown.low) / 2 / scale,
        )
    return [
        row(
            f"{theorem}, noise level",
            "The mean exit time is a power of the row sum of the noise covariance.",
            "predicted / simulated exponent of the row sum",
            f"{span('alpha', alphas)}, epsilon {epsilon:g}, {span('row sum', levels)}, N 1",
            [exponent_case(predicted(alpha), *slopes[alpha]) for alpha in alphas],
            rule="equation",
        )
        for theorem, predicted in (
            ("Theorem 4.1 (text)", lambda alpha: -alpha),
            ("Corollary 4.2 (text)", lambda alpha: -1.0),
            ("Corollary 4.2 (appendix)", lambda alpha: -1 / alpha),
        )
    ]


def basin_rows(*, seed: int, threads: int) -> list[dict[str, object]]:
    """What the text says of the far edge, and of height and width of the basin."""
    rows = []
    alphas, epsilons = (0.75, 1.25, 1.75), (0.01, 0.03)

    @functools.cache
    def mean(alpha: float, epsilon: float, near: float, far: float, bend: float) -> Case:
        name = f"basin {alpha:g} {epsilon:g} {near:g} {far:g} {bend:g}"
        exits = simulate_basin(np.array([alpha]), epsilon, near, far, bend, name, seed, threads)
        return Case(*exits.mean_time(), epsilon)

    grid_of = list(itertools.product(alphas, epsilons))
    region = f"{span('alpha', alphas)}, {span('epsilon', epsilons)}, N 1"
    for far in (2.0, 5.0):
        cases = [
            quotient_case(mean(a, e, 1.0, math.inf, 1.0), mean(a, e, 1.0, far, 1.0), e, a)
            for a, e in grid_of
        ]
        rows.append(
            row(
                "After Corollary 4.2",
                "The far edge of the domain does not matter.",
                "simulated mean exit time without / with a far edge",
                f"{region}, far edge at {far:g} times the near one",
                cases,
                rule="equation",
            )
        )
    cases = [
        quotient_case(mean(a, e, 1.0, 1.0, 1.0), mean(a, e, 1.0, 1.0, bend), e, a, bend)
        for a, e in grid_of
        for bend in (0.5, 4.0)
    ]
    rows.append(
        row(
            "After Corollary 4.2",
            "The height of the basin does not matter.",
            "simulated mean exit time at curvature 1 / at 0.5 and 4",
            region,
            cases,
            rule="equation",
        )
    )
    cases = []
    for a, e in grid_of:
        narrow, wide = mean(a, e, 1.0, 1.0, 1.0), mean(a, e, 2.0, 2.0, 1.0)
        grown = quotient_case(wide, narrow, e)
        slope = math.log2(grown.ratio)
        cases.append(exponent_case(a, slope, math.log2(grown.high / grown.low) / 2))
    rows.append(
        row(
            "After Corollary 4.2",
            "The mean exit time grows with the power alpha of the width of the basin.",
            "predicted / simulated exponent, half widths 1 and 2",
            region,
            cases,
            rule="equation",
        )
    )
    return rows


def measured(found: dict[str, Any]) -> Case:
    """The simulated mean exit time of a row of the grid."""
    return Case(found["mean_exit_time"], found["low"], found["high"], found["epsilon"])


def quotient_case(above: Case, below: Case, epsilon: float, *group: float) -> Case:
    """The quotient of two independent means."""
    ratio = above.ratio / below.ratio
    error = ratio * math.hypot(
        (above.high - above.low) / (2 * above.ratio), (below.high - below.low) / (2 * below.ratio)
    )
    return Case(ratio, ratio - error, ratio + error, epsilon, group)


def simulate_basin(
    alpha: np.ndarray,
    epsilon: float,
    near: float,
    far: float,
    curvature: float,
    name: str,
    seed: int,
    threads: int,
    row_sum: float = 1.0,
    schedule: Schedule | None = None,
) -> Exits:
    """Exits from [-far, near]^N by the event-driven simulator, on the random stream ``name``."""
    return first_exit_by_jumps(
        LevySystem(
            alpha=alpha, epsilon=epsilon, row_sum=row_sum, curvature=curvature, schedule=schedule
        ),
        -far,
        near,
        cutoff=0.1 * near,
        max_events=10**7,
        paths=_PATHS,
        seed=integer_seed(seed, name),
        threads=threads,
    )


if __name__ == "__main__":
    with running_job() as job:
        compare_theory(
            exit_axis_path=job.input.exit_axis,
            exit_time_path=job.input.exit_time,
            covariance_path=job.input.covariance,
            theorems_path=job.output.theorems,
            rho=job.params.rho,
            study=job.params.study,
            seed=job.params.seed,
            threads=job.threads,
        )
