"""Noise of known law, in the form of a network's gradient noise."""

from collections.abc import Mapping

import pyarrow as pa

from sgnoise import controls, store
from sgnoise.jobs import running_job


def simulate_control_noise(
    *,
    noise_path: str,
    law: str,
    parameters: Mapping[str, float],
    count: int,
    draws: int,
    batch_size: int,
    study: str,
    run: str,
    seed: int,
) -> None:
    """Write draws of the mean of ``batch_size`` independent values of a law.

    Args:
        noise_path: Parquet to write: keys, ``noise``.
        law: see ``sgnoise.controls.draw_means``.
        parameters: the shape of the law.
        count: number of synthetic parameters.
        draws: of the noise, for each.
        batch_size: values in a mean.
        study: name of the study.
        run: name of the control.
        seed: of the draws.
    """
    schema = controls.key_schema().append(pa.field("noise", pa.list_(pa.float32(), draws)))
    metadata = store.provenance(
        study=study,
        seed=seed,
        run=run,
        batch_size=batch_size,
        draws=draws,
        law=law,
        parameters=dict(parameters),
    )
    with store.table_writer(noise_path, schema, metadata) as writer:
        for keys, noise in controls.drawn_blocks(
            law, parameters, count, draws, batch_size, seed=seed
        ):
            table = keys.append_column("noise", store.list_column(noise))
            writer.write_table(table.cast(writer.schema))


if __name__ == "__main__":
    with running_job() as job:
        control = job.params.control
        simulate_control_noise(
            noise_path=job.output.noise,
            law=control["law"],
            parameters=control["parameters"],
            count=control["count"],
            draws=job.params.draws,
            batch_size=job.params.batch_size,
            study=job.params.study,
            run=job.params.run,
            seed=job.params.seed,
        )
