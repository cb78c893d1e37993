"""Every lemma, proposition, theorem and corollary beside the simulation, with a computed verdict.

A statement rests on cases, each the theory's value over the simulated one with a 95 % interval.
Verdicts:

* a bound holds if in no case its ratio lies below 1 by more than the interval;
* an equation holds if in every case the interval reaches within 10 % of 1;
* else either holds as scaling only if its ratio does not depend on epsilon: the slope of log ratio
  against log epsilon is 0 within its 95 % interval or 0.1;
* an order (something is the larger) holds as a bound does, but cannot hold as scaling;
* else it fails.

An infinite bound on a time, or one of at least 1 on a probability, cannot be violated: such cases
are counted as uninformative and kept out of the ratios. A bound that is uninformative in every case
("empty bound") says nothing as a bound; it is judged by its scaling alone.

Nothing is simulated here: a theorem is a function of the tables of simulations, named in
``THEOREMS``, and its words and rules can change without a simulation running again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from sgnoise import theory

HOLDS = "holds"
SCALING = "holds as scaling only"
FAILS = "fails"

_EQUAL_WITHIN = 0.1
_FLAT_WITHIN = 0.1
_FEW = 1e-12
_EARLY = 10.0  # the scheduler t^(gamma-1) is above 1 before t = 1 and takes time to bite

Rule = Literal["bound", "equation", "empty bound", "order"]


@dataclass(frozen=True)
class Simulations:
    """The tables of simulations that the theorems are judged by.

    Attributes:
        exit_axis: exit_axis.parquet, one row a pair of alpha.
        exit_time: exit_time.parquet, one row a cell of alpha, epsilon, gamma and dimensions.
        covariance: covariance.parquet, one row an entry of a small network's noise covariance.
        experiments: experiments.parquet, one row a simulated case; ``simulate_theorems`` has the
            columns.
    """

    exit_axis: pd.DataFrame
    exit_time: pd.DataFrame
    covariance: pd.DataFrame
    experiments: pd.DataFrame

    def experiment(self, name: str) -> pd.DataFrame:
        """The rows of one experiment.

        Raises:
            ValueError: there is none of this name.
        """
        known = self.experiments["experiment"]
        if not (known == name).any():
            raise ValueError(
                f"no experiment {name!r} was simulated, only {', '.join(known.unique())}; "
                "simulate_theorems makes them"
            )
        return self.experiments[known == name]


class Case(NamedTuple):
    """The theory's value over the simulated one, with its interval, at one epsilon.

    ``group`` tells which cases differ in epsilon alone.
    """

    ratio: float
    low: float
    high: float
    epsilon: float
    group: tuple[float, ...] = ()


@dataclass(frozen=True)
class Statement:
    """Something that the paper says, and the cases that it is judged by.

    Attributes:
        theorem: where the paper says it.
        statement: what it says.
        compared: what the ratio of a case is.
        region: the part of the parameters that the cases cover.
        rule: which of the module's rules judges it.
        cases: none if the study has none.
        uninformative: how many cases could not have failed and are left out.
    """

    theorem: str
    statement: str
    compared: str
    region: str
    rule: Rule
    cases: Sequence[Case]
    uninformative: int = 0

    def row(self) -> dict[str, object]:
        """Its row of theorems.csv: the median ratio, the range of all intervals, the verdict."""
        return {
            "theorem": self.theorem,
            "statement": self.statement,
            "compared": self.compared,
            "region": self.region,
            "cases": len(self.cases),
            "uninformative": self.uninformative,
            "ratio": float(np.median([case.ratio for case in self.cases])),
            "ratio_low": min(case.low for case in self.cases),
            "ratio_high": max(case.high for case in self.cases),
            "rule": self.rule,
            "verdict": verdict(self.cases, self.rule),
        }


# --- from cases to a verdict ----------------------------------------------------------------------


def verdict(cases: Sequence[Case], rule: Rule) -> str:
    """The verdict on at least one case by the rules of the module's docstring.

    >>> verdict([Case(5.0, 4.0, 6.0, epsilon=0.1), Case(1.1, 0.9, 1.3, epsilon=0.01)], "bound")
    'holds'
    """
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


# --- from rows of tables to cases -----------------------------------------------------------------


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


def quotient_case(above: Case, below: Case, epsilon: float, *group: float) -> Case:
    """The quotient of two independent means."""
    ratio = above.ratio / below.ratio
    error = ratio * math.hypot(
        (above.high - above.low) / (2 * above.ratio), (below.high - below.low) / (2 * below.ratio)
    )
    return Case(ratio, ratio - error, ratio + error, epsilon, group)


def exponent_case(predicted: float, slope: float, margin: float) -> Case:
    """A predicted exponent over a simulated one; no interval where the latter may be zero."""
    ends = (predicted / (slope - margin), predicted / (slope + margin))
    if abs(slope) <= margin:
        ends = (-math.inf, math.inf)
    return Case(predicted / slope, min(ends), max(ends), 1.0)


def simulated_case(found: dict[str, Any]) -> Case:
    """The simulated value of a row of an experiment, not yet compared with anything."""
    return Case(found["value"], found["low"], found["high"], found["epsilon"])


def exit_time_case(found: dict[str, Any]) -> Case:
    """The simulated mean exit time of a row of exit_time.parquet, likewise."""
    return Case(found["mean_exit_time"], found["low"], found["high"], found["epsilon"])


def records(part: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows by column name."""
    return [{str(name): value for name, value in row.items()} for row in part.to_dict("records")]


