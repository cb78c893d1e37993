"""Prepare a data set: read it, split it, standardise it, and say where it comes from."""

from collections.abc import Mapping
from typing import Any

from sgnoise import datasets, sources
from sgnoise.jobs import logger, running_job


def fetch_dataset(
    *, spec: Mapping[str, Any], seed: int, arrays_path: str, manifest_path: str
) -> None:
    """Write the arrays and the manifest of the data set that ``spec`` describes.

    Args:
        spec: see ``sgnoise.sources``.
        seed: of the split into training and test parts.
        arrays_path: NPZ to write.
        manifest_path: JSON to write.
    """
    dataset = sources.prepare(spec, seed=seed)
    datasets.save(dataset, arrays_path, manifest_path)
    logger.info(
        "%s: %d training and %d test samples of shape %s, %d classes",
        dataset.description["title"],
        dataset.size("train"),
        dataset.size("test"),
        dataset.input_shape,
        dataset.classes,
    )


if __name__ == "__main__":
    with running_job() as job:
        fetch_dataset(
            spec=job.params.spec,
            seed=job.params.seed,
            arrays_path=job.output.arrays,
            manifest_path=job.output.manifest,
        )
