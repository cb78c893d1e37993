"""The digest of the code: what changes it, what must not, and that nothing that runs is missed."""

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sgnoise.digest import (
    NO_RESULT,
    Project,
    Scripts,
    library_version,
    network_digest,
)

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
    "library/late.py": "import logging as log\n\nlog.info('imported')\n\n\ndef value(): return 4\n",
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
    # What may be an iterator, which the line would leave empty.
    ("script.py", "    logger.info", '    logger.debug("%s", list(path))\n    logger.info'),
    ("script.py", "    logger.info", '    logger.debug("%s", [*path])\n    logger.info'),
    ("script.py", "    logger.info", """    logger.debug(f"{', '.join(path)}")\n    logger.info"""),
    ("script.py", '"the text is its path"', 'f"one of {sum(1 for _ in path)} characters"'),
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
    ("library/numbers.py", "SPARE = 20", "SPARE = list(map(TABLE.pop, ['two']))"),
    ("library/numbers.py", "SPARE = 20", "SPARE = sorted(['two'], key=TABLE.pop)"),
    ("library/numbers.py", "SPARE = 20", "SPARE = max(['two'], key=lambda one: TABLE.pop(one))"),
    ("library/numbers.py", "@checked\n", ""),
    (
        "library/numbers.py",
        "def subtract",
        "from functools import partial\nput = partial(TABLE.setdefault, 'three')\nOF = put(3)\n\n\n"
        "def subtract",
    ),
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
    ("library/numbers.py", "SPARE = 20", "SPARE = sorted(['two'], key=len)"),
    ("library/numbers.py", "SPARE = 20", "SPARE = lambda: TABLE.pop('two')"),
    ("library/numbers.py", "import scipy", "import scipy.stats"),
    ("library/numbers.py", "return a - b", "return a + b"),
    ("library/setup.py", "NAME = 'a'", "NAME = 'b'"),
    ("library/shapes.py", "radius = 1.0", "radius = 2.0"),
    ("library/late.py", "'imported'", "'is imported'"),
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


@pytest.fixture
def fresh_versions() -> Iterator[None]:
    """Ask for each version anew."""
    library_version.cache_clear()
    yield
    library_version.cache_clear()


@pytest.mark.usefixtures("fresh_versions")
def test_a_library_without_a_release_counts_by_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert library_version("no_such_library") == "absent"
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "layers_of_mine.py"
    module.write_text("WIDTH = 1\n")
    before = library_version("layers_of_mine")
    assert before != "absent"
    library_version.cache_clear()
    module.write_text("WIDTH = 2\n")
    assert library_version("layers_of_mine") != before


