"""Files from outside: found in a mirror or downloaded, checked, and read without running them."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import io
import logging
import os
import pickle
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

logger = logging.getLogger("sgnoise")

# Folder that is searched before the network.
MIRROR_VARIABLE = "SGNOISE_MIRROR"

_ATTEMPTS = 6
_FIRST_PAUSE_SECONDS = 1.0
_TIMEOUT_SECONDS = 60.0
_BLOCK_BYTES = 2**20
# Answers of a server that may be others the next time; any other error is final.
_PASSING = (408, 425, 429, 500, 502, 503, 504)


class DownloadError(ValueError):
    """A file could not be had; the message says which, why, and what to do."""


@dataclass(frozen=True)
class RemoteFile:
    """A file whose content is known beforehand.

    Attributes:
        name: of the file.
        url: where it lies; None if it may not be downloaded.
        algorithm: of the digest, ``sha256`` or ``md5``.
        digest: hexadecimal.
    """

    name: str
    url: str | None
    algorithm: str
    digest: str


class _PassingError(Exception):
    """A download that was cut or refused for now; worth another attempt."""


def digest_of(path: str | os.PathLike[str], algorithm: str = "sha256") -> str:
    """The hexadecimal digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def find_in_mirror(file: RemoteFile, mirror: Path | None) -> Path | None:
    """The file of that name and digest in ``mirror``, in whatever folder; None if there is none.

    Raises:
        DownloadError: there is no such mirror.
    """
    if mirror is None:
        return None
    if not mirror.is_dir():
        raise DownloadError(
            f"the mirror {mirror} is no folder (relative paths start at {Path.cwd()})"
        )
    for folder, _, names in os.walk(mirror):
        if file.name not in names:
            continue
        path = Path(folder) / file.name
        found = digest_of(path, file.algorithm)
        if found == file.digest:
            logger.info("%s: from the mirror, %s", file.name, path)
            return path
        logger.warning(
            "%s: passed over: its %s is %s, not %s", path, file.algorithm, found, file.digest
        )
    return None