def with_groups(part: pd.DataFrame) -> list[tuple[dict[str, Any], tuple[float, ...]]]:
    """Rows of exit_time.parquet, each with its epsilon and what it shares with those of another."""
    return [
        (found, (found["epsilon"], found["alpha"], found["gamma"], found["dimensions"]))
        for found in records(part)
    ]


def odds(share: float) -> float:
    """share / (1 - share)."""
    return share / max(1 - share, _FEW)


# --- what a statement covers ----------------------------------------------------------------------


def span(name: str, values: Sequence[float] | pd.Series) -> str:
    """A range for ``region``.

    >>> span("alpha", [1.75, 0.75, 1.25])
    'alpha 0.75 to 1.75'
    """
    if not len(values):
        return f"no {name}"
    least, most = min(values), max(values)
    return f"{name} {least:g}" if least == most else f"{name} {least:g} to {most:g}"


def spans(part: pd.DataFrame, **titles: str) -> str:
    """The ranges of several columns, each under the title that it is given."""
    return ", ".join(span(title, part[column]) for column, title in titles.items())


def region_of(grid: pd.DataFrame) -> str:
    """The part of the grid of exit times that ``grid`` holds."""
    return spans(grid, alpha="alpha", epsilon="epsilon", gamma="gamma", dimensions="N")


# --- between the large jumps ----------------------------------------------------------------------


def lemma_3_1(data: Simulations) -> Iterator[Statement]:
    """Strongly convex potentials without noise, from starts on a circle."""
    flows = data.experiment("flow")
    potentials = flows["potential"].unique()
    starts = len(flows) // len(potentials)
    yield Statement(
        theorem="Lemma 3.1",
        statement="Without noise the squared distance to the minimum falls at least as "
        "exp(-2 mu t).",
        compared="bound / integrated flow, smallest over t in (0, 5]",
        region=f"{'; '.join(potentials)}; {starts} starts each",
        rule="bound",
        cases=[Case(found["value"], found["low"], found["high"], 1.0) for found in records(flows)],
    )