@pytest.mark.usefixtures("fresh_versions")
@pytest.mark.parametrize("editable", [True, False])
def test_a_library_that_is_worked_on_counts_by_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, editable: bool
) -> None:
    facts = tmp_path / "layers_of_mine-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Name: layers-of-mine\nVersion: 1.0\n")
    origin = {"url": "file:///here", "dir_info": {"editable": editable}}
    (facts / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "layers_of_mine.py"
    module.write_text("WIDTH = 1\n")
    before = library_version("layers_of_mine")
    assert before.startswith("1.0")
    library_version.cache_clear()
    module.write_text("WIDTH = 2\n")
    assert (library_version("layers_of_mine") != before) == editable


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
        "except (KeyError, ValueError) as error:\n        if error.args: raise",
        "except ValueError:\n        import traceback\n        return traceback.format_exc()",
        "except numbers.Wrong as error:\n        return error.name",
        "except Exception as error:\n        return error.code",
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


def test_a_name_that_is_not_in_its_package_makes_all_of_that_count(folder: Path) -> None:
    """As in a package that makes its names on demand, by ``__getattr__``."""
    assert "library.unused" not in Project(folder).reach("script.py").definitions()
    replace(folder / "script.py", "return numbers.add(1, 2)", "return library.subtract(1, 2)")
    assert "library.unused" in Project(folder).reach("script.py").definitions()


def test_names_and_layout_of_the_folder_do_not_count(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "a folder elsewhere"
    shutil.copytree(folder, elsewhere, ignore=lambda *_: {elsewhere.name})
    for file in elsewhere.rglob("*.py"):
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert digest(elsewhere) == digest(folder)


def test_digests_are_remembered_while_nothing_changes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = tmp_path / "memory" / "digests.json"
    before = digest(folder)
    assert Scripts(folder, memory).digest("script.py") == before
    with monkeypatch.context() as patch:
        patch.setattr(Project, "reach", lambda *_: pytest.fail("read again"))
        assert Scripts(folder, memory).digest("script.py") == before
        patch.setattr("sgnoise.digest.library_version", lambda name: "999.0")
        assert Scripts(folder, memory).digest("script.py") != before
    replace(folder / "library/numbers.py", "np.add", "np.subtract")
    assert Scripts(folder, memory).digest("script.py") == digest(folder) != before
    (folder / "library" / "numpy.py").touch()
    for broken in ("[", "[]", "{}"):
        memory.write_text(broken)
        assert Scripts(folder, memory).digest("script.py") == digest(folder)
    assert Scripts(folder, folder / "script.py" / "no").digest("script.py") == digest(folder)


def test_the_version_of_python_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest(folder)
    monkeypatch.setattr("sgnoise.digest.sys.version_info", SimpleNamespace(major=3, minor=99))
    assert digest(folder) != before


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("f(a, b)", "f(  # why\n    a,\n    b,\n)"),
        ("x = [1, 2]", "x = [\n    1,\n    2,\n]"),
        ("if a:\n    b\n", "if a:\n\n    # why\n    b"),
        ("a = b + c", "a = b+c"),
        ("f(a)", "f(a,)"),
        ("from a import (b, c)", "from a import (\n    b,\n    c,\n)"),
        ("f('a')", 'f("a")'),
    ],
)
def test_layout_does_not_count(folder: Path, one: str, other: str) -> None:
    found = set()
    for text in (one, other):
        (folder / "script.py").write_text(f"{text}\n")
        found.add(digest(folder))
    assert len(found) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("f((a))", "f((a,))"),
        ("x[a]", "x[a,]"),
        ("f('a  b')", "f('a b')"),
        ("f('#')", "f('#a')"),
        ("if a:\n    b\n    c", "if a:\n    b\nc"),
        ("f('''a\n\n#''')", "f('''a\n#''')"),
        ("f(notb)", "f(not b)"),
        ("f(a)\n(b,)", "f(a)\n(b)"),
        ("f(1)", "f(1.0)"),
    ],
)
def test_what_is_more_than_layout_counts(folder: Path, one: str, other: str) -> None:
    found = set()
    for text in (one, other):
        (folder / "script.py").write_text(f"{text}\n")
        found.add(digest(folder))
    assert len(found) == 2


# Networks of the user's own.


@pytest.fixture
def networks(tmp_path: Path) -> Path:
    for name, text in {
        "single.py": "from sizes import WIDTH\n\ndef build(**options):\n    return WIDTH\n",
        "sizes.py": "WIDTH = 3\nOTHER = 4\n",
        "nets/__init__.py": "from .resnet import build\n",
        "nets/resnet.py": "from . import blocks\n\ndef build():\n    return blocks.block()\n",
        "nets/blocks.py": "def block():\n    return 1\n\ndef other():\n    return 2\n",
        "results/made.py": "A = 1\n",
        "loading.py": "import importlib as i\n\ndef build(name):\n    i.import_module(name)\n",
        "plain/resnet.py": "from sgnoise import networks\n\ndef build():\n    networks.BUILDERS\n",
        "broken.py": "def build(:\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "changes"),
    [
        ("single:build", "single.py", "return WIDTH", "return 2 * WIDTH", True),
        ("single:build", "sizes.py", "WIDTH = 3", "WIDTH = 5", True),
        ("single:build", "sizes.py", "OTHER = 4", "OTHER = 5", False),
        ("nets:build", "nets/__init__.py", "from .resnet", "import os\nfrom .resnet", False),
        ("nets:build", "nets/__init__.py", "from .resnet", "print()\nfrom .resnet", True),
        ("nets:build", "nets/resnet.py", "blocks.block()", "blocks.block() + 1", True),
        ("nets:build", "nets/blocks.py", "return 1", "return 3", True),
        ("nets:build", "nets/blocks.py", "return 2", "return 3", False),
        ("nets.resnet:build", "nets/blocks.py", "return 1", "return 3", True),
        ("nets.resnet:build", "nets/__init__.py", "from .resnet", "print()\nfrom .resnet", True),
        ("loading:build", "sizes.py", "OTHER = 4", "OTHER = 5", True),
        ("loading:build", "nets/blocks.py", "return 2", "return 3", True),
        ("loading:build", "results/made.py", "A = 1", "A = 2", False),
    ],
)
def test_a_network_of_ones_own_counts_as_far_as_it_reaches(
    networks: Path, name: str, file: str, old: str, new: str, changes: bool
) -> None:
    before = network_digest(name, networks, SCRIPTS)
    replace(networks / file, old, new)
    assert (network_digest(name, networks, SCRIPTS) != before) == changes


