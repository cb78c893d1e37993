"""The digest of the code: what changes it, what must not, and that nothing that runs is missed."""

import ast
import shutil
from pathlib import Path

import pytest

from sgnoise.digest import NO_RESULT, Project, layout_free

SCRIPTS = Path(__file__).parent.parent / "scripts"

# A project in small, with one of everything that a script can reach a definition by.
FILES = {
    "script.py": '''"""A script."""
from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

import library
from library import numbers, shapes  # the sum
from library.deep.inner import inner as renamed
from library.numbers import LIMIT
from sgnoise.jobs import running_job
from sgnoise.messages import unknown_name
from sgnoise.progress import track

if TYPE_CHECKING:
    from library import hints

logger = logging.getLogger(__name__)


def run(path: str, hint: hints.Hint | None = None) -> float:
    """Write # nothing."""
    text = "# kept"  # dropped
    if not path:
        raise ValueError(f"no path among {len(text)} characters")
    if path == "other":
        raise unknown_name("path", path, ["this", "that"])
    logger.info("%d characters", len(text))
    if text == path:
        warnings.warn("the text is its path", stacklevel=2)
    for item in track([1, 2], "items"):
        path += str(item)
    from library import late

    square = shapes.Square(3.0)
    shapes.Plain()
    return numbers.add(1, 2) + len(text) + renamed() + LIMIT + late.value() + square.area()


def unused() -> None:
    print("never")


if __name__ == "__main__":
    with running_job() as job:
        run(job.input[0])
''',
    "library/__init__.py": '"""A library."""\n',
    "library/numbers.py": '''"""Numbers."""
import numpy as np
from library import registry, setup

LIMIT = 10
SPARE = 20
TABLE = {"one": 1}
TABLE["two"] = 2


def checked(function):
    return function


@checked
def add(a: int, b: int = LIMIT) -> int:
    return int(np.add(a, b)) + helper() + getattr(registry, "ENTRY")


def helper() -> int:
    return TABLE["two"]


def subtract(a: int, b: int) -> int:
    import scipy

    return a - b
''',
    "library/shapes.py": """class Shape:
    side: float

    def area(self) -> float:
        return self.scale() * self.side

    def scale(self) -> float:
        return 1.0


class Square(Shape):
    def __init__(self, side: float) -> None:
        self.side = side

    def area(self) -> float:
        return super().area() ** 2


class Plain:
    def draw(self) -> None:
        from library import unused

        print(unused)


class Circle:
    radius = 1.0
""",
    "library/registry.py": "ENTRY = 1\nOTHER = 2\n",
    "library/setup.py": "import os\n\nos.environ['THREADS'] = '1'\nNAME = 'a'\n",
    "library/deep/__init__.py": "from library.deep.outer import outer\n",
    "library/deep/inner.py": """from library.deep import outer


def inner():
    return outer()
""",
    "library/deep/outer.py": "def outer():\n    return 1\n\n\ndef spare():\n    return 2\n",
    "library/late.py": "def value():\n    return 4\n",
    "library/hints.py": "class Hint:\n    pass\n",
    "library/unused.py": "VALUE = 1\n",
    "sgnoise/__init__.py": "",
    "sgnoise/messages.py": "def unknown_name(what, name, valid):\n    return ValueError(what)\n",
    "sgnoise/progress.py": "def track(items, description):\n    yield from items\n",
    "sgnoise/jobs.py": "def running_job():\n    return None\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def digest(folder: Path) -> str:
    return Project(folder).digest("script.py")


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


CHANGES = [
    ("script.py", "1, 2)", "1, 3)"),
    ("script.py", "# kept", "# left"),
    ("script.py", "run(job.input[0])", "run(job.input[1])"),
    ("script.py", "if not path", "if path"),
    ("script.py", "raise ValueError(f", "raise KeyError(f"),
    ("script.py", "str(item)", "repr(item)"),
    ("script.py", "track([1, 2]", "track([1, 2, 3]"),
    ("script.py", "len(text))\n    if text", 'len(text)); text += ""\n    if text'),
    ("script.py", "import inner as renamed", "import outer as renamed"),
    ("script.py", "if TYPE_CHECKING:", "print('at once')\nif TYPE_CHECKING:"),
    ("library/__init__.py", '"""A library."""', "print('imported')"),
    ("library/__init__.py", '"""A library."""', "import side_effect"),
    ("library/numbers.py", "np.add", "np.subtract"),
    ("library/numbers.py", "import numpy as np", "import jax.numpy as np"),
    ("library/numbers.py", "LIMIT = 10", "LIMIT = 11"),
    ("library/numbers.py", "LIMIT = 10", "LIMIT = 10\nLIMIT = 12"),
    ("library/numbers.py", "def add", "def add_(a, b): return 1\n\n\ndef add"),
    ("library/numbers.py", 'TABLE["two"] = 2', 'TABLE["two"] = 3'),
    ("library/numbers.py", 'TABLE["two"] = 2', 'TABLE["two"] = 2\nTABLE.update(two=4)'),
    ("library/numbers.py", "SPARE = 20", "SPARE = TABLE.setdefault('two', 5)"),
    ("library/numbers.py", "SPARE = 20", "for TABLE in []: pass"),
    ("library/numbers.py", "@checked\n", ""),
    ("library/numbers.py", "    return function", "    return lambda *a: 0"),
    ("library/numbers.py", "def subtract", "@checked\ndef subtract"),
    ("library/numbers.py", "a - b\n", "a - b\n\n\ndef helper():\n    return 0\n"),
    ("library/registry.py", "OTHER = 2", "OTHER = 3"),
    ("library/setup.py", "'1'", "'2'"),
    ("library/shapes.py", "return 1.0", "return 2.0"),
    ("library/shapes.py", "self.side = side", "self.side = 2 * side"),
    ("library/shapes.py", "radius = 1.0", "radius = print()"),
    ("library/shapes.py", "class Shape:", "class Shape:\n    def __init_subclass__(cls): pass"),
    ("library/deep/outer.py", "return 1", "return 3"),
    ("library/deep/outer.py", "return 2", "return 3"),  # the name of a function and of a module
    ("library/late.py", "return 4", "return 5"),
    ("library/deep/__init__.py", "import outer\n", "import spare as outer\n"),
]
STAYS = [
    ("script.py", "# dropped", "# another remark"),
    ("script.py", "Write # nothing.", "Writes\n    nothing at all."),
    ("script.py", "no path among {len(text)} characters", "where is the {path!r}?"),
    (
        "script.py",
        'ValueError(f"no path among {len(text)} characters")',
        'ValueError(\n            f"no path"\n            f" at {path}"\n        )',
    ),
    ("script.py", '"path", path', '"name of a path", path'),
    ("script.py", '"%d characters", len(text)', '"there are %d", len(text)'),
    ("script.py", "    logger.info", '    logger.debug("another message")\n    logger.info'),
    ("script.py", "the text is its path", "text and path are one"),
    ("script.py", '"items"', '"things"'),
    ("script.py", "[1, 2], ", "\n        [1, 2],\n        "),
    ("script.py", 'print("never")', 'print("ever")'),
    ("script.py", "    from library import hints", "    from library import unused"),
    ("script.py", "hints.Hint | None = None", "hints.Hint | None   =   None"),
    ("library/numbers.py", "\n\n\n", "\n"),
    ("library/numbers.py", "SPARE = 20", "SPARE = 21"),
    ("library/numbers.py", "import scipy", "import scipy.stats"),
    ("library/numbers.py", "return a - b", "return a + b"),
    ("library/setup.py", "NAME = 'a'", "NAME = 'b'"),
    ("library/shapes.py", "radius = 1.0", "radius = 2.0"),
    ("library/unused.py", "1", "print()"),
    ("library/hints.py", "pass", "value = print()"),
    ("sgnoise/jobs.py", "return", "return not"),
    ("sgnoise/messages.py", "what", "name"),
    ("sgnoise/progress.py", "yield from items", "yield from list(items)"),
]


@pytest.mark.parametrize(("file", "old", "new"), CHANGES)
def test_changes_with_what_can_change_a_result(folder: Path, file: str, old: str, new: str) -> None:
    before = digest(folder)
    replace(folder / file, old, new)
    assert digest(folder) != before


@pytest.mark.parametrize(("file", "old", "new"), STAYS)
def test_stays_with_what_cannot(folder: Path, file: str, old: str, new: str) -> None:
    before = digest(folder)
    replace(folder / file, old, new)
    assert digest(folder) == before


def test_libraries_count_where_they_are_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Project(folder).reach("script.py").libraries == {"numpy"}
    before = digest(folder)
    monkeypatch.setattr("sgnoise.digest.library_version", lambda name: "999.0")
    assert digest(folder) != before


@pytest.mark.parametrize(
    ("use", "counts"),
    [
        ("import library.numbers\n\nlibrary.numbers.LIMIT", {"LIMIT"}),
        ("import library.numbers as n\n\nprint(n.LIMIT)", {"LIMIT"}),
        ("from library import numbers\n\nprint(numbers)", None),
        ("from library import numbers\n\ngetattr(numbers, 'LIMIT')", None),
        ("from library import numbers\n\nalias = [numbers]\nprint(alias)", None),
        ("from library import numbers\n\nnumbers.missing", None),
        ("from library import numbers\n\nvars(numbers)", None),
        ("import library\n\nprint(library)", None),
        ("from library.numbers import *", None),
        ("from library.numbers import LIMIT, subtract\n\nprint(LIMIT)", {"LIMIT"}),
        ("from library import numbers\n\ndef f(numbers): return numbers\nf(0)", set()),
        ("from library import numbers\n\nprint([numbers for numbers in 'ab'])", None),
        ("def f():\n    from library.numbers import LIMIT as n\n    return n\nf()", {"LIMIT"}),
        ("def f():\n    import library.numbers as n\n    return n.LIMIT\nf()", {"LIMIT"}),
        ("def f():\n    import library.numbers as n\n    return n\nf()", None),
        (
            "try:\n    from library.numbers import SPARE\nexcept ImportError:\n    SPARE = 1",
            {"SPARE"},
        ),
    ],
)
def test_a_module_counts_by_name_or_as_a_whole(
    folder: Path, use: str, counts: set[str] | None
) -> None:
    (folder / "script.py").write_text(f"{use}\n")
    reached = Project(folder).reach("script.py").definitions()["library.numbers"]
    everything = {"LIMIT", "SPARE", "TABLE", "add", "checked", "helper", "subtract"}
    always = {"TABLE", "add", "checked", "helper", "LIMIT"}  # `checked` may register what it takes
    assert everything & set(reached) == (everything if counts is None else always | counts)


@pytest.mark.parametrize(
    "handler",
    [
        "except ValueError as error:\n        return str(error)",
        "except ValueError as error:\n        return error.args[0]",
        "except ValueError as error:\n        reason = error\n        return reason",
        "except ValueError:\n        import traceback\n        return traceback.format_exc()",
    ],
)
def test_words_count_where_code_reads_them(folder: Path, handler: str) -> None:
    call = "numbers.add(1, 2)"
    replace(
        folder / "script.py",
        "def unused",
        f"def guard():\n    try:\n        return {call}\n    {handler}\n\n\ndef unused",
    )
    replace(folder / "script.py", "        run(job.input[0])", "        guard(run(job.input[0]))")
    before = digest(folder)
    replace(folder / "script.py", "no path among", "no path in")
    assert digest(folder) != before


@pytest.mark.parametrize(
    "handler",
    [
        'except ValueError as error:\n        raise KeyError(f"not {error}") from error',
        'except ValueError as error:\n        logger.warning("not %s", error)',
        "except OSError as error:\n        return error.errno",
    ],
)
def test_words_do_not_count_where_they_are_passed_on(folder: Path, handler: str) -> None:
    replace(
        folder / "script.py",
        "def unused",
        f"def guard():\n    try:\n        return numbers.add(1, 2)\n    {handler}\n\n\ndef unused",
    )
    replace(folder / "script.py", "        run(job.input[0])", "        guard(run(job.input[0]))")
    before = digest(folder)
    replace(folder / "script.py", "no path among", "no path in")
    assert digest(folder) == before


@pytest.mark.parametrize("call", ["shapes.Plain().draw()", "getattr(shapes.Plain(), 'draw')()"])
def test_what_a_method_imports_counts_where_it_may_be_called(folder: Path, call: str) -> None:
    assert "library.unused" not in Project(folder).reach("script.py").definitions()
    replace(folder / "script.py", "shapes.Plain()", call)
    assert "library.unused" in Project(folder).reach("script.py").definitions()


def test_a_call_within_a_message_counts_if_it_may_act(folder: Path) -> None:
    replace(folder / "script.py", "{len(text)}", "{numbers.subtract(1, 2)}")
    before = digest(folder)
    replace(folder / "library/numbers.py", "a - b", "a + b")
    assert digest(folder) != before


def test_something_else_called_logger_is_no_logger(folder: Path) -> None:
    replace(folder / "script.py", "logging.getLogger(__name__)", "numbers.add(3, 4)")
    before = digest(folder)
    replace(folder / "script.py", '"%d characters"', '"characters: %d"')
    assert digest(folder) != before


def test_a_docstring_counts_where_code_reads_it(folder: Path) -> None:
    replace(folder / "script.py", "len(text) + renamed", "len(run.__doc__) + renamed")
    before = digest(folder)
    replace(folder / "script.py", "Write # nothing.", "Write.")
    assert digest(folder) != before


LAZY = """import importlib
from importlib.metadata import version

__version__ = version("numpy")


def __getattr__(name):
    return getattr(importlib.import_module("library.numbers"), name)
"""


def test_a_lazy_package_says_in_its_stub_where_names_come_from(folder: Path) -> None:
    (folder / "library/__init__.py").write_text(LAZY)
    (folder / "library/__init__.pyi").write_text(
        "from library.numbers import LIMIT as LIMIT, subtract as subtract\n"
    )
    reached = Project(folder).reach("script.py").definitions()
    assert "library.unused" not in reached
    assert "subtract" not in reached["library.numbers"]
    replace(folder / "script.py", "return numbers.add(1, 2)", "return library.subtract(1, 2)")
    reached = Project(folder).reach("script.py").definitions()
    assert "subtract" in reached["library.numbers"]
    assert "__getattr__" in reached["library"]
    assert "library.unused" not in reached


def test_without_a_stub_a_lazy_package_counts_as_a_whole(folder: Path) -> None:
    (folder / "library/__init__.py").write_text(LAZY)
    replace(folder / "script.py", "return numbers.add(1, 2)", "return library.subtract(1, 2)")
    assert "library.unused" in Project(folder).reach("script.py").definitions()


def test_names_and_layout_of_the_folder_do_not_count(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "a folder elsewhere"
    shutil.copytree(folder, elsewhere, ignore=lambda *_: {elsewhere.name})
    for file in elsewhere.rglob("*.py"):
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert digest(elsewhere) == digest(folder)


def test_a_digest_is_the_same_in_every_version_of_python(folder: Path) -> None:
    """A known value: whoever changes what counts changes it here, as all jobs will run again."""
    (folder / "script.py").write_text('X = f"{1 + 1:>{3}} a" "b"\nprint(X,)  # why\n')
    assert digest(folder) == "00f6dbffe5c63a59"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("f(a, b)", "f(  # why\n    a,\n    b,\n)"),
        ("x = [1, 2]", "x = [\n    1,\n    2,\n]"),
        ("if a:\n    b\n", "if a:\n\n    # why\n    b"),
        ("a = b + c", "a = b+c"),
        ("f(a)", "f(a,)"),
        ("from a import (b, c)", "from a import (\n    b,\n    c,\n)"),
    ],
)
def test_layout_does_not_count(one: str, other: str) -> None:
    assert layout_free(one) == layout_free(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = (a)", "x = (a,)"),
        ("x[a]", "x[a,]"),
        ("return (a)", "return (a,)"),
        ("f('a  b')", "f('a b')"),
        ("f('#')", "f('#a')"),
        ("if a:\n    b\n    c", "if a:\n    b\nc"),
        ("'''a\n\n#'''", "'''a\n#'''"),
        ("a = notb", "a = not b"),
        ("f(a)\n(b,)", "f(a)\n(b)"),
    ],
)
def test_what_is_more_than_layout_counts(one: str, other: str) -> None:
    ast.parse(one.replace("return", "x ="))
    assert layout_free(one) != layout_free(other)


