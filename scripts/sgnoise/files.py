"""Files that are written whole or not at all. What is in them does not depend on it."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary name; rename it to ``path`` on success, remove it on error.

    The file gets the permissions that any new file has here, which some libraries withhold.

    It is the name of ``path`` in a folder of its own beside it: many writers choose a format by the
    suffix, and some (safetensors) write to a temporary file of theirs first, which a killed process
    leaves.
    """
    final = Path(path)
    folder = final.with_name(f".{final.name}.{os.getpid()}.part")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder / final.name
        (folder / final.name).chmod(folder.stat().st_mode & 0o666)
        os.replace(folder / final.name, final)
    finally:
        shutil.rmtree(folder)


def remove_partial(path: str | os.PathLike[str]) -> None:
    """Remove what a killed process left of ``path`` under temporary names."""
    final = Path(path)
    for left in final.parent.glob(f".{glob.escape(final.name)}.[0-9]*.part"):
        shutil.rmtree(left)
