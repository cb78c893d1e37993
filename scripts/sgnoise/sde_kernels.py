"""The inner loops of the simulators in :mod:`sgnoise.sde`.

Single precision and straight-line code: the compiler turns a loop over paths into vector
instructions only if nothing in it branches or calls the C library. Random numbers are a function of
a key, a path and the number of a step or event (Philox 2x32-10 of Salmon et al. 2011).
"""

import math

import numpy as np
from numba import float32, float64, int32, njit, uint32, uint64

# Paths that a core advances together. A constant, so that the compiler makes one vectorised loop
# without a remainder: a path's arithmetic is then the same wherever it lies.
LANES = 64

_HALF_PI = float32(math.pi / 2)
_PI = float32(math.pi)
_TWO_TO_MINUS_32 = float32(2.0**-32)

# In place of the number of a path: a lane that has nothing left to do.
_IDLE = uint32(2**32 - 1)

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
    function of sqrt(-log2(1 - x^2)); the polynomial is its Chebyshev fit, and z within 2e-4.
    """
    u = (float32(uint32(word >> uint32(1))) + float32(0.5)) * float32(2.0**-31)
    t = math.sqrt(max(-_log2(u * (float32(2) - u)), float32(0))) - float32(2.75)
    p = float32(1.7997645e-4) + t * (float32(-2.4543005e-6) - t * float32(6.1897519e-6))
    p = float32(-2.1543369e-3) + t * (float32(-2.1641008e-5) + t * p)
    p = float32(0.0137363) + t * (float32(1.9022518e-3) + t * p)
    p = float32(0.05980465) + t * (float32(-0.04172877) + t * p)
    p = float32(3.0137347) + t * (float32(1.1340055) + t * p)
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
def euler_maruyama(
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
def jump_by_jump(
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
    touches with a known chance, which counts ``touch`` times: (N, 2), lower and upper edge. Such an
    exit is dated at the start of the interval.
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
