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

import itertools
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numba import float32, float64, int32, njit, uint32, uint64

from sgnoise.seeds import seed_sequence

Gradient = Callable[[np.ndarray], np.ndarray]
Team = Callable[..., None]
Values = float | np.ndarray  # one number for all coordinates, or (N,)

# Paths that a core advances together. A constant, so that the compiler makes one vectorised loop
# without a remainder: a path's arithmetic is then the same wherever it lies.
LANES = 64

_STEPS_A_CALL = 256

_HALF_PI = float32(math.pi / 2)
_PI = float32(math.pi)
_TWO_TO_MINUS_32 = float32(2.0**-32)

# In place of the number of a path: a lane that has nothing left to do.
_IDLE = uint32(2**32 - 1)


# --- the law of the noise -------------------------------------------------------------------------


def levy_constant(alpha: float) -> float:
    """C(alpha) with integral of (1 - cos uy) |y|^(-1-alpha) dy = C(alpha) |u|^alpha.

    A unit-scale symmetric stable variable times C(alpha)^(1/alpha) is the paper's L_1 (Eq. 13).
    C = 2 Gamma(1 - alpha) cos(pi alpha / 2) / alpha, which is pi at alpha = 1.

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


def binomial_interval(successes: int, trials: int) -> tuple[float, float, float]:
    """Share of successes and its 95 % interval (Wilson's); NaN without trials."""
    if trials == 0:
        return math.nan, math.nan, math.nan
    share, z2 = successes / trials, 1.96**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    margin = 1.96 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    margin /= 1 + z2 / trials
    # At the ends rounding could put the share outside.
    return share, min(share, max(0.0, centre - margin)), max(share, min(1.0, centre + margin))


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


# --- the kernels ----------------------------------------------------------------------------------
# Single precision and straight-line code: the compiler turns a loop over paths into vector
# instructions only if nothing in it branches or calls the C library.

_inlined = njit(fastmath=True, error_model="numpy", forceinline=True)


@_inlined
def _log2_of_ratio(numerator: float, m: float, exponent: float) -> float:
    """exponent + log2(m), given numerator = m - 1 with m within a factor sqrt 2 of 1."""
    s = numerator / (m + float32(1))
    z = s * s
    series = float32(0.5770780164) + z * float32(0.4121985831)
    return exponent + s * (float32(2.8853900818) + z * (float32(0.9617966939) + z * series))


@_inlined
def _log2(x: float) -> float:
    """log2 of a positive normal single, relative error about 1e-7."""
    bits = np.float32(x).view(np.int32)
    exponent = int32(int32(bits - int32(0x3F3504F3)) >> int32(23))
    m = np.int32(bits - int32(exponent << int32(23))).view(np.float32)
    return _log2_of_ratio(m - float32(1), m, float32(exponent))


@_inlined
def _exp2(x: float) -> float:
    """2^x for x clipped to the exponents of normal singles, relative error about 1e-7."""
    x = min(max(x, float32(-126)), float32(127))
    n = np.floor(x + float32(0.5))
    r = x - n
    tail = float32(0.0013333558) + r * float32(0.00015403530)
    tail = float32(0.0555041087) + r * (float32(0.0096181291) + r * tail)
    p = float32(1) + r * (float32(0.6931471806) + r * (float32(0.2402265070) + r * tail))
    return p * np.int32((int32(n) + int32(127)) << int32(23)).view(np.float32)


@_inlined
def _sine(x: float) -> float:
    """sin x for 0 <= x <= pi/2; the relative error stays near 1e-7 down to x = 0."""
    z = x * x
    tail = float32(2.7557319e-6) - z * float32(2.5052108e-8)
    tail = float32(8.3333333e-3) + z * (float32(-1.9841270e-4) + z * tail)
    return x * (float32(1) + z * (float32(-0.16666667) + z * tail))


@_inlined
def _philox(low: int, high: int, key: int) -> tuple[int, int]:
    """Two random 32-bit words for a 64-bit counter (low, high) and a key: Philox 2x32-10."""
    for _ in range(10):
        product = uint64(low) * uint64(0xD256D193)
        low = uint32(uint32(product >> uint64(32)) ^ key ^ high)
        high = uint32(product)
        key = uint32(key + uint32(0x9E3779B9))
    return low, high


@_inlined
def _exponential(word: int) -> float:
    """A standard exponential variable in units of ln 2, accurate also where it is tiny."""
    u = (float32(word) + float32(0.5)) * _TWO_TO_MINUS_32
    # 1 - u from the integer: as a difference of singles it would lose the small exponentials.
    rest = (float32(uint32(~word)) + float32(0.5)) * _TWO_TO_MINUS_32
    bits = np.float32(u).view(np.int32)
    exponent = int32(int32(bits - int32(0x3F3504F3)) >> int32(23))
    m = np.int32(bits - int32(exponent << int32(23))).view(np.float32)
    numerator = -rest if exponent == int32(0) else m - float32(1)
    return -_log2_of_ratio(numerator, m, float32(exponent))


@njit(fastmath=True, error_model="numpy")
def _draw_stable(
    drawn: np.ndarray,
    path: np.ndarray,
    number: int,
    key: int,
    alpha: float,
    words: np.ndarray,
    work: np.ndarray,
) -> None:
    """Fill ``drawn`` (LANES,) with symmetric stable variables (Chambers, Mallows and Stuck 1976).

    With V uniform on (-pi/2, pi/2) and W exponential,
    X = sin(alpha V) cos(V)^(-1/alpha) (cos((1 - alpha) V) / W)^((1 - alpha)/alpha).
    The kernel draws the distance d of |V| from pi/2, and writes each factor as the sine of a sum of
    non-negative terms: no cancellation where a factor goes to zero, which is where the tail is.

    Short loops are nearly twice as fast as one: the chain of dependent operations of a variable is
    longer than what a core looks ahead. ``words`` and ``work`` are scratch, (2, LANES) each.
    """
    angle, wait = words[0], words[1]
    ratio, edge = work[0], work[1]
    away = abs(float32(1) - alpha)
    inverse = float32(1) / alpha
    power = (float32(1) - alpha) * inverse
    for lane in range(LANES):
        angle[lane], wait[lane] = _philox(path[lane], number, key)
    for lane in range(LANES):
        ratio[lane] = _exponential(wait[lane]) * float32(0.6931471806)
    for lane in range(LANES):
        # The lowest bit is the sign.
        d = (float32(uint32(angle[lane] >> uint32(1))) + float32(0.5)) * (_PI * _TWO_TO_MINUS_32)
        ratio[lane] = _sine(_HALF_PI * (float32(1) - away) + away * d) / ratio[lane]
        edge[lane] = _sine(d)
        sine = _sine(min(alpha * (_HALF_PI - d), _PI - alpha * _HALF_PI + alpha * d))
        drawn[lane] = sine if angle[lane] & uint32(1) else -sine
    for lane in range(LANES):
        ratio[lane] = power * _log2(ratio[lane]) - inverse * _log2(edge[lane])
    for lane in range(LANES):
        drawn[lane] *= _exp2(ratio[lane])


@_inlined
def _normal(word: int) -> float:
    """A standard normal variable, by inverting its distribution function.

    The lowest bit is the sign, the others u = P(|Z| > z). With x = 1 - u, z / x is a smooth
    function of sqrt(-log2(1 - x^2)); the polynomial is its Chebyshev fit, within 2e-4 of z.
    """
    u = (float32(uint32(word >> uint32(1))) + float32(0.5)) * float32(2.0**-31)
    t = math.sqrt(max(-_log2(u * (float32(2) - u)), float32(0)))
    p = float32(1.6775976e-4) - t * float32(6.18975161e-6)
    p = float32(0.01079799) + t * (float32(-0.00186573) + t * p)
    p = float32(0.05204332) + t * (float32(-0.03368035) + t * p)
    p = float32(0.01292804) + t * (float32(-0.0340933) + t * p)
    p = float32(1.25335137) + t * (float32(-0.00093496) + t * (float32(0.22866937) + t * p))
    z = (float32(1) - u) * p
    return z if word & uint32(1) else -z


@_inlined
def _load(lanes: np.ndarray, every: np.ndarray, first: int) -> None:
    """Copy a block of (N, P) ``every`` to (N, LANES) ``lanes``, which is contiguous."""
    for c in range(lanes.shape[0]):
        for lane in range(LANES):
            lanes[c, lane] = every[c, first + lane]


@_inlined
def _store(lanes: np.ndarray, every: np.ndarray, first: int) -> None:
    """The reverse of :func:`_load`."""
    for c in range(lanes.shape[0]):
        for lane in range(LANES):
            every[c, first + lane] = lanes[c, lane]


@njit(fastmath=True, error_model="numpy", nogil=True, cache=True)
def _euler_maruyama(
    blocks: tuple[int, int],
    state: np.ndarray,
    paths: np.ndarray,
    first_step: int,
    decay: np.ndarray,
    scale: np.ndarray,
    alpha: np.ndarray,
    inverse_lower: np.ndarray,
    inverse_upper: np.ndarray,
    keys: np.ndarray,
    exit_step: np.ndarray,
    exit_coordinate: np.ndarray,
    exit_jump: np.ndarray,
) -> None:
    """Advance (N, P) ``state`` in place by K = len(scale) steps; P is a multiple of LANES.

    ``decay`` is the factor of a step's drift, 1 - step * curvature. A path that leaves the box
    writes its step, coordinate (signed and counted from 1: the sign is the side), last increment.
    """
    steps, dimensions = scale.shape
    w = np.empty((dimensions, LANES), np.float32)
    words = np.empty((2, LANES), np.uint32)
    work = np.empty((2, LANES), np.float32)
    drawn = np.empty(LANES, np.float32)
    worst = np.empty(LANES, np.float32)
    where = np.empty(LANES, np.int32)
    jump = np.empty(LANES, np.float32)
    for block in range(blocks[0], blocks[1]):
        first = block * LANES
        _load(w, state, first)
        path = paths[first : first + LANES]
        left_at = exit_step[first : first + LANES]
        left_by = exit_coordinate[first : first + LANES]
        left_with = exit_jump[first : first + LANES]
        for k in range(steps):
            number = uint32(first_step + k)
            for lane in range(LANES):
                worst[lane] = float32(1)
                where[lane] = int32(0)
                jump[lane] = float32(0)
            for c in range(dimensions):
                keep = decay[c]
                spread = scale[k, c]
                below = inverse_lower[c]
                above = inverse_upper[c]
                name = int32(c + 1)
                _draw_stable(drawn, path, number, keys[c], alpha[c], words, work)
                for lane in range(LANES):
                    increment = spread * drawn[lane]
                    moved = keep * w[c, lane] + increment
                    w[c, lane] = moved
                    up = moved * above
                    down = moved * below
                    depth = max(up, down)
                    outside = depth >= worst[lane]
                    worst[lane] = depth if outside else worst[lane]
                    where[lane] = (name if up > down else -name) if outside else where[lane]
                    jump[lane] = abs(increment) if outside else jump[lane]
            left = 0
            for lane in range(LANES):
                now = (where[lane] != int32(0)) & (left_by[lane] == int32(0))
                left_at[lane] = int32(number) if now else left_at[lane]
                left_with[lane] = jump[lane] if now else left_with[lane]
                left_by[lane] = where[lane] if now else left_by[lane]
                left += left_by[lane] != int32(0)
            if left == LANES:
                break
        _store(w, state, first)


@njit(fastmath=True, error_model="numpy")
def _clock(
    time: float, starts: np.ndarray, lived: np.ndarray, weight: np.ndarray, power: float
) -> float:
    """The integral of s^(alpha - 1) up to ``time``, given its values ``lived`` at ``starts``."""
    segment = starts.size - 1
    while segment > 0 and starts[segment] > time:
        segment -= 1
    inside = time**power - starts[segment] ** power
    return lived[segment] + weight[segment] * inside / power


@njit(fastmath=True, error_model="numpy")
def _time_of(
    clock: float, starts: np.ndarray, lived: np.ndarray, weight: np.ndarray, power: float
) -> float:
    """The inverse of :func:`_clock`."""
    segment = starts.size - 1
    while segment > 0 and lived[segment] > clock:
        segment -= 1
    inside = (clock - lived[segment]) * power / weight[segment]
    return (starts[segment] ** power + inside) ** (1 / power)


@njit(fastmath=True, error_model="numpy", nogil=True, cache=True)
def _jump_by_jump(
    paths: tuple[int, int],
    start: np.ndarray,
    max_events: int,
    curvature: np.ndarray,
    alpha: np.ndarray,
    rate: np.ndarray,
    cutoff: np.ndarray,
    inverse_largest: np.ndarray,
    diffusion: np.ndarray,
    starts: np.ndarray,
    lived: np.ndarray,
    weight: np.ndarray,
    power: np.ndarray,
    inverse_lower: np.ndarray,
    inverse_upper: np.ndarray,
    touch: np.ndarray,
    keys: np.ndarray,
    exit_time: np.ndarray,
    exit_coordinate: np.ndarray,
    exit_jump: np.ndarray,
) -> None:
    """Take the paths from paths[0] to paths[1] to their exits, from one large jump to the next.

    A lane that is done takes up the next path at once. Each round draws a waiting time for each
    coordinate, on its own clock (:meth:`Schedule.clock`), and the soonest is the next jump: the
    others are forgotten, which changes no law. Between jumps the drift shrinks a coordinate by
    exp(-curvature * wait), and the small jumps, where ``diffusion`` (variance per unit of clock) is
    positive, add a Gaussian. Its path in between may have touched an edge: a change of time turns
    it into a Brownian bridge and the edge into b sqrt(1 + 2 h tau), whose tangent at tau = 0 it
    touches with a known chance. Such an exit is dated at the start of the interval.
    """
    dimensions = alpha.size
    steady = starts.size == 1 and np.all(power == 1.0)
    w = np.empty((dimensions, LANES), np.float32)
    size_word = np.empty((dimensions, LANES), np.uint32)
    normal_word = np.empty(LANES, np.uint32)
    touch_word = np.empty(LANES, np.uint32)
    path = np.empty(LANES, np.uint32)
    number = np.empty(LANES, np.uint32)
    now = np.empty(LANES, np.float64)
    gap = np.empty(LANES, np.float32)
    wait = np.empty(LANES, np.float32)
    which = np.empty(LANES, np.int32)
    kept = np.empty(LANES, np.float32)
    pushed = np.empty(LANES, np.float32)
    crossed = np.empty(LANES, np.int32)
    worst = np.empty(LANES, np.float32)
    where = np.empty(LANES, np.int32)
    jump = np.empty(LANES, np.float32)
    stopping = np.empty(LANES + 1, np.int64)
    upcoming, running = paths[0], 0
    for lane in range(LANES):
        path[lane] = uint32(upcoming)
        number[lane] = uint32(0)
        now[lane] = 0.0
        for c in range(dimensions):
            w[c, lane] = start[c]
        if upcoming < paths[1]:
            upcoming += 1
            running += 1
        else:
            path[lane] = _IDLE
    while running > 0:
        for lane in range(LANES):
            wait[lane] = float32(math.inf)
            which[lane] = int32(0)
            worst[lane] = float32(1)
            where[lane] = int32(0)
            jump[lane] = float32(0)
            crossed[lane] = int32(0)
        for c in range(dimensions):
            key = keys[2 * c]
            mean_wait = float32(0.6931471806) / rate[c]
            for lane in range(LANES):
                word, size_word[c, lane] = _philox(path[lane], number[lane], key)
                gap[lane] = mean_wait * _exponential(word)
            if not steady:
                for lane in range(LANES):
                    due = float64(gap[lane])
                    due += _clock(now[lane], starts, lived[c], weight[c], power[c])
                    at = _time_of(due, starts, lived[c], weight[c], power[c])
                    gap[lane] = float32(at - now[lane])
            for lane in range(LANES):
                sooner = gap[lane] < wait[lane]
                wait[lane] = gap[lane] if sooner else wait[lane]
                which[lane] = int32(c) if sooner else which[lane]
        for c in range(dimensions):
            slow = curvature[c] * float32(-1.442695041)
            below = inverse_lower[c]
            above = inverse_upper[c]
            name = int32(c + 1)
            for lane in range(LANES):
                kept[lane] = _exp2(slow * wait[lane])
                pushed[lane] = wait[lane]
            if diffusion[c] > float32(0):
                if not steady:
                    for lane in range(LANES):
                        later = now[lane] + float64(wait[lane])
                        pushed[lane] = float32(
                            _clock(later, starts, lived[c], weight[c], power[c])
                            - _clock(now[lane], starts, lived[c], weight[c], power[c])
                        )
                small = diffusion[c]
                twice = float32(2) * curvature[c]
                key = keys[2 * c + 1]
                # An infinite edge has reciprocal 0: no chance to touch it.
                far_up = float32(-2.885390082) / (above * above + float32(1e-30))
                far_down = float32(-2.885390082) / (below * below + float32(1e-30))
                for lane in range(LANES):
                    normal_word[lane], touch_word[lane] = _philox(path[lane], number[lane], key)
                for lane in range(LANES):
                    # (1 - exp(-x))/x: how much of the variance survives the drift.
                    x = twice * wait[lane]
                    shrunk = (float32(1) - kept[lane] * kept[lane]) / x
                    shrunk = shrunk if x > float32(1e-3) else float32(1) - float32(0.5) * x
                    variance = small * pushed[lane] * shrunk + float32(1e-30)
                    pushed[lane] = math.sqrt(variance) * _normal(normal_word[lane])
                    steep = float32(1) / variance
                    before = w[c, lane]
                    after = kept[lane] * before + pushed[lane]
                    tangent = float32(1) - kept[lane]
                    tangent *= float32(0.5) * tangent
                    room = float32(1) - after * above
                    room = kept[lane] * room + tangent if room > float32(0) else float32(0)
                    up = _exp2(steep * room * (float32(1) - before * above) * far_up)
                    room = float32(1) - after * below
                    room = kept[lane] * room + tangent if room > float32(0) else float32(0)
                    down = _exp2(steep * room * (float32(1) - before * below) * far_down)
                    uniform = (float32(touch_word[lane]) + float32(0.5)) * _TWO_TO_MINUS_32
                    up *= touch[c, 1]
                    down *= touch[c, 0]
                    touched = (uniform < up + down) & (crossed[lane] == int32(0))
                    side = name if up > down else -name
                    crossed[lane] = side if touched else crossed[lane]
            else:
                for lane in range(LANES):
                    pushed[lane] = float32(0)
            least = cutoff[c]
            inverse = float32(1) / alpha[c]
            beyond = (least * inverse_largest[c]) ** alpha[c]
            for lane in range(LANES):
                word = size_word[c, lane]
                tail = (float32(uint32(word >> uint32(1))) + float32(0.5)) * float32(2.0**-31)
                tail = beyond + (float32(1) - beyond) * tail
                size = least * _exp2(-_log2(tail) * inverse)
                size = size if which[lane] == int32(c) else float32(0)
                moved = w[c, lane] * kept[lane] + pushed[lane]
                moved += size if word & uint32(1) else -size
                w[c, lane] = moved
                up = moved * above
                down = moved * below
                depth = max(up, down)
                outside = depth >= worst[lane]
                worst[lane] = depth if outside else worst[lane]
                where[lane] = (name if up > down else -name) if outside else where[lane]
                jump[lane] = size if outside else jump[lane]
        for lane in range(LANES):
            early = crossed[lane] != int32(0)
            where[lane] = crossed[lane] if early else where[lane]
            jump[lane] = float32(0) if early else jump[lane]
            wait[lane] = float32(0) if early else wait[lane]
            number[lane] = uint32(number[lane] + uint32(1))
        for lane in range(LANES):
            now[lane] += float64(wait[lane])
        # Without a branch, as which lane stops is more than a processor can predict.
        stopped = 0
        for lane in range(LANES):
            stopping[stopped] = lane
            stopped += (where[lane] != int32(0)) | (number[lane] >= max_events)
        for index in range(stopped):
            lane = stopping[index]
            number[lane] = uint32(0)
            mine = path[lane]
            if mine == _IDLE:
                continue
            exit_time[mine] = now[lane]
            exit_coordinate[mine] = where[lane]
            exit_jump[mine] = jump[lane]
            if upcoming < paths[1]:
                path[lane] = uint32(upcoming)
                upcoming += 1
            else:
                path[lane] = _IDLE
                running -= 1
            now[lane] = 0.0
            for c in range(dimensions):
                w[c, lane] = start[c]


def _touch_share(alpha: float, activity: float, cutoff: float) -> float:
    """How often the small jumps cross an edge after a large one, over how often their Gaussian does.

    In units of the edge's distance and of the relaxation time 1 / h: small jumps of Lévy measure
    ``activity`` |y|^(-1-alpha) below ``cutoff``, drift -w. Large jumps land at a distance d from the
    edge with a density (1 - d)^(-1-alpha), over which both chances are integrated. That of the
    Gaussian is exp(-2d / variance rate). Where one small jump does it, its chance is that of a jump
    beyond the distance while the drift carries the process away. Several are worth the rest of
    Spitzer's identity for E sup (X_t - t), which is (variance rate) / 4 for single jumps plus
    (1/2 pi) int_0^inf log(1 + (psi(u)/u)^2) u^-2 du, with psi the exponent of X.
    """
    x, weight = np.polynomial.legendre.leggauss(64)
    x, weight = (x + 1) / 2, weight / 2
    power = 2 / (2 - alpha)  # takes the singularity at 0 away
    y = cutoff * x**power
    landed = ((1 - np.minimum(y, 1 - cutoff)) ** -alpha - 1) / alpha
    beyond = activity / alpha * (y**-alpha - cutoff**-alpha)
    single = float(np.sum(weight * power * y / x * beyond * landed / (1 - y)))

    s = np.exp(np.linspace(math.log(1e-8), math.log(1e8), 12_001))  # u times the cutoff
    middle = np.sqrt(s[1:] * s[:-1])
    # Integral of (1 - cos z) z^(-1-alpha) up to s; from where the grid is coarser than the wave on,
    # the integral over all z less that of z^(-1-alpha).
    wave = 2 * np.sin(middle / 2) ** 2 * middle**-alpha * np.diff(np.log(s))
    upto = s[0] ** (2 - alpha) / (2 * (2 - alpha)) + np.concatenate([[0.0], np.cumsum(wave)])
    upto = np.where(s < 100, upto, levy_constant(alpha) / 2 - s**-alpha / alpha)
    exponent = 2 * activity * (cutoff / s) ** (1 - alpha) * upto
    several = cutoff / (2 * math.pi) * np.trapezoid(np.log1p(exponent**2) / s, np.log(s))

    variance = 2 * activity * cutoff ** (2 - alpha) / (2 - alpha)
    d = (1 - cutoff) * x**2
    near = 2 * (1 - cutoff) * x * np.exp(-2 * d / variance) * (1 - d) ** (-1 - alpha)
    return (single + float(several)) / float(np.sum(weight * near))


def _touch_shares(
    system: LevySystem, cutoff: np.ndarray, box: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """:func:`_overshoot_share` at each edge, (N, 2): lower, upper; the drift is that at the edge.

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
            _euler_maruyama,
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
            count = min(_STEPS_A_CALL, max_steps - done)
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
    Rosinski 2001), or nothing. The error vanishes with the cutoff.

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
        team(_jump_by_jump, paths, origin, max_events, *fixed, exit_time, signed, jump)
    return Exits(exit_time, np.abs(signed) - 1, np.sign(signed), jump)
