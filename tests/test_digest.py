"""The digest of the code: what changes it, and what must not."""

from pathlib import Path

import pytest

from sgnoise.digest import code_digest, dependencies, normalise

SCRIPT = '''"""A script."""
from library import numbers  # the sum


def run(path: str) -> int:
    """Write # nothing."""
    text = "# kept"  # dropped
    return numbers.add(1, 2) + len(text)
'''
NUMBERS = '''"""Numbers."""
import numpy as np


def add(a: int, b: int) -> int:
    return int(np.add(a, b))
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "__init__.py").write_text('"""A library."""\n')
    (tmp_path / "library" / "numbers.py").write_text(NUMBERS)
    (tmp_path / "library" / "unused.py").write_text("VALUE = 1\n")
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path


def digest(folder: Path) -> str:
    code_digest.cache_clear()
    return code_digest("script.py", folder)


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_follows_imports_of_the_project_only(folder: Path) -> None:
    files, libraries = dependencies(folder / "script.py", folder)
    assert [file.relative_to(folder).as_posix() for file in files] == [
        "script.py",
        "library/__init__.py",
        "library/numbers.py",
    ]
    assert libraries == ["numpy"]


def test_normalise_keeps_code_and_strings_only() -> None:
    assert normalise(SCRIPT).splitlines() == [
        "from library import numbers",
        "def run(path: str) -> int:",
        '    text = "# kept"',
        "    return numbers.add(1, 2) + len(text)",
    ]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("script.py", "1, 2", "1, 3"),
        ("script.py", "# kept", "# left"),
        ("library/numbers.py", "np.add", "np.subtract"),
        ("library/__init__.py", '"""A library."""', "import json"),
    ],
)
def test_changes_with_the_code(folder: Path, file: str, old: str, new: str) -> None:
    before = digest(folder)
    replace(folder / file, old, new)
    assert digest(folder) != before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("script.py", "# dropped", "# another remark"),
        ("script.py", "Write # nothing.", "Writes\n    nothing at all."),
        ("library/numbers.py", "\n\n\n", "\n"),
        ("library/unused.py", "1", "2"),
    ],
)
def test_stays_with_the_words(folder: Path, file: str, old: str, new: str) -> None:
    before = digest(folder)
    replace(folder / file, old, new)
    assert digest(folder) == before


def test_changes_with_the_version_of_a_library(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digest(folder)
    monkeypatch.setattr("sgnoise.digest.version", lambda name: "999.0+local")
    assert digest(folder) != before


def test_a_relative_import_is_named(folder: Path) -> None:
    replace(folder / "library/numbers.py", "import numpy as np", "from . import unused")
    with pytest.raises(ValueError, match=r"numbers\.py: line 2: a relative import"):
        digest(folder)
