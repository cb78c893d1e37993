"""Noise of known law, in the form of a network's gradient noise."""

from collections.abc import Mapping

import pyarrow as pa

from sgnoise import controls, seeds, store
from sgnoise.jobs import running_job
from sgnoise.progress import track


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
    keys = controls.parameter_table(law, parameters, count)
    scales = controls.parameter_scales(count)
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
        for start in track(range(0, count, controls.BLOCK), "blocks of parameters"):
            rows = slice(start, min(start + controls.BLOCK, count))
            noise = controls.draw_means(
                law,
                parameters,
                (rows.stop - rows.start, draws),
                batch_size,
                rng=seeds.generator(seed, start),
            )
            noise *= scales[rows, None]
            table = pa.Table.from_pandas(keys[rows], controls.key_schema(), preserve_index=False)
            writer.write_table(
                table.append_column("noise", store.list_column(noise)).cast(writer.schema)
            )


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
