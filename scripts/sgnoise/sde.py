"""The Lévy-driven SDE of the paper (Eq. 2), with its own stable parameter for every coordinate.

  dW = -grad U(W) dt + sum_l s_t^((alpha_l-1)/alpha_l) epsilon_l (1' lambda_l)^(1/alpha_l) dL^l r_l

The directions r_l are the coordinate axes and L^l has the Lévy measure |y|^(-1-alpha_l) dy, so that
E exp(iuL_t) = exp(-t C(alpha) |u|^alpha) with C of :func:`levy_constant`. At alpha = 2, where no
such measure exists, L is the Brownian motion with E exp(iuL_t) = exp(-t u^2), variance 2t: the
symmetric stable law of unit scale, as everywhere else in the project.

Two simulators of the first exit from a box, written to check each other:

* :func:`first_exit` is Euler-Maruyama with exact increments of the noise: any potential, any
  schedule; its error is that of the time step.
* :func:`first_exit_by_jumps` goes from large jump to large jump with the drift in closed form:
  quadratic potentials; its error is that of replacing the small jumps by a Gaussian process.

Arrays are (coordinate, path). Random numbers are a function of seed, coordinate, path and step
(the counter-based generator Philox 2x32-10 of Salmon et al. 2011), so that a result depends neither
on the number of threads nor on how paths and steps are cut into pieces; bit for bit on one kind of
processor, as another's compiler may round differently. Simulations with the same seed share their
random numbers, whatever their system.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sgnoise.sde_kernels import LANES, euler_maruyama, jump_by_jump
from sgnoise.seeds import seed_sequence

Gradient = Callable[[np.ndarray], np.ndarray]
Team = Callable[..., None]
Values = float | np.ndarray  # one number for all coordinates, or (N,)

_STEPS_A_CALL = 256  # at most


# --- the law of the noise -------------------------------------------------------------------------


def levy_constant(alpha: float) -> float:
    """C(alpha) with integral of (1 - cos uy) |y|^(-1-alpha) dy = C(alpha) |u|^alpha.

    A unit-scale symmetric stable variable times C(alpha)^(1/alpha) is the paper's L_1 (Eq. 13).
    C = 2 Gamma(1 - alpha) cos(pi alpha / 2) / alpha, which is pi at alpha = 1.

    >>> round(levy_constant(1.0), 6)
    3.141593

    Raises:
        ValueError: alpha is outside (0, 2); towards 2 the constant grows without bound.
    """
    if not 0 < alpha < 2:
        raise ValueError(f"alpha = {alpha}: the Lévy measure |y|^(-1-alpha) needs alpha in (0, 2)")
    # The reflection formula removes the pole of Gamma(1 - alpha) against the zero of the cosine.
    return math.pi / (math.gamma(1 + alpha) * math.sin(math.pi * alpha / 2))


@dataclass(frozen=True)
class Schedule:
    """The learning-rate scheduler s_t = t^(gamma - 1) * factor^(number of milestones <= t).

    gamma = 1 without milestones is a constant rate, gamma < 1 the paper's exponential scheduler,
    milestones with a factor the multi-step scheduler.

    >>> import numpy as np
    >>> Schedule(gamma=0.5).clock(2.0, np.array([1.0, 4.0]))
    array([2., 4.])

    Raises:
        ValueError: gamma outside (0, 1], milestones not increasing and positive, factor <= 0.
    """

    gamma: float = 1.0
    milestones: tuple[float, ...] = ()
    factor: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.gamma <= 1:
            raise ValueError(f"gamma = {self.gamma}: the cooling rate lies in (0, 1]")
        if self.factor <= 0:
            raise ValueError(f"factor = {self.factor}: the rate must stay positive")
        if any(b <= a for a, b in zip((0.0, *self.milestones), self.milestones, strict=False)):
            raise ValueError(f"milestones = {self.milestones}: must be positive and increasing")

    def clock(self, alpha: float, time: np.ndarray) -> np.ndarray:
        """Integral of s_u^(alpha - 1) over (0, time): the time that the noise has lived through.

        The integral of s^((alpha-1)/alpha) dL over a time interval has the law of L at the clock's
        increment, exactly, also where s_t is infinite (t = 0).
        """
        time = np.asarray(time, dtype=np.float64)
        power = 1 + (self.gamma - 1) * (alpha - 1)
        starts = (0.0, *self.milestones)
        ends = (*self.milestones, math.inf)
        total = np.zeros_like(time)
        for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
            inside = np.clip(time, start, end) ** power - start**power
            total += self.factor ** (index * (alpha - 1)) * inside / power
        return total


@dataclass(frozen=True, init=False)
class LevySystem:
    """The coefficients of Eq. 2 near a minimum at the origin.

    >>> import numpy as np
    >>> LevySystem(alpha=np.array([0.8, 1.4]), epsilon=0.1, curvature=1.0).dimensions
    2

    Attributes:
        alpha: stable parameter of each coordinate, (N,), in [0.5, 2].
        epsilon: noise amplitude of each coordinate, (N,), positive.
        row_sum: 1' lambda_l of each coordinate, (N,), positive.
        curvature: second derivatives h_ll of a quadratic potential, (N,), not negative.
        gradient: gradient of any other potential, from (N, P) to (N, P); excludes ``curvature``.
        schedule: the learning-rate scheduler.
    """

    alpha: np.ndarray
    epsilon: np.ndarray
    row_sum: np.ndarray
    curvature: np.ndarray | None
    gradient: Gradient | None
    schedule: Schedule

    def __init__(
        self,
        *,
        alpha: Values,
        epsilon: Values,
        row_sum: Values = 1.0,
        curvature: Values | None = None,
        gradient: Gradient | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        """Take numbers for values that all coordinates share; ``alpha`` tells how many there are.

        Raises:
            ValueError: a value outside its range, shapes that differ, not exactly one potential.
        """
        exponents = np.atleast_1d(np.asarray(alpha, dtype=np.float64))
        if exponents.ndim != 1 or not np.all((exponents >= 0.5) & (exponents <= 2)):
            raise ValueError(f"alpha = {alpha}: one number in [0.5, 2] for each coordinate")
        found = {
            "epsilon": _per_coordinate("epsilon", epsilon, exponents.size),
            "row_sum": _per_coordinate("row_sum", row_sum, exponents.size),
        }
        for name, values in found.items():
            if not np.all(values > 0):
                raise ValueError(f"{name} = {values}: must be positive")
        if (curvature is None) == (gradient is None):
            raise ValueError("give the potential once: either curvature or gradient")
        bends = None
        if curvature is not None:
            bends = _per_coordinate("curvature", curvature, exponents.size)
            if not np.all(bends >= 0):
                raise ValueError(f"curvature = {curvature}: must not be negative")
        object.__setattr__(self, "alpha", exponents)
        object.__setattr__(self, "epsilon", found["epsilon"])
        object.__setattr__(self, "row_sum", found["row_sum"])
        object.__setattr__(self, "curvature", bends)
        object.__setattr__(self, "gradient", gradient)
        object.__setattr__(self, "schedule", schedule or Schedule())

    @property
    def dimensions(self) -> int:
        return self.alpha.size

    def amplitude(self) -> np.ndarray:
        """epsilon_l (1' lambda_l)^(1/alpha_l), (N,): what multiplies dL where s_t = 1."""
        return self.epsilon * self.row_sum ** (1 / self.alpha)

    def increment_scale(self, times: np.ndarray) -> np.ndarray:
        """Scale of the unit stable draws for the steps between ``times`` (K + 1,), as (K, N)."""
        scale = np.empty((len(times) - 1, self.dimensions))
        for index, alpha in enumerate(self.alpha):
            constant = 1.0 if alpha == 2 else levy_constant(alpha)
            lived = np.diff(self.schedule.clock(alpha, times))
            scale[:, index] = (constant * lived) ** (1 / alpha)
        return scale * self.amplitude()


@dataclass(frozen=True)
class Exits:
    """First exits, one entry a path.

    Attributes:
        time: exit time, or the time at which an unfinished path was given up.
        coordinate: the coordinate that left the box (the one furthest outside), -1 if none did.
        side: +1 through the upper edge, -1 through the lower edge, 0 if censored.
        jump: size of the noise's last increment (of the last large jump) in that coordinate.
    """

    time: np.ndarray
    coordinate: np.ndarray
    side: np.ndarray
    jump: np.ndarray

    @property
    def censored(self) -> np.ndarray:
        return self.coordinate < 0

    def mean_time(self) -> tuple[float, float, float]:
        """Mean exit time and its 95 % interval.

        With censored paths, the exponential law's estimate, total time / exits; NaN without exits.
        """
        count = self.time.size - int(self.censored.sum())
        if count == 0:
            return math.nan, math.nan, math.nan
        mean = float(self.time.sum()) / count
        spread = float(self.time.std()) if count == self.time.size else mean
        margin = 1.96 * spread / math.sqrt(count)
        return mean, mean - margin, mean + margin


def _per_coordinate(name: str, values: Values, dimensions: int) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.size not in (1, dimensions) or array.ndim > 1:
        raise ValueError(f"{name}: shape {array.shape}, but alpha has {dimensions} coordinates")
    return np.broadcast_to(array.reshape(-1), (dimensions,)).copy()


def _box(lower: Values, upper: Values, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    low = _per_coordinate("lower", lower, dimensions)
    high = _per_coordinate("upper", upper, dimensions)
    if not (np.all(low < 0) and np.all(high > 0)):
        raise ValueError(f"the box [{low}, {high}] must have the minimum, the origin, inside")
    return low, high


# --- how often small jumps touch an edge ----------------------------------------------------------


@functools.cache
def _touch_share(alpha: float, activity: float, cutoff: float) -> float:
    """How often small jumps cross an edge after a large one, over how often their Gaussian does.

    In units of the edge's distance and of the relaxation time 1 / h: small jumps of Lévy measure
    ``activity`` |y|^(-1-alpha) below ``cutoff``, drift -w. Large jumps land at a distance d from
    the edge with a density (1 - d)^(-1-alpha), over which both chances are integrated: that of the
    Gaussian, exp(-2d / variance rate), and that of a single small jump beyond the distance while
    the drift carries the process away. Close to the edge the latter comes to half of the former.

    A single jump decides where small jumps are rare against the drift; many make a Gaussian. Where
    in between is told by Spitzer's identity for E sup (X_t - t), with drift 1 and psi the exponent
    of X: (variance rate) / 4 + (1/2 pi) int_0^inf log(1 + (psi(u)/u)^2) u^-2 du, whose second term
    grows from 0 for single jumps to (variance rate) / 4 for the Gaussian.
    """
    x, weight = np.polynomial.legendre.leggauss(64)
    x, weight = (x + 1) / 2, weight / 2
    power = 2 / (2 - alpha)  # takes the singularity at 0 away
    y = cutoff * x**power
    landed = ((1 - np.minimum(y, 1 - cutoff)) ** -alpha - 1) / alpha
    beyond = activity / alpha * (y**-alpha - cutoff**-alpha)
    single = float(np.sum(weight * power * y / x * beyond * landed / (1 - y)))
    variance = 2 * activity * cutoff ** (2 - alpha) / (2 - alpha)
    reach = min(1 - cutoff, 20 * variance)  # beyond it the Gaussian has no chance
    d = reach * x**2
    near = 2 * reach * x * np.exp(-2 * d / variance) * (1 - d) ** (-1 - alpha)
    # A Gaussian that reaches far from the edge has chances that no single jump has.
    alone = max(0.5, single / float(np.sum(weight * near)))

    s = np.exp(np.linspace(math.log(1e-8), math.log(1e8), 12_001))  # u times the cutoff
    middle = np.sqrt(s[1:] * s[:-1])
    # Integral of (1 - cos z) z^(-1-alpha) up to s; from where the grid is coarser than the wave on,
    # the integral over all z less that of z^(-1-alpha).
    wave = 2 * np.sin(middle / 2) ** 2 * middle**-alpha * np.diff(np.log(s))
    upto = s[0] ** (2 - alpha) / (2 * (2 - alpha)) + np.concatenate([[0.0], np.cumsum(wave)])
    upto = np.where(s < 100, upto, levy_constant(alpha) / 2 - s**-alpha / alpha)
    exponent = 2 * activity * (cutoff / s) ** (1 - alpha) * upto
    second = cutoff / (2 * math.pi) * np.trapezoid(np.log1p(exponent**2) / s, np.log(s))
    many = min(1.0, float(second) / (variance / 4))
    return alone + (1 - alone) * many


def _touch_shares(
    system: LevySystem, cutoff: np.ndarray, box: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """``_touch_share`` at each edge, (N, 2): lower, upper; the drift is that at the edge.

    The schedule is taken at s_t = 1.
    """
    shares = np.ones((system.dimensions, 2), dtype=np.float32)
    strength = system.amplitude() ** system.alpha
    assert system.curvature is not None
    for c, alpha in enumerate(system.alpha):
        for side, edges in enumerate(box):
            speed = system.curvature[c] * abs(edges[c])
            if 0 < speed < math.inf:
                far = abs(edges[c])
                activity = strength[c] / (far**alpha * system.curvature[c])
                shares[c, side] = _touch_share(float(alpha), float(activity), cutoff[c] / far)
    return shares


# --- the simulators -------------------------------------------------------------------------------


@contextmanager
def _team(threads: int | None) -> Iterator[Team]:
    """Something that runs a kernel over a range of paths or blocks on ``threads`` threads (or all).

    The kernels release the interpreter's lock. Against numba's own threads this halves the time of
    compilation, and leaves no setting of the process changed.
    """
    count = max(1, threads or os.cpu_count() or 1)
    with ThreadPoolExecutor(count) as pool:

        def run(kernel: Callable[..., None], size: int, *arguments: object) -> None:
            parts = min(count, size)
            edges = [size * part // parts for part in range(parts + 1)]
            if parts == 1:
                kernel((0, size), *arguments)
                return
            futures = [
                pool.submit(kernel, piece, *arguments) for piece in itertools.pairwise(edges)
            ]
            for future in futures:
                future.result()

        yield run


def _whole_blocks(members: np.ndarray) -> np.ndarray:
    """``members`` repeated up to a multiple of LANES: the repeats fill the last block."""
    return np.resize(members, -(-members.size // LANES) * LANES)


def _start(
    start: Values, system: LevySystem, paths: int, box: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Positions (N, paths) at time 0."""
    if paths < 1:
        raise ValueError(f"paths = {paths}: at least one path")
    point = _per_coordinate("start", start, system.dimensions)
    if not np.all((point > box[0]) & (point < box[1])):
        raise ValueError(f"start = {start}: must be inside the box")
    return np.repeat(point.astype(np.float32)[:, None], paths, axis=1)


def _check_budget(name: str, budget: int) -> None:
    if not 1 <= budget < 2**31:
        raise ValueError(f"{name} = {budget}: must lie between 1 and 2^31 - 1")


def _decay(system: LevySystem, step: float) -> np.ndarray:
    """What a step of Euler-Maruyama's drift leaves of each coordinate, (N,)."""
    if step <= 0:
        raise ValueError(f"step = {step}: must be positive")
    if system.curvature is None:
        return np.ones(system.dimensions, dtype=np.float32)
    stiffest = float(system.curvature.max())
    if step * stiffest >= 1:
        raise ValueError(f"step = {step}: must be below 1 / curvature = {1 / stiffest:g}")
    return (1 - step * system.curvature).astype(np.float32)


def _reciprocal(edges: np.ndarray) -> np.ndarray:
    return (1 / edges).astype(np.float32)


class _Walkers:
    """The paths of a call of Euler-Maruyama that are still inside, and what the kernel needs."""

    def __init__(
        self,
        system: LevySystem,
        state: np.ndarray,
        box: tuple[np.ndarray, np.ndarray],
        step: float,
        seed: int,
        team: Team,
    ) -> None:
        self.system = system
        self.team = team
        self.step = step
        self.paths = np.arange(state.shape[1])
        self.decay = _decay(system, step)
        self.inverse_lower, self.inverse_upper = map(_reciprocal, box)
        self.alpha = system.alpha.astype(np.float32)
        self.keys = seed_sequence(seed, "euler-maruyama").generate_state(system.dimensions)
        self._gather(state, np.arange(state.shape[1]))

    def _gather(self, state: np.ndarray, inside: np.ndarray) -> None:
        lanes = _whole_blocks(inside)
        self.state = np.ascontiguousarray(state[:, lanes])
        self.counter = self.paths[lanes].astype(np.uint32)
        self.paths = self.paths[inside]
        self.left_at = np.zeros(lanes.size, dtype=np.int32)
        self.left_by = np.zeros(lanes.size, dtype=np.int32)
        self.left_by[inside.size :] = 1  # the repeats count as gone
        self.left_with = np.zeros(lanes.size, dtype=np.float32)

    def advance(self, first_step: int, steps: int) -> None:
        times = (first_step + np.arange(steps + 1)) * self.step
        scale = self.system.increment_scale(times).astype(np.float32)
        if self.system.gradient is None:
            self._noise(first_step, scale)
            return
        for k in range(steps):
            slope = self.system.gradient(self.state)
            if slope.shape != self.state.shape:
                raise ValueError(
                    f"gradient: shape {slope.shape} for positions of shape {self.state.shape}"
                )
            self.state -= (self.step * slope).astype(np.float32)
            self._noise(first_step + k, scale[k : k + 1])
            # Those outside stay in the arrays for a while; the potential need not exist there.
            self.state[:, self.left_by != 0] = 0

    def _noise(self, first_step: int, scale: np.ndarray) -> None:
        self.team(
            euler_maruyama,
            self.counter.size // LANES,
            self.state,
            self.counter,
            first_step,
            self.decay,
            scale,
            self.alpha,
            self.inverse_lower,
            self.inverse_upper,
            self.keys,
            self.left_at,
            self.left_by,
            self.left_with,
        )

    def take_exits(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Remove the paths that left: their numbers, steps, signed coordinates, last increments."""
        own = self.left_by[: self.paths.size]
        gone = np.flatnonzero(own)
        found = self.paths[gone], self.left_at[gone], own[gone], self.left_with[gone]
        if gone.size:
            self._gather(self.state, np.flatnonzero(own == 0))
        return found


def simulate_paths(
    system: LevySystem,
    *,
    start: Values,
    step: float,
    steps: int,
    every: int = 1,
    paths: int,
    seed: int,
    threads: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Paths of Eq. 2 by Euler-Maruyama, kept at every ``every``-th step.

    >>> system = LevySystem(alpha=1.5, epsilon=0.1, curvature=1.0)
    >>> times, positions = simulate_paths(
    ...     system, start=0.5, step=0.01, steps=100, every=50, paths=8, seed=1
    ... )
    >>> times
    array([0. , 0.5, 1. ])
    >>> positions.shape
    (3, 1, 8)

    Args:
        system: the coefficients.
        start: where all paths start, (N,) or a number.
        step: time step; with a quadratic potential below 1 / curvature.
        steps: number of steps, a multiple of ``every``.
        every: steps between two kept positions.
        paths: number of paths P.
        seed: selects the noise; path p has the same noise for any P.
        threads: threads to use, all by default; the result does not depend on it.

    Returns:
        Times (K + 1,) and positions (K + 1, N, P), float32, with K = steps / every.

    Raises:
        ValueError: a step that is too long, or steps that ``every`` does not divide.
    """
    if steps < 1 or steps % every:
        raise ValueError(f"steps = {steps}: must be a positive multiple of every = {every}")
    edges = np.full(system.dimensions, np.inf)
    everywhere = (-edges, edges)
    state = _start(start, system, paths, everywhere)
    kept = np.empty((steps // every + 1, *state.shape), dtype=np.float32)
    kept[0] = state
    with _team(threads) as team:
        walkers = _Walkers(system, state, everywhere, step, seed, team)
        for index in range(1, len(kept)):
            walkers.advance((index - 1) * every, every)
            kept[index] = walkers.state[:, :paths]
    return np.arange(len(kept)) * (every * step), kept


def first_exit(
    system: LevySystem,
    lower: Values,
    upper: Values,
    *,
    step: float,
    max_steps: int,
    paths: int,
    seed: int,
    start: Values = 0.0,
    threads: int | None = None,
) -> Exits:
    """First exit of Eq. 2 from the box [lower, upper] by Euler-Maruyama.

    The position is looked at after each step, and an exit is dated at the end of its step: exit
    times are late by half a step where jumps lead out, and by more where the paths cross the edge
    and come back within a step (alpha near 2). Memory is about 20 + 4 N bytes a path.

    >>> import numpy as np
    >>> system = LevySystem(alpha=np.array([0.8, 1.4]), epsilon=0.1, curvature=1.0)
    >>> exits = first_exit(system, -1, 1, step=0.01, max_steps=100_000, paths=500, seed=1)
    >>> bool(np.mean(exits.coordinate == 0) > 0.6)  # most leave by the heavier tail
    True

    Args:
        system: the coefficients; the minimum is the origin.
        lower, upper: edges of the box, (N,) or a number, around the origin; may be infinite.
        step: time step; with a quadratic potential below 1 / curvature.
        max_steps: paths that are inside after so many steps are censored.
        paths, seed, start, threads: as in :func:`simulate_paths`.

    Raises:
        ValueError: a box without the origin or the start inside, or a step that is too long.
    """
    box = _box(lower, upper, system.dimensions)
    state = _start(start, system, paths, box)
    _check_budget("max_steps", max_steps)
    steps = np.full(paths, max_steps)
    signed = np.zeros(paths, dtype=np.int32)
    jump = np.zeros(paths)
    done = 0
    with _team(threads) as team:
        walkers = _Walkers(system, state, box, step, seed, team)
        while done < max_steps and walkers.paths.size:
            # Short calls at first: a block walks on until its last path is out or the call ends.
            count = min(max(16, done // 2), _STEPS_A_CALL, max_steps - done)
            walkers.advance(done, count)
            done += count
            gone, at, by, size = walkers.take_exits()
            steps[gone], signed[gone], jump[gone] = at + 1, by, size
    return Exits(steps * step, np.abs(signed) - 1, np.sign(signed), jump)


def first_exit_by_jumps(
    system: LevySystem,
    lower: Values,
    upper: Values,
    *,
    cutoff: Values,
    largest: Values = math.inf,
    small_jumps: Literal["gaussian", "none"] = "gaussian",
    max_events: int,
    paths: int,
    seed: int,
    start: Values = 0.0,
    threads: int | None = None,
) -> Exits:
    """First exit of Eq. 2 from the box [lower, upper], from one large jump to the next.

    Jumps that move a coordinate by more than its ``cutoff`` form a compound Poisson process of
    intensity s_t^(alpha-1) (2/alpha) epsilon^alpha (1' lambda) cutoff^-alpha, and are drawn
    exactly; the paper's split (Eq. 8) is cutoff = epsilon^(1-rho) where s_t = 1. Its times come
    from inverting the integrated intensity, closed in form for every :class:`Schedule`: no proposal
    is rejected, and an intensity that is infinite at t = 0 does no harm. In between, the
    drift is exact, and the jumps below the cutoff are a Gaussian of the same variance (Asmussen and
    Rosinski 2001), or nothing; how often it crosses an edge is set to what the jumps themselves do
    (``_touch_share``). The error vanishes with the cutoff.

    >>> from sgnoise import theory
    >>> system = LevySystem(alpha=1.2, epsilon=0.01, curvature=1.0)
    >>> exits = first_exit_by_jumps(
    ...     system, -1, 1, cutoff=0.1, max_events=10**6, paths=4000, seed=1
    ... )
    >>> mean, low, high = exits.mean_time()
    >>> bool(abs(mean / theory.small_noise_exit_time(1.2, 0.01, -1, 1) - 1) < 0.1)
    True

    Args:
        system: the coefficients; a quadratic potential, every alpha below 2.
        lower, upper: edges of the box, (N,) or a number, around the origin; may be infinite.
        cutoff: least displacement of a large jump, (N,) or a number, below the nearest edge.
        largest: displacement beyond which there are no jumps, (N,) or a number: at epsilon^(1-rho)
            the process is Z, the paper's process of small jumps (Eq. 4).
        small_jumps: what stands for the jumps below the cutoff.
        max_events: paths that are inside after so many large jumps are censored.
        paths, seed, start, threads: as in :func:`simulate_paths`.

    Raises:
        ValueError: another potential, alpha = 2 (no jumps), or a cutoff outside its range.
    """
    if system.curvature is None:
        raise ValueError("first_exit_by_jumps needs a quadratic potential (curvature)")
    if np.any(system.alpha == 2):
        raise ValueError("alpha = 2 has no jumps: use first_exit")
    low, high = _box(lower, upper, system.dimensions)
    least = _per_coordinate("cutoff", cutoff, system.dimensions)
    if not np.all((least > 0) & (least < np.minimum(-low, high))):
        raise ValueError(f"cutoff = {cutoff}: must be positive and below the nearest edge")
    most = _per_coordinate("largest", largest, system.dimensions)
    if not np.all(most > least):
        raise ValueError(f"largest = {largest}: must be above cutoff = {cutoff}")
    alpha, schedule = system.alpha, system.schedule
    strength = system.amplitude() ** alpha
    diffusion = 2 * strength * least ** (2 - alpha) / (2 - alpha)
    if small_jumps == "none":
        diffusion = np.zeros_like(diffusion)
    starts = np.array([0.0, *schedule.milestones])
    exponent = np.arange(starts.size)[None, :] * (alpha[:, None] - 1)
    single = {
        "curvature": system.curvature,
        "alpha": alpha,
        "rate": 2 / alpha * strength * (least**-alpha - most**-alpha),
        "cutoff": least,
        "inverse_largest": 1 / most,
        "diffusion": diffusion,
    }
    fixed = (
        *(values.astype(np.float32) for values in single.values()),
        starts,
        np.array([schedule.clock(a, starts) for a in alpha]),
        schedule.factor**exponent,
        1 + (schedule.gamma - 1) * (alpha - 1),
        _reciprocal(low),
        _reciprocal(high),
        _touch_shares(system, least, (low, high)),
        seed_sequence(seed, "jump by jump").generate_state(2 * system.dimensions),
    )
    _check_budget("max_events", max_events)
    origin = _start(start, system, paths, (low, high))[:, 0]
    exit_time = np.zeros(paths)
    signed = np.zeros(paths, dtype=np.int32)
    jump = np.zeros(paths)
    with _team(threads) as team:
        team(jump_by_jump, paths, origin, max_events, *fixed, exit_time, signed, jump)
    return Exits(exit_time, np.abs(signed) - 1, np.sign(signed), jump)
