"""What a study reads of a user's own: files and folders that the settings name.

A rule runs again when the content of such a file changes, and not when its time does: the rules
have ``Contents.digest`` as a parameter. It depends on names and contents alone, so that a copied
folder reruns nothing. To read 50,000 images for it takes seconds, so what each file held is kept
with its size, its times and its number on the disk, and only a file of which one of these has
changed is read again. Where none has, that takes under a second.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sgnoise.files import atomic_path
from sgnoise.progress import logger

# A file that is changed twice within the resolution of its time looks unchanged; so what has been
# changed just now is read again the next time.
_SETTLED_NS = 2 * 10**9

# More than this many bytes take so long to read that a person should know why.
_LARGE = 2 * 10**9


class InputError(ValueError):
    """A file that the settings name is not there; the message says which key, and what to do."""


def _missing(where: str, path: str, what: str) -> InputError:
    return InputError(
        f"{where}: there is no {what} {path!r} (relative paths start at {Path.cwd()}). Correct the "
        "path, or put it there."
    )


def dataset_inputs(name: str, spec: Mapping[str, Any], *, prepared: bool) -> list[str]:
    """The user's own files and folders that a data set is read from.

    None of these are files with a pinned checksum, which a mirror may have, and the folder of
    ImageNet, whose content is known and which may be removed once it has been read. Shards, which
    no program may download, may be missing before the data set has been prepared: the job then says
    what to put where, and the rest of the study can be looked at.

    Args:
        name: of the data set.
        spec: as in the settings, completed.
        prepared: whether the data set has been prepared before.

    Raises:
        InputError: one of them is not there.
    """
    where = f"datasets.{name}"
    source = spec["source"]
    if source == "table":
        if not Path(spec["path"]).is_file():
            raise _missing(f"{where}.path", spec["path"], "file")
        return [spec["path"]]
    if source == "image_folder" and spec.get("sha256") is None:
        if not Path(spec["path"]).exists():
            raise _missing(f"{where}.path", spec["path"], "folder or file")
        return [spec["path"]]
    if source == "webdataset":
        found = {shard: glob.glob(shard) for shard in spec["shards"]}
        for index, (shard, files) in enumerate(found.items()):
            if prepared and not files:
                raise _missing(f"{where}.shards[{index}]", shard, "file")
        return sorted({file for files in found.values() for file in files})
    # A Hugging Face tokenizer is a folder or a name on the hub.
    tokenizer = spec.get("tokenizer")
    return [tokenizer] if tokenizer is not None and Path(tokenizer).is_dir() else []


def weights_inputs(index: int, run: Mapping[str, Any]) -> list[str]:
    """The file or folder of pre-trained weights with which a run starts, if any.

    Args:
        index: of the run in the settings.
        run: as in the settings.

    Raises:
        InputError: it is not there.
    """
    path = run["model"].get("weights")
    if path is None or "start_from" in run:
        return []
    if not Path(path).exists():
        raise _missing(f"runs[{index}].model.weights", path, "file or folder")
    return [path]


class Contents:
    """What is in files, remembered between calls of the workflow.

    Args:
        memory: JSON file for that. Where it is missing or cannot be written, all is read again.
    """

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        self._known: dict[str, list[Any]] | None = None

    def digest(self, paths: Iterable[str]) -> str | None:
        """A digest of names and contents of files, and of all below folders; None of none.

        Files whose names begin with a full stop do not count.
        """
        paths = list(paths)
        if not paths:
            return None
        known = self._remembered()
        found = {
            (path, name): (file, status) for path in paths for name, file, status in _files(path)
        }
        signs = {
            file: [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
            for file, status in found.values()
        }
        new = [file for file, sign in signs.items() if known.get(file, [None])[:-1] != sign]
        if sum(signs[file][0] for file in new) > _LARGE:
            logger.warning(
                "%s: reading %d new or changed files to know them again; this is done once",
                ", ".join(paths),
                len(new),
            )
        for file in new:
            with open(file, "rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
            known[file] = [*signs[file], content]
        digest = hashlib.sha256()
        for (path, name), (file, _) in sorted(found.items()):
            digest.update(f"{path}\0{name}\0{known[file][-1]}\n".encode(errors="surrogateescape"))
        if new:
            self._remember()
        return digest.hexdigest()[:16]

    def _remembered(self) -> dict[str, list[Any]]:
        if self._known is None:
            try:
                self._known = json.loads(self._memory.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                self._known = {}
        assert self._known is not None
        return self._known

    def _remember(self) -> None:
        just_now = time.time_ns() - _SETTLED_NS
        settled = {
            file: entry
            for file, entry in self._remembered().items()
            if max(entry[1:3]) < just_now and os.path.exists(file)
        }
        try:
            with atomic_path(self._memory) as temporary:
                temporary.write_text(json.dumps(settled), encoding="utf-8")
        except OSError:
            return  # a folder that may not be written to: all is read again the next time


def _files(path: str) -> Iterator[tuple[str, str, os.stat_result]]:
    """Name below ``path``, absolute path and status of each file; links are followed."""
    if not os.path.isdir(path):
        yield "", os.path.abspath(path), os.stat(path)
        return
    waiting = [("", os.path.abspath(path))]
    seen: set[tuple[int, int]] = set()
    while waiting:
        prefix, folder = waiting.pop()
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder above it
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    waiting.append((f"{prefix}{entry.name}/", entry.path))
                elif entry.is_file() and not entry.name.startswith("."):
                    yield f"{prefix}{entry.name}", entry.path, entry.stat()
