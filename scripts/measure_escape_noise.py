"""The gradient noise of every weight at a minimum, with the stable law fitted to it."""

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional

from sgnoise import devices, fitting, gradients, noise, seeds, store
from sgnoise.data import datasets
from sgnoise.escape import Minimum, Problem, layers_of, load_minimum
from sgnoise.jobs import running_job
from sgnoise.progress import logger


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


def measure_escape_noise(
    *,
    arrays_path: str,
    minimum_path: str,
    noise_path: str,
    batch_sizes: list[int],
    draws: int,
    study: str,
    dataset: str,
    minimum_index: int,
    seed: int,
    threads: int,
) -> None:
    """Fit the stable law to the noise of every weight at each batch size.

    Gradients, draws and fits are those of any run (``dump_gradients``, ``draw_noise``,
    ``fit_noise``); of a small network they fit into memory, and one job has all of them.

    Args:
        arrays_path: the data set.
        minimum_path: where the noise is measured.
        noise_path: gets one row a batch size and weight, in the order of the minimum's flat vector:
            the keys of the weight, alpha and scale with their errors. ``flag`` names the weights
            without a fit: those of units that are dead on all samples.
        batch_sizes: of the mini-batches.
        draws: mini-batches behind a fit.
        study: for the provenance.
        dataset: for the rows and the random stream.
        minimum_index: which of its minima; likewise.
        seed: of the mini-batches.
        threads: of the CPU.
    """
    minimum = load_minimum(minimum_path)
    data = datasets.load(arrays_path)
    problem = minimum.problem(*data.batch("train", slice(None)), data.classes)
    network = network_of(minimum, problem)
    every_weight = gradients.sample_parameters(
        network, uniform=len(minimum.parameters), per_layer=0, seed=0
    )
    with devices.cpu_threads(threads):
        by_sample = gradients.per_sample_gradients(
            network,
            squared_error if problem.squared else functional.cross_entropy,
            torch.from_numpy(problem.rows),
            torch.from_numpy(problem.targets),
            every_weight,
        ).numpy()
    samples = by_sample.shape[1]
    tables = []
    for batch_size in batch_sizes:
        rng = seeds.generator(seed, dataset, minimum_index, batch_size, "mini-batches")
        batches = noise.mini_batches(samples, batch_size, draws, replacement=False, rng=rng)
        drawn = noise.batch_noise(by_sample, noise.selection_matrix(batches, samples))
        fit = fitting.fit_stable(drawn, nan_policy="flag", threads=threads)
        names = {"dataset": dataset, "minimum": minimum_index, "batch_size": batch_size}
        fitted = {
            "alpha": fit.alpha,
            "alpha_se": fit.alpha_se,
            "scale": fit.scale,
            "scale_se": fit.scale_se,
            "zero_fraction": fit.zero_fraction,
            "flag": fit.flag,
        }
        keys = every_weight.frame
        tables.append(
            pd.concat([pd.DataFrame(names, keys.index), keys, pd.DataFrame(fitted)], axis=1)
        )
        logger.info(
            "batch size %d: median alpha %.3g of %d weights",
            batch_size,
            np.nanmedian(fit.alpha),
            len(keys),
        )
    store.write_table(
        noise_path,
        pd.concat(tables, ignore_index=True),
        store.provenance(study=study, seed=seed, dataset=dataset, draws=draws),
    )


if __name__ == "__main__":
    with running_job() as job:
        measure_escape_noise(
            arrays_path=job.input.arrays,
            minimum_path=job.input.minimum,
            noise_path=job.output.noise,
            batch_sizes=job.params.batch_sizes,
            draws=job.params.draws,
            study=job.params.study,
            dataset=job.params.dataset,
            minimum_index=job.params.minimum,
            seed=job.params.seed,
            threads=job.threads,
        )