def proposition_3_2(data: Simulations) -> Iterator[Statement]:
    """How often the small jumps take the process away from the flow.

    The constant, which the proposition leaves open, is set by the largest epsilon.
    """
    for rho, deviations in data.experiment("deviation").groupby("rho"):
        cases = []
        for _, part in deviations.groupby("alpha", sort=False):
            largest, *smaller = records(part.sort_values("epsilon", ascending=False))

            def power(found: dict[str, Any]) -> float:
                return theory.small_jump_deviation_bound(
                    found["alpha"], found["epsilon"], theta=found["theta"], rho=found["rho"]
                )

            constant = largest["value"] / power(largest)
            cases += [
                ratio_case(constant * power(found), *simulated_case(found)[:4], found["alpha"])
                for found in smaller
            ]
        most = deviations["epsilon"].max()
        fits = bool((deviations["theta"] < 1 - deviations["rho"]).all())
        yield Statement(
            theorem="Proposition 3.2",
            statement="Small jumps rarely carry the process away from the flow: "
            "C epsilon^theta_bar.",
            compared=f"bound with C fitted at epsilon {most:g} / simulated probability at smaller "
            "epsilon",
            region=f"rho {rho:g}, theta {'<' if fits else '>'} 1 - rho, "
            f"{spans(deviations[deviations['epsilon'] < most], alpha='alpha', epsilon='epsilon')}, "
            "c = 1",
            rule="bound",
            cases=cases,
        )


def lemma_3_3(data: Simulations) -> Iterator[Statement]:
    """E(Z_l Z_j), l != j, with and without the correction A, in a quadratic potential."""
    moments = data.experiment("cross moment")
    with_correction, without = [], []
    for found in records(moments):
        start, curvature, alpha = (
            np.array([found[name], found[f"{name}_2"]]) for name in ("start", "curvature", "alpha")
        )
        lemma = theory.cross_moment(
            found["time"], start, curvature, alpha, found["epsilon"], rho=found["rho"]
        )[0, 1]
        flow = float(np.prod(start * np.exp(-curvature * found["time"])))
        case = simulated_case(found)[:4]
        with_correction.append(ratio_case(lemma, *case, found["alpha"], found["time"]))
        without.append(ratio_case(flow, *case, found["alpha"], found["time"]))
    region = spans(moments, alpha="alpha", epsilon="epsilon", time="t", rho="rho")
    compared = "formula / simulated, l != j"
    yield Statement(
        theorem="Lemma 3.3",
        statement="Between large jumps, E[Z_l Z_j] is the product of the flows plus A_lj + A_jl.",
        compared=compared,
        region=region,
        rule="equation",
        cases=with_correction,
    )
    yield Statement(
        theorem="Lemma 3.3 without A",
        statement="Between large jumps, E[Z_l Z_j] is the product of the flows.",
        compared=compared,
        region=region,
        rule="equation",
        cases=without,
    )


def lemma_3_3_on_a_network(data: Simulations) -> Iterator[Statement]:
    """The same for the weights of a small network."""
    yield from vector_statements(
        data,
        "moment",
        theorem="Lemma 3.3 on a network, {variant}",
        statement="Between large jumps, E[Z_l Z_j] follows from the diagonal of the Hessian.",
    )


def proposition_3_4(data: Simulations) -> Iterator[Statement]:
    """The row sums of the noise covariance of a small network."""
    yield from vector_statements(
        data,
        "row sums",
        theorem="Proposition 3.4 ({variant})",
        statement="The row sums of the noise covariance follow from gradients and Hessians at W*.",
    )


def proposition_3_4_second_term(data: Simulations) -> Iterator[Statement]:
    """What becomes of the row sums away from the minimum."""
    yield from vector_statements(
        data,
        "change",
        theorem="Proposition 3.4, second term",
        statement="Away from W*, the row sums change by what the Hessians of the samples say.",
    )


def proposition_3_4_by_lemma_3_3(data: Simulations) -> Iterator[Statement]:
    """The row sums of the noise covariance with the moment of Lemma 3.3."""
    yield from vector_statements(
        data,
        "row sums by Lemma 3.3",
        theorem="Proposition 3.4 by Lemma 3.3, {variant}",
        statement="Between large jumps, the row sums follow from Lemma 3.3 and the Hessians at W*.",
    )


