"""A digest of the code that a script runs: what decides whether a result is out of date.

Snakemake compares the modification time of a script alone: it misses an edited module that the
script imports, and finds every script changed in a fresh clone. The digest here covers the script,
every module of this project that it imports, directly or not, and the versions of the libraries
that these import. It ignores comments, docstrings and blank lines, so that better words rerun
nothing.
"""

from __future__ import annotations

import ast
import hashlib
import io
import sys
import tokenize
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# Import names that differ from the name of the distribution.
_DISTRIBUTIONS = {"open_clip": "open-clip-torch", "sklearn": "scikit-learn", "yaml": "pyyaml"}

# The workflow engine and the progress bar: a new release of either changes no number.
_IGNORED = {"snakemake", "tqdm"}


def normalise(source: str) -> str:
    """``source`` without comments, docstrings, blank lines and trailing space.

    What remains is the text itself, not a dump of its syntax tree: the same under every version of
    Python. A docstring stands on lines of its own, as the formatter sees to.
    """
    lines = source.splitlines()
    for token in reversed(list(tokenize.generate_tokens(io.StringIO(source).readline))):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            first = node.body[0]
            assert first.end_lineno is not None
            for row in range(first.lineno - 1, first.end_lineno):
                lines[row] = ""
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _imported_names(source: str) -> list[str]:
    """Dotted names of all that ``source`` imports; ``from a import b`` gives a and a.b."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(
                    f"line {node.lineno}: a relative import; write the full name, as the digest of "
                    "the code follows full names only"
                )
            assert node.module is not None
            names.append(node.module)
            names.extend(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def _local_file(name: str, folder: Path) -> Path | None:
    """The file of the project's module ``name``, or None if the project has none of that name."""
    base = folder.joinpath(*name.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def dependencies(script: Path, folder: Path) -> tuple[list[Path], list[str]]:
    """The project's files that ``script`` runs (itself first) and the libraries that they import.

    Args:
        script: the file to start from.
        folder: where the project's modules are looked for.

    Raises:
        ValueError: a relative import, with file and line.
    """
    files = [script]
    libraries: set[str] = set()
    for file in files:
        try:
            names = _imported_names(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
        for name in names:
            top = name.split(".", maxsplit=1)[0]
            parents = [".".join(name.split(".")[:depth]) for depth in range(1, name.count(".") + 2)]
            local = [found for part in parents if (found := _local_file(part, folder))]
            files.extend(file for file in dict.fromkeys(local) if file not in files)
            if not local and top not in sys.stdlib_module_names and top not in _IGNORED:
                libraries.add(top)
    return files, sorted(libraries)


def library_version(name: str) -> str:
    """The release of a library, by its import name, or ``absent``."""
    try:
        # The local part tells the build (CPU or a CUDA version), not the release.
        return version(_DISTRIBUTIONS.get(name, name)).split("+", maxsplit=1)[0]
    except PackageNotFoundError:
        return "absent"


@cache
def code_digest(script: str | Path, folder: Path) -> str:
    """The digest of ``script`` (a name below ``folder``): 16 hexadecimal digits.

    Raises:
        FileNotFoundError: there is no such script.
        ValueError: a relative import, with file and line.
    """
    files, libraries = dependencies(folder / script, folder)
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.relative_to(folder).as_posix().encode())
        digest.update(normalise(file.read_text(encoding="utf-8")).encode())
    for library in libraries:
        digest.update(f"{library}=={library_version(library)}".encode())
    return digest.hexdigest()[:16]
