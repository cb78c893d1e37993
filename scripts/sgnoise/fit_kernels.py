"""The compiled core: densities, likelihoods and Newton iterations, one row of noise at a time.

Everything that numba compiles stands in this one file: numba's disk cache watches only the file of
the function that is called, so a kernel that called another file's code could run a stale copy.

The fits rest on one idea. All laws here are symmetric about a known location with a scale, so the
log-density of a value is a smooth function l(u - lambda) of u = ln|x| and lambda = ln(scale). A row
is therefore read once: each value falls into a bin of a uniform grid in u (16 bins an octave), and
a bin keeps the moments 0 to 5 of the positions inside it. Six-point Lagrange interpolation turns
the moments into weights on the grid's nodes, and the log-likelihood becomes a weighted sum over
some 100 nodes: its price no longer depends on the number of values, a change of scale is a shift of
the grid, and the node spacing equals that of the density's spline table, so one set of six spline
weights serves all nodes. What interpolation adds to alpha is below 2e-6 up to alpha = 1.99
(measured).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

# Grid in u = ln|x|: bins, nodes and spline knots have this one spacing.
PER_OCTAVE = 16
STEP = math.log(2.0) / PER_OCTAVE
# Spline table of the stable law: knots u = STEP * j for j in [TABLE_LOW, TABLE_HIGH].
TABLE_LOW = -280
TABLE_HIGH = 480
TABLE_ALPHA_MIN = 0.5
TABLE_ALPHA_STEPS = 96  # knots a unit of alpha
# Values 12 octaves below the median count as the smallest kept; 27 octaves above it the stable
# log-density is linear in u. The table leaves the scale room to move by a factor of 5 from there.
KEEP_LOW = 12 * PER_OCTAVE
KEEP_HIGH = 430
# Near 0 the log-density is smooth in x^2: below the fold, the grid's many nodes are replaced by
# six, so many steps below it. The fold is at the median if alpha is above 1.3 and sinks 9 octaves a
# unit of alpha from there (the density's peak sharpens): alpha then moves by less than 1e-7.
FOLD_STEPS = (0, 4, 8, 14, 22, 32)
FOLD_DEPTH = FOLD_STEPS[-1]
FOLD_ALPHA, FOLD_SLOPE, FOLD_DEEPEST = 1.3, 9 * PER_OCTAVE, 6 * PER_OCTAVE + 8
FOLD_SLACK = 0.15  # how far alpha may sink before the fold must
# Laws whose tail is not linear in u keep (nearly) all that float32 can hold.
KEEP_HIGH_ALL = 60 * PER_OCTAVE

GAUSSIAN, LAPLACE, STABLE, STUDENT_T, GENERALISED_GAUSSIAN, NORMAL_INVERSE_GAUSSIAN = range(6)

# What is asked of a law.
LOG_DENSITY, DISTRIBUTION, DISTANCE = range(3)

# What became of a row; ``fitting.FLAGS`` gives the names.
OK, NOT_FINITE, ALL_ZERO, TOO_FEW, CONSTANT, ALPHA_BELOW_RANGE, SHAPE_AT_BOUND, NOT_CONVERGED = (
    range(8)
)

MIN_VALUES = 20
# The likelihood of a few dozen values can have two maxima: below this many, more starts are tried.
FEW_VALUES = 100
MORE_STARTS = (1.0, 1.7)
MAX_EVALUATIONS = 60
STEP_TOLERANCE = 3e-4  # the error after a Newton step of this size is its square: below 1e-6

# Bounds of the shape of the other laws.
LOG_DF_MIN, LOG_DF_MAX = math.log(0.1), math.log(1e6)
LOG_NIG_MIN, LOG_NIG_MAX = math.log(1e-6), math.log(1e6)
GG_SHAPE_MIN, GG_SHAPE_MAX = 0.1, 20.0

# Spline of ln(K1(z) e^z) in ln z.
BESSEL_LOW, BESSEL_HIGH, BESSEL_STEP = -16.0, 14.0, 0.05

# Densities of single points take the tail series from here: further out the error of the table's
# interpolation in alpha, which grows with ln x, passes 1e-8.
_SERIES_FROM = 2.0**20

_INV_2_SQRT_PI = 0.5 / math.sqrt(math.pi)
_LN2 = math.log(2.0)
_LOG2E = 1.0 / _LN2
_LN2_HIGH = 6.93147180369123816490e-01
_LN2_LOW = 1.90821492927058770002e-10
_BINS = 256 * PER_OCTAVE + PER_OCTAVE
_WIDTH = 8  # floats a bin: six moments, padded to half a cache line
_MAX_NODES = KEEP_LOW + KEEP_HIGH_ALL + 8

# Only the entry points are called from Python and cached on disk; the others need no wrapper to be
# called from Python, which halves the time that compiling takes. In loops over values and nodes,
# sums may be reordered (that lets them run in SIMD lanes); NaN and infinity keep their meaning.
# What an entry point calls is another machine code in the process that compiles it (the function's
# own) than in one that loads it from the cache (the copy beside the entry point). Where sums may be
# reordered, both round alike if the compiler inlines the function in neither or, told so, in both.
_NO_WRAPPER = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_FAST = {"fastmath": {"reassoc", "contract", "nsz"}, "error_model": "numpy"}
_entry = njit(cache=True, nogil=True)
_inner = njit(**_NO_WRAPPER)
_vector = njit(**_FAST, **_NO_WRAPPER)
_part = njit(inline="always")  # used in one place: compiled with its caller
_in_lanes = njit(**_FAST, **_NO_WRAPPER, forceinline=True)


class Tables(NamedTuple):
    """The precomputed arrays that the kernels read.

    Attributes:
        density: (alpha coefficients, u coefficients) quintic B-spline of
            (pdf - normal pdf) / (2 - alpha) * (1 + x^2).
        tail: the same for the survival function, times (1 + x^2)^(1/2).
        ratio: (alpha knots,) ln of the quantiles of |x| at 0.9 over 0.5.
        median: (alpha knots,) ln of the median of |x|.
        bessel: spline coefficients of ln(K1(z) e^z) over ln z.
        octaves: 4^(j/16), the squares of the nodes relative to the first.
        lagrange: (6 nodes, 6 powers) coefficients of the interpolation polynomials about a bin's
            centre.
        fold: (6 nodes, steps) what a node so many steps below the fold counts at the six that stay.
    """

    density: np.ndarray
    tail: np.ndarray
    ratio: np.ndarray
    median: np.ndarray
    bessel: np.ndarray
    octaves: np.ndarray
    lagrange: np.ndarray
    fold: np.ndarray


# --- elementary functions that LLVM can run in SIMD lanes (libm calls it cannot) ---------------


@_in_lanes
def _exp(x: float) -> float:
    """exp for -708 < x < 708, relative error 1e-15."""
    n = np.rint(x * _LOG2E)
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    p = 1.0 / 479001600.0
    p = p * r + 1.0 / 39916800.0
    p = p * r + 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    power = np.int64((np.int64(np.int32(n)) + np.int64(1023)) << np.int64(52)).view(np.float64)
    return p * power


@_in_lanes
def _log(x: float) -> float:
    """ln for positive normal x, relative error 1e-15."""
    bits = np.float64(x).view(np.int64)
    shifted = bits - np.int64(0x3FE6A09E667F3BCD)  # sqrt(1/2): the mantissa ends in [0.707, 1.414)
    exponent = np.float64(np.int32(shifted >> np.int64(52)))
    mantissa = np.int64(
        (shifted & np.int64(0x000FFFFFFFFFFFFF)) + np.int64(0x3FE6A09E667F3BCD)
    ).view(np.float64)
    s = (mantissa - 1.0) / (mantissa + 1.0)
    z = s * s
    p = 2.0 / 19.0
    p = p * z + 2.0 / 17.0
    p = p * z + 2.0 / 15.0
    p = p * z + 2.0 / 13.0
    p = p * z + 2.0 / 11.0
    p = p * z + 2.0 / 9.0
    p = p * z + 2.0 / 7.0
    p = p * z + 2.0 / 5.0
    p = p * z + 2.0 / 3.0
    return exponent * _LN2_HIGH + (s * (2.0 + z * p) + exponent * _LN2_LOW)


@_inner
def _digamma(x: float) -> float:
    total = 0.0
    while x < 10.0:
        total -= 1.0 / x
        x += 1.0
    z = 1.0 / (x * x)
    series = z * (1 / 12 - z * (1 / 120 - z * (1 / 252 - z * (1 / 240 - z * (1 / 132)))))
    return total + math.log(x) - 0.5 / x - series


@_inner
def _trigamma(x: float) -> float:
    total = 0.0
    while x < 10.0:
        total += 1.0 / (x * x)
        x += 1.0
    z = 1.0 / (x * x)
    series = z * (1 / 6 - z * (1 / 30 - z * (1 / 42 - z * (1 / 30 - z * (5 / 66)))))
    return total + (1.0 + 0.5 / x + series) / x


@_inner
def _half_step_gamma(z: float) -> tuple[float, float, float]:
    """ln[Gamma(z + 1/2) / (Gamma(z) sqrt(z))] with two derivatives, without cancellation."""
    value, first, second = 0.5 * -math.log(z), -0.5 / z, 0.5 / (z * z)
    while z < 12.0:
        value += math.log(z / (z + 0.5))
        first += 1.0 / z - 1.0 / (z + 0.5)
        second += 1.0 / ((z + 0.5) * (z + 0.5)) - 1.0 / (z * z)
        z += 1.0
    value += 0.5 * math.log(z)
    first += 0.5 / z
    second -= 0.5 / (z * z)
    y = 1.0 / z
    y2 = y * y
    value += y * (-1 / 8 + y2 * (1 / 192 + y2 * (-1 / 640 + y2 * (17 / 14336))))
    first += y2 * (1 / 8 + y2 * (-3 / 192 + y2 * (5 / 640 + y2 * (-7 * 17 / 14336))))
    second += y2 * y * (-2 / 8 + y2 * (12 / 192 + y2 * (-30 / 640 + y2 * (56 * 17 / 14336))))
    return value, first, second


# --- quintic B-splines on a uniform grid ------------------------------------------------------


@_inner
def _basis(t: float, b: np.ndarray) -> None:
    """The six B-spline weights at fraction ``t`` of an interval (row 0) and two derivatives."""
    r = 1.0 - t
    t2, r2 = t * t, r * r
    t3, t4, r3, r4 = t2 * t, t2 * t2, r2 * r, r2 * r2
    b[0, 0] = r4 * r / 120.0
    b[0, 1] = (26.0 - 50.0 * t + 20.0 * t2 + 20.0 * t3 - 20.0 * t4 + 5.0 * t4 * t) / 120.0
    b[0, 2] = (66.0 - 60.0 * t2 + 30.0 * t4 - 10.0 * t4 * t) / 120.0
    b[0, 3] = (66.0 - 60.0 * r2 + 30.0 * r4 - 10.0 * r4 * r) / 120.0
    b[0, 4] = (26.0 - 50.0 * r + 20.0 * r2 + 20.0 * r3 - 20.0 * r4 + 5.0 * r4 * r) / 120.0
    b[0, 5] = t4 * t / 120.0
    b[1, 0] = -r4 / 24.0
    b[1, 1] = (-10.0 + 8.0 * t + 12.0 * t2 - 16.0 * t3 + 5.0 * t4) / 24.0
    b[1, 2] = (-24.0 * t + 24.0 * t3 - 10.0 * t4) / 24.0
    b[1, 3] = (24.0 * r - 24.0 * r3 + 10.0 * r4) / 24.0
    b[1, 4] = (10.0 - 8.0 * r - 12.0 * r2 + 16.0 * r3 - 5.0 * r4) / 24.0
    b[1, 5] = t4 / 24.0
    b[2, 0] = r3 / 6.0
    b[2, 1] = (2.0 + 6.0 * t - 12.0 * t2 + 5.0 * t3) / 6.0
    b[2, 2] = (-6.0 + 18.0 * t2 - 10.0 * t3) / 6.0
    b[2, 3] = (-6.0 + 18.0 * r2 - 10.0 * r3) / 6.0
    b[2, 4] = (2.0 + 6.0 * r - 12.0 * r2 + 5.0 * r3) / 6.0
    b[2, 5] = t3 / 6.0


@_vector
def _contract(
    table: np.ndarray, alpha: float, basis: np.ndarray, first: int, n: int, out: np.ndarray
) -> None:
    """Spline coefficients in u at one alpha (row 0 of ``out``) and their two alpha-derivatives."""
    p = (alpha - TABLE_ALPHA_MIN) * TABLE_ALPHA_STEPS
    i = min(max(int(p), 0), table.shape[0] - 6)
    _basis(p - i, basis)
    scale = float(TABLE_ALPHA_STEPS)
    for d in range(3):
        factor = 1.0 if d == 0 else (scale if d == 1 else scale * scale)
        a0, a1, a2 = basis[d, 0] * factor, basis[d, 1] * factor, basis[d, 2] * factor
        a3, a4, a5 = basis[d, 3] * factor, basis[d, 4] * factor, basis[d, 5] * factor
        for j in range(n):
            k = first + j
            out[d, j] = (
                a0 * table[i, k] + a1 * table[i + 1, k] + a2 * table[i + 2, k]
                + a3 * table[i + 3, k] + a4 * table[i + 4, k] + a5 * table[i + 5, k]
            )  # fmt: skip


@_inner
def _bessel(w: float, coefficients: np.ndarray) -> tuple[float, float, float]:
    """ln(K1(z) e^z) and two derivatives in w = ln z."""
    if w >= BESSEL_HIGH:
        y = 0.375 * math.exp(-w)
        return 0.5 * math.log(0.5 * math.pi) - 0.5 * w + y, -0.5 - y, y
    if w <= BESSEL_LOW:
        z = math.exp(w)
        return z - w, z - 1.0, z
    p = (w - BESSEL_LOW) / BESSEL_STEP
    i = int(p)
    t = p - i
    r = 1.0 - t
    t2, r2 = t * t, r * r
    t3, t4, r3, r4 = t2 * t, t2 * t2, r2 * r, r2 * r2
    c0, c1, c2 = coefficients[i], coefficients[i + 1], coefficients[i + 2]
    c3, c4, c5 = coefficients[i + 3], coefficients[i + 4], coefficients[i + 5]
    value = (
        c0 * r4 * r
        + c1 * (26.0 - 50.0 * t + 20.0 * t2 + 20.0 * t3 - 20.0 * t4 + 5.0 * t4 * t)
        + c2 * (66.0 - 60.0 * t2 + 30.0 * t4 - 10.0 * t4 * t)
        + c3 * (66.0 - 60.0 * r2 + 30.0 * r4 - 10.0 * r4 * r)
        + c4 * (26.0 - 50.0 * r + 20.0 * r2 + 20.0 * r3 - 20.0 * r4 + 5.0 * r4 * r)
        + c5 * t4 * t
    ) / 120.0
    first = (
        -c0 * r4
        + c1 * (-10.0 + 8.0 * t + 12.0 * t2 - 16.0 * t3 + 5.0 * t4)
        + c2 * (-24.0 * t + 24.0 * t3 - 10.0 * t4)
        + c3 * (24.0 * r - 24.0 * r3 + 10.0 * r4)
        + c4 * (10.0 - 8.0 * r - 12.0 * r2 + 16.0 * r3 - 5.0 * r4)
        + c5 * t4
    ) / (24.0 * BESSEL_STEP)
    second = (
        c0 * r3
        + c1 * (2.0 + 6.0 * t - 12.0 * t2 + 5.0 * t3)
        + c2 * (-6.0 + 18.0 * t2 - 10.0 * t3)
        + c3 * (-6.0 + 18.0 * r2 - 10.0 * r3)
        + c4 * (2.0 + 6.0 * r - 12.0 * r2 + 5.0 * r3)
        + c5 * t3
    ) / (6.0 * BESSEL_STEP * BESSEL_STEP)
    return value, first, second


# --- reading a row into the grid --------------------------------------------------------------


class Grid(NamedTuple):
    """One row on the grid, and the work space of its likelihood; a thread reuses it for many rows.

    Attributes:
        bins: (256 octaves x 16, 8) moments 0 to 5 of the values of a bin; zero between rows.
        bin_index: (block,) bin of each value of a block of the row.
        offset: (block,) position of the value in its bin, -0.5 to 0.5.
        moments: (6, nodes) the kept bins, transposed.
        weights: (nodes,) what each node's log-density counts.
        coefficients: (3, nodes + 5) spline coefficients at one alpha with alpha-derivatives.
        basis: (3, 6) spline weights.
        span: lowest and highest bin in use, bin of the first node, number of nodes, bin of the
            median, depth of the fold, number of values below the location.
    """

    bins: np.ndarray
    bin_index: np.ndarray
    offset: np.ndarray
    moments: np.ndarray
    weights: np.ndarray
    coefficients: np.ndarray
    basis: np.ndarray
    span: np.ndarray


@_inner
def _new_grid() -> Grid:
    return Grid(
        np.zeros((_BINS, _WIDTH), np.float32),
        np.zeros(1024, np.int32),
        np.zeros(1024, np.float32),
        np.zeros((6, _MAX_NODES)),
        np.zeros(_MAX_NODES),
        np.zeros((3, _MAX_NODES + 8)),
        np.zeros((3, 6)),
        np.zeros(7, np.int64),
    )


@_vector
def _survey(row: np.ndarray, location: float) -> tuple[Any, int, int]:
    """Largest bit pattern of |row - location| (bits order like values, NaN on top), zeros, below.

    The last is the number of values below the location.
    """
    top: Any = np.int64(0)
    zeros: Any = 0
    below: Any = 0
    for i in range(row.size):
        bits = np.float64(abs(row[i] - location)).view(np.int64)
        top = max(top, bits)
        zeros += np.int64(bits == 0)
        below += np.int64(row[i] < location)
    return top, zeros, below


@_vector
def _locate(
    row: np.ndarray, location: float, factor: float, start: int, stop: int, grid: Grid
) -> tuple[Any, Any]:
    """Bin and offset of the values ``start`` to ``stop``.

    Returns:
        the lowest bit pattern less one (so that zeros come out on top), and the highest.
    """
    bin_index, offset = grid.bin_index, grid.offset
    low = np.uint32(0xFFFFFFFF)
    high = np.uint32(0)
    for i in range(stop - start):
        value = abs(row[start + i] - location) * factor
        bits = np.float32(value).view(np.int32)
        low = min(low, np.uint32(np.uint32(bits) - np.uint32(1)))
        high = max(high, np.uint32(bits))
        mantissa = np.int32((bits & np.int32(0x7FFFFF)) | np.int32(0x3F800000)).view(np.float32)
        # log2 of the mantissa about 1.5, with the series of the inverse hyperbolic tangent.
        s = (mantissa - np.float32(1.5)) / (mantissa + np.float32(1.5))
        z = s * s
        p = np.float32(2.0 / 9.0 * _LOG2E * PER_OCTAVE)
        p = p * z + np.float32(2.0 / 7.0 * _LOG2E * PER_OCTAVE)
        p = p * z + np.float32(2.0 / 5.0 * _LOG2E * PER_OCTAVE)
        p = p * z + np.float32(2.0 / 3.0 * _LOG2E * PER_OCTAVE)
        p = p * z + np.float32(2.0 * _LOG2E * PER_OCTAVE)
        position = s * p + np.float32(0.5849625007211562 * PER_OCTAVE)
        part = np.int32(position)
        bin_index[i] = (bits >> np.int32(23)) * np.int32(PER_OCTAVE) + part
        offset[i] = position - np.float32(part) - np.float32(0.5)
    return low, high


@_inner
def _scatter(stop: int, grid: Grid) -> None:
    """Add the moments of a block of values to their bins."""
    bins, bin_index, offset = grid.bins, grid.bin_index, grid.offset
    for i in range(stop):
        b = np.uint32(bin_index[i])
        t = offset[i]
        t2 = t * t
        bins[b, 0] += np.float32(1.0)
        bins[b, 1] += t
        bins[b, 2] += t2
        bins[b, 3] += t2 * t
        bins[b, 4] += t2 * t2
        bins[b, 5] += t2 * t2 * t


@_inner
def _has_majority(row: np.ndarray, location: float) -> bool:
    """Whether more than half of the values other than ``location`` are one value (Boyer-Moore)."""
    candidate, votes = 0.0, 0
    for value in row:
        if value == location:
            continue
        if votes == 0:
            candidate = value
        votes += 1 if value == candidate else -1
    count, total = 0, 0
    for value in row:
        total += value != location
        count += value == candidate
    return 2 * count > total


@_part
def _clear(grid: Grid) -> None:
    bins, span = grid.bins, grid.span
    for b in range(span[0], span[1] + 1):
        for k in range(_WIDTH):
            bins[b, k] = np.float32(0.0)
    for k in range(_WIDTH):
        bins[0, k] = np.float32(0.0)


@_inner
def _quantile_bin(grid: Grid, zeros: float, rank: float) -> float:
    """Where, in bins, the cumulative count reaches ``rank``."""
    bins, span = grid.bins, grid.span
    below = zeros
    for b in range(span[0], span[1] + 1):
        count = float(bins[b, 0])
        if below + count >= rank and count > 0.0:
            return b + (rank - below) / count
        below += count
    return span[1] + 1.0


@_inner
def _read(row: np.ndarray, location: float, grid: Grid) -> tuple[int, int, int, float]:
    """Read one row into the grid (which must be clear).

    Returns:
        status, values in use n, zeros that were taken out, and the u of bin 0. Two zeros or more
        are an atom, which no density describes: they are taken out. One is a coincidence and stays.
    """
    grid.span[0], grid.span[1] = 0, 0
    top, zeros, grid.span[6] = _survey(row, location)
    if top >= np.int64(0x7FF0000000000000):
        return NOT_FINITE, 0, 0, 0.0
    n = row.size
    atoms = zeros if zeros > 1 else 0
    if zeros == n and n > 0:
        return ALL_ZERO, 0, atoms, 0.0
    if n - atoms < MIN_VALUES:
        return TOO_FEW, n - atoms, atoms, 0.0
    # A power of two brings the largest value to 2^100: float32 holds 226 octaves below it.
    shift = min(1123 - int(top >> 52), 1000)
    factor = 2.0**shift
    low, high = np.uint32(0xFFFFFFFF), np.uint32(0)
    for start in range(0, n, grid.bin_index.size):
        stop = min(start + grid.bin_index.size, n)
        lowest, highest = _locate(row, location, factor, start, stop, grid)
        low, high = min(low, np.uint32(lowest)), max(high, np.uint32(highest))
        _scatter(stop - start, grid)
    # Values that underflow, and one single zero, count with the lowest bin that is used.
    first = np.int64((low + np.uint32(1)) >> np.uint32(23)) * PER_OCTAVE
    last = np.int64(high >> np.uint32(23)) * PER_OCTAVE + PER_OCTAVE
    stray = grid.bins[0, 0] - np.float32(atoms)
    for k in range(_WIDTH):
        grid.bins[0, k] = np.float32(0.0)
    while first < last and grid.bins[first, 0] == 0.0:
        first += 1
    while last > first and grid.bins[last, 0] == 0.0:
        last -= 1
    grid.bins[first, 0] += stray
    grid.span[0], grid.span[1] = first, last
    n -= atoms
    middle = _quantile_bin(grid, 0.0, 0.5 * n)
    b = min(max(np.int64(middle), first), last)
    grid.span[4] = b
    if 2 * grid.bins[b, 0] > n and _has_majority(row, location):
        return CONSTANT, n, atoms, 0.0
    return OK, n, atoms, -(127 * PER_OCTAVE * STEP + shift * _LN2)


@_vector
def _weigh(grid: Grid, reference: int, keep_high: int, fold: int, tables: Tables) -> None:
    """Turn the bins' moments into weights of the grid's nodes.

    Bins far below ``reference`` join the lowest kept bin, where the log-density is flat. Bins above
    the kept ones extrapolate it linearly in u. With ``fold`` >= 0, the nodes further than that
    below ``reference`` become six.
    """
    bins, moments, weights, span = grid.bins, grid.moments, grid.weights, grid.span
    lagrange = tables.lagrange
    first = max(span[0], reference - KEEP_LOW)
    last = max(min(span[1], reference + keep_high), first)
    n = last - first + 1
    for i in range(n):
        for k in range(6):
            moments[k, i] = bins[first + i, k]
    for b in range(span[0], min(first, span[1] + 1)):
        moments[0, 0] += bins[b, 0]
    for b in range(last + 1, span[1] + 1):
        moments[0, n - 1] += bins[b, 0]
        moments[1, n - 1] += bins[b, 1] + (b - last) * bins[b, 0]
    for j in range(n + 5):
        weights[j] = 0.0
    for d in range(6):
        a0, a1, a2 = lagrange[d, 0], lagrange[d, 1], lagrange[d, 2]
        a3, a4, a5 = lagrange[d, 3], lagrange[d, 4], lagrange[d, 5]
        for i in range(n):
            weights[i + d] += (
                a0 * moments[0, i] + a1 * moments[1, i] + a2 * moments[2, i]
                + a3 * moments[3, i] + a4 * moments[4, i] + a5 * moments[5, i]
            )  # fmt: skip
    span[2], span[3], span[5] = first - 2, n + 5, fold
    top = reference - fold - span[2]  # the node of the fold
    kept = top - FOLD_DEPTH  # becomes the first node
    if fold < 0 or kept <= 0 or top >= span[3]:
        return
    for m in range(6):
        total = 0.0
        for j in range(kept):
            total += weights[j] * tables.fold[m, top - j]
        weights[top - FOLD_STEPS[m]] += total
    for j in range(span[3] - kept):
        weights[j] = weights[j + kept]
    span[2], span[3] = span[2] + kept, span[3] - kept


@_vector
def _even_moments(grid: Grid, octaves: np.ndarray, lam: float, u0: float) -> tuple[float, float]:
    """Sums of (x/scale)^2 and (x/scale)^4 over the row."""
    weights, span = grid.weights, grid.span
    first = math.exp(2.0 * (u0 + span[2] * STEP - lam))
    second, fourth = 0.0, 0.0
    for j in range(span[3]):
        x2 = first * octaves[j]
        second += weights[j] * x2
        fourth += weights[j] * x2 * x2
    return second, fourth


# --- log-likelihoods with exact gradient and Hessian --------------------------------------------

_NOTHING = (-np.inf, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
# What an evaluation returns: log-likelihood; its derivatives in (p, lambda), where p is theta =
# sqrt(2 - alpha), ln(degrees of freedom) or ln(steepness * scale); first and second in alpha
# itself.
_Evaluation = tuple[float, float, float, float, float, float, float, float]


@_vector
def _sum_stable(
    alpha: float,
    z0: float,
    basis: np.ndarray,
    c: np.ndarray,
    weights: np.ndarray,
    n: int,
    octaves: np.ndarray,
) -> tuple[float, float, float, float, float, float]:
    """Weighted sums over the nodes z0 + STEP j of l, l_u, l_uu, l_a, l_ua, l_aa for ln x = u.

    l = ln(G + (2 - alpha) Q/(1 + x^2)) with G the normal density at alpha = 2 and Q the spline.
    """
    p00, p01, p02 = basis[0, 0], basis[0, 1], basis[0, 2]
    p03, p04, p05 = basis[0, 3], basis[0, 4], basis[0, 5]
    p10, p11, p12 = basis[1, 0] / STEP, basis[1, 1] / STEP, basis[1, 2] / STEP
    p13, p14, p15 = basis[1, 3] / STEP, basis[1, 4] / STEP, basis[1, 5] / STEP
    square = STEP * STEP
    p20, p21, p22 = basis[2, 0] / square, basis[2, 1] / square, basis[2, 2] / square
    p23, p24, p25 = basis[2, 3] / square, basis[2, 4] / square, basis[2, 5] / square
    a = 2.0 - alpha
    first = math.exp(2.0 * z0)
    total, s_u, s_uu, s_a, s_ua, s_aa = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for j in range(n):
        c0, c1, c2, c3, c4, c5 = (
            c[0, j],
            c[0, j + 1],
            c[0, j + 2],
            c[0, j + 3],
            c[0, j + 4],
            c[0, j + 5],
        )
        d0, d1, d2, d3, d4, d5 = (
            c[1, j],
            c[1, j + 1],
            c[1, j + 2],
            c[1, j + 3],
            c[1, j + 4],
            c[1, j + 5],
        )
        q = p00 * c0 + p01 * c1 + p02 * c2 + p03 * c3 + p04 * c4 + p05 * c5
        q_u = p10 * c0 + p11 * c1 + p12 * c2 + p13 * c3 + p14 * c4 + p15 * c5
        q_uu = p20 * c0 + p21 * c1 + p22 * c2 + p23 * c3 + p24 * c4 + p25 * c5
        q_a = p00 * d0 + p01 * d1 + p02 * d2 + p03 * d3 + p04 * d4 + p05 * d5
        q_ua = p10 * d0 + p11 * d1 + p12 * d2 + p13 * d3 + p14 * d4 + p15 * d5
        q_aa = (
            p00 * c[2, j] + p01 * c[2, j + 1] + p02 * c[2, j + 2]
            + p03 * c[2, j + 3] + p04 * c[2, j + 4] + p05 * c[2, j + 5]
        )  # fmt: skip
        x2 = first * octaves[j]
        e = 1.0 / (1.0 + x2)
        rho = 1.0 - e
        g = _exp(max(-0.25 * x2, -700.0)) * _INV_2_SQRT_PI
        # Derivatives of Q e over e, then of f over f.
        r_u = q_u - 2.0 * rho * q
        r_uu = q_uu - 4.0 * rho * (q_u + (e - rho) * q)
        r_ua = q_ua - 2.0 * rho * q_a
        f = g + a * e * q
        inverse = 1.0 / f
        g *= inverse
        e *= inverse
        f_u = a * e * r_u - 0.5 * x2 * g
        f_uu = a * e * r_uu + (0.25 * x2 - 1.0) * x2 * g
        f_a = e * (a * q_a - q)
        f_ua = e * (a * r_ua - r_u)
        f_aa = e * (a * q_aa - 2.0 * q_a)
        w = weights[j]
        total += w * _log(f)
        s_u += w * f_u
        s_uu += w * (f_uu - f_u * f_u)
        s_a += w * f_a
        s_ua += w * (f_ua - f_u * f_a)
        s_aa += w * (f_aa - f_a * f_a)
    return total, s_u, s_uu, s_a, s_ua, s_aa


@_part
def _fold_depth(alpha: float) -> int:
    return int(min(max((FOLD_ALPHA - alpha) * FOLD_SLOPE, 0.0), FOLD_DEEPEST))


@_part
def _evaluate_stable(
    theta: float, lam: float, n: int, u0: float, grid: Grid, tables: Tables
) -> _Evaluation:
    alpha = 2.0 - theta * theta
    span = grid.span
    z0 = u0 + span[2] * STEP - lam
    p = z0 / STEP - TABLE_LOW
    outside = p < 0.0 or p + span[3] > TABLE_HIGH - TABLE_LOW
    shallow = span[5] < FOLD_DEEPEST and alpha < FOLD_ALPHA - FOLD_SLACK - span[5] / FOLD_SLOPE
    if outside or shallow:
        # The scale left the range of the table, or alpha that of the fold.
        reference = np.int64(math.floor((lam - u0) / STEP))
        _weigh(grid, reference, np.int64(KEEP_HIGH), _fold_depth(alpha), tables)
        z0 = u0 + span[2] * STEP - lam
        p = z0 / STEP - TABLE_LOW
    i = np.int64(p)
    _contract(tables.density, alpha, grid.basis, i, span[3] + 5, grid.coefficients)
    _basis(p - i, grid.basis)
    total, s_u, s_uu, s_a, s_ua, s_aa = _sum_stable(
        alpha, z0, grid.basis, grid.coefficients, grid.weights, span[3], tables.octaves
    )
    return (
        total - n * lam,
        -2.0 * theta * s_a,
        -s_u - n,
        4.0 * theta * theta * s_aa - 2.0 * s_a,
        2.0 * theta * s_ua,
        s_uu,
        s_a,
        s_aa,
    )


@_vector
def _evaluate_student(
    p: float, lam: float, n: int, u0: float, grid: Grid, octaves: np.ndarray
) -> _Evaluation:
    """Student's t: p = ln(degrees of freedom)."""
    nu = math.exp(p)
    weights, span = grid.weights, grid.span
    first = math.exp(2.0 * (u0 + span[2] * STEP - lam)) / nu
    s_log, s_r, s_rr = 0.0, 0.0, 0.0
    for j in range(span[3]):
        y = first * octaves[j]
        rho = y / (1.0 + y)
        w = weights[j]
        s_log += w * _log(1.0 + y)
        s_r += w * rho
        s_rr += w * rho * (1.0 - rho)
    z = 0.5 * nu
    c, c1, c2 = _half_step_gamma(z)
    half, up = 0.5 * nu, 0.5 * (nu + 1.0)
    return (
        n * (c - 0.5 * math.log(2.0 * math.pi) - lam) - up * s_log,
        n * z * c1 - half * s_log + up * s_r,
        2.0 * up * s_r - n,
        n * (z * c1 + z * z * c2) - half * s_log + nu * s_r - up * s_rr,
        nu * s_r - 2.0 * up * s_rr,
        -4.0 * up * s_rr,
        0.0,
        0.0,
    )


