"""SGD on a small network and its full-data loss, compiled: one call runs one replica to its end.

The weights and a block of the data's activations stay in the cache. The loss is summed in float64
from float32 logits.

What is compiled here takes no constant and calls no function of another file: numba's disk cache
watches this one alone, and would go on using a kernel that was compiled with the former value.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from sgnoise.escape.problem import Problem

# Samples in a block of the full-data pass: its activations stay in the first-level cache.
BLOCK = 128

_LOG2_E = np.float32(1.4426950408889634)
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(-2.12194440e-4)
_ROUNDER = np.float32(12582912.0)  # 1.5 * 2^23: adding it rounds to an integer in the low bits
_LOWEST = np.float32(-87.0)
_ONE_BITS = np.int32(0x3F800000)
_EXP_6 = np.float32(1.9875691500e-4)
_EXP_5 = np.float32(1.3981999507e-3)
_EXP_4 = np.float32(8.3334519073e-3)
_EXP_3 = np.float32(4.1665795894e-2)
_EXP_2 = np.float32(1.6666665459e-1)
_EXP_1 = np.float32(5.0000001201e-1)
_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_TWO = np.float32(2.0)
_TANH_END = np.float32(20.0)  # of 2x: beyond it tanh(x) is 1 in float32

# NaN must survive, or a diverged network would look like a trained one: no "nnan" among the flags.
_compiled = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nsz"})
_compiled_sum = njit(nogil=True, cache=True, fastmath={"contract", "nsz", "reassoc"})


@njit(inline="always")
def _multiply(left: np.ndarray, right: np.ndarray, output: np.ndarray, width: int) -> None:
    """Add the matrix product ``left`` (n, m) · ``right`` (m, width) to ``output`` (n, width).

    Two rows by four terms at a time: the widest tile whose factors stay in 16 vector registers. At
    these sizes it is faster than a call of BLAS, which packs its operands first.
    """
    rows, terms = left.shape
    whole_rows, whole_terms = rows - rows % 2, terms - terms % 4
    for u in range(0, whole_rows, 2):
        a, b = output[u], output[u + 1]
        for k in range(0, whole_terms, 4):
            x0, x1, x2, x3 = right[k], right[k + 1], right[k + 2], right[k + 3]
            a0, a1, a2, a3 = left[u, k], left[u, k + 1], left[u, k + 2], left[u, k + 3]
            b0, b1, b2, b3 = (
                left[u + 1, k],
                left[u + 1, k + 1],
                left[u + 1, k + 2],
                left[u + 1, k + 3],
            )
            for j in range(width):
                a[j] += a0 * x0[j] + a1 * x1[j] + a2 * x2[j] + a3 * x3[j]
                b[j] += b0 * x0[j] + b1 * x1[j] + b2 * x2[j] + b3 * x3[j]
        for k in range(whole_terms, terms):
            x0 = right[k]
            a0, b0 = left[u, k], left[u + 1, k]
            for j in range(width):
                a[j] += a0 * x0[j]
                b[j] += b0 * x0[j]
    for u in range(whole_rows, rows):
        a = output[u]
        for k in range(terms):
            x0 = right[k]
            a0 = left[u, k]
            for j in range(width):
                a[j] += a0 * x0[j]


@_compiled
def _add_product(left: np.ndarray, right: np.ndarray, output: np.ndarray) -> None:
    """:func:`_multiply` for any width."""
    _multiply(left, right, output, output.shape[1])


@_compiled
def _add_block_product(left: np.ndarray, right: np.ndarray, output: np.ndarray) -> None:
    """:func:`_multiply` for a width of BLOCK, a constant: the compiler needs no remainders."""
    _multiply(left, right, output, BLOCK)


@_compiled
def _exponentiate(values: np.ndarray, power: np.ndarray) -> None:
    """Replace float32 ``values`` from -87 to 87 by their exponentials; NaN stays.

    exp(x) = 2^n · e^r, |r| <= ln(2)/2, e^r by a polynomial (as Cephes' expf, 2 ulp). ``power`` is
    room for as many values; the loops run on vector registers.
    """
    power_bits = power.view(np.int32)
    for j in range(len(values)):
        power[j] = values[j] * _LOG2_E + _ROUNDER
    for j in range(len(values)):
        n = power[j] - _ROUNDER
        r = (values[j] - n * _LN2_HIGH) - n * _LN2_LOW
        p = _EXP_6
        p = p * r + _EXP_5
        p = p * r + _EXP_4
        p = p * r + _EXP_3
        p = p * r + _EXP_2
        p = p * r + _EXP_1
        values[j] = p * r * r + r + _ONE
    for j in range(len(values)):
        power_bits[j] = (power_bits[j] << 23) + _ONE_BITS
    for j in range(len(values)):
        values[j] *= power[j]


@_compiled
def _activate(values: np.ndarray, use_tanh: bool, power: np.ndarray) -> None:
    """Apply the activation to float32 ``values`` in place; NaN stays."""
    # Comparisons are this way round so that NaN is passed on.
    if not use_tanh:
        for j in range(len(values)):
            values[j] = _ZERO if values[j] < _ZERO else values[j]
        return
    for j in range(len(values)):
        x = _TWO * values[j]
        x = -_TANH_END if x < -_TANH_END else x
        values[j] = _TANH_END if x > _TANH_END else x
    _exponentiate(values, power)
    for j in range(len(values)):
        values[j] = (values[j] - _ONE) / (values[j] + _ONE)


@_compiled_sum
def _product(values: np.ndarray) -> float:
    """The product of all values, taken in any order so that it runs on vector registers."""
    product = 1.0
    for j in range(len(values)):
        product *= values[j]
    return product


@_compiled
def data_loss(problem: Problem, parameters: np.ndarray) -> float:
    """Mean loss over the whole data set; not finite if the network has diverged.

    Samples are the fast axis, so that every loop runs on vector registers.
    """
    sizes, _, targets, blocks, use_tanh, squared = problem
    layers = len(sizes) - 1
    classes = sizes[layers]
    samples = len(targets)
    buffers = np.empty((2, sizes[1:].max() * BLOCK), np.float32)
    power = np.empty(sizes[1:].max() * BLOCK, np.float32)
    top = np.empty(BLOCK, np.float32)
    below_top = np.empty(BLOCK, np.float32)
    sums = np.empty(BLOCK, np.float64)
    total = 0.0
    for block in range(len(blocks)):
        signal = blocks[block]
        offset = 0
        for layer in range(layers):
            inner, outer = sizes[layer], sizes[layer + 1]
            weight = parameters[offset : offset + outer * inner].reshape((outer, inner))
            offset += outer * inner
            flat = buffers[layer % 2][: outer * BLOCK]
            output = flat.reshape((outer, BLOCK))
            for unit in range(outer):
                bias = parameters[offset + unit]
                row = output[unit]
                for j in range(BLOCK):
                    row[j] = bias
            offset += outer
            _add_block_product(weight, signal, output)
            if layer < layers - 1:
                _activate(flat, use_tanh, power)
            signal = output

        first = block * BLOCK
        used = min(BLOCK, samples - first)
        if squared:
            for label in range(classes):
                for j in range(used):
                    error = np.float64(signal[label, j]) - (label == targets[first + j])
                    total += error * error / classes
            continue
        for j in range(BLOCK):
            top[j] = signal[0, j]
            sums[j] = 0.0
        for label in range(1, classes):
            row = signal[label]
            for j in range(BLOCK):
                top[j] = row[j] if row[j] > top[j] else top[j]
        for label in range(classes):
            row = signal[label]
            for j in range(BLOCK):
                x = row[j] - top[j]
                below_top[j] = _LOWEST if x < _LOWEST else x
            _exponentiate(below_top, power)
            for j in range(BLOCK):
                sums[j] += np.float64(below_top[j])
        for j in range(used):
            total += np.float64(top[j]) - np.float64(signal[targets[first + j], j])
        # One logarithm for 64 sums, each within 1..classes, whose product cannot leave float64.
        for start in range(0, used, 64):
            total += math.log(_product(sums[start : min(start + 64, used)]))
    return total / samples


@_compiled
def _random_below(state: np.ndarray, bound: int) -> int:
    """An integer below ``bound`` (< 2^32, bias below bound/2^32), by SplitMix64 on ``state[0]``."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return int(((z >> np.uint64(32)) * np.uint64(bound)) >> np.uint64(32))


@_compiled
def draw_batch(state: np.ndarray, order: np.ndarray, used: int, batch: np.ndarray) -> int:
    """Fill ``batch`` with the next samples of a pass in random order; return how many it has used.

    A pass goes once through the data in an order drawn afresh; a remainder smaller than a batch
    is left out. ``state`` (1,) uint64 and ``order``, a permutation of the samples, move on.
    """
    size = len(batch)
    if used + size > len(order):
        used = 0
    for i in range(used, used + size):
        other = i + _random_below(state, len(order) - i)
        order[i], order[other] = order[other], order[i]
        batch[i - used] = order[i]
    return used + size


@_compiled
def sgd_step(
    problem: Problem, parameters: np.ndarray, batch: np.ndarray, learning_rate: np.float32
) -> None:
    """One step of plain SGD on ``parameters``, in place, for the samples of ``batch``.

    Units are the fast axis here: a mini-batch may be narrower than a vector register.
    """
    sizes, rows, targets, _, use_tanh, squared = problem
    layers = len(sizes) - 1
    size = len(batch)
    activations = np.empty(size * sizes.sum(), np.float32)
    power = np.empty(size * sizes.max(), np.float32)
    # Matrices laid out the other way round, one after another.
    turned = np.empty(sizes.max() * max(size, sizes.max()), np.float32)
    for i in range(size):
        row = rows[batch[i]]
        for feature in range(len(row)):
            activations[i * len(row) + feature] = row[feature]
    offset = 0
    at = 0
    for layer in range(layers):
        inner, outer = sizes[layer], sizes[layer + 1]
        weight = parameters[offset : offset + outer * inner].reshape((outer, inner))
        bias = parameters[offset + outer * inner : offset + outer * inner + outer]
        offset += outer * inner + outer
        weight_by_input = turned[: inner * outer].reshape((inner, outer))
        for unit in range(outer):
            for below_unit in range(inner):
                weight_by_input[below_unit, unit] = weight[unit, below_unit]
        signal = activations[at : at + size * inner].reshape((size, inner))
        at += size * inner
        flat = activations[at : at + size * outer]
        output = flat.reshape((size, outer))
        for i in range(size):
            row = output[i]
            for unit in range(outer):
                row[unit] = bias[unit]
        _add_product(signal, weight_by_input, output)
        if layer < layers - 1:
            _activate(flat, use_tanh, power[: size * outer])

    # The gradient at the outputs, times minus the learning rate.
    classes = sizes[layers]
    deltas = np.empty((2, size * sizes[1:].max()), np.float32)
    delta = deltas[layers % 2][: size * classes].reshape((size, classes))
    step = learning_rate / np.float32(size)
    if squared:
        step *= _TWO / np.float32(classes)
    for i in range(size):
        row = activations[at + i * classes : at + (i + 1) * classes]
        if squared:
            for label in range(classes):
                delta[i, label] = -step * row[label]
        else:
            top = row.max()
            normaliser = _ZERO
            for label in range(classes):
                delta[i, label] = math.exp(row[label] - top)
                normaliser += delta[i, label]
            for label in range(classes):
                delta[i, label] *= -step / normaliser
        delta[i, targets[batch[i]]] += step

    for layer in range(layers - 1, -1, -1):
        inner, outer = sizes[layer], sizes[layer + 1]
        offset -= outer * inner + outer
        weight = parameters[offset : offset + outer * inner].reshape((outer, inner))
        bias = parameters[offset + outer * inner : offset + outer * inner + outer]
        at -= size * inner
        signal = activations[at : at + size * inner].reshape((size, inner))
        delta = deltas[(layer + 1) % 2][: size * outer].reshape((size, outer))
        if layer > 0:
            below = deltas[layer % 2][: size * inner].reshape((size, inner))
            for i in range(size):
                row = below[i]
                for unit in range(inner):
                    row[unit] = _ZERO
            _add_product(delta, weight, below)
            for i in range(size):
                for unit in range(inner):
                    s = signal[i, unit]
                    if use_tanh:
                        below[i, unit] *= _ONE - s * s
                    elif s <= _ZERO:
                        below[i, unit] = _ZERO
        by_unit = turned[: outer * size].reshape((outer, size))
        for i in range(size):
            for unit in range(outer):
                by_unit[unit, i] = delta[i, unit]
                bias[unit] += delta[i, unit]
        _add_product(by_unit, signal, weight)


@_compiled
def descend_replica(
    problem: Problem,
    parameters: np.ndarray,
    key: np.uint64,
    learning_rate: np.float32,
    batch_size: int,
    tolerance: float,
    patience: int,
    losses: np.ndarray,
) -> tuple[int, bool]:
    """SGD in place until the loss has kept within ``tolerance``; see :func:`descend`."""
    order = np.arange(len(problem.targets))
    state = np.full(1, key, np.uint64)
    batch = np.empty(batch_size, np.int64)
    used = 0
    losses[0] = data_loss(problem, parameters)
    for iteration in range(1, len(losses)):
        used = draw_batch(state, order, used, batch)
        sgd_step(problem, parameters, batch, learning_rate)
        loss = data_loss(problem, parameters)
        losses[iteration] = loss
        if not math.isfinite(loss):
            return iteration, False
        if iteration < patience:
            continue
        low = high = loss
        back = 1
        while back <= patience and high - low <= tolerance:
            low = min(low, losses[iteration - back])
            high = max(high, losses[iteration - back])
            back += 1
        if high - low <= tolerance:
            return iteration, True
    return len(losses) - 1, False


@_compiled
def escape_replica(
    problem: Problem,
    start: np.ndarray,
    key: np.uint64,
    learning_rate: np.float32,
    batch_size: int,
    threshold: float,
    replay_above: float,
    max_iterations: int,
    check_every: int,
) -> tuple[int, bool, float]:
    """One replica: (iterations, escaped, final loss); see :func:`escape_times`."""
    parameters = start.copy()
    kept = start.copy()
    order = np.arange(len(problem.targets))
    state = np.full(1, key, np.uint64)
    batches = np.empty((check_every, batch_size), np.int64)
    used = 0
    done = 0
    loss = math.nan
    while done < max_iterations:
        steps = min(check_every, max_iterations - done)
        if steps > 1:
            kept[:] = parameters
        for i in range(steps):
            used = draw_batch(state, order, used, batches[i])
            sgd_step(problem, parameters, batches[i], learning_rate)
        loss = data_loss(problem, parameters)
        if steps == 1:
            if not loss <= threshold:
                return done + 1, True, loss
        elif not loss <= replay_above:
            parameters[:] = kept
            for i in range(steps):
                sgd_step(problem, parameters, batches[i], learning_rate)
                loss = data_loss(problem, parameters)
                if not loss <= threshold:
                    return done + i + 1, True, loss
        done += steps
    return done, False, loss
