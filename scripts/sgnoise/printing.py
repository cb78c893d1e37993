"""What a run prints: a line when a job starts, one when it ends, and one message where it fails.

Snakemake logs events, each with its own attributes; ``print_briefly`` changes what becomes of them.
Its files in ``.snakemake/log`` go on holding the details of each job.
"""

from __future__ import annotations

import logging
import re
import signal
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sgnoise.jobs import FAILED

# What Snakemake says before and after each job, and nobody needs.
_CHATTER = re.compile(r"Select jobs to execute|Execute \d+ jobs|Conda environments: ignored")
# How it quotes the command line of a script that failed.
_COMMAND = re.compile(
    r"CalledProcessError.*\.snakemake/scripts/.*"
    r"(?:died with <Signals\.(?P<signal>\w+)|returned non-zero exit status (?P<status>\d+))",
    re.DOTALL,
)
_REASON_WIDTH = 240


def print_briefly(logger: logging.Logger, *, dry_run: bool) -> None:
    """Make ``logger``, which is Snakemake's, say of jobs what a person wants to know.

    Of a job that failed, one message in place of its log and of Snakemake's traceback, whatever
    shows it. Where Snakemake's own display writes to something else than a terminal, a line when a
    job starts, with the reason, and one when it has ended. A dry run keeps its details.
    """
    if not any(isinstance(known, FailureFilter) for known in logger.filters):
        logger.addFilter(FailureFilter())
    for handler in logger.handlers:
        own_display = handler.name == "DefaultStreamHandler"
        if own_display and isinstance(handler, logging.StreamHandler):
            if not dry_run and not handler.stream.isatty():
                logger.removeHandler(handler)
                logger.addHandler(line_handler(handler))
            return


class FailureFilter(logging.Filter):
    """Makes one message of all that Snakemake logs of a job that failed.

    It must not raise: Snakemake would wait for ever for a job whose end it could not log.
    """

    def __init__(self) -> None:
        super().__init__()
        self._titles: dict[int, str] = {}
        self._endings: dict[int | None, str] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        said = record.__dict__
        event = said.get("event")
        if event == "job_info":
            self._titles[said["jobid"]] = title(said)
        elif event == "error" and (found := _COMMAND.search(record.getMessage())):
            # What Snakemake says of the job follows in the same thread.
            self._endings[record.thread] = ending(found["signal"], int(found["status"] or 0))
            return False
        elif event == "job_error":
            name = self._titles.get(said["jobid"], said["rule_name"])
            ended = self._endings.pop(record.thread, said["rule_msg"] or "")
            record.msg, record.args = failure(name, ended, said["log"]), ()
            del said["event"]
        return True


def title(said: Mapping[str, Any]) -> str:
    """A job as it is called in a line: its rule and its wildcards."""
    wildcards = (said["wildcards"] or {}).items()
    return " ".join([said["rule_name"], *(f"{name}={value}" for name, value in wildcards)])


def failure(name: str, ended: str, logs: Sequence[str]) -> str:
    """The message on a job that failed.

    Args:
        name: of the job.
        ended: how its process ended, for where its log does not say why.
        logs: its log, and those of a cluster.
    """
    logs = [path for path in logs if Path(path).is_file()]
    if words := next(filter(None, map(last_words, logs)), ""):
        told, heading = words, "log, with the traceback"
    elif logs:
        told, heading = f"{ended} Its log ends without an error.", "log"
    else:
        # The script stopped while it was loading, as it does where a package is missing.
        told, heading = f"{ended} It opened no log; what it printed is kept by 2> FILE.", ""
    lines = [*told.strip().splitlines(), *([f"{heading}: {', '.join(logs)}"] if logs else [])]
    return f"{name} failed: " + "\n  ".join(lines)


def last_words(log: str) -> str:
    """What the error that ended a job says, from its log; empty if that does not say it."""
    try:
        text = Path(log).read_text(errors="replace")
    except OSError:
        return ""
    _, found, words = text.rpartition(f"\n{FAILED}")
    return words if found else ""


def ending(name: str | None, status: int) -> str:
    """How the process of a script ended, in words.

    >>> ending(None, 1)
    'Its process ended with exit status 1.'
    >>> ending("SIGSEGV", 0)
    'Its process was ended by SIGSEGV.'
    """
    if name is None and status > 128:
        name = signal.Signals(status - 128).name
    if name == "SIGKILL":
        return (
            "Its process was killed (SIGKILL), as it is where memory runs out; "
            "--resources mem_mb=<MB> keeps what the jobs ask for together below that."
        )
    if name is not None:
        return f"Its process was ended by {name}."
    return f"Its process ended with exit status {status}."


def line_handler(display: logging.StreamHandler) -> logging.Handler:
    """A handler that writes lines to where ``display`` writes, of what it would show."""
    handler = logging.StreamHandler(display.stream)
    handler.setLevel(display.level)
    lines = LineFormatter()
    handler.addFilter(lines.is_shown)
    for known in display.filters:
        handler.addFilter(known)
    handler.setFormatter(lines)
    return handler


class LineFormatter(logging.Formatter):
    """A line for each job that starts and for each that has ended; other messages as they are."""

    def __init__(self) -> None:
        super().__init__()
        self._started: dict[int, tuple[str, float]] = {}
        self._ended: list[tuple[str, float]] = []

    def is_shown(self, record: logging.LogRecord) -> bool:
        """Whether anything is written of a record; a job's end is written with the progress."""
        said = record.__dict__
        event = said.get("event")
        if event == "job_info":
            self._started[said["jobid"]] = title(said), record.created
        elif event == "job_finished":
            self._ended.append(self._started[said["job_id"]])
        if event in ("job_finished", "job_started", "resources_info", "shellcmd"):
            return False
        return event is not None or not (record.msg is None or _CHATTER.match(record.getMessage()))

    def format(self, record: logging.LogRecord) -> str:
        said = record.__dict__
        event = said.get("event")
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        if event == "job_info":
            reason = textwrap.shorten(said["reason"] or "", _REASON_WIDTH, placeholder=" ...")
            return f"{clock} start {title(said)}: {reason}"
        if event == "progress":
            ended, self._ended = self._ended, []  # of a group, several
            return "\n".join(
                f"{clock} done  {name} ({record.created - started:.0f} s), "
                f"{said['done']} of {said['total']}"
                for name, started in ended
            )
        return super().format(record)