@_part
def _evaluate_nig(
    p: float, lam: float, n: int, u0: float, grid: Grid, tables: Tables
) -> _Evaluation:
    """Symmetric normal inverse Gaussian law: p = ln(steepness * scale)."""
    xi = math.exp(p)
    weights, span, octaves = grid.weights, grid.span, tables.octaves
    first = math.exp(2.0 * (u0 + span[2] * STEP - lam))
    total, g_p, g_l, h_pp, h_pl, h_ll = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for j in range(span[3]):
        w = weights[j]
        if w == 0.0:
            continue
        y2 = first * octaves[j]
        r = math.sqrt(1.0 + y2)
        log_r = 0.5 * math.log1p(y2)
        rho = y2 / (1.0 + y2)
        k, k1, k2 = _bessel(p + log_r, tables.bessel)
        z = xi * r
        gap = -xi * y2 / (1.0 + r)  # xi - z
        slope = z - k1
        total += w * (gap + k - log_r)
        g_p += w * (gap + k1)
        g_l += w * rho * (slope + 1.0)
        h_pp += w * (gap + k2)
        h_pl += w * rho * (z - k2)
        h_ll += w * rho * (-2.0 * (1.0 - rho) * (slope + 1.0) - rho * (z - k2))
    return total + n * (p - math.log(math.pi) - lam), g_p + n, g_l - n, h_pp, h_pl, h_ll, 0.0, 0.0


