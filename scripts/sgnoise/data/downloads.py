"""Files from outside: found in a mirror or downloaded, checked, and read without running them."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import io
import logging
import lzma
import os
import pickle
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
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
    (an absolute name, ``..``, a link) is refused as a whole, as is one that is cut or holds a name
    twice. Of a folder only regular files are opened, links to them included. What systems and
    programs leave in folders of data (``.DS_Store``, ``.ipynb_checkpoints``, ``__MACOSX``,
    ``Thumbs.db``; whatever begins with a dot) is not among the files.

    Args:
        path: the folder or file.

    Attributes:
        path: as given.
        hidden: the names of what was left out so: files, and folders as a whole.
        folders: the names of all folders that are not hidden.

    Raises:
        ValueError: neither, damaged, or a member that is no file or would leave the archive's
            folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hidden: list[str] = []
        self.folders: list[str] = []
        self._tar: tarfile.TarFile | None = None
        self._zip: zipfile.ZipFile | None = None
        self._members: dict[str, Any] = {}
        try:
            if path.is_dir():
                self._list_folder()
            elif path.is_file():
                self._list_file()
            else:
                raise ValueError(f"{path}: neither a folder nor a tar or zip file")
        except BaseException as error:
            self.close()
            if isinstance(error, _DAMAGE):
                raise ValueError(f"{path}: cannot be read: {error}; {_FETCH_AGAIN}") from error
            raise

    def _list_folder(self) -> None:
        reached: dict[str, str] = {}
        waiting = [str(self.path)]
        while waiting:
            folder = waiting.pop()
            # Two ways into one folder give its files twice, and a way into itself no end of them.
            real = os.path.realpath(folder)
            if real in reached:
                raise ValueError(
                    f"{self.path}: refused: {folder} and {reached[real]} are one folder, which a "
                    "link leads to twice; remove the link"
                )
            reached[real] = folder
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
            inside = []
            for entry in entries:
                name = Path(entry.path).relative_to(self.path).as_posix()
                if _is_hidden((entry.name,)):
                    self.hidden.append(name)
                elif entry.is_dir():
                    self.folders.append(name)
                    inside.append(entry.path)
                elif entry.is_file():
                    self._members[name] = Path(entry.path)
                else:
                    raise ValueError(
                        f"{entry.path}: refused: neither a file nor a folder, but a device, a "
                        "pipe, a socket, or a link to nothing; remove it"
                    )
            waiting += reversed(inside)

    def _list_file(self) -> None:
        if tarfile.is_tarfile(self.path):
            self._tar = tarfile.open(self.path)  # noqa: SIM115
            for member in self._tar:
                self._add(member.name, member, file=member.isreg(), folder=member.isdir())
            self._check_end(self._tar)
        elif zipfile.is_zipfile(self.path):
            self._zip = zipfile.ZipFile(self.path)
            for entry in self._zip.infolist():
                # The upper bits of the attributes are the file's type on Unix: 0o12 is a link.
                link = entry.external_attr >> 28 == 0o12
                is_folder = entry.is_dir()
                self._add(entry.filename, entry, file=not (is_folder or link), folder=is_folder)
        else:
            with open(self.path, "rb") as file:
                begun = file.read(4) == b"PK\x03\x04"
            if begun:
                raise ValueError(f"{self.path}: a zip file without its end; {_FETCH_AGAIN}")
            raise ValueError(
                f"{self.path}: neither a folder nor a tar or zip file, or damaged at its start"
            )

    def _check_end(self, tar: tarfile.TarFile) -> None:
        """A tar file ends with blocks of zeros; where it is cut, tarfile just stops."""
        stream = tar.fileobj
        assert stream is not None, "the file is open"
        stream.seek(tar.offset)
        block = stream.read(tarfile.BLOCKSIZE)
        if len(block) < tarfile.BLOCKSIZE:
            last = next(reversed(self._members), "its start")
            raise ValueError(
                f"{self.path}: cut after {last}: there is no end-of-archive mark; {_FETCH_AGAIN}"
            )
        while block:
            if block.count(0) < len(block):
                raise ValueError(
                    f"{self.path}: something else follows after {len(self._members)} files, at "
                    f"byte {tar.offset}: damaged, or several tar files in one; {_FETCH_AGAIN}"
                )
            block = stream.read(_BLOCK_BYTES)

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

    def place(self, name: str) -> str:
        """Where a file is, for messages."""
        return f"{self.path}: {name}" if self._tar or self._zip else str(self.path / name)

    def read(self, name: str) -> bytes:
        """The content of one file.

        Raises:
            ValueError: it is damaged, locked by a password, or larger than any sample is.
        """
        member = self._members[name]
        try:
            if self._tar is not None:
                size = member.size
            elif self._zip is not None:
                size = member.file_size
            else:
                size = member.stat().st_size
            if size > _LARGEST_MEMBER_BYTES:
                raise ValueError(
                    f"{self.place(name)}: refused: it has {size} bytes, and no sample is that large"
                )
            if self._tar is not None:
                stream = self._tar.extractfile(member)
                assert stream is not None, "only regular files are members"
                return stream.read()
            if self._zip is not None:
                return self._zip.read(member)
            return Path(member).read_bytes()
        except _DAMAGE as error:
            raise ValueError(f"{self.place(name)}: cannot be read: {error}") from error

    def _add(self, name: str, member: object, *, file: bool, folder: bool) -> None:
        clean = PurePosixPath(name.replace("\\", "/"))
        if clean.is_absolute() or ".." in clean.parts:
            raise ValueError(f"{self.path}: refused: the member {name!r} leaves its folder")
        if not (file or folder):
            raise ValueError(f"{self.path}: refused: the member {name!r} is a link or a device")
        if _is_hidden(clean.parts):
            self.hidden.append(clean.as_posix())
        elif folder:
            self.folders.append(clean.as_posix())
        elif clean.as_posix() in self._members:
            raise ValueError(
                f"{self.path}: refused: the member {name!r} is there twice; pack it again"
            )
        else:
            self._members[clean.as_posix()] = member


# What the readers of archives raise at damaged ones (of RuntimeError: a password is needed).
_DAMAGE = (
    *(OSError, EOFError, RuntimeError, tarfile.TarError, zipfile.BadZipFile),
    *(zlib.error, lzma.LZMAError),
)
_FETCH_AGAIN = "fetch or copy it again, or pack it anew"
_LARGEST_MEMBER_BYTES = 2**30
# Names, in lower case, of what systems leave behind besides the names with a dot at the start.
_LEFT_BEHIND = frozenset(
    {
        *("__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db", "@eadir", "$recycle.bin"),
        *("system volume information", "lost+found", "__pycache__"),
    }
)


def _is_hidden(parts: tuple[str, ...]) -> bool:
    return any(part.startswith(".") or part.casefold() in _LEFT_BEHIND for part in parts)


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
