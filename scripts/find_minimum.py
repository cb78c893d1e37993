"""Train a small network until the loss of the whole data set stands still (A.4)."""

import json
import logging
from typing import Any

import numpy as np

from sgnoise import seeds, store
from sgnoise.data import datasets
from sgnoise.escape import (
    descend,
    hessian_top,
    initial_parameters,
    layers_of,
    loss_gradient,
    make_problem,
)
from sgnoise.files import atomic_path
from sgnoise.jobs import running_job

logger = logging.getLogger(__name__)


def find_minimum(
    *,
    arrays_path: str,
    minimum_path: str,
    widths: list[int],
    activation: str,
    loss: str,
    learning_rate: float,
    batch_size: int,
    tolerance: float,
    patience: int,
    max_iterations: int,
    study: str,
    dataset: str,
    seed: int,
) -> None:
    """Train by plain SGD from random weights to a point at which escapes start.

    The point is the first at which the full-data loss has varied by at most ``tolerance`` over the
    last ``patience`` iterations. On data that the network can separate, cross-entropy has no finite
    minimum: the loss falls for ever, as 1/iterations, while the weights grow. The criterion then
    picks a point on that slope by its steepness, ``tolerance``/``patience`` a step, and a smaller
    tolerance picks one further out. SGD that starts there goes on downhill, so that a replica that
    does not escape soon may never do so. ``gradient_norm`` and ``loss`` (near 0 if separated) tell
    which case it is.

    Args:
        arrays_path: the data set.
        minimum_path: gets w0, b0, w1, … (weights (out, in)), activation, criterion (what the loss
            is), loss, gradient_norm, hessian_top (the largest eigenvalues, falling), iterations,
            criterion_met, losses (before the first and after each iteration), provenance (JSON).
        widths: units of the hidden layers.
        activation: of the hidden layers: ``relu`` or ``tanh``.
        loss: ``cross_entropy`` or ``squared``.
        learning_rate: of the training.
        batch_size: of the training; all data if there are fewer.
        tolerance: the ε of A.4.
        patience: iterations over which the loss must stand still.
        max_iterations: gives up after these; criterion_met is then False.
        study: for the provenance.
        dataset: names the random stream.
        seed: of the initial weights and of the batches.

    Raises:
        ValueError: the training diverges, or the data cannot be used.
    """
    data = datasets.load(arrays_path)
    problem = make_problem(
        *data.batch("train", slice(None)), data.classes, widths, activation=activation, loss=loss
    )
    start = initial_parameters(problem.sizes, rng=seeds.generator(seed, dataset, "weights"))
    descent = descend(
        problem,
        start,
        key=seeds.integer_seed(seed, dataset, "batches"),
        learning_rate=learning_rate,
        batch_size=batch_size,
        tolerance=tolerance,
        patience=patience,
        max_iterations=max_iterations,
    )
    reached, iterations = float(descent.losses[-1]), len(descent.losses) - 1
    gradient_norm = float(np.linalg.norm(loss_gradient(problem, descent.parameters)))
    if descent.criterion_met:
        logger.info("loss %.4g after %d iterations", reached, iterations)
    else:
        logger.warning(
            "not a minimum by A.4: after %d iterations (max_iterations) the loss, %.4g, still "
            "varies by more than %g within %d iterations; raise max_iterations or the tolerance",
            iterations,
            reached,
            tolerance,
            patience,
        )
    layers = layers_of(descent.parameters, problem.sizes)
    arrays: dict[str, Any] = {}
    for index, (weight, bias) in enumerate(layers):
        arrays |= {f"w{index}": weight, f"b{index}": bias}
    settings = store.provenance(
        study=study,
        seed=seed,
        dataset=dataset,
        widths=widths,
        activation=activation,
        loss=loss,
        learning_rate=learning_rate,
        batch_size=batch_size,
        tolerance=tolerance,
        patience=patience,
        max_iterations=max_iterations,
    )
    with atomic_path(minimum_path) as temporary:
        np.savez(
            temporary,
            **arrays,
            activation=activation,
            criterion=loss,
            loss=reached,
            gradient_norm=gradient_norm,
            hessian_top=hessian_top(problem, descent.parameters),
            iterations=iterations,
            criterion_met=descent.criterion_met,
            losses=descent.losses,
            provenance=json.dumps(settings, sort_keys=True),
        )


if __name__ == "__main__":
    with running_job() as job:
        find_minimum(
            arrays_path=job.input.arrays,
            minimum_path=job.output.minimum,
            widths=job.params.widths,
            activation=job.params.activation,
            loss=job.params.loss,
            **job.params.minimum,
            study=job.params.study,
            dataset=job.params.dataset,
            seed=job.params.seed,
        )
