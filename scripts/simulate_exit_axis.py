"""Through which axis a two-dimensional process leaves its box: the simulation behind Figure 9."""

import math

import numpy as np
import pandas as pd

from sgnoise import store, theory
from sgnoise.jobs import running_job
from sgnoise.numerals import wilson_interval
from sgnoise.progress import track
from sgnoise.sde import LevySystem, first_exit
from sgnoise.seeds import integer_seed


def simulate_exit_axis(
    *,
    exit_path: str,
    alphas: list[float],
    deltas: list[float],
    epsilon: float,
    box: float,
    step: float,
    paths: int,
    max_steps: int,
    rho: float,
    study: str,
    seed: int,
    threads: int,
) -> None:
    """Simulate all pairs (alpha, alpha + delta) by Euler-Maruyama and write one row a pair.

    The potential is |w|^2 / 2, both coordinates have the amplitude ``epsilon`` and the box is
    [-box, box]^2. Beside the simulated probability stand the corollary's, the limit of small
    noise, and the mean exit time with the bounds of the theorems.

    Args:
        exit_path: Parquet to write.
        alphas: the lower stable parameter alpha_1.
        deltas: alpha_2 - alpha_1, positive.
        epsilon: noise amplitude.
        box: half width of the box.
        step: time step.
        paths: paths a pair.
        max_steps: steps after which a path is censored.
        rho: split of the jumps, for the theorems.
        study: for the provenance.
        seed: of these simulations.
        threads: of the simulation; the result does not depend on it.

    Raises:
        ValueError: alpha_2 reaches 2 or delta is not positive.
    """
    pairs = [(alpha, delta) for delta in deltas for alpha in alphas]
    for alpha, delta in pairs:
        if delta <= 0 or alpha + delta >= 2:
            raise ValueError(f"alpha = {alpha}, delta = {delta}: need delta > 0 and a sum below 2")
    rows = []
    for alpha, delta in track(pairs, "pairs of alpha"):
        both = np.array([alpha, round(alpha + delta, 12)])
        exits = first_exit(
            LevySystem(alpha=both, epsilon=epsilon, curvature=1.0),
            -box,
            box,
            step=step,
            max_steps=max_steps,
            paths=paths,
            seed=integer_seed(seed, f"alpha {alpha:g} + {delta:g}"),
            threads=threads,
        )
        left = ~exits.censored
        count, first = int(left.sum()), int(np.sum(exits.coordinate == 0))
        probability, low, high = wilson_interval(first, count)
        mean, mean_low, mean_high = exits.mean_time()
        ratio = theory.exit_probability_ratio(both, epsilon, box, rho=rho)[0, 1]
        constants = (both, epsilon, -box, box)
        rows.append(
            {
                "alpha_1": both[0],
                "alpha_2": both[1],
                "delta": delta,
                "epsilon": epsilon,
                "box": box,
                "rho": rho,
                "paths": paths,
                "exits": count,
                "exits_axis_1": first,
                "exits_upper_1": int(np.sum((exits.coordinate == 0) & (exits.side > 0))),
                "probability": probability,
                "low": low,
                "high": high,
                "corollary": ratio / (1 + ratio),
                "small_noise": theory.small_noise_exit_probability(*constants)[0].sum(),
                "mean_exit_time": mean,
                "mean_low": mean_low,
                "mean_high": mean_high,
                "small_noise_time": theory.small_noise_exit_time(*constants),
                "bound_text": theory.mean_exit_time(*constants, rho=rho, gamma=1.0),
                "corollary_text": theory.mean_exit_time_without_decay(*constants, rho=rho),
                "bound_probability": theory.exit_probability(*constants, rho=rho, gamma=1.0)[0],
                "large_jump_share": float(np.mean(exits.jump[left] >= epsilon ** (1 - rho)))
                if count
                else math.nan,
            }
        )
    settings = {"epsilon": epsilon, "box": box, "step": step, "max_steps": max_steps, "rho": rho}
    store.write_table(
        exit_path, pd.DataFrame(rows), store.provenance(study=study, seed=seed, **settings)
    )


if __name__ == "__main__":
    with running_job() as job:
        simulate_exit_axis(
            exit_path=job.output.exits,
            **job.params.exit_axis,
            study=job.params.study,
            seed=job.params.seed,
            threads=job.threads,
        )
