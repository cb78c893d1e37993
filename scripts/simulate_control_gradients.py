"""Per-sample gradients of known law: a finite data set to draw mini-batches from."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from sgnoise import controls, store
from sgnoise.jobs import running_job


def simulate_control_gradients(
    *,
    gradients_path: str,
    law: str,
    parameters: Mapping[str, float],
    count: int,
    samples: int,
    study: str,
    run: str,
    seed: int,
) -> None:
    """Write one independent value of a law for each parameter and each sample.

    Its mini-batches show what resampling a finite data set does by itself.

    Args:
        gradients_path: Parquet to write: keys, ``value`` (0), ``full_gradient``, ``gradient``.
        law: see ``sgnoise.controls.draw_means``.
        parameters: the shape of the law.
        count: number of synthetic parameters.
        samples: size of the data set.
        study: name of the study.
        run: name of the control.
        seed: of the gradients.
    """
    schema = controls.key_schema()
    for field in (
        pa.field("value", pa.float32()),
        pa.field("full_gradient", pa.float32()),
        pa.field("gradient", pa.list_(pa.float32(), samples)),
    ):
        schema = schema.append(field)
    metadata = store.provenance(
        study=study,
        seed=seed,
        run=run,
        mode="per_sample",
        samples=samples,
        law=law,
        parameters=dict(parameters),
    )
    with store.table_writer(gradients_path, schema, metadata) as writer:
        for keys, values in controls.drawn_blocks(law, parameters, count, samples, 1, seed=seed):
            gradient = values.astype(np.float32)
            full = gradient.mean(axis=1, dtype=np.float64).astype(np.float32)
            table = keys.append_column("value", pa.array(np.zeros(len(keys), dtype=np.float32)))
            table = table.append_column("full_gradient", pa.array(full))
            table = table.append_column("gradient", store.list_column(gradient))
            writer.write_table(table.cast(writer.schema))


if __name__ == "__main__":
    with running_job() as job:
        control = job.params.control
        simulate_control_gradients(
            gradients_path=job.output.gradients,
            law=control["law"],
            parameters=control["parameters"],
            count=control["count"],
            samples=control["samples"],
            study=job.params.study,
            run=job.params.run,
            seed=job.params.seed,
        )
