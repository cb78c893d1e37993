"""Choose what counts as an escape, and the learning rates at which escapes take a sensible time."""

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sgnoise import seeds, store
from sgnoise.data import datasets
from sgnoise.escape import Minimum, Problem, escape_times, load_minimum
from sgnoise.files import atomic_path
from sgnoise.jobs import running_job

logger = logging.getLogger(__name__)

# An escape undoes this share of what the network has learnt beyond the frequencies of the classes.
LOSS_SHARE = 0.1

# The pilot's learning rates are found to within this factor, its brackets grow by the next.
_RESOLUTION = 1.1
_BRACKET = 1.5
_MAX_BRACKETS = 40
# The range of learning rates is at least this wide.
_NARROWEST = 1.2

# Does the mean escape time at a learning rate exceed a number of iterations?
Exceeds = Callable[[float, float], bool]


def loss_rise(problem: Problem, minimum_loss: float) -> float:
    """ΔL = LOSS_SHARE · (loss of the class frequencies − loss at the minimum).

    A network that ignores its input can do no better than to answer with these frequencies: with
    cross-entropy the loss is then their entropy, with squared error their variance.

    Raises:
        ValueError: the minimum is no better than that.
    """
    shares = np.bincount(problem.targets) / len(problem.targets)
    if problem.squared:
        blind = float(np.sum(shares * (1 - shares))) / int(problem.sizes[-1])
    else:
        blind = -float(np.sum(shares * np.log(shares, where=shares > 0, out=np.zeros_like(shares))))
    if not minimum_loss < blind:
        raise ValueError(
            f"the loss at the minimum, {minimum_loss:.4g}, is no lower than that of the class "
            f"frequencies, {blind:.4g}: the network has learnt nothing; train it longer"
        )
    return LOSS_SHARE * (blind - minimum_loss)


def rate_for(exceeds: Exceeds, target: float, start: float) -> float:
    """The learning rate at which the mean escape time falls to ``target``, within _RESOLUTION.

    The mean is taken to fall with the learning rate: from ``start`` by factors of _BRACKET up or
    down until the target lies between two rates, then by halving in the logarithm. Returns the
    upper end, whose mean does not exceed the target.

    Args:
        exceeds: whether the mean at a learning rate is above a number of iterations.
        target: iterations.
        start: learning rate.

    Raises:
        ValueError: no bracket.
    """
    low = high = start
    upwards = exceeds(start, target)
    for _ in range(_MAX_BRACKETS):
        if upwards:
            low, high = high, high * _BRACKET
        else:
            low, high = low / _BRACKET, low
        if exceeds(high if upwards else low, target) != upwards:
            break
    else:
        raise ValueError(
            f"no learning rate between {min(low, start):.3g} and {max(high, start):.3g} has a mean "
            f"escape time of about {target:g} iterations; change the target, or give loss_delta"
        )
    while high > _RESOLUTION * low:
        middle = math.sqrt(low * high)
        if exceeds(middle, target):
            low = middle
        else:
            high = middle
    return high


def choose_rates(
    exceeds: Exceeds, *, count: int, start: float, target_low: float, target_high: float
) -> list[float]:
    """``count`` learning rates in geometric steps, whose mean escape times run between the targets.

    The pilot rule: the highest rate is where the pilot's mean falls to ``target_low``, the lowest
    where it falls to ``target_high``, but the range spans at least a factor _NARROWEST.
    """
    high = rate_for(exceeds, target_low, start)
    low = rate_for(exceeds, target_high, high)
    return [float(rate) for rate in np.geomspace(min(low, high / _NARROWEST), high, count)]


class _Pilot:
    """A few replicas that tell whether the mean escape time exceeds a target; keeps a record."""

    def __init__(
        self,
        problem: Problem,
        minimum: Minimum,
        *,
        keys: list[int],
        batch_size: int,
        loss_delta: float,
        max_iterations: int,
    ) -> None:
        self.problem, self.minimum = problem, minimum
        self.keys, self.batch_size = keys, batch_size
        self.loss_delta, self.max_iterations = loss_delta, max_iterations
        self.found: list[dict[str, Any]] = []

    def __call__(self, learning_rate: float, target: float) -> bool:
        """Compare the mean by censored maximum likelihood, iterations / escapes, with ``target``.

        Stops as soon as the iterations are too many even if all replicas to come escape at once,
        so a comparison takes at most about ``target`` iterations for each replica.
        """
        escaped = iterations = 0
        left = len(self.keys)
        for key in self.keys:
            spare = math.floor(target * (escaped + left)) - iterations
            if spare < 0:
                break
            found = escape_times(
                self.problem,
                self.minimum.parameters,
                keys=np.array([key], np.uint64),
                learning_rate=learning_rate,
                batch_size=self.batch_size,
                minimum_loss=self.minimum.loss,
                loss_delta=self.loss_delta,
                max_iterations=min(self.max_iterations, spare + 1),
            )
            escaped += int(found.escaped[0])
            iterations += int(found.iterations[0])
            left -= 1
        exceeded = iterations > target * (escaped + left)
        self.found.append(
            {
                "learning_rate": learning_rate,
                "target": target,
                "exceeded": exceeded,
                "escaped": escaped,
                "iterations": iterations,
            }
        )
        logger.info(
            "batch size %d, learning rate %.4g: mean escape time %s %g iterations",
            self.batch_size,
            learning_rate,
            "above" if exceeded else "at most",
            target,
        )
        return exceeded


