"""Mean exit times over a grid of alpha, noise, decay and dimension, beside the bounds."""

import itertools
import math

import numpy as np
import pandas as pd

from sgnoise import store, theory
from sgnoise.jobs import running_job, track
from sgnoise.sde import (
    LevySystem,
    Schedule,
    binomial_interval,
    first_exit,
    first_exit_by_jumps,
)
from sgnoise.seeds import integer_seed


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
    """Simulate every cell of the grid twice and write one row a cell.

    All N coordinates of a cell have the same alpha and epsilon, the potential is |w|^2 / 2 and the
    domain [-box, box]^N. ``mean_exit_time`` is Euler-Maruyama's; ``jump_mean_exit_time`` is the
    event-driven simulator's, with independent random numbers.

    Args:
        exit_path: Parquet to write.
        alphas: stable parameters.
        epsilons: noise amplitudes.
        gammas: exponents of the scheduler t^(gamma - 1).
        dimensions: numbers of coordinates N.
        box: half width of the domain.
        step: time step of Euler-Maruyama.
        paths: paths a cell and simulator.
        max_steps: steps after which a path is censored.
        cutoff: least large jump of the event-driven simulator, as a share of ``box``.
        rho: split of the jumps, for the theorems.
        study: for the provenance.
        seed: of these simulations.
        threads: of the simulation; the result does not depend on it.
    """
    rows = []
    cells = list(itertools.product(alphas, epsilons, gammas, dimensions))
    for alpha, epsilon, gamma, size in track(cells, "cells of the grid"):
        alone = integer_seed(seed, f"{alpha:g} {epsilon:g} {gamma:g} {size}")
        system = LevySystem(
            alpha=np.full(size, alpha),
            epsilon=epsilon,
            curvature=1.0,
            schedule=Schedule(gamma=gamma),
        )
        exits = first_exit(
            system,
            -box,
            box,
            step=step,
            max_steps=max_steps,
            paths=paths,
            seed=alone,
            threads=threads,
        )
        by_jumps = first_exit_by_jumps(
            system,
            -box,
            box,
            cutoff=cutoff * box,
            max_events=max_steps,
            paths=paths,
            seed=alone,
            threads=threads,
        )
        left = ~exits.censored
        mean, low, high = exits.mean_time()
        jump_mean, jump_low, jump_high = by_jumps.mean_time()
        upper = np.sum((exits.coordinate == 0) & (exits.side > 0))
        probability, probability_low, probability_high = binomial_interval(
            int(upper), int(left.sum())
        )
        constants = (np.full(size, alpha), epsilon, -box, box)
        row = {
            "alpha": alpha,
            "epsilon": epsilon,
            "gamma": gamma,
            "dimensions": size,
            "box": box,
            "rho": rho,
            "paths": paths,
            "censored": int(exits.censored.sum()),
            "mean_exit_time": mean,
            "low": low,
            "high": high,
            "jump_mean_exit_time": jump_mean,
            "jump_low": jump_low,
            "jump_high": jump_high,
            "small_noise_time": theory.small_noise_exit_time(*constants, gamma=gamma),
            "probability": probability,
            "probability_low": probability_low,
            "probability_high": probability_high,
            "large_jump_share": float(np.mean(exits.jump[left] >= epsilon ** (1 - rho)))
            if left.any()
            else math.nan,
            "relaxation_time": theory.relaxation_time(np.array, epsilon, -box, box, zeta=1.0),
            "jump_interval": 1 / theory.jump_intensity(alpha, epsilon, rho=rho).item(),
        }
        for variant in ("text", "appendix"):
            row[f"bound_{variant}"] = theory.mean_exit_time(
                *constants, rho=rho, gamma=gamma, variant=variant
            )
            row[f"bound_probability_{variant}"] = theory.exit_probability(
                *constants, rho=rho, gamma=gamma, variant=variant
            )[0]
            row[f"corollary_{variant}"] = (
                theory.mean_exit_time_without_decay(*constants, rho=rho, variant=variant)
                if gamma == 1
                else math.nan
            )
        rows.append(row)
    settings = {"box": box, "step": step, "max_steps": max_steps, "cutoff": cutoff, "rho": rho}
    store.write_table(
        exit_path, pd.DataFrame(rows), store.provenance(study=study, seed=seed, **settings)
    )


if __name__ == "__main__":
    with running_job() as job:
        simulate_exit_time(
            exit_path=job.output.exits,
            **job.params.exit_time,
            study=job.params.study,
            seed=job.params.seed,
            threads=job.threads,
        )
