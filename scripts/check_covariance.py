"""Proposition 3.4 beside the measured covariance of a network small enough for exact Hessians."""

import itertools

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_iris
from torch.func import functional_call, grad, hessian, vmap

from sgnoise import store, theory
from sgnoise.jobs import logger, running_job
from sgnoise.seeds import generator, integer_seed

_NEWTON_STEPS = 200
_TOLERANCE = 1e-9


class Network:
    """A multilayer perceptron on the iris table: the loss of a sample as a function of the weights.

    The loss is cross-entropy plus half of ``decay`` times the squared norm of the weights, so that
    there is a minimum with a positive definite Hessian. The weights are one vector of doubles.
    """

    def __init__(self, widths: tuple[int, ...], decay: float, *, seed: int) -> None:
        table = load_iris()
        inputs = (table.data - table.data.mean(axis=0)) / table.data.std(axis=0)
        self.inputs = torch.from_numpy(inputs)
        self.targets = torch.from_numpy(table.target)
        sizes = (inputs.shape[1], *widths, 3)
        layers: list[torch.nn.Module] = []
        for before, after in itertools.pairwise(sizes):
            layers += [torch.nn.Linear(before, after), torch.nn.Tanh()]
        self.module = torch.nn.Sequential(*layers[:-1]).double()
        self.shapes = {name: value.shape for name, value in self.module.named_parameters()}
        self.size = sum(shape.numel() for shape in self.shapes.values())
        self.decay = decay
        start = generator(seed, "start").standard_normal(self.size)
        self.start = torch.from_numpy(start) / np.sqrt(max(sizes))

    def loss(self, w: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The loss of one sample."""
        parameters, offset = {}, 0
        for name, shape in self.shapes.items():
            parameters[name] = w[offset : offset + shape.numel()].reshape(shape)
            offset += shape.numel()
        logits = functional_call(self.module, parameters, (x,))
        return torch.nn.functional.cross_entropy(logits, y) + 0.5 * self.decay * w @ w

    def gradients(self, w: torch.Tensor) -> torch.Tensor:
        """Per-sample gradients at ``w``, (D, N)."""
        return vmap(grad(self.loss), (None, 0, 0))(w, self.inputs, self.targets)

    def hessians(self, w: torch.Tensor) -> torch.Tensor:
        """Per-sample Hessians at ``w``, (D, N, N)."""
        return vmap(hessian(self.loss), (None, 0, 0))(w, self.inputs, self.targets)

    def minimum(self) -> torch.Tensor:
        """A minimum by damped Newton steps.

        Raises:
            RuntimeError: the gradient does not vanish, or the Hessian is not positive definite.
        """
        w = self.start
        for _ in range(_NEWTON_STEPS):
            slope = self.gradients(w).mean(dim=0)
            if float(slope.norm()) < _TOLERANCE:
                break
            values, vectors = torch.linalg.eigh(self.hessians(w).mean(dim=0))
            # Along directions of negative curvature the step goes downhill all the same.
            step = vectors @ ((vectors.T @ slope) / values.abs().clamp(min=1e-3))
            w = w - step * min(1.0, 1.0 / float(step.norm()))
        least = float(torch.linalg.eigvalsh(self.hessians(w).mean(dim=0))[0])
        if float(self.gradients(w).mean(dim=0).norm()) >= _TOLERANCE or least <= 0:
            raise RuntimeError(f"no minimum after {_NEWTON_STEPS} Newton steps; change the seed")
        return w


def check_covariance(
    *,
    covariance_path: str,
    widths: list[int],
    decay: float,
    batch_size: int,
    distances: list[float],
    starts: int,
    study: str,
    seed: int,
) -> None:
    """Compare row sums of the noise covariance with Proposition 3.4 and write one row a parameter.

    Measured is the exact covariance of mini-batch gradients, drawn with replacement, at a point W.
    The formula is evaluated with the exact moment E(Z Z') of the points used: so it is the
    proposition's expansion that is judged, not Lemma 3.3. The points are W* and, for each distance,
    ``starts`` points in random directions around it, whose covariances are averaged.

    Args:
        covariance_path: Parquet to write.
        widths: hidden units of the layers.
        decay: weight decay, which makes the minimum strict.
        batch_size: B.
        distances: distances from the minimum, as shares of the norm of the weights there.
        starts: points a distance.
        study: for the provenance.
        seed: of the starting weights and of the directions.
    """
    torch.set_num_threads(1)
    network = Network(tuple(widths), decay, seed=integer_seed(seed, "network"))
    minimum = network.minimum()
    at_minimum = network.gradients(minimum).numpy()
    bends = network.hessians(minimum).numpy()
    rng = generator(seed, "directions")
    norm = float(minimum.norm())
    logger.info("%d weights, |W*| = %.3g", network.size, norm)
    tables = []
    for distance in [0.0, *distances]:
        count = starts if distance else 1
        direction = rng.standard_normal((count, network.size))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        away = distance * norm * direction
        found = [network.gradients(minimum + torch.from_numpy(w)).numpy() for w in away]
        measured = np.mean([covariance_row_sum(gradients) for gradients in found], axis=0)
        where = f"{distance:g} |W*| away" if distance else "at the minimum"
        variants: tuple[theory.Variant, ...] = ("text", "appendix")
        for variant in variants:
            formula = theory.noise_covariance_row_sum(
                at_minimum, bends, away.T @ away / count, batch_size=batch_size, variant=variant
            )
            columns = {
                "where": where,
                "distance": distance,
                "variant": variant,
                "parameter": np.arange(network.size),
                "measured": measured / batch_size,
                "formula": formula,
            }
            tables.append(pd.DataFrame(columns))
    settings = {"widths": widths, "decay": decay, "batch_size": batch_size, "starts": starts}
    store.write_table(
        covariance_path,
        pd.concat(tables, ignore_index=True),
        store.provenance(study=study, seed=seed, **settings),
    )


def covariance_row_sum(gradients: np.ndarray) -> np.ndarray:
    """Sums of the rows of the covariance of per-sample gradients (D, N) at batch size 1, (N,)."""
    centred = gradients - gradients.mean(axis=0)
    return centred.T @ centred.sum(axis=1) / len(gradients)


if __name__ == "__main__":
    with running_job() as job:
        check_covariance(
            covariance_path=job.output.covariance,
            **job.params.covariance,
            study=job.params.study,
            seed=job.params.seed,
        )
