"""What the README shows works as shown."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_wine

from sgnoise import fitting

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def block(language: str, holding: str) -> str:
    """The one code block of that language that holds a text."""
    found = [
        text
        for text in re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
        if holding in text
    ]
    assert len(found) == 1, f"{len(found)} blocks of {language} hold {holding!r}"
    return found[0]


def test_a_network_of_ones_own(tmp_path: Path) -> None:
    """From the files of the recipe to a report, in a folder beside a clone, as it stands."""
    folder = tmp_path / "a place" / "my study"
    folder.mkdir(parents=True)
    (folder.parent / "sgnoise").symlink_to(ROOT)
    (folder / "networks.py").write_text(block("python", "def build"))
    (folder / "mine.yaml").write_text(block("yaml", "networks:build"))
    wine = load_wine(as_frame=True)
    wine.data.assign(label=wine.target_names[wine.target]).to_csv(folder / "own.csv", index=False)
    command = block("console", "--configfile mine.yaml").removeprefix("$ ")
    subprocess.run(
        command,
        shell=True,
        cwd=folder,
        check=True,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    page = (folder / "results/mine/report.html").read_text("utf-8")
    for shown in (
        "Figure 3.",
        "Figure 5.",
        "Figure 7.",
        "Figure 8.",
        "Table 1.",
        "not tested here",
    ):
        assert shown in page
    for absent in ("Figure 1.", "Figure 2.", "Figure 9."):
        assert absent not in page
    assert not (ROOT / "results" / "mine").exists(), "results belong to the working directory"


def pasted(code: str) -> dict[str, Any]:
    """All names after code has run by itself."""
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def test_measuring_in_a_notebook(capsys: pytest.CaptureFixture[str]) -> None:
    table = pasted(block("python", "sgnoise.measure("))["table"]
    assert (table.groupby(["parameter_index", "batch_size"])["law"].nunique() == 3).all()
    assert set(table["batch_size"]) == {32, 128}
    assert "held_out_log_likelihood" in capsys.readouterr().out


def test_from_a_network_to_alpha_in_a_notebook(capsys: pytest.CaptureFixture[str]) -> None:
    names = pasted(block("python", "mini_batch_noise("))
    assert isinstance(names["fit"], fitting.Fit)
    assert names["noise"].shape == (len(names["sample"]), 1000)
    assert np.isfinite(names["fit"].alpha).mean() > 0.9
    assert "mean" in capsys.readouterr().out


def test_every_command_names_a_target_that_exists() -> None:
    text = (ROOT / "Snakefile").read_text("utf-8")
    rules = set(re.findall(r"^rule (\w+):", text, flags=re.MULTILINE))
    named = set(re.findall(r"`snakemake --cores \d (\w+)`", README))
    assert named
    assert named <= rules


def test_every_file_that_is_linked_exists() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
