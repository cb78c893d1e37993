"""What the README shows works as shown."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

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


def test_gradients_and_fits_in_a_notebook() -> None:
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    rng = np.random.default_rng(0)
    names: dict[str, Any] = {
        "network": network,
        "loss": nn.functional.cross_entropy,
        "inputs": torch.from_numpy(rng.standard_normal((30, 6), dtype=np.float32)),
        "targets": torch.from_numpy(rng.integers(0, 3, 30)),
        "noise": rng.standard_normal((4, 200)),
    }
    exec(block("python", "per_sample_gradients"), names)
    assert names["per_sample"].shape == (len(names["sample"]), 30)
    assert isinstance(names["fit"], fitting.Fit)


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