# The library itself.


def scripts() -> list[str]:
    return sorted(file.name for file in SCRIPTS.glob("*.py"))


def test_every_reached_definition_changes_the_digest(tmp_path: Path) -> None:
    """Each script, and one definition of each module that it reaches, changed in a copy."""
    copy = tmp_path / "scripts"
    shutil.copytree(SCRIPTS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    project = Project(copy)
    digests = {script: project.digest(script) for script in scripts()}
    reached = {script: project.reach(script).definitions() for script in scripts()}
    modules = sorted({module for found in reached.values() for module in found})
    for module in modules:
        file = project.file(module)
        assert file is not None
        original = file.read_text()
        names = sorted({name for found in reached.values() for name in found.get(module, [])})
        for name in names[:: max(1, len(names) // 2)]:
            # The last binding is what the name stands for.
            file.write_text(f"{original}\n\n{name} = None\n")
            changed = Project(copy)
            changed._modules = {
                key: value for key, value in project._modules.items() if key != module
            }
            for script in scripts():
                if name in reached[script].get(module, []):
                    assert changed.digest(script) != digests[script], (script, module, name)
        file.write_text(original)


def test_a_module_for_words_is_reached_by_no_script() -> None:
    project = Project(SCRIPTS)
    for script in scripts():
        assert not NO_RESULT & project.reach(script).definitions().keys()
    assert all(project.file(name) is not None for name in NO_RESULT), "one has another name now"


def test_plots_and_statements_are_apart_from_computing() -> None:
    """What is looked at most often: which scripts an edit of these modules reruns."""
    project = Project(SCRIPTS)
    found = {script: project.reach(script).definitions() for script in scripts()}
    users = {module for script in ("fit_noise.py", "pretrain.py") for module in found[script]}
    assert not users & {"sgnoise.plots", "sgnoise.claims", "sgnoise.settings"}
    assert "LOOKS" not in found["fit_noise.py"]["sgnoise.laws"]
