"""Files from outside: mirror, download, digest, archives and pickles."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgnoise.data import downloads
from sgnoise.data.downloads import Archive, DownloadError, RemoteFile, obtain, read_pickle

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """A web server on this machine that answers each request by the next entry of ``answers``.

    ``whole`` sends what is asked for, ``cut`` half of it under the length of all, ``deaf`` the
    whole file whatever range is asked for, ``shifted`` another range; a number is that status.
    """

    def __init__(self) -> None:
        self.answers: list[str | int] = []
        self.ranges: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = self.headers.get("Range")
                outer.ranges.append(asked)
                answer = outer.answers.pop(0) if outer.answers else "whole"
                if isinstance(answer, int):
                    self.send_error(answer)
                    return
                start = 0 if asked is None or answer == "deaf" else int(asked[6:].rstrip("-"))
                if start >= len(CONTENT):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
                    self.end_headers()
                    return
                body = CONTENT[start:]
                self.send_response(206 if start else 200)
                if start:
                    first = start - 1 if answer == "shifted" else start
                    last = len(CONTENT) - 1
                    self.send_header("Content-Range", f"bytes {first}-{last}/{len(CONTENT)}")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if answer == "cut" else body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def file(self, digest: str = SHA256) -> RemoteFile:
        url = f"http://127.0.0.1:{self.server.server_address[1]}/data.bin"
        return RemoteFile("data.bin", url, "sha256", digest)

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(downloads, "_FIRST_PAUSE_SECONDS", 0.001)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running = Server()
    yield running
    running.stop()


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_a_download_is_checked_and_kept(server: Server, tmp_path: Path) -> None:
    path = obtain(server.file(), folder=tmp_path / "kept", mirror=None)
    assert path.read_bytes() == CONTENT
    assert obtain(server.file(), folder=tmp_path / "kept", mirror=None) == path
    assert server.ranges == [None], "the second time it is there already"
    assert kept(tmp_path / "kept") == [f"{SHA256[:16]}-data.bin"]


def test_a_cut_download_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.answers = ["cut", 503, "cut", "whole"]
    assert obtain(server.file(), folder=tmp_path, mirror=None).read_bytes() == CONTENT
    half, rest = len(CONTENT) // 2, len(CONTENT) - len(CONTENT) // 2
    after = half + rest // 2
    assert server.ranges == [None, f"bytes={half}-", f"bytes={half}-", f"bytes={after}-"]


def test_a_later_call_goes_on_with_what_a_killed_one_left(server: Server, tmp_path: Path) -> None:
    partial = tmp_path / f"{SHA256[:16]}-data.bin.part"
    partial.write_bytes(CONTENT[:1000])
    assert obtain(server.file(), folder=tmp_path, mirror=None).read_bytes() == CONTENT
    assert server.ranges == ["bytes=1000-"]
    assert not partial.exists()


def test_a_download_that_was_complete_is_only_checked(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{SHA256[:16]}-data.bin.part").write_bytes(CONTENT)
    assert obtain(server.file(), folder=tmp_path, mirror=None).read_bytes() == CONTENT


@pytest.mark.parametrize("left", [CONTENT[:1000], CONTENT + b"more"])
@pytest.mark.parametrize("answer", ["deaf", "shifted"])
def test_a_server_without_ranges_sends_it_all_again(
    server: Server, tmp_path: Path, left: bytes, answer: str
) -> None:
    (tmp_path / f"{SHA256[:16]}-data.bin.part").write_bytes(left)
    server.answers = [answer]
    assert obtain(server.file(), folder=tmp_path, mirror=None).read_bytes() == CONTENT


def test_a_wrong_digest_names_both_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    wrong = "0" * 64
    with pytest.raises(DownloadError, match=f"expected {wrong}, found {SHA256}"):
        obtain(server.file(wrong), folder=tmp_path, mirror=None)
    assert kept(tmp_path) == []


def test_what_cannot_be_mended_is_not_tried_again(server: Server, tmp_path: Path) -> None:
    server.answers = [404]
    with pytest.raises(DownloadError, match=r"answers 404 .* name that as the mirror"):
        obtain(server.file(), folder=tmp_path, mirror=None)
    assert len(server.ranges) == 1
    assert kept(tmp_path) == []


def test_it_gives_up_in_the_end_and_keeps_what_it_has(server: Server, tmp_path: Path) -> None:
    server.answers = ["cut", *[503] * 20]
    with pytest.raises(DownloadError, match=r"6 attempts failed, the last: .*503"):
        obtain(server.file(), folder=tmp_path, mirror=None)
    part = tmp_path / f"{SHA256[:16]}-data.bin.part"
    assert part.read_bytes() == CONTENT[: len(CONTENT) // 2]


def test_a_spoilt_file_is_had_again(server: Server, tmp_path: Path) -> None:
    path = obtain(server.file(), folder=tmp_path, mirror=None)
    path.write_bytes(b"spoilt")
    assert obtain(server.file(), folder=tmp_path, mirror=None).read_bytes() == CONTENT


def test_two_calls_at_once_download_once(server: Server, tmp_path: Path) -> None:
    found: list[bytes] = []

    def fetch() -> None:
        found.append(obtain(server.file(), folder=tmp_path, mirror=None).read_bytes())

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [CONTENT] * 4
    assert server.ranges == [None]


def test_the_mirror_comes_first(server: Server, tmp_path: Path) -> None:
    inside = tmp_path / "mirror" / "some" / "folder"
    inside.mkdir(parents=True)
    (inside / "data.bin").write_bytes(CONTENT)
    found = obtain(server.file(), folder=tmp_path / "kept", mirror=tmp_path / "mirror")
    assert found == inside / "data.bin"
    assert server.ranges == []


def test_a_wrong_file_in_the_mirror_is_passed_over(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mirror = tmp_path / "mirror"
    (mirror / "old").mkdir(parents=True)
    (mirror / "data.bin").write_bytes(b"wrong")
    (mirror / "old" / "data.bin").write_bytes(CONTENT)
    found = obtain(server.file(), folder=tmp_path / "kept", mirror=mirror)
    assert found == mirror / "old" / "data.bin"
    assert "passed over: its sha256 is" in caplog.text
    found.unlink()
    assert obtain(server.file(), folder=tmp_path / "kept", mirror=mirror).parent.name == "kept"
    assert server.ranges == [None]


def test_a_mirror_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = RemoteFile("data.bin", None, "sha256", SHA256)
    with pytest.raises(DownloadError, match=r"the mirror .*absent is no folder"):
        obtain(file, folder=tmp_path, mirror=tmp_path / "absent")
    with pytest.raises(DownloadError, match=r"data.bin: not in the mirror"):
        obtain(file, folder=tmp_path, mirror=tmp_path)


# --- archives ------------------------------------------------------------------------------------


def tar_of(path: Path, members: dict[str, bytes | str], kind: str = "w") -> Path:
    """A tar file; a text instead of content makes a symbolic link to it."""
    with tarfile.open(path, kind) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def zip_of(path: Path, members: dict[str, bytes | str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name)
            if isinstance(content, str):
                entry.external_attr = 0o120777 << 16
            archive.writestr(entry, content)
    return path


FILES: dict[str, bytes | str] = {"a/1.txt": b"one", "a/b/2.txt": b"two"}


@pytest.mark.parametrize("kind", ["folder", "w", "w:gz", "zip"])
def test_an_archive_reads_like_a_folder(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "packed"
    if kind == "folder":
        for name, content in FILES.items():
            file = path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)  # type: ignore[arg-type]
    elif kind == "zip":
        zip_of(path, {"a/": b"", **FILES})
    else:
        tar_of(path, FILES, kind)
    before = sorted(tmp_path.rglob("*"))
    with Archive(path) as archive:
        assert sorted(archive.names) == sorted(FILES)
        assert {name: archive.read(name) for name in archive.names} == FILES
    assert sorted(tmp_path.rglob("*")) == before, "nothing is unpacked"


@pytest.mark.parametrize("pack", [tar_of, zip_of])
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("../outside.txt", b"x", "leaves its folder"),
        ("a/../../outside.txt", b"x", "leaves its folder"),
        ("/tmp/outside.txt", b"x", "leaves its folder"),
        ("..\\outside.txt", b"x", "leaves its folder"),
        ("link", "/etc", "is a link or a device"),
        ("link", "../..", "is a link or a device"),
    ],
)
def test_an_archive_that_would_leave_its_folder_is_refused(
    pack: Any, name: str, content: bytes | str, message: str, tmp_path: Path
) -> None:
    path = pack(tmp_path / "inner.archive", {**FILES, name: content})
    with pytest.raises(ValueError, match=message):
        Archive(path)
    assert os.listdir(tmp_path) == ["inner.archive"]


def test_a_hard_link_and_a_device_are_refused(tmp_path: Path) -> None:
    for kind in (tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            member = tarfile.TarInfo("odd")
            member.type, member.linkname = kind, "a/1.txt"
            archive.addfile(member)
        with pytest.raises(ValueError, match="'odd' is a link or a device"):
            Archive(tmp_path / "a.tar")


def test_what_is_no_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ValueError, match="text: neither a folder nor a tar or zip file"):
        Archive(tmp_path / "text")
    with pytest.raises(ValueError, match="absent: neither a folder nor a tar or zip file"):
        Archive(tmp_path / "absent")


# --- pickles -------------------------------------------------------------------------------------


class Malicious:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch pickle-was-run",)


class Sneaky:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return np.load, ("any.npy",)


@pytest.mark.parametrize("protocol", [3, 4])
def test_plain_pickles_are_read(protocol: int) -> None:
    value = {"data": np.arange(12, dtype=np.uint8).reshape(3, 4), "labels": [1, 2], "n": b"x"}
    found = read_pickle(pickle.dumps(value, protocol=protocol), "batch")
    np.testing.assert_array_equal(found["data"], value["data"])
    assert found["labels"] == [1, 2]
    assert found["n"] == b"x"


def test_a_pickle_of_old_python_and_numpy_is_read() -> None:
    # As Python 2 wrote the CIFAR files: array([[7, 8]], dtype=uint8) under the old name of numpy.
    old = (
        b"\x80\x02}q\x01U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\n"
        b"q\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x01K\x02\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01"
        b"\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x02\x07\x08tbs."
    )
    found = read_pickle(old, "data_batch_1")
    np.testing.assert_array_equal(found["data"], np.array([[7, 8]], np.uint8))
    assert found["data"].dtype == np.uint8


@pytest.mark.parametrize("value", [Malicious(), [{"a": Malicious()}], Sneaky()])
def test_a_pickle_that_would_run_something_is_refused(
    value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"batch: refused: .* it asks for (posix|nt|numpy)"):
        read_pickle(pickle.dumps(value), "batch")
    assert os.listdir(tmp_path) == []


def test_a_damaged_pickle_is_refused() -> None:
    whole = pickle.dumps({"data": np.zeros(3)})
    with pytest.raises(ValueError, match="batch: refused"):
        read_pickle(whole[:-10], "batch")
