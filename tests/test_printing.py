"""What a run prints: lines, bars on a terminal, and one message on a job that failed."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yte

from sgnoise import printing
from sgnoise.jobs import FAILED

ROOT = Path(__file__).parent.parent
PROFILE = ROOT / "profiles" / "default"
COMMAND = [sys.executable, "-m", "snakemake", "--cores", "1", "--workflow-profile", str(PROFILE)]

SNAKEFILE = """
from snakemake.logging import logger as snakemake_logger
from sgnoise.printing import print_briefly

print_briefly(snakemake_logger, dry_run=workflow.output_settings.dryrun)


rule work:
    output:
        "{kind}.txt",
    log:
        "{kind}.log",
    resources:
        mem_mb=100,
    params:
        kind=lambda wildcards: wildcards.kind,
    script:
        "work.py"
"""

SCRIPT = """
import os, signal

if snakemake.params.kind == "loading":
    import no_such_package

from pathlib import Path

from sgnoise.jobs import logger, running_job

with running_job() as job:
    logger.info("epoch 1")
    if job.params.kind == "wrong":
        raise ValueError("own.csv: there is no column 'label'.\\nName one with target.")
    if job.params.kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    Path(job.output[0]).touch()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workflow of one rule, whose jobs fail as their name says."""
    folder = tmp_path_factory.mktemp("workflow")
    (folder / "Snakefile").write_text(SNAKEFILE)
    (folder / "work.py").write_text(SCRIPT)
    return folder


def environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT / "scripts"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "TERM": "xterm",
        "COLUMNS": "200",
    }


def printed(folder: Path, *arguments: str) -> list[str]:
    """The lines that snakemake prints to something else than a terminal."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=100,
    )
    return (done.stdout + done.stderr).splitlines()


@pytest.fixture(scope="module")
def lines(folder: Path) -> list[str]:
    """What a run prints in which one job is done and three fail, each in its way."""
    (folder / "loading.log").write_text("\nThe job failed: of an earlier run\n")
    return printed(folder, "--keep-going", "fine.txt", "wrong.txt", "killed.txt", "loading.txt")


def test_a_job_has_a_line_at_its_start_with_the_reason_and_one_at_its_end(
    lines: list[str],
) -> None:
    of_job = [line for line in lines if re.match(r"\d\d:\d\d:\d\d .*kind=fine", line)]
    assert len(of_job) == 2
    assert of_job[0].endswith(" start work kind=fine: Missing output files: fine.txt")
    assert re.search(r" done  work kind=fine \(\d+ s\), 1 of 4$", of_job[1])
    text = "\n".join(lines)
    for noise in ("Shell command", "resources:", "Select jobs", "None"):
        assert noise not in text


def test_a_wrong_input_is_one_message_and_no_traceback(folder: Path, lines: list[str]) -> None:
    at = lines.index("work kind=wrong failed: own.csv: there is no column 'label'.")
    assert lines[at + 1 : at + 3] == [
        "  Name one with target.",
        "  log, with the traceback: wrong.log",
    ]
    text = "\n".join(lines)
    assert text.count("there is no column") == 1
    for noise in ("ValueError", "CalledProcessError", "epoch 1", "Error in rule"):
        assert noise not in text
    assert "Traceback" in (folder / "wrong.log").read_text()


def test_a_killed_job_says_so(lines: list[str]) -> None:
    (message,) = [line for line in lines if line.startswith("work kind=killed failed: ")]
    assert "Its process was killed (SIGKILL)" in message
    assert "memory runs out" in message


def test_a_script_that_cannot_be_loaded_does_not_show_an_older_message(lines: list[str]) -> None:
    assert "ModuleNotFoundError: No module named 'no_such_package'" in lines
    (message,) = [line for line in lines if line.startswith("work kind=loading failed: ")]
    assert "Its process ended with exit status 1. It opened no log" in message
    assert "an earlier run" not in "\n".join(lines)


def test_lines_at_the_start_can_be_left_out(folder: Path) -> None:
    lines = printed(folder, "--quiet", "rules", "--", "quiet.txt")
    assert not [line for line in lines if " start " in line]
    assert re.search(r" done  work kind=quiet \(\d+ s\), 1 of 1$", "\n".join(lines), re.MULTILINE)


def test_a_dry_run_keeps_its_details(folder: Path) -> None:
    lines = printed(folder, "--dry-run", "other.txt")
    assert "    reason: Missing output files: other.txt" in lines
    assert "    output: other.txt" in lines


@pytest.mark.parametrize(
    ("terminal", "arguments", "logger"),
    [(True, [], "rich"), (True, ["-n"], None), (False, [], None)],
)
def test_the_profile_asks_for_bars_on_a_terminal(
    terminal: bool, arguments: list[str], logger: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "argv", ["snakemake", *arguments])
    profile = yte.process_yaml((PROFILE / "config.yaml").read_text(), require_use_yte=True)
    assert profile.get("logger") == logger
    assert profile["rerun-incomplete"] is True


def test_without_its_package_the_profile_asks_for_no_bars(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    profile = yte.process_yaml((PROFILE / "config.yaml").read_text(), require_use_yte=True)
    assert "logger" not in profile


def test_a_failure_names_the_log_of_the_cluster_too(tmp_path: Path) -> None:
    log, of_cluster = tmp_path / "job.log", tmp_path / "slurm.log"
    of_cluster.write_text("slurmstepd: error\n")
    ended = "SLURM status is: 'TIMEOUT'."
    message = printing.failure("fit_noise run=mlp", ended, [str(log), str(of_cluster)])
    assert message.splitlines() == [
        "fit_noise run=mlp failed: SLURM status is: 'TIMEOUT'. Its log ends without an error.",
        f"  log: {of_cluster}",
    ]
    log.write_text(f"epoch 1\n\n{FAILED}own.csv: no column\n")
    message = printing.failure("fit_noise run=mlp", ended, [str(log), str(of_cluster)])
    assert message.splitlines() == [
        "fit_noise run=mlp failed: own.csv: no column",
        f"  log, with the traceback: {log}, {of_cluster}",
    ]


def test_the_profile_of_slurm_is_understood(folder: Path) -> None:
    lines = printed(folder, "--profile", str(ROOT / "profiles" / "slurm"), "--dry-run", "more.txt")
    assert "    reason: Missing output files: more.txt" in lines


def test_a_terminal_shows_bars_and_the_message(folder: Path) -> None:
    terminal, side_of_process = os.openpty()
    with subprocess.Popen(
        [*COMMAND, "--keep-going", "other.txt", "wrong.txt"],
        cwd=folder,
        env=environment(folder),
        stdin=side_of_process,
        stdout=side_of_process,
        stderr=side_of_process,
    ) as process:
        os.close(side_of_process)
        shown = b"".join(iter(lambda: read(terminal), b""))
    os.close(terminal)
    assert process.returncode == 1
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown.decode())
    assert "Total Progress" in text
    assert text.count("work kind=wrong failed: own.csv: there is no column 'label'.") == 1
    assert "Traceback" not in text


def read(terminal: int) -> bytes:
    """What has been written to a terminal, nothing when its other side is closed."""
    try:
        return os.read(terminal, 4096)
    except OSError:  # How Linux says so.
        return b""