@_inner
def _evaluate(
    law: int, p: float, lam: float, n: int, u0: float, grid: Grid, tables: Tables
) -> _Evaluation:
    if law == STABLE:
        return _evaluate_stable(p, lam, n, u0, grid, tables)
    if law == STUDENT_T:
        return _evaluate_student(p, lam, n, u0, grid, tables.octaves)
    return _evaluate_nig(p, lam, n, u0, grid, tables)


@_inner
def _ascent(gp: float, gl: float, hpp: float, hpl: float, hll: float) -> tuple[float, float]:
    """Newton's step of a maximisation; eigenvalues of the wrong sign are turned round."""
    app, apl, all_ = -hpp, -hpl, -hll
    determinant = app * all_ - apl * apl
    if app > 0.0 and determinant > 1e-12 * abs(app * all_):
        return (all_ * gp - apl * gl) / determinant, (app * gl - apl * gp) / determinant
    mean, half = 0.5 * (app + all_), math.hypot(0.5 * (app - all_), apl)
    angle = 0.5 * math.atan2(2.0 * apl, app - all_)
    c, s = math.cos(angle), math.sin(angle)
    floor = 1e-6 * (abs(mean) + half) + 1e-300
    major, minor = max(abs(mean + half), floor), max(abs(mean - half), floor)
    along, across = (c * gp + s * gl) / major, (c * gl - s * gp) / minor
    return c * along - s * across, s * along + c * across


