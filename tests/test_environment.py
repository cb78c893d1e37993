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


def required(*groups: list[str]) -> set[str]:
    """Names of what the core and these groups ask for; extras that name others are passed over."""
    asked = [item for group in (PROJECT["project"]["dependencies"], *groups) for item in group]
    names = {re.split(r"[<>=~! \[]", item)[0] for item in asked}
    return names - {PROJECT["project"]["name"]}


EXTRAS = PROJECT["project"]["optional-dependencies"]


def test_every_requirement_is_locked() -> None:
    wanted = required(*EXTRAS.values(), PROJECT["dependency-groups"]["dev"])
    assert wanted <= pins("3.11").keys()


def test_all_extras_are_one_extra() -> None:
    named: set[str] = set()
    coming = ["all"]
    while coming:
        extra = coming.pop()
        named.add(extra)
        for item in EXTRAS[extra]:
            if item.startswith("sgnoise["):
                coming += item.removeprefix("sgnoise[").removesuffix("]").split(",")
    assert named == EXTRAS.keys()


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
    wanted = required(*EXTRAS.values())
    assert found.keys() == {name for name in wanted if not name.startswith("snakemake")}
