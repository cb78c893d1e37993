"""What every job does beside its work: a log, and the job object of Snakemake."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import sgnoise
from sgnoise.progress import logger

# What follows this in a log is what a person is told of a job that failed.
FAILED = "The job failed: "


@contextmanager
def job_log(path: str) -> Iterator[None]:
    """Send the log, the output and the warnings of a job to ``path``, and the error that ends it.

    Of an error, the traceback comes first and what a person is told last, behind ``FAILED``.
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
        except BaseException as error:
            logger.exception("the error that ended the job")
            stream.write(f"\n{FAILED}{message_of(error)}\n")
            raise
        finally:
            logging.captureWarnings(False)
            root.removeHandler(handler)


def message_of(error: BaseException) -> str:
    """What an error says; its type as well where that is not an error that is raised for a person.

    >>> message_of(ValueError("own.csv: there is no column 'label'"))
    "own.csv: there is no column 'label'"
    >>> message_of(KeyError("label"))
    "KeyError: 'label'"
    """
    text = str(error)
    if text and isinstance(error, (ValueError, OSError, RuntimeError)):
        return text
    if isinstance(error, KeyboardInterrupt):
        return "stopped from the keyboard"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextmanager
def running_job() -> Iterator[Any]:
    """The job object that Snakemake puts into the script it runs, with the job's log open.

    An error ends the process without a traceback, which the log has.
    """
    job = sys.modules["__main__"].snakemake
    try:
        with job_log(job.log[0]):
            _check_library(Path(job.scriptdir))
            yield job
    except (Exception, KeyboardInterrupt):
        sys.exit(1)


def import_first(folder: Path) -> None:
    """Let the Python processes that this one starts look for modules in ``folder`` first.

    Snakemake adds the folder of a script behind all others.
    """
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kept = [path for path in paths if path not in ("", str(folder))]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), *kept])


def _check_library(scripts: Path) -> None:
    """A library beside the script must be this one: the results are said to be of its code.

    Raises:
        RuntimeError: it is another one.
    """
    found = Path(sgnoise.__file__).resolve().parents[1]
    if (scripts / "sgnoise").is_dir() and found != scripts.resolve():
        raise RuntimeError(
            f"the library sgnoise was taken from {found}, and the script from {scripts}. Remove "
            "the first from PYTHONPATH, or start the workflow by its own Snakefile, which puts its "
            "library first."
        )