@_inner
def _maximise(
    law: int,
    p: float,
    lam: float,
    low: float,
    high: float,
    n: int,
    u0: float,
    grid: Grid,
    tables: Tables,
) -> tuple[bool, float, float, _Evaluation]:
    """Newton iteration in (p, lambda) with p in [low, high]; low = high holds p fixed.

    Steps are capped, and halved until the likelihood rises. The last step, whose size is below
    ``STEP_TOLERANCE``, is taken without another evaluation.

    Returns:
        whether it converged, p, lambda, and the evaluation at the last point but this step, with
        the likelihood that its quadratic model gives for the step.
    """
    current = _evaluate(law, p, lam, n, u0, grid, tables)
    cap = 0.3 if law == STABLE else 2.0
    for _ in range(MAX_EVALUATIONS):
        value, gp, gl, hpp, hpl, hll, _ga, _haa = current
        if law == STABLE and p == 0.0 and high > 0.0 and hpp > 0.0:
            dp, dl = 0.05, 0.0  # theta = 0 is stationary, but here it is a minimum
        elif low == high or (p <= low and gp < 0.0) or (p >= high and gp > 0.0):
            dp, dl = 0.0, gl / max(-hll, 1e-3 * n)
        else:
            dp, dl = _ascent(gp, gl, hpp, hpl, hll)
        shrink = min(1.0, cap / max(abs(dp), 1e-300), 0.7 / max(abs(dl), 1e-300))
        dp, dl = shrink * dp, shrink * dl
        if p + dp < low or p + dp > high:
            bound = low if p + dp < low else high
            if p != bound:
                # The rest of the step along the bound.
                dp = bound - p
                dl = (gl + hpl * dp) / max(-hll, 1e-3 * n)
                dl = min(max(dl, -0.7), 0.7)
            else:
                dp, dl = 0.0, gl / max(-hll, 1e-3 * n)
        if abs(dp) < STEP_TOLERANCE and abs(dl) < STEP_TOLERANCE:
            gain = gp * dp + gl * dl + 0.5 * (hpp * dp * dp + 2.0 * hpl * dp * dl + hll * dl * dl)
            return True, p + dp, lam + dl, (value + gain, gp, gl, hpp, hpl, hll, _ga, _haa)
        tolerance = 1e-11 * (abs(value) + n)
        for _halving in range(30):
            trial = _evaluate(law, p + dp, lam + dl, n, u0, grid, tables)
            if trial[0] >= value - tolerance:
                break
            dp, dl = 0.4 * dp, 0.4 * dl
        else:
            return False, p, lam, current
        p, lam, current = p + dp, lam + dl, trial
    return False, p, lam, current


