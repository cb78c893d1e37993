"""Speed of the two simulators of the Lévy-driven SDE, in one run.

Euler-Maruyama, in increments (steps times coordinates) a second:

- scipy: the same loop in numpy over all paths, increments by ``scipy.stats.levy_stable.rvs``;
- floor: nothing but the draws of the same increments, Chambers-Mallows-Stuck in float32 numpy;
- ours: ``sde.simulate_paths``.

The event-driven simulator, in exits a second, against Euler-Maruyama at equal accuracy: of a
ladder of steps, and of cutoffs, the coarsest whose mean exit time is within 0.5 % and two standard
errors of the reference (a cutoff finer than all). The standard error is 0.1 % (a million exits)
unless that would take Euler-Maruyama more than 1e9 increments.

Every way is timed in turn and the best of several rounds counts. Run on an idle machine:
``python benchmarks/sde_speed.py [--threads 2]``
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from scipy.stats import levy_stable

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from sgnoise import sde

ROUNDS = 3
PATHS = 50_000
STEPS = 200
TOLERANCE = 0.005
CELLS = [(alpha, epsilon) for alpha in (0.75, 1.25, 1.75) for epsilon in (0.05, 0.02)]
STEP_LADDER = (0.16, 0.08, 0.04, 0.02, 0.01, 0.005, 0.0025)
CUTOFF_LADDER = (0.6, 0.3, 0.15, 0.075)
REFERENCE_CUTOFF = 0.02


def best(work: Callable[[], object]) -> float:
    """Least wall time of several rounds, after one that compiles."""
    work()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def walk_with_scipy(alpha: float, steps: int) -> None:
    """Euler-Maruyama in numpy, vectorised over paths, with its test for exits."""
    rng = np.random.default_rng(1)
    w = np.zeros(PATHS)
    step, scale = 0.01, 0.01 ** (1 / alpha)
    exit_step = np.full(PATHS, -1)
    for k in range(steps):
        w += -step * w + levy_stable.rvs(alpha, 0, scale=scale, size=PATHS, random_state=rng)
        exit_step[(np.abs(w) >= 1) & (exit_step < 0)] = k


def draw_floor(alpha: float, count: int, seed: int) -> None:
    """``count`` stable variables in float32 numpy, in pieces that stay in the cache."""
    rng = np.random.default_rng(seed)
    size = 16_384
    a = np.float32(alpha)
    for _ in range(count // size):
        v = rng.random(size, dtype=np.float32)
        v -= np.float32(0.5)
        v *= np.float32(np.pi)
        w = rng.standard_exponential(size, dtype=np.float32)
        x = np.cos((1 - a) * v)
        x /= w
        np.log(x, out=x)
        x *= (1 - a) / a
        c = np.abs(np.cos(v))  # rounding can take it below zero
        np.log(c, out=c)
        c /= a
        x -= c
        np.exp(x, out=x)
        v *= a
        np.sin(v, out=v)
        x *= v


def floor_on(threads: int, alpha: float, count: int) -> None:
    """The floor with its draws shared among threads; numpy releases the interpreter's lock."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda seed: draw_floor(alpha, count // threads, seed), range(threads)))


def compare_steps(threads: int) -> None:
    """Increments a second of the three ways."""
    print(f"{'alpha':>6} {'scipy':>8} {'floor':>8} {'ours':>8}   ours/scipy  ours' time/floor's")
    for alpha in (0.75, 1.25, 1.75):
        ours = functools.partial(
            sde.simulate_paths,
            sde.LevySystem(alpha=alpha, epsilon=0.1, curvature=1.0),
            start=0.0,
            step=0.01,
            steps=STEPS,
            every=STEPS,
            paths=PATHS,
            seed=1,
            threads=threads,
        )
        count, few = PATHS * STEPS, STEPS // 20
        scipy_rate = PATHS * few / best(functools.partial(walk_with_scipy, alpha, few))
        floor_rate = count / best(functools.partial(floor_on, threads, alpha, count))
        our_rate = count / best(ours)
        print(
            f"{alpha:6.2f} {scipy_rate / 1e6:7.1f}M {floor_rate / 1e6:7.1f}M {our_rate / 1e6:7.1f}M"
            f"   {our_rate / scipy_rate:10.1f}  {floor_rate / our_rate:8.2f}",
            flush=True,
        )