def vector_statements(
    data: Simulations, compared: str, *, theorem: str, statement: str
) -> Iterator[Statement]:
    """A statement for each vector of covariance.parquet in which ``compared`` stands.

    Values may be near zero, so that the vectors are compared: the coefficients of the regression
    of formula on measured and the reverse, which are both near 1 only if the vectors agree.
    """
    chosen = data.covariance[data.covariance["compared"] == compared]
    for (where, variant), part in chosen.groupby(["where", "variant"], sort=False):
        formula, measured = part["formula"].to_numpy(), part["measured"].to_numpy()
        both = formula @ measured
        # Vectors at more than a right angle have no positive ratio; 0 and infinity stand for it.
        ratios = (
            (both / (measured @ measured), formula @ formula / both)
            if both > 0
            else (0.0, math.inf)
        )
        yield Statement(
            theorem=theorem.format(variant=variant),
            statement=statement,
            compared=f"formula / measured {compared}, by regression either way",
            region=f"{where}, {len(part)} values",
            rule="equation",
            cases=[Case(ratio, ratio, ratio, 1.0) for ratio in ratios],
        )


# --- exit times -----------------------------------------------------------------------------------


def theorem_4_1(data: Simulations) -> Iterator[Statement]:
    """The bound of the mean exit time, as the text and as the appendix print it."""
    grid = data.exit_time
    regions = {
        "no decay": grid[grid["gamma"] == 1],
        "decay, alpha < 1": grid[(grid["gamma"] < 1) & (grid["alpha"] < 1)],
        "decay, alpha > 1": grid[(grid["gamma"] < 1) & (grid["alpha"] > 1)],
    }
    for variant, (name, part) in itertools.product(theory.VARIANTS, regions.items()):
        yield time_bound(
            part,
            f"bound_{variant}",
            theorem=f"Theorem 4.1 ({variant})",
            statement="The mean exit time under a decaying learning rate is bounded by a sum.",
            region=f"{name}: {region_of(part)}",
        )
    yield two_parameter_bound(data, "bound_text", theorem="Theorem 4.1 (text)")


def corollary_4_2(data: Simulations) -> Iterator[Statement]:
    """The bound without decay, as the text and as the appendix print it."""
    part = data.exit_time[data.exit_time["gamma"] == 1]
    for variant in theory.VARIANTS:
        yield time_bound(
            part,
            f"corollary_{variant}",
            theorem=f"Corollary 4.2 ({variant})",
            statement="Without decay, the mean exit time is bounded by a sum of powers of the "
            "noise.",
            region=region_of(part),
        )
    yield two_parameter_bound(data, "corollary_text", theorem="Corollary 4.2 (text)")


def time_bound(
    part: pd.DataFrame, column: str, *, theorem: str, statement: str, region: str
) -> Statement:
    """A bound of the mean exit time on a part of the grid."""
    informative = part[np.isfinite(part[column])]
    return Statement(
        theorem=theorem,
        statement=statement,
        compared="bound / simulated mean exit time",
        region=region,
        rule="bound",
        cases=[
            ratio_case(found[column], found["mean_exit_time"], found["low"], found["high"], *key)
            for found, key in with_groups(informative)
        ],
        uninformative=len(part) - len(informative),
    )


def two_parameter_bound(data: Simulations, column: str, *, theorem: str) -> Statement:
    """The same for two parameters with different alpha."""
    axis = data.exit_axis
    return Statement(
        theorem=theorem,
        statement="As above, for two parameters with different alpha.",
        compared="bound / simulated mean exit time",
        region=f"{spans(axis, alpha_1='alpha_1', delta='delta', epsilon='epsilon')}, no decay",
        rule="bound",
        cases=[
            ratio_case(bound, mean, low, high, epsilon)
            for bound, mean, low, high, epsilon in axis[
                [column, "mean_exit_time", "mean_low", "mean_high", "epsilon"]
            ].to_numpy()
        ],
    )


