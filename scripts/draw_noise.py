"""Draw the gradient noise of mini-batches from the gradients of single samples."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sgnoise import seeds, store
from sgnoise.jobs import running_job
from sgnoise.noise import batch_noise, mini_batches, selection_matrix
from sgnoise.progress import logger, track


def draw_noise(
    *,
    gradients_path: str,
    noise_path: str,
    batch_size: int,
    draws: int,
    replacement: bool,
    study: str,
    run: str,
    seed: int,
) -> None:
    """Write ``draws`` draws of (full gradient - mean gradient of a mini-batch) for each parameter.

    The mini-batches are the same for all parameters. Where the gradients are of mini-batches
    already, their noise is taken as it is.

    Args:
        gradients_path: the gradients.
        noise_path: Parquet to write: keys, ``noise``.
        batch_size: samples in a mini-batch.
        draws: mini-batches.
        replacement: draw the samples of a mini-batch independently, rather than go through the
            reshuffled data set again and again (the paper, A.2).
        study: name of the study.
        run: name of the run.
        seed: of the mini-batches.

    Raises:
        ValueError: more samples in a mini-batch than there are, or, where the gradients are of
            mini-batches: another batch size, or more draws than there are.
    """
    dumped = store.read_metadata(gradients_path)["settings"]
    schema = pq.read_schema(gradients_path)
    samples = schema.field("gradient").type.list_size
    if dumped["mode"] == "mini_batch":
        _check_mini_batches(gradients_path, samples, dumped["batch_size"], batch_size, draws)
        batches = np.arange(draws)[:, None]
    else:
        if batch_size > samples:
            raise ValueError(
                f"{gradients_path}: batch_size is {batch_size}, but there are gradients of "
                f"{samples} samples only"
            )
        rng = seeds.generator(seed, "mini-batches", batch_size)
        batches = mini_batches(samples, batch_size, draws, replacement=replacement, rng=rng)
    selection = selection_matrix(batches, samples)

    metadata = store.provenance(
        study=study,
        seed=seed,
        run=run,
        batch_size=batch_size,
        draws=draws,
        replacement=replacement,
        mode=dumped["mode"],
    )
    keys = pa.schema([schema.field(name) for name in store.PARAMETER_COLUMNS])
    columns = [*keys.names, "gradient"]
    with store.table_writer(
        noise_path, keys.append(pa.field("noise", pa.list_(pa.float32(), draws))), metadata
    ) as writer:
        groups = pq.read_metadata(gradients_path).num_row_groups
        for table in track(store.read_row_groups(gradients_path, columns), "row groups", groups):
            noise = batch_noise(store.matrix(table, "gradient"), selection)
            rows = table.select(keys.names).append_column("noise", store.list_column(noise))
            writer.write_table(rows.cast(writer.schema))
    logger.info("%d draws of batch size %d from %d samples", draws, batch_size, samples)


def _check_mini_batches(
    path: str, available: int, dumped_size: int, batch_size: int, draws: int
) -> None:
    if batch_size != dumped_size:
        raise ValueError(
            f"{path}: holds gradients of mini-batches of {dumped_size} samples, so the batch size "
            f"cannot be {batch_size}; dump the gradients for {batch_size}, or one a sample"
        )
    if draws > available:
        raise ValueError(
            f"{path}: holds the gradients of {available} mini-batches, {draws} draws are asked "
            "for; dump more passes, or ask for fewer draws"
        )


if __name__ == "__main__":
    with running_job() as job:
        draw_noise(
            gradients_path=job.input.gradients,
            noise_path=job.output.noise,
            batch_size=job.params.batch_size,
            draws=job.params.draws,
            replacement=job.params.replacement,
            study=job.params.study,
            run=job.params.run,
            seed=job.params.seed,
        )
