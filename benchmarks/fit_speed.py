"""Fits a second, of this project and of its peers, in one run on the same data.

The data are symmetric alpha-stable (alpha drawn from 1.2 to 2 for each row), float32, as noise is.
Compared are

- scipy: ``scipy.stats.levy_stable.fit`` with skewness and location held, on a few rows;
- levy-stable: ``levy.fit`` with the same held, on some rows more;
- ours: every law, at several numbers of values a row, best of several rounds;
- floor: streaming the same array once with one logarithm a value, in blocks that fit the cache, by
  numpy, on as many threads.

The first call, which compiles, and the peak of memory are measured apart, in fresh processes.

Run: ``python benchmarks/fit_speed.py`` (about two minutes; most of it is scipy's).
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from sgnoise import fitting, stable
from sgnoise.laws import LAWS

ROWS, VALUES = 10_000, 1000


def make_noise(rows: int, values: int) -> np.ndarray:
    """(rows, values) float32, alpha from 1.2 to 2, scales over six orders of magnitude."""
    rng = np.random.default_rng(0)
    alpha = rng.uniform(1.2, 2.0, (rows, 1))
    scale = 10.0 ** rng.uniform(-6.0, 0.0, (rows, 1))
    return stable.rvs(alpha, (rows, values), scale=scale, rng=rng).astype(np.float32)


def best_of(rounds: int, function: Callable[[], object]) -> float:
    """The shortest time in seconds: other work on the machine only adds."""
    best = np.inf
    for _ in range(rounds):
        begun = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - begun)
    return best


def stream(noise: np.ndarray, threads: int) -> float:
    """The sum of ln|x|, one block after the other."""
    height = max(1, (1 << 17) // noise.shape[1])

    def share(first: int) -> float:
        buffer = np.empty((height, noise.shape[1]), np.float32)
        total = 0.0
        for start in range(first * height, len(noise), threads * height):
            block = noise[start : start + height]
            logs = np.abs(block, out=buffer[: len(block)])
            total += float(np.log(logs, out=logs).sum())
        return total

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(share, range(threads)))


def scipy_alphas(noise: np.ndarray) -> np.ndarray:
    from scipy.stats import levy_stable

    return np.array([levy_stable.fit(row.astype(float), fbeta=0.0, floc=0.0)[0] for row in noise])


def levy_alphas(noise: np.ndarray) -> np.ndarray:
    import levy

    fits = [levy.fit(row.astype(float), beta=0.0, mu=0.0) for row in noise]
    return np.array([fit.params.alpha for fit in fits])


def first_call() -> None:
    """Print the seconds that the tables and a first call of everything take."""
    noise = make_noise(64, 100)
    begun = time.perf_counter()
    stable.tables()
    tables_end = time.perf_counter()
    fits = [fitting.fit_law(law, noise, threads=1) for law in LAWS]
    fits_end = time.perf_counter()
    for fit in fits:
        fit.logpdf(noise, threads=1)
        fit.cdf(noise, threads=1)
    end = time.perf_counter()
    print(
        f"tables {tables_end - begun:.2f} s, first fits of all laws {fits_end - tables_end:.2f} s, "
        f"first densities {end - fits_end:.2f} s"
    )


def peak_resident() -> int:
    """The largest resident size of this process so far, in bytes (from Linux's /proc)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def peak_memory() -> None:
    """Print the growth of the peak of resident memory during a fit, relative to the input."""
    noise = make_noise(64, 100)
    fitting.fit_stable(noise)
    some = make_noise(100, VALUES)
    noise = np.empty((ROWS, VALUES), np.float32)
    for start in range(0, ROWS, len(some)):
        noise[start : start + len(some)] = some
    before = peak_resident()
    fitting.fit_stable(noise)
    print(f"{(peak_resident() - before) / noise.nbytes:.1%} of the input")


def in_fresh_process(what: str, cache: str) -> str:
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
    command = [sys.executable, __file__, "--only", what]
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scipy-rows", type=int, default=2)
    parser.add_argument("--levy-rows", type=int, default=30)
    parser.add_argument("--only", choices=["first_call", "peak_memory"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        {"first_call": first_call, "peak_memory": peak_memory}[arguments.only]()
        return
    threads, rounds = arguments.threads, arguments.rounds

    print(f"{platform.processor() or platform.machine()}, {threads} threads, load before ", end="")
    print(f"{os.getloadavg()[0]:.1f}, Python {platform.python_version()}, numpy {np.__version__}")
    print(f"{ROWS} rows, best of {rounds} rounds; floor = streaming the array with one log a value")
    print()
    print("| law | peer | values a row | fits a second | microseconds a fit | times the floor |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")

    def report(law: str, peer: str, values: int, seconds: float, floor: float) -> None:
        print(
            f"| {law} | {peer} | {values} | {1.0 / seconds:.3g} | {1e6 * seconds:.3g} | "
            f"{seconds / floor:.3g} |",
            flush=True,
        )

    noise = make_noise(ROWS, VALUES)
    floor = best_of(rounds, partial(stream, noise, threads)) / ROWS
    ours = fitting.fit_stable(noise, threads=threads).alpha
    differences = []
    for peer, function, rows in (
        ("scipy", scipy_alphas, arguments.scipy_rows),
        ("levy-stable", levy_alphas, arguments.levy_rows),
    ):
        if rows > 0:
            begun = time.perf_counter()
            alphas = function(noise[:rows])
            report("stable", peer, VALUES, (time.perf_counter() - begun) / rows, floor)
            gaps = np.abs(alphas - ours[:rows])
            differences.append(f"{peer} {np.median(gaps):.0e}, {gaps.max():.0e} ({rows} rows)")
    for values in (VALUES, 100, 3500):
        noise = make_noise(ROWS, values)
        floor = best_of(rounds, partial(stream, noise, threads)) / ROWS
        for law in LAWS:
            if values == VALUES or law == "stable":
                seconds = (
                    best_of(rounds, partial(fitting.fit_law, law, noise, threads=threads)) / ROWS
                )
                report(law, "ours", values, seconds, floor)
        report("(floor)", "numpy", values, floor, floor)

    noise = make_noise(5000, VALUES)
    print()
    print("| law | log density, ns a value | distribution function, ns a value |")
    print("| --- | ---: | ---: |")
    for law in LAWS:
        fitted = fitting.fit_law(law, noise, threads=threads)
        times = [
            1e9 * best_of(3, partial(method, noise, threads=threads)) / noise.size
            for method in (fitted.logpdf, fitted.cdf)
        ]
        print(f"| {law} | {times[0]:.3g} | {times[1]:.3g} |", flush=True)

    print()
    print(f"difference of alpha from ours, median and largest: {'; '.join(differences)}")
    with tempfile.TemporaryDirectory() as cache:
        print(f"compiling: {in_fresh_process('first_call', cache)}")
        print(f"cached: {in_fresh_process('first_call', cache)}")
        print(f"memory of a fit beyond its input: {in_fresh_process('peak_memory', cache)}")


if __name__ == "__main__":
    main()