def theorem_4_1_exponent(data: Simulations) -> Iterator[Statement]:
    """The exponent of the noise in the mean exit time: -alpha / (1 + (gamma-1)(alpha-1)).

    It is the text's: at equal parameters its bound is proportional to this power of epsilon. The
    ratio is that of exponents, from the smaller half of the epsilons, as the power is a limit.
    """
    grid = data.exit_time
    small = grid[grid["epsilon"] <= grid["epsilon"].median()]
    cases = []
    for _, part in small.groupby(["alpha", "gamma", "dimensions"]):
        found = records(part)
        if len(found) < 2:
            continue  # one epsilon has no slope
        alpha, gamma = found[0]["alpha"], found[0]["gamma"]
        slope, margin = slope_of([exit_time_case(each) for each in found])
        cases.append(exponent_case(-alpha / (1 + (gamma - 1) * (alpha - 1)), slope, margin))
    yield Statement(
        theorem="Theorem 4.1, exponent (text)",
        statement="The mean exit time is a power of the noise, and of the learning rate.",
        compared="predicted / simulated exponent of epsilon",
        region=region_of(small),
        rule="equation",
        cases=cases,
    )


def noise_level(data: Simulations) -> Iterator[Statement]:
    """The exponent of the noise level 1' lambda: the paper prints three."""
    times = data.experiment("noise level")
    slopes = {}
    for alpha, part in times.groupby("alpha"):
        lowest, *_, highest = records(part.sort_values("row_sum"))
        grown = quotient_case(simulated_case(highest), simulated_case(lowest), 1.0)
        scale = math.log(highest["row_sum"] / lowest["row_sum"])
        slopes[float(alpha)] = (  # type: ignore[arg-type]
            math.log(grown.ratio) / scale,
            math.log(grown.high / grown.low) / 2 / scale,
        )
    exponents: dict[str, Callable[[float], float]] = {
        "Theorem 4.1 (text)": lambda alpha: -alpha,
        "Corollary 4.2 (text)": lambda alpha: -1.0,
        "Corollary 4.2 (appendix)": lambda alpha: -1 / alpha,
    }
    for theorem, predicted in exponents.items():
        yield Statement(
            theorem=f"{theorem}, noise level",
            statement="The mean exit time is a power of the row sum of the noise covariance.",
            compared="predicted / simulated exponent of the row sum",
            region=f"{spans(times, alpha='alpha', epsilon='epsilon', row_sum='row sum')}, N 1",
            rule="equation",
            cases=[exponent_case(predicted(alpha), *slope) for alpha, slope in slopes.items()],
        )


# --- the way out ----------------------------------------------------------------------------------


def theorem_4_3(data: Simulations) -> Iterator[Statement]:
    """The bound of the probability of one way out, as the text and as the appendix print it."""
    grid = data.exit_time
    for variant in theory.VARIANTS:
        column = f"bound_probability_{variant}"
        finite = grid[np.isfinite(grid[column])]
        informative = finite[finite[column] < 1]
        empty = len(informative) == 0
        judged = finite if empty else informative
        yield Statement(
            theorem=f"Theorem 4.3 ({variant})",
            statement="The probability to leave through one edge is bounded by a sum.",
            compared="bound / simulated probability of the first upper edge",
            region=region_of(judged),
            rule="empty bound" if empty else "bound",
            cases=[
                ratio_case(
                    found[column],
                    found["probability"],
                    found["probability_low"],
                    found["probability_high"],
                    *key,
                )
                for found, key in with_groups(judged)
            ],
            uninformative=len(grid) - len(informative),
        )


def corollary_4_4_in_figure_9(data: Simulations) -> Iterator[Statement]:
    """How much more often the process leaves by the lower alpha, at the noise of Figure 9."""
    axis = data.exit_axis
    yield way_out(
        theorem="Corollary 4.4",
        region="Figure 9: "
        + spans(axis, alpha_1="alpha_1", delta="delta", epsilon="epsilon", rho="rho"),
        cases=[
            ratio_case(odds(corollary), odds(share), odds(low), odds(high), epsilon)
            for corollary, share, low, high, epsilon in axis[
                ["corollary", "probability", "low", "high", "epsilon"]
            ].to_numpy()
        ],
    )


