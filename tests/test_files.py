"""Files that are written whole or not at all."""

import os
from pathlib import Path

import pytest

from sgnoise.files import atomic_path, remove_partial


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")

    def write_and_fail() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("cut")

    with pytest.raises(RuntimeError, match="cut"):
        write_and_fail()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_file_gets_the_permissions_of_any_new_file(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with atomic_path(tmp_path / "file") as temporary:
            temporary.touch(0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with atomic_path(path) as temporary:
        temporary.write_text("written")
        (temporary.parent / ".tmpX1").write_text("left by the library that writes")
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
    for name in (".model.safetensors.123.part", ".model.safetensors.unfinished.123.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".tmpX1").touch()
    remove_partial(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        ".model.safetensors.unfinished.123.part",
        "model.safetensors",
    ]
