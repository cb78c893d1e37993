"""Per-sample gradients of known law: a finite data set to draw mini-batches from."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from sgnoise import controls, seeds, store
from sgnoise.jobs import running_job
from sgnoise.progress import track


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
    keys = controls.parameter_table(law, parameters, count)
    scales = controls.parameter_scales(count)
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
        for start in track(range(0, count, controls.BLOCK), "blocks of parameters"):
            rows = slice(start, min(start + controls.BLOCK, count))
            size = (rows.stop - rows.start, samples)
            gradient = controls.draw_means(
                law, parameters, size, 1, rng=seeds.generator(seed, start)
            )
            gradient = (gradient * scales[rows, None]).astype(np.float32)
            table = pa.Table.from_pandas(keys[rows], controls.key_schema(), preserve_index=False)
            table = table.append_column("value", pa.array(np.zeros(size[0], dtype=np.float32)))
            full = gradient.mean(axis=1, dtype=np.float64).astype(np.float32)
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
