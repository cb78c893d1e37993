"""Replica-iterations a second, with the exact loss of the whole data set after every iteration.

Three ways, in turn in one run, on random tables of the shapes of BreastW and Satellite:

- plain: a PyTorch loop, one process with one thread for each core;
- ours: ``escape.escape_times`` with as many threads;
- floor: the matrix products of one iteration alone, through the same BLAS, with as many threads.

Run: ``python benchmarks/escape_speed.py``
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import scipy.linalg.cython_blas  # noqa: F401 (loads the BLAS that numba calls, to be limited below)
from numba import njit
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from sgnoise import escape

SHAPES = {"breastw": (683, 9), "satellite": (6435, 36)}
WIDTHS = [32, 32]
CLASSES = 2
LEARNING_RATE = 1e-3


def make_problem(samples: int, features: int) -> tuple[escape.Problem, np.ndarray]:
    """Random inputs and targets, and random weights."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(samples, features)).astype(np.float32)
    problem = escape.make_problem(inputs, rng.integers(CLASSES, size=samples), CLASSES, WIDTHS)
    return problem, escape.initial_parameters(problem.sizes, rng=rng)


def plain_loop(samples: int, features: int, batch_size: int, iterations: int) -> float:
    """Seconds that one thread of PyTorch takes for one replica."""
    import torch

    torch.set_num_threads(1)
    problem, _ = make_problem(samples, features)
    inputs, targets = torch.from_numpy(problem.rows), torch.from_numpy(problem.targets)
    units = problem.sizes.tolist()
    layers: list[torch.nn.Module] = []
    for inner, outer in itertools.pairwise(units):
        layers += [torch.nn.Linear(inner, outer), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers[:-1])
    optimiser = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)
    cross_entropy = torch.nn.functional.cross_entropy

    def run(count: int) -> None:
        order, used = torch.randperm(samples), 0
        for _ in range(count):
            if used + batch_size > samples:
                order, used = torch.randperm(samples), 0
            batch = order[used : used + batch_size]
            used += batch_size
            optimiser.zero_grad()
            cross_entropy(network(inputs[batch]), targets[batch]).backward()
            optimiser.step()
            with torch.no_grad():
                if cross_entropy(network(inputs), targets).item() > 1e9:
                    return

    run(20)
    begun = time.perf_counter()
    run(iterations)
    return time.perf_counter() - begun


@njit(nogil=True)
def products(
    sizes: np.ndarray, blocks: np.ndarray, parameters: np.ndarray, batch_size: int, iterations: int
) -> None:
    """The matrix products of ``iterations`` steps and looks at the loss, and nothing else."""
    layers = len(sizes) - 1
    widest = sizes.max()
    buffers = np.empty((2, widest, blocks.shape[2]), np.float32)
    signals = np.zeros(batch_size * widest, np.float32)
    deltas = np.zeros(batch_size * widest, np.float32)
    gradients = np.empty(widest * widest, np.float32)
    for _ in range(iterations):
        offset = 0
        for layer in range(layers):
            inner, outer = sizes[layer], sizes[layer + 1]
            weight = parameters[offset : offset + outer * inner].reshape((outer, inner))
            offset += outer * inner + outer
            signal = signals[: batch_size * inner].reshape((batch_size, inner))
            delta = deltas[: batch_size * outer].reshape((batch_size, outer))
            np.dot(signal, weight.T, delta)
            np.dot(delta.T, signal, gradients[: outer * inner].reshape((outer, inner)))
            if layer > 0:
                np.dot(delta, weight, signal)
        for block in range(len(blocks)):
            below = blocks[block]
            offset = 0
            for layer in range(layers):
                inner, outer = sizes[layer], sizes[layer + 1]
                weight = parameters[offset : offset + outer * inner].reshape((outer, inner))
                offset += outer * inner + outer
                above = buffers[layer % 2][:outer]
                np.dot(weight, below, above)
                below = above


def ours(
    problem: escape.Problem, parameters: np.ndarray, batch_size: int, iterations: int, threads: int
) -> float:
    """Seconds for one replica on each thread."""
    begun = time.perf_counter()
    found = escape.escape_times(
        problem,
        parameters,
        keys=np.arange(threads).astype(np.uint64),
        learning_rate=LEARNING_RATE,
        batch_size=batch_size,
        minimum_loss=0.0,
        loss_delta=1e9,
        max_iterations=iterations,
        threads=threads,
    )
    assert not found.escaped.any()
    return time.perf_counter() - begun


def floor(
    problem: escape.Problem, parameters: np.ndarray, batch_size: int, iterations: int, threads: int
) -> float:
    """Seconds for the products of one replica on each thread."""

    def run(_: int) -> None:
        products(problem.sizes, problem.blocks, parameters, batch_size, iterations)

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads) as pool:
        begun = time.perf_counter()
        list(pool.map(run, range(threads)))
        return time.perf_counter() - begun


def main() -> None:
    """Print a table of the best of several rounds: other work on the machine only slows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    threads, rounds = arguments.threads, arguments.rounds

    print(f"{threads} threads, load {os.getloadavg()[0]:.1f}; replica-iterations a second")
    print("table      batch    plain     ours    floor  ours/plain  floor/ours")
    for name, (samples, features) in SHAPES.items():
        problem, parameters = make_problem(samples, features)
        iterations = max(200, 2_000_000 // samples)
        for batch_size in (32, 8):
            ours(problem, parameters, batch_size, 2, threads)
            floor(problem, parameters, batch_size, 2, threads)
            best = {"plain": np.inf, "ours": np.inf, "floor": np.inf}
            for _ in range(rounds):
                few = iterations // 10
                with multiprocessing.get_context("spawn").Pool(threads) as pool:
                    tasks = [(samples, features, batch_size, few)] * threads
                    plain = max(pool.starmap(plain_loop, tasks)) / few
                best["plain"] = min(best["plain"], plain)
                for way, run in (("ours", ours), ("floor", floor)):
                    seconds = run(problem, parameters, batch_size, iterations, threads)
                    best[way] = min(best[way], seconds / iterations)
            rate = {way: threads / seconds for way, seconds in best.items()}
            print(
                f"{name:10s} {batch_size:5d} {rate['plain']:8.0f} {rate['ours']:8.0f} "
                f"{rate['floor']:8.0f} {rate['ours'] / rate['plain']:11.1f} "
                f"{rate['floor'] / rate['ours']:11.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
