"""The user's own files: that they are there, and that a change of what is in them is seen."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from sgnoise.inputs import Contents, InputError, dataset_inputs, weights_inputs


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    images = tmp_path / "images"
    for name in ("a/1.png", "a/2.png", "b/deep/3.png"):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        (images / name).write_bytes(name.encode())
    return images


def digest(*paths: str, memory: str = "memory.json") -> str | None:
    return Contents(Path(memory)).digest(paths or ("images",))


def test_what_counts_is_the_content(folder: Path, tmp_path: Path) -> None:
    before = digest()
    for file in [folder, *folder.rglob("*")]:
        os.utime(file, (1, 1))
    (folder / ".hidden").touch()
    (folder / "empty").mkdir()
    assert digest() == before
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.copytree(folder, moved / "images")
    os.chdir(moved)
    assert digest() == before, "a copy is another folder"
    assert digest("images/") != digest("images/a")


def change(folder: Path, how: str) -> None:
    first = folder / "a/1.png"
    if how == "added":
        (folder / "a/4.png").write_bytes(b"4")
    elif how == "removed":
        first.unlink()
    elif how == "renamed":
        first.rename(folder / "a/0.png")
    elif how == "moved to another class":
        first.rename(folder / "b/1.png")
    elif how == "changed":
        first.write_bytes(b"a/9.png")
    elif how == "changed with its old time":
        times = first.stat()
        first.write_bytes(b"a/9.png")
        os.utime(first, ns=(times.st_atime_ns, times.st_mtime_ns))
    elif how == "replaced by an older file":
        (folder / "old").write_bytes(b"a/8.png")
        os.utime(folder / "old", (1, 1))
        (folder / "old").rename(first)
    elif how == "two swapped":
        second = folder / "a/2.png"
        first.rename(folder / "x")
        second.rename(first)
        (folder / "x").rename(second)


@pytest.mark.parametrize("settled", [True, False])
@pytest.mark.parametrize(
    "how",
    [
        *("added", "removed", "renamed", "moved to another class", "changed"),
        *("changed with its old time", "replaced by an older file", "two swapped"),
    ],
)
def test_a_change_is_seen(
    folder: Path, monkeypatch: pytest.MonkeyPatch, how: str, settled: bool
) -> None:
    if settled:  # as if all files had lain there for long
        now = time.time_ns()
        monkeypatch.setattr("sgnoise.inputs.time.time_ns", lambda: now + 10**10)
    before = digest()
    assert len(Path("memory.json").read_text()) > 100 if settled else True
    change(folder, how)
    assert digest() != before


def test_nothing_is_read_twice(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns()
    monkeypatch.setattr("sgnoise.inputs.time.time_ns", lambda: now + 10**10)
    before = digest()
    monkeypatch.setattr("sgnoise.inputs.hashlib.file_digest", lambda *_: pytest.fail("read again"))
    assert digest() == before


def test_a_memory_that_cannot_be_used_is_done_without(folder: Path) -> None:
    before = digest()
    Path("memory.json").write_text("[broken")
    assert digest() == before
    Path("file").touch()
    assert digest(memory="file/memory.json") == before


def test_links_are_followed_once(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "5.png").write_bytes(b"5")
    (folder / "c").symlink_to(outside)
    (folder / "c" / "loop").symlink_to(folder)
    before = digest()
    (outside / "5.png").write_bytes(b"6")
    assert digest() != before


def test_two_files_of_one_name_are_two(folder: Path) -> None:
    before = digest("images/a/1.png", "images/b/deep/3.png")
    shutil.copy(folder / "a/1.png", folder / "b/deep/3.png")
    assert digest("images/a/1.png", "images/b/deep/3.png") != before
    assert Contents(Path("memory.json")).digest([]) is None


def spec(source: str, **keys: Any) -> dict[str, Any]:
    return {"source": source, **keys}


@pytest.mark.parametrize(
    ("what", "prepared", "message"),
    [
        (spec("table", path="own.csv"), True, r"datasets\.own\.path: there is no file 'own\.csv'"),
        (spec("table", path="images"), True, r"datasets\.own\.path: there is no file 'images'"),
        (spec("image_folder", path="image"), False, r"datasets\.own\.path: .* 'image' \(relative"),
        (spec("webdataset", shards=["images/a/*", "no/*"]), True, r"shards\[1\]: .* 'no/\*'"),
    ],
)
def test_what_is_missing_is_named(
    folder: Path, what: dict[str, Any], prepared: bool, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        dataset_inputs("own", what, prepared=prepared)


@pytest.mark.parametrize(
    ("what", "prepared", "inputs"),
    [
        (spec("table", path="images/a/1.png"), False, ["images/a/1.png"]),
        (spec("image_folder", path="images"), True, ["images"]),
        (spec("image_folder", path="no.tar", sha256="0" * 64), True, []),
        (spec("imagenet", path="removed"), True, []),
        (spec("webdataset", shards=["no/*"]), False, []),
        (spec("webdataset", shards=["images/a/*"]), True, ["images/a/1.png", "images/a/2.png"]),
        (spec("cola", tokenizer="words"), True, []),
        (spec("cola", tokenizer="images"), True, ["images"]),
        (spec("bundled", name="wine"), True, []),
    ],
)
def test_what_a_data_set_is_read_from(
    folder: Path, what: dict[str, Any], prepared: bool, inputs: list[str]
) -> None:
    assert dataset_inputs("own", what, prepared=prepared) == inputs


def test_weights_are_there_where_they_are_used(folder: Path) -> None:
    run = {"model": {"name": "timm:x", "weights": "w2.pt"}}
    with pytest.raises(InputError, match=r"runs\[3\]\.model\.weights: .* 'w2\.pt'"):
        weights_inputs(3, run)
    assert weights_inputs(3, run | {"start_from": "other"}) == []
    assert weights_inputs(3, {"model": {"name": "mlp"}}) == []
    assert weights_inputs(3, {"model": {"weights": "images"}}) == ["images"]
