"""What every job does beside its work: its log, its progress and its random streams."""

import logging
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest

from sgnoise import seeds
from sgnoise.jobs import FAILED, job_log, running_job
from sgnoise.progress import track

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.mark.filterwarnings("default")
def test_the_log_holds_messages_output_warnings_and_progress(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "job.log"
    with job_log(str(path)):
        logging.getLogger("sgnoise").info("a message")
        print("an output")
        warnings.warn("a warning", stacklevel=1)
        assert list(track(range(3), "counting")) == [0, 1, 2]
    text = path.read_text()
    for part in ("a message", "an output", "a warning", "counting: 3/3"):
        assert part in text


def test_an_error_is_logged_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "job.log"
    with pytest.raises(ValueError, match="wrong"), job_log(str(path)):
        raise ValueError("wrong input")
    assert "ValueError: wrong input" in path.read_text()


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """The job object, where Snakemake puts it."""
    main = types.ModuleType("__main__")
    job = types.SimpleNamespace(log=[str(tmp_path / "job.log")], scriptdir=str(SCRIPTS))
    main.snakemake = job  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "__main__", main)
    return job


def test_a_script_finds_its_job(job: types.SimpleNamespace) -> None:
    with running_job() as found:
        assert found is job
    assert Path(job.log[0]).exists()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("own.csv: there is no column 'label'"), "own.csv: there is no column 'label'"),
        (FileNotFoundError(2, "No such file", "w2.pt"), "[Errno 2] No such file: 'w2.pt'"),
        (KeyError("label"), "KeyError: 'label'"),
        (RuntimeError(), "RuntimeError"),
        (KeyboardInterrupt(), "stopped from the keyboard"),
    ],
)
def test_a_failed_job_says_why_once_and_keeps_its_traceback(
    error: BaseException,
    told: str,
    job: types.SimpleNamespace,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stop, running_job():
        raise error
    assert stop.value.code == 1
    text = Path(job.log[0]).read_text()
    assert text.endswith(f"\n{FAILED}{told}\n")
    assert text.count("Traceback") == 1
    assert capfd.readouterr() == ("", "")


def test_a_job_with_another_library_stops(job: types.SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "sgnoise").mkdir()
    job.scriptdir = str(tmp_path)
    with pytest.raises(SystemExit), running_job():
        pytest.fail("the job runs")
    text = Path(job.log[0]).read_text()
    assert f"the library sgnoise was taken from {SCRIPTS}, and the script from {tmp_path}" in text


def test_streams_differ_by_name_and_seed_only() -> None:
    first = seeds.generator(1, "noise", "mlp").random(4)
    seeds.generator(1, "other").random(100)
    np.testing.assert_array_equal(first, seeds.generator(1, "noise", "mlp").random(4))
    assert not np.array_equal(first, seeds.generator(1, "noise", "resnet").random(4))
    assert not np.array_equal(first, seeds.generator(2, "noise", "mlp").random(4))


def test_integer_seeds_are_what_libraries_accept() -> None:
    values = [seeds.integer_seed(7, "run", index) for index in range(200)]
    assert len(set(values)) == 200
    assert all(0 <= value < 2**63 for value in values)