def obtain(file: RemoteFile, *, folder: Path, mirror: Path | None) -> Path:
    """The path of ``file``: in the mirror, in ``folder`` from an earlier download, or downloaded.

    What a cut download left is continued, by this call or by a later one; nothing stands under the
    final name that has not the right digest.

    Args:
        file: which.
        folder: where downloads are kept, named with their digests.
        mirror: a folder to search first.

    Raises:
        DownloadError: it may not be downloaded, the network fails, or the digest is wrong (nothing
            is left behind then).
    """
    found = find_in_mirror(file, mirror)
    if found is not None:
        return found
    if file.url is None:
        raise DownloadError(f"{file.name}: not in the mirror ({mirror})")
    path = folder / f"{file.digest[:16]}-{file.name}"
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / ".lock"):
        if path.exists() and digest_of(path, file.algorithm) == file.digest:
            return path
        partial = path.with_name(f"{path.name}.part")
        try:
            _download(file.url, partial)
        except DownloadError as error:
            raise DownloadError(
                f"{error}; try again (the download goes on where it was cut), or put {file.name} "
                f"({file.algorithm} {file.digest}) into a folder and name that as the mirror "
                f"(setting 'mirror', or {MIRROR_VARIABLE})"
            ) from error
        actual = digest_of(partial, file.algorithm)
        if actual != file.digest:
            partial.unlink()
            raise DownloadError(
                f"{file.url}: wrong {file.algorithm}: expected {file.digest}, found {actual}; the "
                "file was removed"
            )
        os.replace(partial, path)
    return path


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Two jobs that need the same file must not write to it at once."""
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(url: str, partial: Path) -> None:
    """Fill ``partial``, which may hold the beginning already, and try again where that may help."""
    failures = 0
    while True:
        before = partial.stat().st_size if partial.exists() else 0
        try:
            _download_once(url, partial, before)
            return
        except (_PassingError, http.client.HTTPException, OSError) as error:
            gained = partial.exists() and partial.stat().st_size > before
            failures = 1 if gained else failures + 1
            if failures == _ATTEMPTS:
                raise DownloadError(
                    f"{url}: {failures} attempts failed, the last: {error}"
                ) from error
            pause = _FIRST_PAUSE_SECONDS * 2 ** (failures - 1)
            logger.warning("%s: %s; next attempt in %g s", url, error, pause)
            time.sleep(pause)


def _download_once(url: str, partial: Path, start: int) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "sgnoise"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            # Nothing lies beyond what is here: it is whole, or not of this file.
            total = error.headers.get("Content-Range", "").rpartition("/")[2]
            if total == str(start):
                return
            partial.unlink()
            raise _PassingError("the file has changed since the download began") from None
        if error.code in _PASSING:
            raise _PassingError(f"the server answers {error.code} {error.reason}") from None
        raise DownloadError(f"{url}: the server answers {error.code} {error.reason}") from None
    with response:
        # A server that does not know ranges sends the whole file.
        resumed = response.status == HTTPStatus.PARTIAL_CONTENT
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            partial.unlink()
            raise _PassingError("the server sends another part than was asked for")
        if resumed:
            logger.info("%s: going on after %d bytes", url, start)
        missing = response.headers.get("Content-Length")
        with open(partial, "ab" if resumed else "wb") as file:
            received = 0
            while block := response.read(_BLOCK_BYTES):
                file.write(block)
                received += len(block)
        if missing is not None and received < int(missing):
            raise _PassingError(f"the connection was cut after {received} of {missing} bytes")


class Archive:
    """The files of a folder, or of a tar or zip file, which is read without unpacking it.

    Nothing is ever written, so that no member can land outside a folder; an archive that tries
    (an absolute name, ``..``, a link) is refused as a whole.

    Args:
        path: the folder or file.

    Raises:
        ValueError: neither, or a member that would leave the archive's folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tar: tarfile.TarFile | None = None
        self._zip: zipfile.ZipFile | None = None
        self._members: dict[str, Any] = {}
        try:
            self._list()
        except BaseException:
            self.close()
            raise

    def _list(self) -> None:
        if self.path.is_dir():
            for folder, folders, names in os.walk(self.path, followlinks=True):
                folders.sort()
                for name in sorted(names):
                    file = Path(folder) / name
                    self._members[file.relative_to(self.path).as_posix()] = file
        elif self.path.is_file() and tarfile.is_tarfile(self.path):
            self._tar = tarfile.open(self.path)  # noqa: SIM115
            for member in self._tar:
                self._add(member.name, member, file=member.isreg(), folder=member.isdir())
        elif zipfile.is_zipfile(self.path):
            self._zip = zipfile.ZipFile(self.path)
            for entry in self._zip.infolist():
                # The upper bits of the attributes are the file's type on Unix: 0o12 is a link.
                link = entry.external_attr >> 28 == 0o12
                is_folder = entry.is_dir()
                self._add(entry.filename, entry, file=not (is_folder or link), folder=is_folder)
        else:
            raise ValueError(f"{self.path}: neither a folder nor a tar or zip file")

    def close(self) -> None:
        """Let go of the file."""
        for archive in (self._tar, self._zip):
            if archive is not None:
                archive.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def names(self) -> list[str]:
        """The names of all files, in the order in which they lie (and are read fastest)."""
        return list(self._members)

    def read(self, name: str) -> bytes:
        """The content of one file."""
        member = self._members[name]
        if self._tar is not None:
            stream = self._tar.extractfile(member)
            assert stream is not None, "only regular files are members"
            return stream.read()
        if self._zip is not None:
            return self._zip.read(member)
        return Path(member).read_bytes()

    def _add(self, name: str, member: object, *, file: bool, folder: bool) -> None:
        clean = PurePosixPath(name.replace("\\", "/"))
        if clean.is_absolute() or ".." in clean.parts:
            raise ValueError(f"{self.path}: refused: the member {name!r} leaves its folder")
        if not (file or folder):
            raise ValueError(f"{self.path}: refused: the member {name!r} is a link or a device")
        if file:
            self._members[clean.as_posix()] = member


class _ArraysOnly(pickle.Unpickler):
    """Reads plain values and numpy arrays; what else a pickle asks for is refused, not run."""

    def find_class(self, module: str, name: str) -> Any:
        # Old pickles say numpy.core; numpy's own pickling needs these three and no other.
        if module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            if name == "_reconstruct":
                return np.empty(0).__reduce__()[0]
        elif module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def read_pickle(content: bytes, where: str) -> Any:
    """The plain values and numpy arrays of a pickle, none of whose code is run.

    Args:
        content: the pickle.
        where: its name, for the message.

    Raises:
        ValueError: it is damaged, or asks for anything but dictionaries, lists, texts, numbers and
            arrays of numbers.
    """
    try:
        return _ArraysOnly(io.BytesIO(content), encoding="latin1").load()
    except (
        *(pickle.UnpicklingError, EOFError, ValueError, TypeError),
        *(AttributeError, LookupError, OverflowError),
    ) as error:
        raise ValueError(f"{where}: refused: not a pickle of plain arrays: {error}") from error
