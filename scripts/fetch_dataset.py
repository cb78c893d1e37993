"""Prepare a data set: read it, split it, standardise it, and say where it comes from."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sgnoise.data import datasets, sources
from sgnoise.data.downloads import MIRROR_VARIABLE
from sgnoise.jobs import running_job
from sgnoise.progress import logger


def fetch_dataset(
    *,
    spec: Mapping[str, Any],
    seed: int,
    arrays_path: str,
    manifest_path: str,
    downloads: str,
    mirror: str | None,
    threads: int,
) -> None:
    """Write the arrays and the manifest of the data set that ``spec`` describes.

    Args:
        spec: see ``sgnoise.data.sources``.
        seed: of the split into training and test parts, and of subsets.
        arrays_path: NPZ to write.
        manifest_path: JSON to write.
        downloads: folder that keeps downloaded files.
        mirror: folder that is searched before the network.
        threads: to decode images with.
    """
    folder = Path(arrays_path).parent
    with tempfile.TemporaryDirectory(dir=folder, prefix=".decoded.") as scratch:
        dataset = sources.prepare(
            spec, seed=seed, downloads=downloads, mirror=mirror, scratch=scratch, threads=threads
        )
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
            # Shared by all data sets, and kept, so that another subset downloads nothing.
            downloads=str(Path(job.output.arrays).parent.parent / "downloads"),
            mirror=os.environ.get(MIRROR_VARIABLE) or None,
            threads=job.threads,
        )
