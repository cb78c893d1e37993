"""What the README shows works as shown."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from sgnoise import fitting, models, settings

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


def test_a_network_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "networks.py").write_text(block("python", "def build"))
    monkeypatch.chdir(tmp_path)
    study = yaml.safe_load((ROOT / "config.yaml").read_text("utf-8"))
    own = yaml.safe_load(block("yaml", "networks:build"))
    # As Snakemake merges: keys of mappings are added, lists are replaced.
    study["datasets"] |= own["datasets"]
    study["runs"] += own["runs"]
    schema = settings.load_schema(ROOT / "schemas" / "config.schema.yaml")
    run = settings.complete_settings(study, schema)["runs"][-1]
    network = models.build_model(run["model"], input_shape=(5,), classes=3, seed=0)
    assert network(torch.zeros(2, 5)).shape == (2, 3)


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