class Cell:
    """One process, by either simulator: the argument is the step, or the cutoff."""

    def __init__(self, alpha: float, epsilon: float, threads: int) -> None:
        self.system = sde.LevySystem(alpha=alpha, epsilon=epsilon, curvature=1.0)
        self.threads = threads

    def walk(self, step: float, paths: int) -> sde.Exits:
        """Euler-Maruyama."""
        return sde.first_exit(
            self.system,
            -1.0,
            1.0,
            step=step,
            max_steps=10**8,
            paths=paths,
            seed=1,
            threads=self.threads,
        )

    def jump(self, cutoff: float, paths: int) -> sde.Exits:
        """The event-driven simulator."""
        return sde.first_exit_by_jumps(
            self.system,
            -1.0,
            1.0,
            cutoff=cutoff,
            max_events=10**8,
            paths=paths,
            seed=1,
            threads=self.threads,
        )


def affordable(step: float, mean: float, increments: float) -> int:
    """How many exits so many increments give, a million at most."""
    return int(min(1e6, increments * step / mean))


def judged_walk(cell: Cell, mean: float, step: float) -> sde.Exits:
    """Enough exits by Euler-Maruyama to judge the step."""
    return cell.walk(step, affordable(step, mean, 1e9))


def coarsest(
    ladder: tuple[float, ...], reference: float, simulate: Callable[[float], sde.Exits]
) -> tuple[float, float]:
    """The first value whose mean exit time is accurate enough, and its relative error."""
    error = math.inf
    for value in ladder:
        exits = simulate(value)
        error = exits.mean_time()[0] / reference - 1
        if abs(error) <= TOLERANCE + 2 / math.sqrt(exits.time.size):
            return value, error
    print(f"(none of {ladder} is accurate enough; the last counts)")
    return ladder[-1], error


def compare_exits(threads: int) -> None:
    """Exits a second of both simulators, each at the coarsest setting that is accurate enough."""
    print(
        f"{'alpha':>6} {'epsilon':>8} {'mean':>8} {'step':>7} {'error':>7} {'exits/s':>9}"
        f" {'cutoff':>7} {'error':>7} {'exits/s':>9}   ratio"
    )
    for alpha, epsilon in CELLS:
        cell = Cell(alpha, epsilon, threads)
        mean = cell.jump(REFERENCE_CUTOFF, 1_000_000).mean_time()[0]

        step, step_error = coarsest(STEP_LADDER, mean, functools.partial(judged_walk, cell, mean))
        cutoff, cutoff_error = coarsest(
            CUTOFF_LADDER, mean, functools.partial(cell.jump, paths=1_000_000)
        )
        paths = affordable(step, mean, 1e8)
        walked = paths / best(functools.partial(cell.walk, step, paths))
        jumped = 400_000 / best(functools.partial(cell.jump, cutoff, 400_000))
        print(
            f"{alpha:6.2f} {epsilon:8.2f} {mean:8.4g} {step:7.4f} {100 * step_error:6.1f}%"
            f" {walked:9.3g} {cutoff:7.3f} {100 * cutoff_error:6.1f}% {jumped:9.3g}"
            f"   {jumped / walked:6.0f}",
            flush=True,
        )


def main() -> None:
    """Read the number of threads and run both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    threads = parser.parse_args().threads
    print(f"{threads} threads, load average {os.getloadavg()[0]:.1f}")
    compare_steps(threads)
    compare_exits(threads)


if __name__ == "__main__":
    main()