# --- a fit of one row -------------------------------------------------------------------------

# Columns of the output. The slope and bend are those of the profile likelihood in theta at a held
# alpha.
SHAPE, SCALE, SHAPE_SE, SCALE_SE, LOG_LIKELIHOOD, ZERO_FRACTION, STATUS, N_USED, SLOPE, BEND = (
    range(10)
)
N_BELOW = 10  # values below the location
COLUMNS = 11


@_part
def _start_stable(n: int, u0: float, grid: Grid, tables: Tables) -> tuple[float, float]:
    """alpha and ln(scale) from the quantiles of |x| at 0.5 and 0.9."""
    middle = _quantile_bin(grid, 0.0, 0.5 * n)
    outer = _quantile_bin(grid, 0.0, 0.9 * n)
    ratio = (outer - middle) * STEP
    low, high = 0, tables.ratio.size - 1
    while high - low > 1:
        k = (low + high) // 2
        if tables.ratio[k] >= ratio:
            low = k
        else:
            high = k
    share = (tables.ratio[low] - ratio) / (tables.ratio[low] - tables.ratio[high])
    share = min(max(share, 0.0), 1.0)
    alpha = TABLE_ALPHA_MIN + (low + share) / TABLE_ALPHA_STEPS
    median = tables.median[low] + share * (tables.median[high] - tables.median[low])
    return min(max(alpha, 0.55), 1.96), u0 + middle * STEP - median


@_part
def _normal_end(
    law: int, n: int, u0: float, grid: Grid, tables: Tables
) -> tuple[bool, float, _Evaluation]:
    """Whether the likelihood falls as soon as alpha does from 2; ln(scale) and evaluation at 2."""
    centre = u0 + grid.span[4] * STEP
    second, _ = _even_moments(grid, tables.octaves, centre, u0)
    lam = centre + 0.5 * math.log(0.5 * second / n)
    value = -n * (lam + 0.5 * math.log(4.0 * math.pi) + 0.5)
    last = (value, 0.0, 0.0, 0.0, 0.0, -2.0 * n, -np.inf, 0.0)
    # Beyond 45 scales the normal density underflows, and any other alpha is better by far.
    if u0 + (grid.span[1] + 1) * STEP - lam < math.log(45.0):
        last = _evaluate(law, 0.0, lam, n, u0, grid, tables)
    return last[6] >= 0.0, lam, last


@_part
def _fit_stable(
    law: int,
    fixed: float,
    log_scale: float,
    n: int,
    u0: float,
    grid: Grid,
    tables: Tables,
    out: np.ndarray,
) -> None:
    """Fit alpha (unless ``fixed`` is a number) and the scale to the row in the grid.

    The search starts at ``log_scale`` if that is a number.
    """
    start, lam = _start_stable(n, u0, grid, tables)
    highest = math.sqrt(2.0 - TABLE_ALPHA_MIN)
    free = math.isnan(fixed)
    _weigh(grid, grid.span[4], np.int64(KEEP_HIGH), _fold_depth(start if free else fixed), tables)
    if not math.isnan(log_scale):
        lam = log_scale
    few = free and n < FEW_VALUES
    at_two = few or fixed == 2.0 or (free and start > 1.85)
    falls, lam_two, last = False, lam, _NOTHING
    if at_two:
        falls, lam_two, last = _normal_end(law, n, u0, grid, tables)
    if fixed == 2.0 or (falls and not few):
        theta, lam, converged = 0.0, lam_two, True
    else:
        normal = last
        first = lam
        theta = math.sqrt(2.0 - (start if free else fixed))
        low, high = (0.0, highest) if free else (theta, theta)
        converged, theta, lam, last = _maximise(law, theta, first, low, high, n, u0, grid, tables)
        if few:
            for other in MORE_STARTS:
                again = math.sqrt(2.0 - other)
                ended, end, end_lam, trial = _maximise(
                    law, again, first, low, high, n, u0, grid, tables
                )
                if ended and (trial[0] > last[0] or not converged):
                    converged, theta, lam, last = ended, end, end_lam, trial
            if falls and normal[0] > last[0]:
                converged, theta, lam, last = True, 0.0, lam_two, normal
    value, gp, gl, hpp, hpl, hll, g_alpha, h_alpha = last
    out[SHAPE] = 2.0 - theta * theta
    out[SCALE] = math.exp(lam)
    out[LOG_LIKELIHOOD] = value
    out[STATUS] = OK if converged else NOT_CONVERGED
    out[SHAPE_SE] = np.nan
    out[SCALE_SE] = out[SCALE] / math.sqrt(max(-hll, 1e-300))
    if not free:
        out[SHAPE] = fixed
        out[SHAPE_SE] = 0.0
        if fixed == 2.0:
            hpl, hpp = 0.0, -2.0 * g_alpha
        out[SLOPE] = gp - hpl * gl / hll
        out[BEND] = hpp - hpl * hpl / hll
    elif theta >= highest:
        out[STATUS] = ALPHA_BELOW_RANGE
    elif theta < 1e-4:
        # Where the likelihood, falling with slope g and curvature h, has lost half a unit: the
        # usual standard error when the slope is nil.
        slope, curvature = max(g_alpha, 0.0), max(-h_alpha, 0.0)
        out[SHAPE] = 2.0
        out[SHAPE_SE] = 1.0 / max(slope + math.sqrt(slope * slope + curvature), 1e-300)
    else:
        information = -(hpp - hpl * hpl / hll)
        if information > 0.0:
            out[SHAPE_SE] = 2.0 * theta / math.sqrt(information)
            out[SCALE_SE] = out[SCALE] / math.sqrt(max(-hll + hpl * hpl / hpp, 1e-300))


