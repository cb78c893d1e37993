"""The examples in docstrings of the library do what they say."""

import doctest
import importlib
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parent.parent / "scripts" / "sgnoise"
MODULES = sorted(
    ".".join(("sgnoise", *path.relative_to(LIBRARY).with_suffix("").parts))
    for path in LIBRARY.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0