def corollary_4_4(data: Simulations) -> Iterator[Statement]:
    """The same at smaller noise.

    The corollary is printed as a bound for any two parameters; as they can be swapped, it says that
    both sides are equal.
    """
    pairs = pair_odds(data)
    yield way_out(
        theorem="Corollary 4.4",
        region=pairs_region(data),
        cases=[
            ratio_case(
                theory.exit_probability_ratio(np.array(pair), simulated.epsilon, 1.0, rho=rho)[
                    0, 1
                ],
                *simulated[:4],
                *pair,
            )
            for pair, (rho, cases) in pairs.items()
            for simulated in cases
        ],
    )
    yield Statement(
        theorem="Corollary 4.4, exponent",
        statement="The ratio is a power (alpha_l - alpha_j)(1 - rho) of the noise.",
        compared="predicted / simulated exponent of epsilon",
        region=pairs_region(data),
        rule="equation",
        cases=[
            exponent_case((pair[0] - pair[1]) * (1 - rho), *slope_of(cases))
            for pair, (rho, cases) in pairs.items()
        ],
    )


def equation_12(data: Simulations) -> Iterator[Statement]:
    """What the text makes of Corollary 4.4."""
    yield Statement(
        theorem="Equation 12",
        statement="The ratio is proportional to the power alpha_l - alpha_j of the noise.",
        compared="predicted / simulated exponent of epsilon",
        region=pairs_region(data),
        rule="equation",
        cases=[
            exponent_case(pair[0] - pair[1], *slope_of(cases))
            for pair, (_, cases) in pair_odds(data).items()
        ],
    )


def small_noise_limit(data: Simulations) -> Iterator[Statement]:
    """Not the paper's: the limit of small noise, which the simulation should reach."""
    cases = []
    for pair, (_, found) in pair_odds(data).items():
        for simulated in found:
            limit = theory.small_noise_exit_probability(
                np.array(pair), simulated.epsilon, -1.0, 1.0
            )[0].sum()
            cases.append(ratio_case(odds(limit), *simulated[:4], *pair))
    yield way_out(
        theorem="Small-noise limit (reference)",
        statement="The ratio is that of the intensities of jumps out of the domain.",
        region=pairs_region(data),
        cases=cases,
    )


def way_out(
    *,
    theorem: str,
    region: str,
    cases: Sequence[Case],
    statement: str = "Ratio of the probabilities to leave by two parameters.",
) -> Statement:
    """A statement on the ratio of the probabilities of two ways out."""
    return Statement(
        theorem=theorem,
        statement=statement,
        compared="formula / simulated ratio, lower alpha over higher",
        region=region,
        rule="equation",
        cases=cases,
    )


def pair_odds(data: Simulations) -> dict[tuple[float, float], tuple[float, list[Case]]]:
    """For each pair of alpha: rho, and the simulated odds of leaving by the lower, by epsilon."""
    found: dict[tuple[float, float], tuple[float, list[Case]]] = {}
    for row in records(data.experiment("pair")):
        share = simulated_case(row)
        _, cases = found.setdefault((row["alpha"], row["alpha_2"]), (row["rho"], []))
        cases.append(Case(odds(share.ratio), odds(share.low), odds(share.high), share.epsilon))
    return found


def pairs_region(data: Simulations) -> str:
    """The pairs of alpha, the noise and rho."""
    names = ", ".join(map(str, pair_odds(data)))
    return f"pairs {names}, {spans(data.experiment('pair'), epsilon='epsilon', rho='rho')}"


# --- the words around the theorems ----------------------------------------------------------------