def test_a_network_may_be_built_from_those_of_the_library(networks: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(SCRIPTS / "sgnoise", copy / "sgnoise")
    before = network_digest("plain.resnet:build", networks, copy)
    replace(copy / "sgnoise/networks.py", "stride=1", "stride=2")
    assert network_digest("plain.resnet:build", networks, copy) != before


def test_a_network_that_is_not_there_is_named(networks: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no .*absent\.py, no .*/absent/__init__\.py, and"):
        network_digest("absent:build", networks, SCRIPTS)
    with pytest.raises(SyntaxError):
        network_digest("broken:build", networks, SCRIPTS)


def test_an_installed_package_counts_with_every_file(
    networks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    (site / "installed_nets" / "deep").mkdir(parents=True)
    (site / "installed_nets" / "__init__.py").write_text("raise SystemExit('imported')\n")
    (site / "installed_nets" / "deep" / "net.py").write_text("def build(): return 1\n")
    monkeypatch.syspath_prepend(site)
    before = network_digest("installed_nets.deep.net:build", networks / "nets", SCRIPTS)
    replace(site / "installed_nets/deep/net.py", "return 1", "return 2")
    assert network_digest("installed_nets.deep.net:build", networks / "nets", SCRIPTS) != before


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


def test_every_library_counts_by_a_release() -> None:
    project = Project(SCRIPTS)
    libraries = {name for script in scripts() for name in project.reach(script).libraries}
    assert {"numpy", "PIL", "sklearn"} <= libraries
    for name in libraries:
        known = re.fullmatch(r"\d+(\.\d+)+\w*", library_version(name)) is not None
        assert known == (find_spec(name) is not None), name


def _name(node: ast.expr) -> str:
    """`a` of `a`, `a.b` and `a.b(c)`."""
    while isinstance(node, ast.Attribute | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    assert isinstance(node, ast.Name)
    return node.id


def test_compiled_code_uses_no_name_of_another_file() -> None:
    """Numba's cache on the disk watches one file, and would use a kernel with a former constant."""
    seen = 0
    for file in sorted((SCRIPTS / "sgnoise").rglob("*.py")):
        body = ast.parse(file.read_text()).body
        compilers, ours = {"numba"}, set()
        for node in body:
            if isinstance(node, ast.ImportFrom):
                source, names = node.module or "", {each.asname or each.name for each in node.names}
                compilers |= names if source == "numba" else set()
                ours |= names if source.partition(".")[0] == "sgnoise" else set()
            if (
                isinstance(node, ast.Assign)
                and isinstance(node.value, ast.Call)
                and isinstance(node.targets[0], ast.Name)
                and _name(node.value) in compilers
            ):
                compilers.add(node.targets[0].id)
            if isinstance(node, ast.FunctionDef) and compilers & set(
                map(_name, node.decorator_list)
            ):
                seen += 1
                statements = [part for line in node.body for part in ast.walk(line)]
                used = {part.id for part in statements if isinstance(part, ast.Name)}
                assert not used & ours, (file.name, node.name)
    assert seen > 50


def test_a_module_for_words_is_reached_by_no_script() -> None:
    project = Project(SCRIPTS)
    for script in scripts():
        assert not NO_RESULT & project.reach(script).definitions().keys()
    assert all(project.file(name) is not None for name in NO_RESULT), "one has another name now"


# Runs a chain of scripts, and prints the functions of each that were called.
TRACE = """
import json, os, sys, threading, types

scripts, plan = sys.argv[1], json.loads(sys.argv[2])
sys.path.insert(0, scripts)
called = set()


def trace(frame, event, argument):
    code = frame.f_code
    function = code.co_flags & 1  # and no body of a module or class, which runs at import
    if event == "call" and function and code.co_filename.startswith(scripts + os.sep):
        called.add((os.path.relpath(code.co_filename, scripts), code.co_qualname))


class Files(dict):
    __getattr__ = dict.__getitem__


found = {}
threading.setprofile(trace)
for script, job in plan.items():
    main = types.ModuleType("__main__")
    names = ("input", "output", "params")
    main.snakemake = types.SimpleNamespace(
        **{name: Files(job.get(name, {})) for name in names},
        log=[f"{script}.log"], scriptdir=scripts, threads=1,
    )
    sys.modules["__main__"] = main
    file = os.path.join(scripts, script)
    code = compile(open(file).read(), file, "exec")
    called.clear()
    sys.setprofile(trace)
    exec(code, vars(main))
    sys.setprofile(None)
    found[script] = sorted(called)
print(json.dumps(found))
"""

ABOUT = {"study": "trace", "run": "mlp", "seed": 1}
TRAINED = {
    **ABOUT,
    "model": {"name": "mlp", "widths": [4]},
    "loss": "cross_entropy",
    "device": "cpu",
}
JOBS: dict[str, dict[str, Any]] = {
    "fetch_dataset.py": {
        "output": {"arrays": "arrays.npz", "manifest": "manifest.json"},
        "params": {
            "spec": {"source": "bundled", "name": "wine", "form": "table", "test_fraction": 0.2},
            "seed": 1,
        },
    },
    "pretrain.py": {
        "input": {"arrays": "arrays.npz"},
        "output": {"model": "model.safetensors", "training": "training.parquet"},
        "params": {
            **{**TRAINED, "code": "1", "network_code": None, "weights": None},
            "training": {
                **{"epochs": 2, "optimizer": "sgd", "learning_rate": 0.1, "batch_size": 32},
                **{"momentum": 0.0, "weight_decay": 0.0, "milestones": [], "decay": 0.1},
                **{"precision": "float32", "evaluate_every": 1},
                "stop": {"tolerance": 1e-4, "patience": 1},
            },
        },
    },
    "dump_gradients.py": {
        "input": {"arrays": "arrays.npz", "model": "model.safetensors"},
        "output": {"gradients": "gradients.parquet"},
        "params": {
            **TRAINED,
            "sampling": {"mode": "per_sample", "uniform": 20, "per_layer": 2},
            "batch_size": None,
            "draws": None,
        },
    },
    "draw_noise.py": {
        "input": {"gradients": "gradients.parquet"},
        "output": {"noise": "noise.parquet"},
        "params": {**ABOUT, "batch_size": 8, "draws": 40, "replacement": False},
    },
}


def test_all_that_runs_is_reached(tmp_path: Path) -> None:
    """Real jobs, traced: each function of the project that was called counts in the digest."""
    done = subprocess.run(
        [sys.executable, "-c", TRACE, str(SCRIPTS), json.dumps(JOBS)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    project = Project(SCRIPTS)
    for script, called in json.loads(done.stdout).items():
        assert len(called) > 10, script
        reached = project.reach(script).definitions()
        for file, qualified in called:
            name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            top = qualified.split(".")[0]
            # `from sgnoise import fitting` asks the package for it, which finds that and no more.
            if name not in {*NO_RESULT, "sgnoise"} and not top.startswith("<"):
                assert top in reached.get(name, []), (script, file, qualified)


@pytest.mark.parametrize(
    "script",
    [
        *("pretrain.py", "dump_gradients.py", "draw_noise.py", "fit_noise.py"),
        *("measure_escape_noise.py", "simulate_escape.py"),
    ],
)
def test_what_takes_longest_reads_no_message_of_an_error(script: str) -> None:
    """Else the words of all errors that it reaches count, and to mend one trains all networks."""
    assert not Project(SCRIPTS).reach(script).reads


def test_plots_and_statements_are_apart_from_computing() -> None:
    """What is looked at most often: which scripts an edit of these modules reruns."""
    project = Project(SCRIPTS)
    found = {script: project.reach(script).definitions() for script in scripts()}
    users = {module for script in ("fit_noise.py", "pretrain.py") for module in found[script]}
    assert not users & {"sgnoise.plots", "sgnoise.claims", "sgnoise.settings"}
    assert "LOOKS" not in found["fit_noise.py"]["sgnoise.laws"]
