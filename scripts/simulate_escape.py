"""Escape times of all replicas at one batch size and one learning rate of the plan."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from sgnoise import seeds, store
from sgnoise.data import datasets
from sgnoise.escape import escape_times, load_minimum
from sgnoise.jobs import running_job


def simulate_escape(
    *,
    arrays_path: str,
    minimum_path: str,
    plan_path: str,
    escape_path: str,
    batch_size: int,
    rate_index: int,
    replicas: int,
    check_every: int,
    study: str,
    dataset: str,
    minimum_index: int,
    seed: int,
    threads: int,
) -> None:
    """Run ``replicas`` of SGD from the minimum until each has escaped or used up its budget.

    A replica's random stream is named by data set, minimum, batch size, learning rate and replica,
    so its row depends on nothing else: not on how many replicas run, nor on threads. A job that was
    cut starts again from its first replica: it is what a resumed study repeats at most.

    Args:
        arrays_path: the data set.
        minimum_path: where the replicas start.
        plan_path: learning rates, rise of the loss that is an escape, and budget.
        escape_path: gets one row a replica.
        batch_size: one of the plan's.
        rate_index: which of the plan's learning rates at this batch size.
        replicas: how many.
        check_every: iterations between looks at the loss; see ``escape.escape_times``.
        study: for the provenance.
        dataset: for the rows and the random stream.
        minimum_index: which of its minima; likewise.
        seed: of the study's escapes.
        threads: replicas at a time.

    Raises:
        ValueError: the plan has no such batch size or learning rate.
    """
    plan = json.loads(Path(plan_path).read_text(encoding="utf-8"))
    rates = plan["learning_rates"].get(str(batch_size), [])
    if not 0 <= rate_index < len(rates):
        raise ValueError(
            f"{plan_path}: no learning rate {rate_index} at batch size {batch_size}; the plan has "
            f"{ {size: len(found) for size, found in plan['learning_rates'].items()} }"
        )
    data = datasets.load(arrays_path)
    minimum = load_minimum(minimum_path)
    problem = minimum.problem(*data.batch("train", slice(None)), data.classes)
    stream = ("escape", dataset, minimum_index, batch_size, rate_index)
    keys = [seeds.integer_seed(seed, *stream, replica) for replica in range(replicas)]
    found = escape_times(
        problem,
        minimum.parameters,
        keys=np.array(keys, np.uint64),
        learning_rate=rates[rate_index],
        batch_size=batch_size,
        minimum_loss=minimum.loss,
        loss_delta=plan["loss_delta"],
        max_iterations=plan["max_iterations"],
        check_every=check_every,
        threads=threads,
    )
    # Not a data frame: starting pandas takes as long as many of these jobs compute.
    table = pa.table(
        {
            "dataset": [dataset] * replicas,
            "minimum": np.full(replicas, minimum_index, np.int32),
            "batch_size": np.full(replicas, batch_size, np.int32),
            "learning_rate": np.full(replicas, float(rates[rate_index])),
            "replica": np.arange(replicas, dtype=np.int32),
            "iterations": found.iterations,
            "escaped": found.escaped,
            "diverged": found.diverged,
            "final_loss": found.final_loss,
        }
    )
    settings = {"check_every": check_every, "max_iterations": plan["max_iterations"]}
    settings |= {"loss_delta": plan["loss_delta"], "minimum_loss": minimum.loss}
    store.write_table(
        escape_path, table, store.provenance(study=study, seed=seed, dataset=dataset, **settings)
    )


if __name__ == "__main__":
    with running_job() as job:
        simulate_escape(
            arrays_path=job.input.arrays,
            minimum_path=job.input.minimum,
            plan_path=job.input.plan,
            escape_path=job.output.escape,
            batch_size=job.params.batch_size,
            rate_index=job.params.rate,
            replicas=job.params.replicas,
            check_every=job.params.check_every,
            study=job.params.study,
            dataset=job.params.dataset,
            minimum_index=job.params.minimum,
            seed=job.params.seed,
            threads=job.threads,
        )
