"""Proposition 3.4 and Lemma 3.3 on a network small enough for exact Hessians."""

import itertools

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_iris
from torch.func import functional_call, grad, hessian, vmap

from sgnoise import store, theory
from sgnoise.jobs import running_job
from sgnoise.progress import logger
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
    alpha: float,
    epsilon: float,
    rho: float,
    times: list[float],
    study: str,
    seed: int,
) -> None:
    """Compare a network's noise with Proposition 3.4 and Lemma 3.3 and write one row an entry.

    ``compared`` says what ``measured`` and ``formula`` are:

    * "row sums": of the exact covariance of mini-batch gradients, drawn with replacement, and of
      Proposition 3.4 with the exact moment E(Z Z') of the points: the expansion is judged, not
      Lemma 3.3. The points are W*, and for each distance ``starts`` points around it in opposite
      pairs, averaged, so that what is odd in W - W* cancels.
    * "change": the same less its value at W*, which is what the second term of the proposition is
      for; averaged, and point by point (nothing cancels).
    * "moment": E(Z_l Z_j), l != j, between large jumps: exact, for the small jumps' variance and
      the drift of the whole Hessian, and by Lemma 3.3, which keeps the Hessian's diagonal.
    * "row sums by Lemma 3.3": the covariance averaged over ``starts`` points with the mean and
      covariance of the exact process, and Proposition 3.4 with the moment of Lemma 3.3.

    Args:
        covariance_path: Parquet to write.
        widths: hidden units of the layers.
        decay: weight decay, which makes the minimum strict.
        batch_size: B.
        distances: distances from the minimum, as shares of the norm of the weights there.
        starts: points a distance, an even number.
        alpha, epsilon, rho: of the small jumps of every weight.
        times: since the large jump, which led to the median of ``distances``.
        study: for the provenance.
        seed: of the starting weights and of the directions.

    Raises:
        ValueError: an odd number of points.
    """
    if starts % 2:
        raise ValueError(f"starts = {starts}: must be even, the points come in opposite pairs")
    torch.set_num_threads(1)
    network = Network(tuple(widths), decay, seed=integer_seed(seed, "network"))
    minimum = network.minimum()
    at_minimum = network.gradients(minimum).numpy()
    bends = network.hessians(minimum).numpy()
    rng = generator(seed, "directions")
    norm = float(minimum.norm())
    logger.info("%d weights, |W*| = %.3g", network.size, norm)

    def row_sums_at(away: np.ndarray) -> np.ndarray:
        """Row sums of the covariance at W* + ``away``, a point (N,)."""
        found = network.gradients(minimum + torch.from_numpy(away)).numpy()
        return covariance_row_sum(found) / batch_size

    def formula(moment: np.ndarray, variant: theory.Variant = "text") -> np.ndarray:
        return theory.noise_covariance_row_sum(
            at_minimum, bends, moment, batch_size=batch_size, variant=variant
        )

    tables: list[pd.DataFrame] = []

    def add(compared: str, where: str, variant: str, seen: np.ndarray, said: np.ndarray) -> None:
        columns = {"compared": compared, "where": where, "variant": variant}
        values = {"measured": seen.ravel(), "formula": said.ravel()}
        tables.append(pd.DataFrame(columns | values))

    base, nothing = row_sums_at(np.zeros(network.size)), np.zeros((network.size, network.size))
    for variant in theory.VARIANTS:
        add("row sums", "at the minimum", variant, base, formula(nothing, variant))
    for distance in distances:
        direction = rng.standard_normal((starts // 2, network.size))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        away = distance * norm * np.concatenate([direction, -direction])
        single = np.stack([row_sums_at(w) for w in away])
        moment = away.T @ away / starts
        where = f"{distance:g} |W*| away"
        opposite = f"{where}, opposite points averaged"
        for variant in theory.VARIANTS:
            add("row sums", opposite, variant, single.mean(axis=0), formula(moment, variant))
        change = formula(moment) - formula(nothing)
        add("change", opposite, "text", single.mean(axis=0) - base, change)
        each = np.stack([formula(np.outer(w, w)) - formula(nothing) for w in away])
        add("change", f"{where}, point by point", "text", single - base, each)

    # Where the expansion around W* is still worth something.
    share = sorted(distances)[len(distances) // 2]
    start = share * norm * direction[0]
    for time in times:
        drift, spread = between_jumps(
            bends.mean(axis=0), start, time, epsilon**2 * variance_rate(alpha, epsilon, rho)
        )
        exact = np.outer(drift, drift) + spread
        diagonal = np.diagonal(bends.mean(axis=0))
        lemma = theory.cross_moment(
            time, start, diagonal, np.full(network.size, alpha), epsilon, rho=rho
        )
        flow = start * np.exp(-diagonal * time)
        root = np.linalg.cholesky(spread)
        normal = rng.standard_normal((starts, network.size))
        points = drift + normal @ root.T
        seen = np.mean([row_sums_at(w) for w in points], axis=0)
        where = f"{share:g} |W*| away at first, t {time:g}, alpha {alpha:g}, "
        where += f"epsilon {epsilon:g}, rho {rho:g}"
        pairs = np.triu_indices(network.size, 1)
        for name, values in (("with A", lemma), ("without A", np.outer(flow, flow))):
            add("moment", where, name, exact[pairs], values[pairs])
            add("row sums by Lemma 3.3", where, name, seen, formula(values))
    settings = {"widths": widths, "decay": decay, "batch_size": batch_size, "starts": starts}
    settings |= {"alpha": alpha, "epsilon": epsilon, "rho": rho}
    store.write_table(
        covariance_path,
        pd.concat(tables, ignore_index=True),
        store.provenance(study=study, seed=seed, **settings),
    )


def variance_rate(alpha: float, epsilon: float, rho: float) -> float:
    """Variance per unit of time of one weight's jumps below epsilon^-rho."""
    return float(theory.small_jump_variance(alpha, epsilon, rho=rho)[0])


def between_jumps(
    hessian_matrix: np.ndarray, start: np.ndarray, time: float, diffusion: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean (N,) and covariance (N, N) at ``time`` of dZ = -H Z dt + noise, from ``start``.

    The noise is independent between coordinates, of variance ``diffusion`` per unit of time.
    """
    values, vectors = np.linalg.eigh(hessian_matrix)
    mean = vectors @ (np.exp(-values * time) * (vectors.T @ start))
    grown = diffusion * -np.expm1(-2 * values * time) / (2 * values)
    return mean, (vectors * grown) @ vectors.T


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
