"""Escape times of all replicas at one batch size and some learning rates of the plan."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from sgnoise import seeds, store
from sgnoise.data import datasets
from sgnoise.escape import escape_times, load_minimum
from sgnoise.jobs import running_job
from sgnoise.progress import logger


def simulate_escape(
    *,
    arrays_path: str,
    minimum_path: str,
    plan_path: str,
    escape_path: str,
    batch_size: int,
    first_rate: int,
    last_rate: int,
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
    so its row depends on nothing else: not on which rates or how many replicas run in the job, nor
    on threads. A job that was cut starts again from its first replica: it is what a resumed study
    repeats at most.

    Args:
        arrays_path: the data set.
        minimum_path: where the replicas start.
        plan_path: learning rates, rise of the loss that is an escape, and budget.
        escape_path: gets one row a learning rate and replica.
        batch_size: one of the plan's.
        first_rate: the first of the plan's learning rates at this batch size that are run.
        last_rate: the last of them.
        replicas: how many at each.
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
    if not 0 <= first_rate <= last_rate < len(rates):
        raise ValueError(
            f"{plan_path}: no learning rates {first_rate} to {last_rate} at batch size "
            f"{batch_size}; the numbers of rates in the plan are "
            f"{ {size: len(found) for size, found in plan['learning_rates'].items()} }"
        )
    data = datasets.load(arrays_path)
    minimum = load_minimum(minimum_path)
    problem = minimum.problem(*data.batch("train", slice(None)), data.classes)
    tables = []
    for index in range(first_rate, last_rate + 1):
        logger.info("batch size %d, learning rate %.4g", batch_size, rates[index])
        stream = ("escape", dataset, minimum_index, batch_size, index)
        keys = [seeds.integer_seed(seed, *stream, replica) for replica in range(replicas)]
        found = escape_times(
            problem,
            minimum.parameters,
            keys=np.array(keys, np.uint64),
            learning_rate=rates[index],
            batch_size=batch_size,
            minimum_loss=minimum.loss,
            loss_delta=plan["loss_delta"],
            max_iterations=plan["max_iterations"],
            check_every=check_every,
            threads=threads,
        )
        tables.append(
            # Not a data frame: starting pandas takes as long as some of these jobs compute.
            pa.table(
                {
                    "dataset": [dataset] * replicas,
                    "minimum": np.full(replicas, minimum_index, np.int32),
                    "batch_size": np.full(replicas, batch_size, np.int32),
                    "learning_rate": np.full(replicas, float(rates[index])),
                    "replica": np.arange(replicas, dtype=np.int32),
                    "iterations": found.iterations,
                    "escaped": found.escaped,
                    "diverged": found.diverged,
                    "final_loss": found.final_loss,
                }
            )
        )
    settings = {"check_every": check_every, "max_iterations": plan["max_iterations"]}
    settings |= {"loss_delta": plan["loss_delta"], "minimum_loss": minimum.loss}
    store.write_table(
        escape_path,
        pa.concat_tables(tables),
        store.provenance(study=study, seed=seed, dataset=dataset, **settings),
    )


if __name__ == "__main__":
    with running_job() as job:
        simulate_escape(
            arrays_path=job.input.arrays,
            minimum_path=job.input.minimum,
            plan_path=job.input.plan,
            escape_path=job.output.escape,
            batch_size=job.params.batch_size,
            first_rate=job.params.first_rate,
            last_rate=job.params.last_rate,
            replicas=job.params.replicas,
            check_every=job.params.check_every,
            study=job.params.study,
            dataset=job.params.dataset,
            minimum_index=job.params.minimum,
            seed=job.params.seed,
            threads=job.threads,
        )
