"""What every job does beside its work: a log, and the job object of Snakemake."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from sgnoise.progress import logger


@contextmanager
def job_log(path: str) -> Iterator[None]:
    """Send the log, the output and the warnings of a job to ``path``, and the error that ends it.

    Snakemake names the log file of a rule but does not write the output of a script to it.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", buffering=1, encoding="utf-8") as stream:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        root = logging.getLogger()
        root.addHandler(handler)
        logger.setLevel(logging.INFO)
        logging.captureWarnings(True)
        try:
            with redirect_stdout(stream), redirect_stderr(stream):
                yield
        except BaseException:
            logger.exception("the job failed")
            raise
        finally:
            logging.captureWarnings(False)
            root.removeHandler(handler)


@contextmanager
def running_job() -> Iterator[Any]:
    """The job object that Snakemake puts into the script it runs, with the job's log open."""
    job = sys.modules["__main__"].snakemake
    with job_log(job.log[0]):
        yield job
