"""Speed of the two simulators of the Lévy-driven SDE, in one run.

Euler-Maruyama, in increments (steps times coordinates) a second:

- scipy: the same loop in numpy over all paths, increments by ``scipy.stats.levy_stable.rvs``;
- floor: nothing but the draws of the same increments, Chambers-Mallows-Stuck in float32 numpy;
- ours: ``sde.simulate_paths``.

The event-driven simulator, in exits a second, against Euler-Maruyama at equal accuracy: both at a
bias of the mean exit time of 0.2 %, and at 0.5 %. The reference is the event-driven simulator at a
cutoff finer than all of the ladder. Of the cutoffs, the coarsest counts whose bias, found with a
standard error of at most 0.1 %, is within the tolerance. Euler-Maruyama's bias falls as a power of
the step, which is fitted to the biases at coarse steps, weighted by their errors; the step at the
tolerance follows from the fit. Where the noise of the simulation hides even the bias at those, the
coarsest step counts, in Euler-Maruyama's favour. Its speed is that of exits at that step.

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
TOLERANCES = (0.005, 0.002)
CELLS = [(alpha, epsilon) for alpha in (0.75, 1.25, 1.75) for epsilon in (0.05, 0.02)]
STEP_LADDER = (0.16, 0.08, 0.04, 0.02)
CUTOFF_LADDER = (0.75, 0.6, 0.45, 0.3, 0.2, 0.1)
REFERENCE_CUTOFF = {0.75: 0.02, 1.25: 0.04, 1.75: 0.08}


def best(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Least wall time of several rounds, after one that compiles."""
    work()
    times = []
    for _ in range(rounds):
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


def bias(exits: sde.Exits, reference: float) -> tuple[float, float]:
    """Relative error of the mean exit time and its standard error."""
    mean, _, high = exits.mean_time()
    return mean / reference - 1, (high - mean) / 1.96 / reference


def affordable(step: float, mean: float, increments: float) -> int:
    """How many exits so many increments give, a million at most."""
    return int(min(1e6, increments * step / mean))


class PowerLaw:
    """Euler-Maruyama's bias as a power of the step: exponent in [0.5, 1.5], least squares."""

    def __init__(self, steps: np.ndarray, biases: np.ndarray, errors: np.ndarray) -> None:
        def fit(power: float) -> tuple[float, float]:
            shape = steps**power / errors
            factor = float(shape @ (biases / errors) / (shape @ shape))
            return float(np.sum((biases / errors - factor * shape) ** 2)), factor

        self.power = min(np.linspace(0.5, 1.5, 101), key=lambda power: fit(power)[0])
        self.factor = fit(self.power)[1]
        self.seen = self.factor > 0

    def step_at(self, tolerance: float, coarsest: float) -> float:
        """The step whose bias is ``tolerance``, at most ``coarsest``."""
        if not self.seen:
            return coarsest
        return min(coarsest, (tolerance / self.factor) ** (1 / self.power))


def compare_exits(threads: int) -> None:
    """Exits a second of both simulators at the same bias."""
    print(
        f"{'alpha':>6} {'epsilon':>8} {'mean':>8} {'bias':>6} {'step':>8} {'exits/s':>9}"
        f" {'cutoff':>7} {'found':>7} {'exits/s':>9}   ratio"
    )
    for alpha, epsilon in CELLS:
        cell = Cell(alpha, epsilon, threads)
        paths = 4_000_000 if alpha < 1.5 else 1_000_000
        mean = cell.jump(REFERENCE_CUTOFF[alpha], paths).mean_time()[0]
        steps, biases, errors = [], [], []
        for step in STEP_LADDER:
            exits = cell.walk(step, affordable(step, mean, 2e8))
            found, error = bias(exits, mean)
            steps.append(step)
            biases.append(found)
            errors.append(error)
        law = PowerLaw(np.array(steps), np.array(biases), np.array(errors))
        jumps = [(cutoff, bias(cell.jump(cutoff, paths), mean)[0]) for cutoff in CUTOFF_LADDER]
        for tolerance in TOLERANCES:
            step = law.step_at(tolerance, STEP_LADDER[0])
            count = affordable(step, mean, 5e7)
            walked = count / best(functools.partial(cell.walk, step, count), rounds=1)
            cutoff, found = next(
                (pair for pair in jumps if abs(pair[1]) <= tolerance), (CUTOFF_LADDER[-1], math.nan)
            )
            jumped = 400_000 / best(functools.partial(cell.jump, cutoff, 400_000))
            print(
                f"{alpha:6.2f} {epsilon:8.2f} {mean:8.4g} {100 * tolerance:5.1f}% {step:8.4f}"
                f" {walked:9.3g} {cutoff:7.3f} {100 * found:6.2f}% {jumped:9.3g}"
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
