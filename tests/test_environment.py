"""The environment: one set of pins, with hashes, and no address of an index."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def pins(python: str) -> dict[str, str]:
    """Name and version of every locked distribution for a version of Python such as ``3.11``."""
    found = {}
    for line in LOCK.splitlines():
        match = re.match(r"([a-z0-9-]+)==([^ \\;]+)(?: ; (.*))? \\", line)
        if match is None:
            continue
        name, version, marker = match.groups()
        bound = re.search(r"python_full_version (<|>=) '([\d.]+)'", marker or "")
        if bound is not None:
            below = [int(part) for part in python.split(".")] < [
                int(part) for part in bound[2].split(".")
            ]
            if below != (bound[1] == "<"):
                continue
        found[name] = version
    return found


def requirement_name(requirement: str) -> str:
    return re.split(r"[<>=~! ]", requirement)[0]


def test_every_requirement_is_locked() -> None:
    optional = PROJECT["project"]["optional-dependencies"]["models"]
    required = PROJECT["project"]["dependencies"]
    wanted = [*required, *optional, *PROJECT["dependency-groups"]["dev"]]
    assert {requirement_name(item) for item in wanted} <= pins("3.11").keys()


def test_every_distribution_has_hashes() -> None:
    entries = re.split(r"\n(?=\S)", LOCK.strip())
    assert len(entries) > 50
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("file", ["requirements.lock", "envs/sgnoise.yaml", "pyproject.toml"])
def test_no_file_names_an_index(file: str) -> None:
    assert "://" not in (ROOT / file).read_text()


def test_the_conda_environment_has_the_pins_of_the_lock() -> None:
    environment = yaml.safe_load((ROOT / "envs" / "sgnoise.yaml").read_text())
    packages = next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    found = dict(package.split("==") for package in packages)
    locked = pins("3.11")
    assert found == {name: locked[name] for name in found}
    # A job needs no workflow engine; all else that the project asks for, a rule may import.
    project = PROJECT["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["models"]]
    wanted = {requirement_name(item) for item in asked}
    assert found.keys() == {name for name in wanted if not name.startswith("snakemake")}
