"""The gradient noise at a minimum, and the escape times that the paper's SDE makes of it."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional

from sgnoise import fitting, gradients, seeds, store
from sgnoise.data import datasets
from sgnoise.escape import Minimum, Problem, data_loss, layers_of, load_minimum, loss_curvature
from sgnoise.jobs import running_job
from sgnoise.noise import batch_noise, mini_batches, selection_matrix
from sgnoise.sde import LevySystem, first_exit, levy_constant

logger = logging.getLogger(__name__)

# Samples whose gradients are taken together.
CHUNK = 1024

# Above this the Lévy measure of the paper, whose constant grows without bound, has no use.
_LARGEST_ALPHA = 1.999
# Edges of the basin are looked for between these distances, and placed to within a factor.
_NEAREST, _FURTHEST, _RESOLUTION = 1e-3, 1e3, 1.05


def network_of(minimum: Minimum, problem: Problem) -> nn.Sequential:
    """The network at the minimum, for the gradients."""
    layers: list[nn.Module] = []
    for weight, bias in layers_of(minimum.parameters, problem.sizes):
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight.copy()))
            layer.bias.copy_(torch.from_numpy(bias.copy()))
        layers += [layer, nn.Tanh() if minimum.activation == "tanh" else nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def squared_error(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean squared error against 1 for the class and 0 for the others, as in ``sgnoise.escape``."""
    wanted = functional.one_hot(targets, outputs.shape[-1]).to(outputs.dtype)
    return functional.mse_loss(outputs, wanted)


def sample_gradients(minimum: Minimum, problem: Problem) -> np.ndarray:
    """The gradient of every parameter for every sample, (parameters, samples), float32.

    The parameters are in the order of the minimum's flat vector.
    """
    network = network_of(minimum, problem)
    sample = gradients.sample_parameters(
        network, uniform=len(minimum.parameters), per_layer=0, seed=0
    )
    loss = squared_error if problem.squared else functional.cross_entropy
    engine = gradients.PerSampleGradients(network, loss, sample)
    inputs, targets = torch.from_numpy(problem.rows), torch.from_numpy(problem.targets)
    parts = [
        engine(inputs[first : first + CHUNK], targets[first : first + CHUNK]).numpy()
        for first in range(0, len(targets), CHUNK)
    ]
    return np.concatenate(parts, axis=1)


def basin_edge(
    problem: Problem, parameters: np.ndarray, index: int, side: int, *, threshold: float
) -> float:
    """How far one weight alone can go before the loss exceeds ``threshold``; inf if it never does.

    The paper's d_l^±: the first crossing on a geometric grid, so to within _RESOLUTION.
    """
    moved = parameters.copy()

    def inside(distance: float) -> bool:
        moved[index] = parameters[index] + np.float32(side * distance)
        return bool(data_loss(problem, moved) <= threshold)

    if inside(_FURTHEST):
        return math.inf
    low, high = _NEAREST, _FURTHEST
    while high > _RESOLUTION * low:
        middle = math.sqrt(low * high)
        if inside(middle):
            low = middle
        else:
            high = middle
    return high


def basin_edges(
    problem: Problem, parameters: np.ndarray, *, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """d^- (negative) and d^+ of every weight, each (parameters,)."""
    edges = np.array(
        [
            [basin_edge(problem, parameters, index, side, threshold=threshold) for side in (-1, 1)]
            for index in range(len(parameters))
        ]
    )
    return -edges[:, 0], edges[:, 1]


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


def measure_escape_noise(
    *,
    arrays_path: str,
    minimum_path: str,
    plan_path: str,
    noise_path: str,
    prediction_path: str,
    draws: int,
    paths: int,
    study: str,
    dataset: str,
    minimum_index: int,
    seed: int,
    threads: int,
) -> None:
    """Fit the stable law to the noise of every weight, and let Eq. 2 escape with it.

    The basin of Eq. 2 is the box whose edges are where one weight alone lifts the loss over the
    threshold of an escape; its potential is quadratic, with the diagonal of the Hessian.

    Args:
        arrays_path: the data set.
        minimum_path: where the noise is measured.
        plan_path: batch sizes, learning rates and what counts as an escape.
        noise_path: gets one row a weight and batch size: alpha, scale, their errors, curvature and
            edges of the basin. ``flag`` names the weights without a fit, which have no part in the
            prediction: those of units that are dead on all samples.
        prediction_path: gets one row a batch size and learning rate.
        draws: mini-batches behind a fit.
        paths: simulated exits behind a mean.
        study: for the provenance.
        dataset: for the rows and the random stream.
        minimum_index: which of its minima; likewise.
        seed: of the mini-batches and of the exits.
        threads: of the CPU.
    """
    torch.set_num_threads(threads)
    plan = json.loads(Path(plan_path).read_text(encoding="utf-8"))
    minimum = load_minimum(minimum_path)
    data = datasets.load(arrays_path)
    problem = minimum.problem(*data.batch("train", slice(None)), data.classes)
    parameters = minimum.parameters
    by_sample = sample_gradients(minimum, problem)
    samples = by_sample.shape[1]
    curvature = loss_curvature(problem, parameters)
    lower, upper = basin_edges(problem, parameters, threshold=minimum.loss + plan["loss_delta"])
    names = {"dataset": dataset, "minimum": minimum_index}
    noise_tables, predictions = [], []
    for batch_size in map(int, plan["learning_rates"]):
        stream = (dataset, minimum_index, batch_size)
        rng = seeds.generator(seed, *stream, "mini-batches")
        batches = mini_batches(samples, batch_size, draws, replacement=False, rng=rng)
        noise = batch_noise(by_sample, selection_matrix(batches, samples))
        fit = fitting.fit_stable(noise, nan_policy="flag", threads=threads)
        noise_tables.append(
            pd.DataFrame(
                {
                    **names,
                    "batch_size": batch_size,
                    "parameter_index": np.arange(len(parameters), dtype=np.int32),
                    "alpha": fit.alpha,
                    "alpha_se": fit.alpha_se,
                    "scale": fit.scale,
                    "scale_se": fit.scale_se,
                    "zero_fraction": fit.zero_fraction,
                    "curvature": curvature,
                    "edge_low": lower,
                    "edge_high": upper,
                    "flag": fit.flag,
                }
            )
        )
        used = np.isfinite(fit.alpha) & (fit.scale > 0)
        if not used.any():
            raise ValueError(f"{minimum_path}: no weight has gradient noise at this minimum")
        for rate in plan["learning_rates"][str(batch_size)]:
            system = noise_system(
                np.minimum(fit.alpha[used], _LARGEST_ALPHA),
                # Draws that are exactly zero were taken out of the fit.
                fit.scale[used] * (1 - fit.zero_fraction[used]) ** (1 / fit.alpha[used]),
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
                seed=seeds.integer_seed(seed, *stream, "exits"),
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
    about = store.provenance(study=study, seed=seed, dataset=dataset, draws=draws, paths=paths)
    store.write_table(noise_path, pd.concat(noise_tables, ignore_index=True), about)
    store.write_table(prediction_path, pd.DataFrame(predictions), about)


if __name__ == "__main__":
    with running_job() as job:
        measure_escape_noise(
            arrays_path=job.input.arrays,
            minimum_path=job.input.minimum,
            plan_path=job.input.plan,
            noise_path=job.output.noise,
            prediction_path=job.output.prediction,
            draws=job.params.draws,
            paths=job.params.paths,
            study=job.params.study,
            dataset=job.params.dataset,
            minimum_index=job.params.minimum,
            seed=job.params.seed,
            threads=job.threads,
        )