@_part
def _fit_heavy(law: int, n: int, u0: float, grid: Grid, tables: Tables, out: np.ndarray) -> None:
    """Fit Student's t or the normal inverse Gaussian law to the row in the grid.

    Both become normal at one end of their shape, and do so when the sample's kurtosis is below 3.
    """
    _weigh(grid, grid.span[4], np.int64(KEEP_HIGH_ALL), np.int64(-1), tables)
    centre = u0 + (grid.span[4] + 0.5) * STEP
    low, high = (LOG_DF_MIN, LOG_DF_MAX) if law == STUDENT_T else (LOG_NIG_MIN, LOG_NIG_MAX)
    second, fourth = _even_moments(grid, tables.octaves, centre, u0)
    out[STATUS] = OK
    if fourth * n <= 3.0 * second * second:
        p, lam = high, centre + 0.5 * math.log(second / n)
        if law == NORMAL_INVERSE_GAUSSIAN:
            lam += 0.5 * high
        last = _evaluate(law, p, lam, n, u0, grid, tables)
    else:
        p = math.log(4.0) if law == STUDENT_T else 0.0
        converged, p, lam, last = _maximise(law, p, centre + 0.3, low, high, n, u0, grid, tables)
        if not converged:
            out[STATUS] = NOT_CONVERGED
        elif p <= low:
            out[STATUS] = SHAPE_AT_BOUND
    value, _gp, _gl, hpp, hpl, hll, _ga, _haa = last
    determinant = hpp * hll - hpl * hpl
    v_pp, v_pl, v_ll = -hll / determinant, hpl / determinant, -hpp / determinant
    out[LOG_LIKELIHOOD] = value
    out[SCALE] = math.exp(lam)
    out[SHAPE] = math.exp(p) if law == STUDENT_T else math.exp(p - lam)
    variance = v_pp if law == STUDENT_T else v_pp - 2.0 * v_pl + v_ll
    interior = low < p < high and determinant > 0.0 and variance > 0.0 and v_ll > 0.0
    out[SHAPE_SE] = out[SHAPE] * math.sqrt(variance) if interior else np.nan
    out[SCALE_SE] = out[SCALE] * math.sqrt(v_ll) if interior else np.nan
    if law == STUDENT_T and p >= high:
        out[SHAPE] = np.inf
        out[SCALE_SE] = out[SCALE] / math.sqrt(2.0 * n)


@_inner
def _fit_power(
    row: np.ndarray, location: float, atoms: int, logs: np.ndarray, out: np.ndarray
) -> None:
    """Fit the generalised Gaussian law exp(-|x/scale|^shape), value by value.

    Its log-density grows like e^(shape u), too steep for the grid where the shape is large.
    """
    count, top = 0, -np.inf
    for value in row:
        distance = abs(value - location)
        if distance > 0.0:
            logs[count] = math.log(distance)
            top = max(top, logs[count])
            count += 1
    n = float(row.size - atoms)
    p = 1.3
    out[STATUS] = NOT_CONVERGED
    for _ in range(MAX_EVALUATIONS):
        s0, s1, s2 = 0.0, 0.0, 0.0
        for i in range(count):
            v = logs[i] - top
            power = math.exp(p * v)
            s0 += power
            s1 += v * power
            s2 += v * v * power
        # The scale that is best for this shape: sum |x/scale|^p = n/p.
        lam = math.log(p * s0 / n) / p
        t0, norm = n / p, n / (p * s0)
        t1 = norm * (s1 - lam * s0)
        t2 = norm * (s2 - 2.0 * lam * s1 + lam * lam * s0)
        y = 1.0 / p
        psi, psi1 = _digamma(y), _trigamma(y)
        gradient = n * (y + psi * y * y) - t1
        h_pp = n * (-y * y - 2.0 * psi * y**3 - psi1 * y**4) - t2
        h_pl = t0 + p * t1
        h_ll = -p * p * t0
        profile = h_pp - h_pl * h_pl / h_ll
        # Newton in ln(shape).
        bend = p * p * profile + p * gradient
        step = p * gradient / max(abs(bend), 1e-6 * n)
        step = min(max(step, -0.7), 0.7)
        new = min(max(p * math.exp(step), GG_SHAPE_MIN), GG_SHAPE_MAX)
        done = abs(new - p) < 1e-9 * p
        if done:
            out[STATUS] = OK if GG_SHAPE_MIN < new < GG_SHAPE_MAX else SHAPE_AT_BOUND
            break
        p = new
    lam += top
    out[SHAPE] = p
    out[SCALE] = math.exp(lam)
    out[LOG_LIKELIHOOD] = n * (math.log(p) - _LN2 - math.lgamma(1.0 / p) - lam - 1.0 / p)
    inside = out[STATUS] == OK and profile < 0.0
    out[SHAPE_SE] = 1.0 / math.sqrt(-profile) if inside else np.nan
    out[SCALE_SE] = out[SCALE] / math.sqrt(-(h_ll - h_pl * h_pl / h_pp)) if inside else np.nan


@_in_lanes
def _fit_scale(law: int, row: np.ndarray, location: float, n: int, out: np.ndarray) -> None:
    """Fit the normal or the Laplace law: closed forms. Values are divided by the largest first."""
    top = 0.0
    for i in range(row.size):
        top = max(top, abs(row[i] - location))
    total = 0.0
    for i in range(row.size):
        y = abs(row[i] - location) / top
        total += y * y if law == GAUSSIAN else y
    if law == GAUSSIAN:
        scale = top * math.sqrt(total / n)
        out[LOG_LIKELIHOOD] = -n * (math.log(scale) + 0.5 * math.log(2.0 * math.pi) + 0.5)
        out[SCALE_SE] = scale / math.sqrt(2.0 * n)
    else:
        scale = top * (total / n)
        out[LOG_LIKELIHOOD] = -n * (math.log(scale) + _LN2 + 1.0)
        out[SCALE_SE] = scale / math.sqrt(n)
    out[SCALE] = scale
    out[STATUS] = OK


# --- many rows ---------------------------------------------------------------------------------


@_entry
def fit_rows(
    law: int,
    noise: np.ndarray,
    location: np.ndarray,
    alpha: float,
    log_scale: np.ndarray,
    tables: Tables,
    out: np.ndarray,
) -> None:
    """Fit ``law`` to every row.

    Args:
        law: a code from above.
        noise: (P, M).
        location: (P,).
        alpha: hold the stable law's alpha there, unless NaN.
        log_scale: (P,) where to start the stable law's scale; NaN: from quantiles.
        tables: of ``stable.tables``.
        out: (P, COLUMNS), see the names of the columns; NaN where there is no fit.
    """
    grid = _new_grid()
    logs = np.empty(noise.shape[1] if law == GENERALISED_GAUSSIAN else 0)
    for i in range(noise.shape[0]):
        row, o = noise[i], out[i]
        for k in range(COLUMNS):
            o[k] = np.nan
        status, n, atoms, u0 = _read(row, location[i], grid)
        o[STATUS] = status
        if status == OK:
            if law == STABLE:
                _fit_stable(law, alpha, log_scale[i], n, u0, grid, tables, o)
            elif law == GENERALISED_GAUSSIAN:
                _fit_power(row, location[i], atoms, logs, o)
            elif law != GAUSSIAN and law != LAPLACE:
                _fit_heavy(law, n, u0, grid, tables, o)
            else:
                _fit_scale(law, row, location[i], n, o)
        _clear(grid)
        o[N_USED] = n
        o[N_BELOW] = grid.span[6]
        o[ZERO_FRACTION] = atoms / row.size if row.size > 0 else np.nan


# --- densities and distribution functions -------------------------------------------------------


@_in_lanes
def _table_value(c: np.ndarray, i: int, t: float) -> float:
    """A quintic spline at fraction ``t`` of interval ``i``."""
    r = 1.0 - t
    t2, r2 = t * t, r * r
    t4, r4 = t2 * t2, r2 * r2
    return (
        c[i] * r4 * r
        + c[i + 1] * (26.0 - 50.0 * t + t2 * (20.0 + 20.0 * t - 20.0 * t2 + 5.0 * t2 * t))
        + c[i + 2] * (66.0 - 60.0 * t2 + t4 * (30.0 - 10.0 * t))
        + c[i + 3] * (66.0 - 60.0 * r2 + r4 * (30.0 - 10.0 * r))
        + c[i + 4] * (26.0 - 50.0 * r + r2 * (20.0 + 20.0 * r - 20.0 * r2 + 5.0 * r2 * r))
        + c[i + 5] * t4 * t
    ) / 120.0


@_vector
def _contract_value(
    table: np.ndarray, alpha: float, first: int, n: int, basis: np.ndarray, out: np.ndarray
) -> None:
    """Spline coefficients ``first`` to ``first + n`` in u at one alpha."""
    p = (alpha - TABLE_ALPHA_MIN) * TABLE_ALPHA_STEPS
    i = min(max(int(p), 0), table.shape[0] - 6)
    _basis(p - i, basis)
    b0, b1, b2, b3, b4, b5 = basis[0]
    for j in range(n):
        k = first + j
        out[j] = (
            b0 * table[i, k] + b1 * table[i + 1, k] + b2 * table[i + 2, k]
            + b3 * table[i + 3, k] + b4 * table[i + 4, k] + b5 * table[i + 5, k]
        )  # fmt: skip


@_inner
def _tail_series(x: float, alpha: float, integrated: bool) -> float:
    """Beyond the table: the density times x^(1 + alpha), or the survival function times x^alpha.

    sum_k (-1)^(k+1) Gamma(k alpha + 1)/k! sin(pi k alpha / 2) x^(-k alpha) / pi, k = 1 term first.
    """
    total = 0.0
    log_x = math.log(x)
    for k in range(1, 8):
        ka = k * alpha
        term = math.exp(math.lgamma(ka + 1.0) - math.lgamma(k + 1.0) - (k - 1) * alpha * log_x)
        # sin(pi k alpha/2) with alpha = 2 - a is -(-1)^k sin(pi k a/2): exact as alpha goes to 2.
        term *= math.sin(0.5 * math.pi * k * (2.0 - alpha)) / math.pi
        total += term / ka if integrated else term
        if abs(term) < 1e-17 * abs(total):
            break
    return total


