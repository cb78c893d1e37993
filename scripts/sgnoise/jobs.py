"""What every job does beside its work: a log, and progress that a person can read."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

logger = logging.getLogger("sgnoise")

_LINE_SECONDS = 5.0


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


def track(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Yield ``items`` and show how far they are: a bar on a terminal, plain lines in the log."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    terminal = sys.__stderr__
    bar = tqdm(
        total=total,
        desc=description,
        file=terminal,
        leave=False,
        disable=terminal is None or not terminal.isatty(),
    )
    started = last = time.monotonic()
    with bar:
        for done, item in enumerate(items, start=1):
            yield item
            bar.update()
            now = time.monotonic()
            if now - last >= _LINE_SECONDS or done == total:
                last = now
                of_total = f"/{total}" if total is not None else ""
                logger.info("%s: %d%s in %.0f s", description, done, of_total, now - started)
