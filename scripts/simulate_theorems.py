"""The simulations that only the table of theorems needs: one row a simulated case."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from sgnoise import store, theory
from sgnoise.jobs import running_job
from sgnoise.numerals import wilson_interval
from sgnoise.progress import track
from sgnoise.sde import Exits, LevySystem, Schedule, first_exit_by_jumps
from sgnoise.seeds import generator, integer_seed

_PATHS = 10000

Row = dict[str, Any]


def simulate_theorems(
    *, experiments_path: str, rho: float, study: str, seed: int, threads: int
) -> None:
    """Run every experiment and write one row a simulated case.

    ``experiment`` names what was simulated, ``value`` with its 95 % interval ``low`` to ``high`` is
    what came out, and the other columns are what it was simulated at, NaN where they mean nothing.
    The coordinates are those of the paper's process, in a quadratic potential of the given
    ``curvature`` or 1; where there are two, the column of the second ends in ``_2``.

    * "flow": the bound of Lemma 3.1 over the squared distance to the minimum of ``potential``, its
      least on the way from one start.
    * "deviation": the probability that the small jumps lead epsilon^theta away from the flow before
      the next large jump (Proposition 3.2).
    * "cross moment": E(Z_1 Z_2) at ``time`` after a large jump (Lemma 3.3).
    * "pair": the probability to leave [-1, 1]^2 by the first of two coordinates (Corollary 4.4).
    * "step": the mean exit time from [-1, 1] where the learning rate falls to a tenth at
      ``milestone``, or does not fall.
    * "noise level": the same at a constant rate, with another ``row_sum`` of the covariance.
    * "basin": the mean exit time from [-``far``, ``near``].

    Args:
        experiments_path: Parquet to write.
        rho: split of the jumps.
        study: for the provenance.
        seed: of these simulations.
        threads: of them; the result does not depend on it.
    """
    experiments = {
        "flow": flows(),
        "deviation": deviations(seed=seed, threads=threads),
        "cross moment": cross_moments(rho=rho, seed=seed),
        "pair": pairs(rho=rho, seed=seed, threads=threads),
        "step": steps(seed=seed, threads=threads),
        "noise level": noise_levels(seed=seed, threads=threads),
        "basin": basins(seed=seed, threads=threads),
    }
    rows = [
        {"experiment": name} | row
        for name, cases in track(experiments.items(), "experiments", total=len(experiments))
        for row in cases
    ]
    store.write_table(
        experiments_path, pd.DataFrame(rows), store.provenance(study=study, seed=seed, rho=rho)
    )


# --- between the large jumps ----------------------------------------------------------------------


def flows() -> Iterator[Row]:
    """Three strongly convex potentials, by Runge-Kutta from 16 starts each."""
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
    for name, (potential, slope) in potentials.items():
        angles = np.arange(16) * (2 * np.pi / 16)
        w = np.stack([np.cos(angles), np.sin(angles)])
        excess = potential(w)
        step, count = 0.01, 500
        least = np.full(16, np.inf)
        for k in range(1, count + 1):
            a = -slope(w)
            b = -slope(w + step / 2 * a)
            c = -slope(w + step / 2 * b)
            d = -slope(w + step * c)
            w = w + step / 6 * (a + 2 * b + 2 * c + d)
            bound = theory.deterministic_bound(excess, 1.0, k * step)
            least = np.minimum(least, bound / np.sum(w**2, axis=0))
        for value in least:
            # 1e-6 stands for the error of the integrator (step^4 over the whole path).
            low, high = value * (1 - 1e-6), value * (1 + 1e-6)
            yield {"potential": name, "value": value, "low": low, "high": high}


def deviations(*, seed: int, threads: int) -> Iterator[Row]:
    """How often the process of small jumps leaves [-r, r], r = epsilon^theta, in time.

    In a quadratic potential Z - Y is that process from 0. It leaves at a time tau before the next
    large jump with probability E exp(-beta tau).
    """
    for rho, alpha, epsilon in itertools.product((0.5, 0.9), (0.75, 1.25), (0.2, 0.1, 0.05, 0.02)):
        theta = 0.8 * (2 - alpha) / 4
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
        yield {
            "alpha": alpha,
            "epsilon": epsilon,
            "rho": rho,
            "theta": theta,
            "value": mean,
            # Where no path came out, the interval still reaches to three in all paths.
            "low": max(mean - margin, 0.0),
            "high": mean + max(margin, 3 / paths),
        }


def cross_moments(*, rho: float, seed: int) -> Iterator[Row]:
    """Two coordinates with the same alpha between large jumps."""
    start, curvature = np.array([0.5, 0.4]), np.array([1.0, 2.0])
    for alpha, epsilon, time in itertools.product(
        (0.75, 1.25, 1.75), (0.02, 0.05, 0.1), (0.25, 0.5, 1.0)
    ):
        rng = generator(seed, f"cross moment {alpha:g} {epsilon:g} {time:g}")
        z = small_jump_positions(
            time, start, curvature, np.full(2, alpha), epsilon, rho=rho, paths=40000, rng=rng
        )
        product = z[0] * z[1]
        mean = float(product.mean())
        margin = 1.96 * float(product.std()) / math.sqrt(product.size)
        yield {
            "alpha": alpha,
            "alpha_2": alpha,
            "epsilon": epsilon,
            "rho": rho,
            "time": time,
            "start": start[0],
            "start_2": start[1],
            "curvature": curvature[0],
            "curvature_2": curvature[1],
            "value": mean,
            "low": mean - margin,
            "high": mean + margin,
        }


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


# --- exits ----------------------------------------------------------------------------------------


def pairs(*, rho: float, seed: int, threads: int) -> Iterator[Row]:
    """The way out of two coordinates with different alpha."""
    for pair, epsilon in itertools.product(
        ((0.55, 1.05), (0.75, 1.25), (1.0, 1.5)), (0.005, 0.01, 0.02, 0.04)
    ):
        exits = exits_from_basin(
            np.array(pair),
            epsilon,
            seed=integer_seed(seed, f"pair {pair} {epsilon:g}"),
            threads=threads,
        )
        first = int(np.sum(exits.coordinate == 0))
        value, low, high = wilson_interval(first, exits.time.size)
        yield {
            "alpha": pair[0],
            "alpha_2": pair[1],
            "epsilon": epsilon,
            "rho": rho,
            "value": value,
            "low": low,
            "high": high,
        }


def steps(*, seed: int, threads: int) -> Iterator[Row]:
    """With and without a fall of the learning rate at a tenth of the mean exit time."""
    for alpha, epsilon in itertools.product((0.75, 1.25, 1.75), (0.01, 0.03)):
        at = theory.small_noise_exit_time(alpha, epsilon, -1.0, 1.0) / 10
        for name, milestone, schedule in (
            ("constant rate", math.nan, Schedule()),
            ("stepped rate", at, Schedule(milestones=(at,), factor=0.1)),
        ):
            exits = exits_from_basin(
                np.array([alpha]),
                epsilon,
                schedule=schedule,
                seed=integer_seed(seed, f"{name} {alpha:g} {epsilon:g}"),
                threads=threads,
            )
            yield {"alpha": alpha, "epsilon": epsilon, "milestone": milestone, **time_of(exits)}


def noise_levels(*, seed: int, threads: int) -> Iterator[Row]:
    """Two row sums of the noise covariance, four apart."""
    for alpha, row_sum in itertools.product((0.75, 1.25, 1.75), (0.5, 2.0)):
        epsilon = 0.01
        exits = exits_from_basin(
            np.array([alpha]),
            epsilon,
            row_sum=row_sum,
            seed=integer_seed(seed, f"level {row_sum:g}"),
            threads=threads,
        )
        yield {"alpha": alpha, "epsilon": epsilon, "row_sum": row_sum, **time_of(exits)}


def basins(*, seed: int, threads: int) -> Iterator[Row]:
    """A basin, and others that differ from it in the far edge, the height or the width."""
    shapes = (
        (1.0, 1.0, 1.0),
        (1.0, 2.0, 1.0),
        (1.0, 5.0, 1.0),
        (1.0, math.inf, 1.0),
        (1.0, 1.0, 0.5),
        (1.0, 1.0, 4.0),
        (2.0, 2.0, 1.0),
    )
    for alpha, epsilon in itertools.product((0.75, 1.25, 1.75), (0.01, 0.03)):
        for near, far, curvature in shapes:
            name = f"basin {alpha:g} {epsilon:g} {near:g} {far:g} {curvature:g}"
            exits = exits_from_basin(
                np.array([alpha]),
                epsilon,
                near=near,
                far=far,
                curvature=curvature,
                seed=integer_seed(seed, name),
                threads=threads,
            )
            settings = {"near": near, "far": far, "curvature": curvature}
            yield {"alpha": alpha, "epsilon": epsilon, **settings, **time_of(exits)}


def exits_from_basin(
    alpha: np.ndarray,
    epsilon: float,
    *,
    near: float = 1.0,
    far: float = 1.0,
    curvature: float = 1.0,
    row_sum: float = 1.0,
    schedule: Schedule | None = None,
    seed: int,
    threads: int,
) -> Exits:
    """Exits from [-far, near]^N by the event-driven simulator."""
    return first_exit_by_jumps(
        LevySystem(
            alpha=alpha, epsilon=epsilon, row_sum=row_sum, curvature=curvature, schedule=schedule
        ),
        -far,
        near,
        cutoff=0.1 * near,
        max_events=10**7,
        paths=_PATHS,
        seed=seed,
        threads=threads,
    )


def time_of(exits: Exits) -> Row:
    """The mean exit time with its interval."""
    value, low, high = exits.mean_time()
    return {"value": value, "low": low, "high": high}


if __name__ == "__main__":
    with running_job() as job:
        simulate_theorems(
            experiments_path=job.output.experiments,
            rho=job.params.rho,
            study=job.params.study,
            seed=job.params.seed,
            threads=job.threads,
        )