def plan_escape(
    *,
    arrays_path: str,
    minimum_path: str,
    plan_path: str,
    batch_sizes: list[int],
    learning_rates: int | list[float],
    loss_delta: float | None,
    target_low: float,
    target_high: float,
    max_iterations: int,
    pilot_replicas: int,
    study: str,
    dataset: str,
    minimum_index: int,
    seed: int,
) -> None:
    """Write the plan: what counts as an escape, and the learning rates for each batch size.

    Args:
        arrays_path: the data set.
        minimum_path: where the replicas start.
        plan_path: JSON: loss_delta, learning_rates (by batch size, rising), max_iterations,
            minimum_loss, sharpness (largest eigenvalue of the Hessian; gradient descent itself is
            unstable at learning rates above 2/sharpness), pilot (what was measured).
        batch_sizes: of the escapes.
        learning_rates: how many, found by the rule of ``choose_rates``; or the rates themselves.
        loss_delta: rise of the loss that is an escape; None for the rule of ``loss_rise``.
        target_low: mean escape time at the highest learning rate, iterations.
        target_high: mean escape time at the lowest learning rate, iterations.
        max_iterations: budget of a replica.
        pilot_replicas: replicas of each pilot measurement.
        study: for the provenance.
        dataset: names the random stream.
        minimum_index: which of its minima; likewise.
        seed: of the pilot.

    Raises:
        ValueError: bad targets, or none of the learning rates tried meets them.
    """
    if not 1 < target_low < target_high <= max_iterations:
        raise ValueError(
            f"mean escape times from {target_low:g} to {target_high:g} within {max_iterations} "
            "iterations: need 1 < low < high <= max_iterations"
        )
    data = datasets.load(arrays_path)
    minimum = load_minimum(minimum_path)
    problem = minimum.problem(*data.batch("train", slice(None)), data.classes)
    rise = loss_rise(problem, minimum.loss) if loss_delta is None else loss_delta
    sharpness = float(minimum.hessian_top[0])
    rates: dict[str, list[float]] = {}
    pilots: dict[str, list[dict[str, Any]]] = {}
    for batch_size in batch_sizes:
        stream = ("pilot", dataset, minimum_index, batch_size)
        pilot = _Pilot(
            problem,
            minimum,
            # The same replicas at all learning rates, so that their times are comparable.
            keys=[seeds.integer_seed(seed, *stream, index) for index in range(pilot_replicas)],
            batch_size=batch_size,
            loss_delta=rise,
            max_iterations=max_iterations,
        )
        if isinstance(learning_rates, int):
            rates[str(batch_size)] = choose_rates(
                pilot,
                count=learning_rates,
                start=1 / sharpness,
                target_low=target_low,
                target_high=target_high,
            )
        else:
            rates[str(batch_size)] = sorted(learning_rates)
        pilots[str(batch_size)] = pilot.found
    plan = {
        "dataset": dataset,
        "loss_delta": rise,
        "learning_rates": rates,
        "max_iterations": max_iterations,
        "minimum_loss": minimum.loss,
        "sharpness": sharpness,
        "pilot": pilots,
        "provenance": store.provenance(
            study=study, seed=seed, target_iterations=[target_low, target_high]
        ),
    }
    with atomic_path(plan_path) as temporary:
        Path(temporary).write_text(json.dumps(plan, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    with running_job() as job:
        low, high = job.params.target_iterations
        plan_escape(
            arrays_path=job.input.arrays,
            minimum_path=job.input.minimum,
            plan_path=job.output.plan,
            batch_sizes=job.params.batch_sizes,
            learning_rates=job.params.learning_rates,
            loss_delta=job.params.loss_delta,
            target_low=low,
            target_high=high,
            max_iterations=job.params.max_iterations,
            pilot_replicas=job.params.pilot_replicas,
            study=job.params.study,
            dataset=job.params.dataset,
            minimum_index=job.params.minimum,
            seed=job.params.seed,
        )
