"""Mean exit times over a grid of alpha, noise, decay and dimension, beside the bounds."""

import itertools
import math

import numpy as np
import pandas as pd

from sgnoise import store, theory
from sgnoise.jobs import running_job
from sgnoise.numerals import wilson_interval
from sgnoise.progress import track
from sgnoise.sde import (
    Exits,
    LevySystem,
    Schedule,
    first_exit,
    first_exit_by_jumps,
)
from sgnoise.seeds import integer_seed

# Euler-Maruyama runs where its budget is so many mean exit times: then nothing is censored.
_BUDGET_IN_MEANS = 20


def simulate_exit_time(
    *,
    exit_path: str,
    alphas: list[float],
    epsilons: list[float],
    gammas: list[float],
    dimensions: list[int],
    box: float,
    step: float,
    paths: int,
    max_steps: int,
    cutoff: float,
    rho: float,
    study: str,
    seed: int,
    threads: int,
) -> None:
    """Simulate every cell of the grid and write one row a cell.

    All N coordinates of a cell have the same alpha and epsilon, the potential is |w|^2 / 2 and the
    domain [-box, box]^N. ``mean_exit_time`` is Euler-Maruyama's where ``max_steps`` are at least 20
    expected exit times, elsewhere (small noise) that of the event-driven simulator; ``simulator``
    tells. The latter's result, with random numbers of its own, stands in ``jump_mean_exit_time``
    for every cell.

    Args:
        exit_path: Parquet to write.
        alphas: stable parameters.
        epsilons: noise amplitudes.
        gammas: exponents of the scheduler t^(gamma - 1).
        dimensions: numbers of coordinates N.
        box: half width of the domain.
        step: time step of Euler-Maruyama.
        paths: paths a cell and simulator.
        max_steps: steps of Euler-Maruyama after which a path is censored.
        cutoff: least large jump of the event-driven simulator, as a share of ``box``.
        rho: split of the jumps, for the theorems.
        study: for the provenance.
        seed: of these simulations.
        threads: of the simulation; the result does not depend on it.
    """
    cells = list(itertools.product(alphas, epsilons, gammas, dimensions))
    rows = []
    for alpha, epsilon, gamma, size in track(cells, "cells of the grid"):
        system = LevySystem(
            alpha=np.full(size, alpha), epsilon=epsilon, curvature=1.0, schedule=Schedule(gamma)
        )
        paper = bounds(alpha, epsilon, gamma, size, box=box, rho=rho)
        cell_seed = integer_seed(seed, f"{alpha:g} {epsilon:g} {gamma:g} {size}")
        exits = by_jumps = first_exit_by_jumps(
            system,
            -box,
            box,
            cutoff=cutoff * box,
            max_events=max_steps,
            paths=paths,
            seed=cell_seed,
            threads=threads,
        )
        affordable = paper["small_noise_time"] * _BUDGET_IN_MEANS <= max_steps * step
        if affordable:
            exits = first_exit(
                system,
                -box,
                box,
                step=step,
                max_steps=max_steps,
                paths=paths,
                seed=cell_seed,
                threads=threads,
            )
        jump_mean, jump_low, jump_high = by_jumps.mean_time()
        rows.append(
            {
                "alpha": alpha,
                "epsilon": epsilon,
                "gamma": gamma,
                "dimensions": size,
                "box": box,
                "rho": rho,
                "paths": paths,
                "simulator": "euler_maruyama" if affordable else "by_jumps",
                **summary(exits, epsilon ** (1 - rho)),
                "jump_mean_exit_time": jump_mean,
                "jump_low": jump_low,
                "jump_high": jump_high,
                **paper,
            }
        )
    settings = {"box": box, "step": step, "max_steps": max_steps, "cutoff": cutoff, "rho": rho}
    store.write_table(
        exit_path, pd.DataFrame(rows), store.provenance(study=study, seed=seed, **settings)
    )


def summary(exits: Exits, large: float) -> dict[str, float]:
    """Exit time, share of exits by the first upper edge, share at jumps above ``large``."""
    left = ~exits.censored
    count = int(left.sum())
    mean, low, high = exits.mean_time()
    upper = int(np.sum((exits.coordinate == 0) & (exits.side > 0)))
    probability, probability_low, probability_high = wilson_interval(upper, count)
    share, share_low, share_high = wilson_interval(int(np.sum(exits.jump[left] >= large)), count)
    return {
        "censored": exits.time.size - count,
        "mean_exit_time": mean,
        "low": low,
        "high": high,
        "probability": probability,
        "probability_low": probability_low,
        "probability_high": probability_high,
        "large_jump_share": share,
        "large_jump_low": share_low,
        "large_jump_high": share_high,
    }


def bounds(
    alpha: float, epsilon: float, gamma: float, size: int, *, box: float, rho: float
) -> dict[str, float]:
    """What the paper and the limit of small noise say about a cell."""
    basin = (np.full(size, alpha), epsilon, -box, box)
    found = {
        "small_noise_time": theory.small_noise_exit_time(*basin, gamma=gamma),
        "small_noise_probability": theory.small_noise_exit_probability(*basin, gamma=gamma)[0, 1],
        "relaxation_time": theory.relaxation_time(np.copy, epsilon, -box, box, zeta=1.0),
        "jump_interval": 1 / theory.jump_intensity(alpha, epsilon, rho=rho).item(),
    }
    for variant in theory.VARIANTS:
        found[f"bound_{variant}"] = theory.mean_exit_time(
            *basin, rho=rho, gamma=gamma, variant=variant
        )
        found[f"corollary_{variant}"] = (
            theory.mean_exit_time_without_decay(*basin, rho=rho, variant=variant)
            if gamma == 1
            else math.nan
        )
        found[f"bound_probability_{variant}"] = theory.exit_probability(
            *basin, rho=rho, gamma=gamma, variant=variant
        )[0]
    return found


if __name__ == "__main__":
    with running_job() as job:
        simulate_exit_time(
            exit_path=job.output.exits,
            **job.params.exit_time,
            study=job.params.study,
            seed=job.params.seed,
            threads=job.threads,
        )