def exits_at_large_jumps(data: Simulations) -> Iterator[Statement]:
    """Appendix A.6: exits coincide with large jumps."""
    grid = data.exit_time
    middle = grid["epsilon"].median()
    walked = grid[grid["simulator"] == "euler_maruyama"]
    for part in (walked[walked["epsilon"] <= middle], walked[walked["epsilon"] > middle]):
        yield Statement(
            theorem="A.6, exits at large jumps",
            statement="The process leaves at jumps larger than epsilon^-rho.",
            compared="1 / simulated share of such exits",
            region=region_of(part),
            rule="equation",
            cases=[
                ratio_case(
                    1.0,
                    found["large_jump_share"],
                    found["large_jump_low"],
                    found["large_jump_high"],
                    *key,
                )
                for found, key in with_groups(part)
            ],
        )


def rare_large_jumps(data: Simulations) -> Iterator[Statement]:
    """Appendix A.6: large jumps are rarer than returns to the minimum."""
    grid = data.exit_time
    single = grid[(grid["gamma"] == 1) & (grid["dimensions"] == grid["dimensions"].min())]
    cases = []
    for found, (epsilon, *group) in with_groups(single):
        ratio = found["jump_interval"] / (10 * found["relaxation_time"])
        cases.append(Case(ratio, ratio, ratio, epsilon, tuple(group)))
    yield Statement(
        theorem="Equations 15 and 16",
        statement="Large jumps of a parameter are much rarer (10 times) than returns to the "
        "minimum.",
        compared="mean interval / 10 relaxation times, formulas only",
        region=region_of(single),
        rule="order",
        cases=cases,
    )


def faster_decay(data: Simulations) -> Iterator[Statement]:
    """What the text says of the learning rate's decay, after Theorem 4.1."""
    below: list[Case] = []
    quick: list[Case] = []
    late: list[Case] = []
    for _, cell in data.exit_time.groupby(["alpha", "epsilon", "dimensions"]):
        ordered = records(cell.sort_values("gamma", ascending=False))
        for slower, faster in itertools.pairwise(ordered):
            case = quotient_case(exit_time_case(faster), exit_time_case(slower), faster["epsilon"])
            if faster["alpha"] < 1:
                below.append(case)
            else:
                (quick if slower["mean_exit_time"] < _EARLY else late).append(case)
    for cases, where in (
        (below, "alpha < 1"),
        (quick, f"alpha > 1, mean exit time below {_EARLY:g}"),
        (late, f"alpha > 1, mean exit time above {_EARLY:g}"),
    ):
        yield Statement(
            theorem="After Theorem 4.1",
            statement="Faster decay of the learning rate prolongs the exit.",
            compared="simulated mean exit time, next smaller gamma / gamma",
            region=f"{where}, {span('epsilon', [case.epsilon for case in cases])}",
            rule="order",
            cases=cases,
        )


def step_down(data: Simulations) -> Iterator[Statement]:
    """The same for the multi-step scheduler."""
    times = data.experiment("step")
    for part, where in (
        (times[times["alpha"] < 1], "alpha < 1"),
        (times[times["alpha"] > 1], "alpha > 1"),
    ):
        cases = []
        for _, both in part.groupby(["alpha", "epsilon"], sort=False):
            constant = both["milestone"].isna()
            (without,), (stepped,) = records(both[constant]), records(both[~constant])
            cases.append(
                quotient_case(simulated_case(stepped), simulated_case(without), without["epsilon"])
            )
        yield Statement(
            theorem="After Theorem 4.1, multi-step",
            statement="A step down of the learning rate prolongs the exit.",
            compared="simulated mean exit time, with / without a step to a tenth",
            region=f"{where}, {spans(part, alpha='alpha', epsilon='epsilon')}, N 1, "
            "step at a tenth of the mean exit time",
            rule="order",
            cases=cases,
        )