@_inner
def _stable_at(
    x: float,
    alpha: float,
    kind: int,
    table: np.ndarray,
    c: np.ndarray,
    whole: bool,
    basis: np.ndarray,
) -> float:
    """ln density (``kind`` 0) or survival function (``kind`` 1) at x >= 0, scale 1."""
    a = 2.0 - alpha
    if x > _SERIES_FROM:
        tail = _tail_series(x, alpha, kind == 1)
        if kind == 1:
            return tail * math.exp(-alpha * math.log(x))
        normal = -0.25 * x * x + math.log(_INV_2_SQRT_PI)
        if tail <= 0.0:
            return normal
        return math.log(tail) - (1.0 + alpha) * math.log(x)
    floor = math.exp(TABLE_LOW * STEP)
    p = max(math.log(max(x, floor)) / STEP - TABLE_LOW, 0.0)
    i = int(p)
    if whole:
        q = _table_value(c, i, p - i)
    else:
        _contract_value(table, alpha, i, np.int64(6), basis, c)
        q = _table_value(c, np.int64(0), p - i)
    if kind == 1:
        if x < floor:
            q *= x / floor  # the survival function is linear in x here
        return 0.5 * math.erfc(0.5 * x) + a * q / math.sqrt(1.0 + x * x)
    if x < 50.0:
        return math.log(math.exp(-0.25 * x * x) * _INV_2_SQRT_PI + a * q / (1.0 + x * x))
    normal = -0.25 * x * x + math.log(_INV_2_SQRT_PI)
    if a == 0.0:
        return normal
    tail = math.log(a * q / (1.0 + x * x))
    return max(normal, tail) + math.log1p(math.exp(-abs(normal - tail)))


@_inner
def _nig_log_density(x: float, xi: float, constant: float, tables: Tables) -> float:
    """ln density of the normal inverse Gaussian law at x >= 0, scale 1, steepness ``xi``."""
    r = math.sqrt(1.0 + x * x)
    w, _, _ = _bessel(math.log(xi * r), tables.bessel)
    return constant - xi * x * x / (1.0 + r) + w - math.log(r)


@_inner
def _log_constant(law: int, shape: float) -> float:
    if law == LAPLACE:
        return -_LN2
    if law == GENERALISED_GAUSSIAN:
        return math.log(shape) - _LN2 - math.lgamma(1.0 / shape)
    if law == NORMAL_INVERSE_GAUSSIAN:
        return math.log(shape) - math.log(math.pi)
    if law == STUDENT_T and not math.isinf(shape):
        return _half_step_gamma(0.5 * shape)[0] - 0.5 * math.log(2.0 * math.pi)
    return -0.5 * math.log(2.0 * math.pi)


# The distribution functions of t, generalised Gaussian and normal inverse Gaussian laws come from a
# table for each row, in a coordinate v in which the density is smooth: x = sqrt(df) sinh v, ln x
# and sinh v. Simpson's rule between the nodes, cubic Hermite interpolation: error below 1e-7.
_CDF_NODES = 6000


@_inner
def _cdf_integrand(law: int, v: float, shape: float, constant: float, tables: Tables) -> float:
    """Density times dx/dv."""
    if law == STUDENT_T:
        # sqrt(df) sinh v: (1 + sinh^2 v)^(-(df + 1)/2) cosh v
        return math.exp(constant + 0.5 * math.log(shape) - shape * math.log(math.cosh(v)))
    if law == GENERALISED_GAUSSIAN:
        return math.exp(constant + v - math.exp(shape * v))
    x = math.sinh(v)
    return math.exp(_nig_log_density(x, shape, constant, tables)) * math.cosh(v)


@_inner
def _cdf_span(law: int, shape: float) -> tuple[float, float, int]:
    """First node, step, number of nodes."""
    if law == STUDENT_T:
        step = 0.05 / math.sqrt(max(1.0, 0.25 * shape))
        return (
            0.0,
            step,
            min(int(math.acosh(math.exp(min(40.0 / shape, 13.0))) / step) + 2, _CDF_NODES),
        )
    if law == GENERALISED_GAUSSIAN:
        step = 0.05 / max(1.0, shape)
        start = -7.0 / shape
        return start, step, min(int((math.log(40.0) / shape - start) / step) + 2, _CDF_NODES)
    step = 0.05 / math.sqrt(max(1.0, 0.25 * shape))
    return 0.0, step, min(int(min(math.acosh(1.0 + 40.0 / shape), 24.0) / step) + 2, _CDF_NODES)


@_inner
def _cdf_fill(
    law: int, shape: float, constant: float, tables: Tables, nodes: np.ndarray
) -> tuple[float, float, int]:
    """Fill (2, nodes) with the mass between 0 and each node and its slope in v."""
    start, step, n = _cdf_span(law, shape)
    if law == GENERALISED_GAUSSIAN:
        # Where x^shape is small: the integral of 1 - x^shape + x^(2 shape)/2.
        x, y = math.exp(start), math.exp(shape * start)
        mass = (
            x * math.exp(constant) * (1.0 - y / (shape + 1.0) + 0.5 * y * y / (2.0 * shape + 1.0))
        )
    else:
        mass = 0.0
    slope = _cdf_integrand(law, start, shape, constant, tables)
    for j in range(n):
        v = start + (j + 1) * step
        nodes[0, j] = mass
        nodes[1, j] = slope * step
        middle = _cdf_integrand(law, v - 0.5 * step, shape, constant, tables)
        end = _cdf_integrand(law, v, shape, constant, tables)
        mass += step * (slope + 4.0 * middle + end) / 6.0
        slope = end
    return start, step, n


@_inner
def _survival(
    law: int,
    x: float,
    shape: float,
    constant: float,
    start: float,
    step: float,
    n: int,
    nodes: np.ndarray,
) -> float:
    """Survival function at x >= 0, scale 1, of a law other than the stable."""
    if law == GAUSSIAN or math.isinf(shape):
        return 0.5 * math.erfc(x * math.sqrt(0.5))
    if law == LAPLACE:
        return 0.5 * math.exp(-x)
    if law == STUDENT_T:
        v = math.asinh(x / math.sqrt(shape))
    elif law == GENERALISED_GAUSSIAN:
        v = math.log(x) if x > 0.0 else -np.inf
    else:
        v = math.asinh(x)
    if v < start:
        y = x**shape
        return 0.5 - x * math.exp(constant) * (
            1.0 - y / (shape + 1.0) + 0.5 * y * y / (2.0 * shape + 1.0)
        )
    p = (v - start) / step
    i = int(min(p, 1e9))
    if i >= n - 1:
        if law == STUDENT_T:
            # sech^df v is (2 e^-v)^df here
            return math.exp(constant + 0.5 * math.log(shape) + shape * (_LN2 - v)) / shape
        return 0.0
    t = p - i
    r = 1.0 - t
    mass = (
        nodes[0, i] * r * r * (1.0 + 2.0 * t)
        + nodes[0, i + 1] * t * t * (3.0 - 2.0 * t)
        + nodes[1, i] * t * r * r
        - nodes[1, i + 1] * t * t * r
    )
    return max(0.5 - mass, 0.0)


@_vector
def _stable_log_densities(
    x: np.ndarray, location: float, sigma: float, alpha: float, c: np.ndarray, out: np.ndarray
) -> None:
    """ln densities, times sigma, of values within 50 scales; the others get something else."""
    a = 2.0 - alpha
    inverse = 1.0 / sigma
    floor = math.exp(TABLE_LOW * STEP)
    for j in range(x.size):
        z = min(abs(x[j] - location) * inverse, 50.0)
        p = max(_log(max(z, floor)) * (1.0 / STEP) - TABLE_LOW, 0.0)
        i = np.uint32(p)
        z2 = z * z
        q = _table_value(c, i, p - i)
        out[j] = _log(_exp(-0.25 * z2) * _INV_2_SQRT_PI + a * q / (1.0 + z2))


@_vector
def _student_log_densities(
    x: np.ndarray, location: float, sigma: float, nu: float, constant: float, out: np.ndarray
) -> None:
    inverse = 1.0 / (sigma * math.sqrt(nu))
    for j in range(x.size):
        r = abs(x[j] - location) * inverse
        low, high = min(r, 1e8), max(r, 1e8) * 1e-8  # so that the square cannot overflow
        out[j] = constant - 0.5 * (nu + 1.0) * (_log(1.0 + low * low) + 2.0 * _log(high))


@_vector
def _power_log_densities(
    x: np.ndarray, location: float, sigma: float, shape: float, constant: float, out: np.ndarray
) -> None:
    inverse = 1.0 / sigma
    for j in range(x.size):
        z = max(abs(x[j] - location) * inverse, 1e-300)
        out[j] = constant - _exp(min(max(shape * _log(z), -700.0), 700.0))


