"""The escape times that the paper's SDE makes of the gradient noise at a minimum."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sgnoise import seeds, store
from sgnoise.data import datasets
from sgnoise.escape import basin_edges, load_minimum, loss_curvature
from sgnoise.jobs import running_job
from sgnoise.progress import logger
from sgnoise.sde import LevySystem, first_exit, levy_constant

# Above this the Lévy measure of the paper, whose constant grows without bound, has no use.
_LARGEST_ALPHA = 1.999


def noise_system(
    alpha: np.ndarray, scale: np.ndarray, curvature: np.ndarray, learning_rate: float
) -> LevySystem:
    """Eq. 2 with the measured noise: SGD in which a step adds the rate times a stable draw.

    Time is iterations times learning rate. Over one step the noise then has the scale of the
    learning rate times ``scale`` if epsilon = rate^((alpha-1)/alpha) and 1' lambda = scale^alpha /
    C(alpha), as a unit draw has scale (C(alpha) t)^(1/alpha) in the paper's measure.
    """
    constants = np.array([levy_constant(each) for each in alpha])
    return LevySystem(
        alpha=alpha,
        epsilon=learning_rate ** ((alpha - 1) / alpha),
        row_sum=scale**alpha / constants,
        curvature=np.maximum(curvature, 0),
    )


def predict_times(
    system: LevySystem,
    lower: np.ndarray,
    upper: np.ndarray,
    *,
    learning_rate: float,
    max_iterations: int,
    paths: int,
    seed: int,
    threads: int,
) -> dict[str, Any]:
    """Mean escape time of the SDE in iterations: simulated, and in the limit of small noise.

    The limit is 1 / sum_l m_l Phi_l, the mean time to the first jump that leads out at once from
    the minimum (``theory.small_noise_exit_time`` with a constant learning rate).
    """
    edges = (-lower) ** -system.alpha + upper**-system.alpha
    intensity = system.row_sum * system.epsilon**system.alpha / system.alpha * edges
    limit = 1 / intensity.sum() if intensity.any() else math.inf
    exits = first_exit(
        system,
        lower,
        upper,
        step=learning_rate,
        max_steps=max_iterations,
        paths=paths,
        seed=seed,
        threads=threads,
    )
    mean, low, high = (value / learning_rate for value in exits.mean_time())
    return {
        "paths": paths,
        "censored": int(exits.censored.sum()),
        "mean_exit_time": mean,
        "mean_low": low,
        "mean_high": high,
        "small_noise_exit_time": limit / learning_rate,
    }


def predict_escape(
    *,
    arrays_path: str,
    minimum_path: str,
    plan_path: str,
    noise_path: str,
    basin_path: str,
    prediction_path: str,
    paths: int,
    study: str,
    dataset: str,
    minimum_index: int,
    seed: int,
    threads: int,
) -> None:
    """Let Eq. 2 escape with the measured noise.

    The basin of Eq. 2 is the box whose edges are where one weight alone lifts the loss over the
    threshold of an escape; its potential is quadratic, with the diagonal of the Hessian. Weights
    without a fit of their noise have no part in it.

    Args:
        arrays_path: the data set.
        minimum_path: where the escapes start.
        plan_path: batch sizes, learning rates and what counts as an escape.
        noise_path: the noise there, from ``measure_escape_noise``.
        basin_path: gets one row a weight: curvature of the loss, edges of the basin.
        prediction_path: gets one row a batch size and learning rate.
        paths: simulated exits behind a mean.
        study: for the provenance.
        dataset: for the rows and the random stream.
        minimum_index: which of its minima; likewise.
        seed: of the exits.
        threads: of the CPU.

    Raises:
        ValueError: no weight has noise, or it was not measured at a batch size of the plan.
    """
    plan = json.loads(Path(plan_path).read_text(encoding="utf-8"))
    minimum = load_minimum(minimum_path)
    data = datasets.load(arrays_path)
    problem = minimum.problem(*data.batch("train", slice(None)), data.classes)
    parameters = minimum.parameters
    curvature = loss_curvature(problem, parameters)
    lower, upper = basin_edges(problem, parameters, threshold=minimum.loss + plan["loss_delta"])
    noise = pd.read_parquet(noise_path)
    names = {"dataset": dataset, "minimum": minimum_index}
    predictions = []
    for batch_size in map(int, plan["learning_rates"]):
        fits = noise[noise["batch_size"] == batch_size].sort_values("parameter_index")
        if len(fits) != len(parameters):
            raise ValueError(
                f"{noise_path}: noise of {len(fits)} weights at batch size {batch_size}, where the "
                f"network has {len(parameters)}"
            )
        alpha, scale, zero_fraction = (
            fits[name].to_numpy() for name in ("alpha", "scale", "zero_fraction")
        )
        used = np.isfinite(alpha) & (scale > 0)
        if not used.any():
            raise ValueError(f"{minimum_path}: no weight has gradient noise at this minimum")
        for rate in plan["learning_rates"][str(batch_size)]:
            system = noise_system(
                np.minimum(alpha[used], _LARGEST_ALPHA),
                # Draws that are exactly zero were taken out of the fit.
                scale[used] * (1 - zero_fraction[used]) ** (1 / alpha[used]),
                np.minimum(curvature[used], 0.99 / rate),
                rate,
            )
            predicted = predict_times(
                system,
                lower[used],
                upper[used],
                learning_rate=rate,
                max_iterations=plan["max_iterations"],
                paths=paths,
                seed=seeds.integer_seed(seed, dataset, minimum_index, batch_size, "exits"),
                threads=threads,
            )
            predictions.append(
                {**names, "batch_size": batch_size, "learning_rate": rate, **predicted}
            )
            logger.info(
                "batch size %d, learning rate %.4g: %.4g iterations",
                batch_size,
                rate,
                predicted["mean_exit_time"],
            )
    basin = {
        **names,
        "parameter_index": np.arange(len(parameters), dtype=np.int32),
        "curvature": curvature,
        "edge_low": lower,
        "edge_high": upper,
    }
    about = store.provenance(study=study, seed=seed, dataset=dataset, paths=paths)
    store.write_table(basin_path, pd.DataFrame(basin), about)
    store.write_table(prediction_path, pd.DataFrame(predictions), about)


if __name__ == "__main__":
    with running_job() as job:
        predict_escape(
            arrays_path=job.input.arrays,
            minimum_path=job.input.minimum,
            plan_path=job.input.plan,
            noise_path=job.input.noise,
            basin_path=job.output.basin,
            prediction_path=job.output.prediction,
            paths=job.params.paths,
            study=job.params.study,
            dataset=job.params.dataset,
            minimum_index=job.params.minimum,
            seed=job.params.seed,
            threads=job.threads,
        )