def far_edge(data: Simulations) -> Iterator[Statement]:
    """What the text says of the far edge of the basin, after Corollary 4.2."""
    basins = Basins(data)
    for far in (2.0, 5.0):
        yield Statement(
            theorem="After Corollary 4.2",
            statement="The far edge of the domain does not matter.",
            compared="simulated mean exit time without / with a far edge",
            region=f"{basins.region}, far edge at {far:g} times the near one",
            rule="equation",
            cases=[
                quotient_case(
                    basins.mean(alpha, epsilon, far=math.inf),
                    basins.mean(alpha, epsilon, far=far),
                    epsilon,
                    alpha,
                )
                for alpha, epsilon in basins.keys
            ],
        )


def height_of_the_basin(data: Simulations) -> Iterator[Statement]:
    """What the text says of the height of the basin, after Corollary 4.2."""
    basins = Basins(data)
    yield Statement(
        theorem="After Corollary 4.2",
        statement="The height of the basin does not matter.",
        compared="simulated mean exit time at curvature 1 / at 0.5 and 4",
        region=basins.region,
        rule="equation",
        cases=[
            quotient_case(
                basins.mean(alpha, epsilon),
                basins.mean(alpha, epsilon, curvature=curvature),
                epsilon,
                alpha,
                curvature,
            )
            for alpha, epsilon in basins.keys
            for curvature in (0.5, 4.0)
        ],
    )


def width_of_the_basin(data: Simulations) -> Iterator[Statement]:
    """What the text says of the width of the basin, after Corollary 4.2."""
    basins = Basins(data)
    cases = []
    for alpha, epsilon in basins.keys:
        grown = quotient_case(
            basins.mean(alpha, epsilon, near=2.0, far=2.0), basins.mean(alpha, epsilon), epsilon
        )
        margin = math.log2(grown.high / grown.low) / 2
        cases.append(exponent_case(alpha, math.log2(grown.ratio), margin))
    yield Statement(
        theorem="After Corollary 4.2",
        statement="The mean exit time grows with the power alpha of the width of the basin.",
        compared="predicted / simulated exponent, half widths 1 and 2",
        region=basins.region,
        rule="equation",
        cases=cases,
    )


class Basins:
    """The simulated mean exit times of one coordinate from [-far, near], by their settings.

    Attributes:
        keys: alpha and epsilon of the simulations.
        region: for a statement.
    """

    def __init__(self, data: Simulations) -> None:
        rows = data.experiment("basin")
        settings = ["alpha", "epsilon", "near", "far", "curvature"]
        self._rows = {tuple(found[name] for name in settings): found for found in records(rows)}
        self.keys = list(dict.fromkeys(key[:2] for key in self._rows))
        self.region = f"{spans(rows, alpha='alpha', epsilon='epsilon')}, N 1"

    def mean(
        self,
        alpha: float,
        epsilon: float,
        *,
        near: float = 1.0,
        far: float = 1.0,
        curvature: float = 1.0,
    ) -> Case:
        """The simulated mean exit time; KeyError if it was not simulated."""
        return simulated_case(self._rows[alpha, epsilon, near, far, curvature])


# Everything that is judged, in the order of the table.
THEOREMS: tuple[Callable[[Simulations], Iterator[Statement]], ...] = (
    lemma_3_1,
    proposition_3_2,
    lemma_3_3,
    lemma_3_3_on_a_network,
    proposition_3_4,
    proposition_3_4_second_term,
    proposition_3_4_by_lemma_3_3,
    theorem_4_1,
    theorem_4_1_exponent,
    corollary_4_2,
    noise_level,
    theorem_4_3,
    corollary_4_4_in_figure_9,
    corollary_4_4,
    equation_12,
    small_noise_limit,
    exits_at_large_jumps,
    rare_large_jumps,
    faster_decay,
    step_down,
    far_edge,
    height_of_the_basin,
    width_of_the_basin,
)


def statements(data: Simulations) -> list[Statement]:
    """All statements of ``THEOREMS``, those without a case in ``data`` among them."""
    return [statement for theorem in THEOREMS for statement in theorem(data)]