@_part
def _log_density_row(
    law: int,
    x: np.ndarray,
    location: float,
    sigma: float,
    form: float,
    tables: Tables,
    c: np.ndarray,
    basis: np.ndarray,
    out: np.ndarray,
) -> None:
    """ln density of one row's law at its points."""
    n, width = x.size, tables.density.shape[1]
    if law == STABLE:
        whole = n >= 64
        if whole:
            _contract_value(tables.density, form, np.int64(0), width, basis, c)
            _stable_log_densities(x, location, sigma, form, c, out)
        for j in range(n):
            z = abs(x[j] - location) / sigma
            if not (whole and z <= 50.0):
                out[j] = _stable_at(z, form, np.int64(0), tables.density, c, whole, basis)
    elif law == GENERALISED_GAUSSIAN:
        _power_log_densities(x, location, sigma, form, _log_constant(law, form), out)
    elif law == STUDENT_T and not math.isinf(form):
        _student_log_densities(x, location, sigma, form, _log_constant(law, form), out)
    elif law == NORMAL_INVERSE_GAUSSIAN:
        constant = _log_constant(law, form)
        for j in range(n):
            z = abs(x[j] - location) / sigma
            out[j] = _nig_log_density(z, form, constant, tables)
    else:
        constant = _log_constant(law, form)
        for j in range(n):
            z = abs(x[j] - location) / sigma
            out[j] = constant - (z if law == LAPLACE else 0.5 * z * z)
    log_sigma = math.log(sigma)
    for j in range(n):
        out[j] = out[j] - log_sigma if math.isfinite(x[j]) else -abs(x[j])


@_inner
def _distribution_at(
    law: int,
    d: float,
    sigma: float,
    form: float,
    tables: Tables,
    c: np.ndarray,
    whole: bool,
    basis: np.ndarray,
    span: tuple[float, float, float, int],
    nodes: np.ndarray,
) -> float:
    """Distribution function of one row's law at distance ``d`` from its location."""
    if not math.isfinite(d):
        upper = 0.0 * d if math.isnan(d) else 0.0
    elif law == STABLE:
        upper = _stable_at(abs(d) / sigma, form, np.int64(1), tables.tail, c, whole, basis)
    else:
        constant, start, step, n = span
        upper = _survival(law, abs(d) / sigma, form, constant, start, step, n, nodes)
    return 1.0 - upper if d > 0.0 else upper


@_part
def _distance(
    law: int,
    ordered: np.ndarray,
    location: float,
    sigma: float,
    form: float,
    tables: Tables,
    c: np.ndarray,
    whole: bool,
    basis: np.ndarray,
    span: tuple[float, float, float, int],
    nodes: np.ndarray,
) -> float:
    """Largest distance of the distribution function from that of the values, NaN (last) left out.

    Both functions rise, so between two values the distance cannot exceed what the two at the ends
    allow: most values are never looked at, and the result is that of looking at all of them.
    """
    n = ordered.size
    while n > 0 and math.isnan(ordered[n - 1]):
        n -= 1
    if n == 0:
        return np.nan
    largest = 0.0
    # Intervals that are still to be halved: the ends, and the distribution function there.
    left, right = np.empty(64, np.int64), np.empty(64, np.int64)
    low, high = np.empty(64), np.empty(64)
    left[0], right[0], low[0], high[0] = -1, n, 0.0, 1.0
    waiting = 1
    while waiting > 0:
        waiting -= 1
        i, j, f_i, f_j = left[waiting], right[waiting], low[waiting], high[waiting]
        # The rounding of the law's table may let it fall by this much.
        if max(j / n - f_i, f_j - (i + 1) / n) + 1e-7 <= largest or j - i < 2:
            continue
        k = (i + j) // 2
        f_k = _distribution_at(
            law, ordered[k] - location, sigma, form, tables, c, whole, basis, span, nodes
        )
        largest = max(largest, (k + 1) / n - f_k, f_k - k / n)
        left[waiting], right[waiting], low[waiting], high[waiting] = i, k, f_i, f_k
        waiting += 1
        left[waiting], right[waiting], low[waiting], high[waiting] = k, j, f_k, f_j
        waiting += 1
    return largest


@_part
def _distribution_row(
    law: int,
    kind: int,
    x: np.ndarray,
    location: float,
    sigma: float,
    form: float,
    tables: Tables,
    c: np.ndarray,
    basis: np.ndarray,
    nodes: np.ndarray,
    out: np.ndarray,
) -> None:
    """Distribution function of one row's law at its points, or its distance from theirs."""
    whole = x.size >= 64
    start, step, n = 0.0, 0.0, 0
    constant = _log_constant(law, form)
    if law == STABLE:
        if whole:
            _contract_value(tables.tail, form, np.int64(0), tables.tail.shape[1], basis, c)
    elif law >= STUDENT_T and not math.isinf(form):
        start, step, n = _cdf_fill(law, form, constant, tables, nodes)
    span = (constant, start, step, n)
    if kind == DISTANCE:
        out[0] = _distance(law, x, location, sigma, form, tables, c, whole, basis, span, nodes)
        return
    for j in range(x.size):
        out[j] = _distribution_at(
            law, x[j] - location, sigma, form, tables, c, whole, basis, span, nodes
        )


@_entry
def law_rows(
    law: int,
    kind: int,
    x: np.ndarray,
    shape: np.ndarray,
    scale: np.ndarray,
    location: np.ndarray,
    tables: Tables,
    out: np.ndarray,
) -> None:
    """What each row's law is at its points ``x`` (P, K).

    Args:
        kind: ``LOG_DENSITY`` or ``DISTRIBUTION``, ``out`` is (P, K); ``DISTANCE``: the points are
            values in increasing order, NaN last, and ``out`` (P, 1) is the largest distance of
            their distribution function from the law's.
    """
    basis = np.empty((3, 6))
    c = np.empty(tables.density.shape[1])
    nodes = np.empty((2, _CDF_NODES))
    for i in range(x.shape[0]):
        sigma, form = scale[i], shape[i]
        if law == NORMAL_INVERSE_GAUSSIAN:
            form *= sigma
        if math.isnan(sigma) or math.isnan(form):
            for j in range(out.shape[1]):
                out[i, j] = np.nan
        elif kind == LOG_DENSITY:
            _log_density_row(law, x[i], location[i], sigma, form, tables, c, basis, out[i])
        else:
            _distribution_row(
                law, kind, x[i], location[i], sigma, form, tables, c, basis, nodes, out[i]
            )


# --- the empirical characteristic function ----------------------------------------------------


@_vector
def _characteristic_moduli(
    row: np.ndarray, location: float, unit: float, count: int, work: np.ndarray, out: np.ndarray
) -> None:
    """|phi(k unit)|^2 for k = 1 ... ``count``, phi the row's empirical characteristic function."""
    n = row.size
    for i in range(n):
        angle = (row[i] - location) * unit
        work[0, i] = work[2, i] = math.cos(angle)
        work[1, i] = work[3, i] = math.sin(angle)
    for k in range(count):
        real, imaginary = 0.0, 0.0
        for i in range(n):
            # Multiples of the angle by rotation.
            c, s = work[2, i], work[3, i]
            real += c
            imaginary += s
            work[2, i] = c * work[0, i] - s * work[1, i]
            work[3, i] = s * work[0, i] + c * work[1, i]
        out[k] = (real * real + imaginary * imaginary) / (float(n) * n)


@_entry
def characteristic_rows(
    noise: np.ndarray,
    location: np.ndarray,
    scale: np.ndarray,
    points: np.ndarray,
    iterations: int,
    alpha: np.ndarray,
) -> None:
    """Regression of ln(-ln|phi|^2) on ln t at t = pi k/25; ``alpha``: the start, then the result.

    Args:
        points: number of points k by alpha: entry j for alpha in [j/10, (j + 1)/10).
    """
    rows, n = noise.shape
    work = np.empty((4, n))
    moduli = np.empty(points.max())
    for i in range(rows):
        sigma, a = scale[i], alpha[i]
        for _ in range(iterations):
            if math.isnan(a) or not 0.0 < sigma < np.inf:
                a = np.nan
                break
            count = points[min(max(int(10.0 * a), 0), points.size - 1)]
            _characteristic_moduli(
                noise[i], location[i], math.pi / 25.0 / sigma, count, work, moduli
            )
            s_x, s_y, s_xx, s_xy, used = 0.0, 0.0, 0.0, 0.0, 0
            for k in range(count):
                if not 0.0 < moduli[k] < 1.0:
                    continue
                x = math.log(math.pi * (k + 1) / 25.0)
                y = math.log(-math.log(moduli[k]))
                s_x += x
                s_y += y
                s_xx += x * x
                s_xy += x * y
                used += 1
            spread = used * s_xx - s_x * s_x
            if used < 2 or spread <= 0.0:
                a = np.nan
                break
            a = (used * s_xy - s_x * s_y) / spread
            # y = ln(2 c^alpha) + alpha x with c the scale in units of sigma
            sigma *= math.exp(((s_y - a * s_x) / used - _LN2) / a)
            a = min(max(a, 0.1), 2.0)
        alpha[i] = a
