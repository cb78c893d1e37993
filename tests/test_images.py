"""Readers of images, on small files of the layout of the real ones."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import socket
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sgnoise.data import datasets, images
from sgnoise.data.downloads import RemoteFile
from sgnoise.data.sources import prepare


def picture(seed: int, size: tuple[int, int] = (8, 8), suffix: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, suffix)
    return stream.getvalue()


def pixels_of(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content))).transpose(2, 0, 1)


def layout(counts: dict[str, int]) -> dict[str, bytes]:
    """So many pictures in each folder; every picture is another."""
    files: dict[str, bytes] = {}
    for folder, count in counts.items():
        for index in range(count):
            files[f"{folder}/{index:03d}.png"] = picture(len(files))
    return files


def write(path: Path, files: dict[str, bytes], kind: str) -> Path:
    if kind == "folder":
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, kind) as archive:  # type: ignore[call-overload]
            # In another order than that of the names, as the order in an archive is any.
            for name, content in reversed(files.items()):
                member = tarfile.TarInfo(f"./wrapped/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


SPLIT = {"train/cat": 6, "train/dog": 3, "test/cat": 2, "test/dog": 2}


@pytest.mark.parametrize("kind", ["folder", "zip", "w", "w:gz"])
def test_a_folder_and_its_archives_give_the_same(tmp_path: Path, kind: str) -> None:
    files = layout(SPLIT)
    path = write(tmp_path / "mine", files | {"README.txt": b"no image"}, kind)
    dataset = prepare({"source": "image_folder", "path": str(path)}, seed=1, threads=3)
    assert dataset.kind == "image"
    assert dataset.description["class_names"] == ["cat", "dog"]
    assert dataset.train_targets.tolist() == [0] * 6 + [1] * 3
    assert dataset.test_targets.tolist() == [0, 0, 1, 1]
    expected = np.stack([pixels_of(files[name]) for name in files if name.startswith("train")])
    np.testing.assert_array_equal(dataset.train_inputs, expected)
    inputs, _ = dataset.batch("train", slice(None))
    np.testing.assert_allclose(inputs.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(inputs.std(axis=(0, 2, 3)), 1, atol=1e-5)


def test_a_class_layout_is_split_by_the_seed(tmp_path: Path) -> None:
    path = write(tmp_path / "mine", layout({"cat": 20, "dog": 10}), "folder")
    spec = {"source": "image_folder", "path": str(path), "test_fraction": 0.3}
    first, again, other = (prepare(spec, seed=seed) for seed in (1, 1, 2))
    assert np.bincount(first.train_targets).tolist() == [14, 7]
    assert np.bincount(first.test_targets).tolist() == [6, 3]
    assert first.digest == again.digest != other.digest
    together = np.concatenate([first.train_inputs, first.test_inputs])
    assert len({image.tobytes() for image in together}) == 30


def test_a_subset_keeps_the_shares_of_the_classes(tmp_path: Path) -> None:
    path = write(tmp_path / "mine", layout({"train/a": 20, "train/b": 10, "test/a": 4}), "folder")
    spec = {
        "source": "image_folder",
        "path": str(path),
        "subset": {"train": 9, "test": 2},
    }
    dataset = prepare(spec, seed=1)
    assert np.bincount(dataset.train_targets).tolist() == [6, 3]
    assert dataset.size("test") == 2
    whole = prepare({**spec, "subset": None}, seed=1)
    known = {image.tobytes() for image in whole.train_inputs}
    assert {image.tobytes() for image in dataset.train_inputs} <= known
    with pytest.raises(ValueError, match=r"subset.train is 31, but there are 30 samples only"):
        prepare({**spec, "subset": {"train": 31}}, seed=1)


def test_images_are_scaled_and_cut(tmp_path: Path) -> None:
    wide = Image.new("RGB", (40, 20))
    wide.paste((255, 0, 0), (5, 0, 35, 20))
    stream = io.BytesIO()
    wide.save(stream, "PNG")
    files = {"a/1.png": stream.getvalue(), "b/1.jpg": picture(1, (16, 31), "JPEG")}
    path = write(tmp_path / "mine", files, "folder")
    spec = {"source": "image_folder", "path": str(path)}
    dataset = prepare({**spec, "image_size": 10}, seed=1)
    assert dataset.input_shape == (3, 10, 10)
    # The middle of the wide picture is all red.
    assert (dataset.train_inputs[0] == np.array([255, 0, 0])[:, None, None]).all()
    with pytest.raises(ValueError, match=r"a/1.png is \(20, 40\), .*b/1.jpg is \(31, 16\) .*imag"):
        prepare(spec, seed=1)


def test_grey_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    streams = [io.BytesIO(), io.BytesIO()]
    Image.new("L", (4, 4), 77).save(streams[0], "PNG")
    Image.new("RGBA", (4, 4), (1, 2, 3, 255)).save(streams[1], "PNG")
    files = {"a/1.png": streams[0].getvalue(), "b/1.png": streams[1].getvalue()}
    path = write(tmp_path / "mine", files, "folder")
    dataset = prepare({"source": "image_folder", "path": str(path)}, seed=1)
    assert dataset.train_inputs[:, :, 0, 0].tolist() == [[77, 77, 77], [1, 2, 3]]


def saved(image: Image.Image, kind: str = "PNG", **settings: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return stream.getvalue()


def of_one_picture(tmp_path: Path, content: bytes, suffix: str, **settings: Any) -> np.ndarray:
    """What becomes of a picture, (3, height, width), read beside one that is 8 x 4 and black."""
    black = saved(Image.new("RGB", (8, 4)))
    write(tmp_path / "mine", {f"a/1.{suffix}": content, "b/1.png": black}, "folder")
    spec = {"source": "image_folder", "path": str(tmp_path / "mine"), **settings}
    return prepare(spec, seed=1).train_inputs[0]


RAMP = np.linspace(0, 1, 32).reshape(4, 8)


@pytest.mark.parametrize(("suffix", "kind"), [("png", "PNG"), ("TIF", "TIFF")])
def test_of_16_bits_the_upper_8_are_taken(tmp_path: Path, suffix: str, kind: str) -> None:
    values = (RAMP * 65535).astype(np.uint16)
    found = of_one_picture(tmp_path, saved(Image.fromarray(values), kind), suffix)
    np.testing.assert_array_equal(found, np.broadcast_to(values >> 8, (3, 4, 8)))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.fromarray((RAMP * 4095).astype(np.uint16)), "mine: no value of its 16-bit images"),
        (Image.fromarray(RAMP.astype(np.float32)), "a/1.tif: its pixels are floating-point"),
        (Image.fromarray((RAMP * 9).astype(np.int32)), "a/1.tif: its pixels are 32-bit whole"),
    ],
)
def test_pixels_whose_range_is_open_are_refused(
    tmp_path: Path, image: Image.Image, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        of_one_picture(tmp_path, saved(image, "TIFF"), "tif")


def test_palettes_and_colours_of_print_become_rgb(tmp_path: Path) -> None:
    plain = Image.new("RGB", (8, 4), (255, 0, 0))
    for number, (image, kind) in enumerate(
        [(plain.quantize(4), "PNG"), (plain.convert("CMYK"), "TIFF"), (plain.convert("P"), "TIFF")]
    ):
        found = of_one_picture(tmp_path / str(number), saved(image, kind), kind.lower())
        np.testing.assert_array_equal(found[:, 0, 0], [255, 0, 0])


def test_what_is_transparent_becomes_white(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clear = Image.new("RGBA", (8, 4), (7, 8, 9, 0))
    clear.paste((10, 20, 30, 255), (0, 0, 4, 4))
    grey = Image.new("LA", (8, 4), (0, 0))
    caplog.set_level("INFO")
    found = of_one_picture(tmp_path / "rgba", saved(clear), "png")
    np.testing.assert_array_equal(found[:, 0, 0], [10, 20, 30])
    np.testing.assert_array_equal(found[:, 0, 7], [255, 255, 255])
    assert (of_one_picture(tmp_path / "la", saved(grey), "png") == 255).all()
    indexed = clear.convert("RGB").quantize(4)
    content = saved(indexed, transparency=indexed.getpixel((7, 0)))
    found = of_one_picture(tmp_path / "p", content, "png")
    np.testing.assert_array_equal(found[:, 0, 7], [255, 255, 255])
    assert "transparent pixels of 1 images become white" in caplog.text


@pytest.mark.parametrize(("suffix", "kind"), [("png", "PNG"), ("webp", "WEBP"), ("tiff", "TIFF")])
def test_several_frames_are_refused(tmp_path: Path, suffix: str, kind: str) -> None:
    frames = [Image.new("RGB", (8, 4), (shade, 0, 0)) for shade in (0, 100, 200)]
    content = saved(frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match=rf"a/1.{suffix}: 3 frames or pages, .*save the one"):
        of_one_picture(tmp_path, content, suffix)


def test_photographs_with_more_behind_them_are_read(tmp_path: Path) -> None:
    grey = [Image.new("RGB", (8, 4), (shade,) * 3) for shade in (90, 0)]
    content = saved(grey[0], "MPO", save_all=True, append_images=grey[1:])
    assert (of_one_picture(tmp_path, content, "jpg") == 90).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_their_exif_says(tmp_path: Path, orientation: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(Image.fromarray(pixels), exif=exif)
    files = {"train/a/1.png": content, "train/b/1.png": picture(1, (6, 6))}
    write(tmp_path / "mine", files, "folder")
    spec = {"path": str(tmp_path / "mine"), "image_size": 6}
    turned = [
        pixels,
        pixels[:, ::-1],
        pixels[::-1, ::-1],
        pixels[::-1],
        pixels.transpose(1, 0, 2),
        pixels.transpose(1, 0, 2)[:, ::-1],
        pixels[::-1, ::-1].transpose(1, 0, 2),
        pixels.transpose(1, 0, 2)[::-1],
    ][orientation - 1]
    found = prepare({"source": "image_folder", **spec}, seed=1).train_inputs[0]
    np.testing.assert_array_equal(found.transpose(1, 2, 0), turned)


def test_imagenet_stays_as_it_lies(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = saved(Image.fromarray(pixels_of(picture(0)).transpose(1, 2, 0)), exif=exif)
    files = {"train/a/1.png": content, "train/b/1.png": picture(1)}
    write(tmp_path / "mine", files, "folder")
    spec = {"source": "imagenet", "path": str(tmp_path / "mine"), "image_size": 7}
    np.testing.assert_array_equal(
        prepare(spec, seed=1).train_inputs[0], pixels_of(picture(0))[:, :7, :7]
    )


def test_images_too_large_for_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = saved(Image.new("1", (2000, 1500)))
    for number, limit in enumerate((2_000_000, 1_000_000)):  # Pillow's warning, and its error
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(ValueError, match=r"a/1.png: refused: .* decompression bomb") as caught:
            of_one_picture(tmp_path / str(number), content, "png", image_size=8)
        assert type(caught.value) is ValueError
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
    thread = saved(Image.new("RGB", (1, 9000)))
    with pytest.raises(ValueError, match=r"1 x 9000 pixels are too narrow: .* 8 x 72000"):
        of_one_picture(tmp_path / "thread", thread, "png", image_size=8)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000)
    fits = of_one_picture(tmp_path / "fits", saved(Image.new("L", (30, 30))), "png", image_size=8)
    assert fits.shape == (3, 8, 8)


# --- Folders and archives as people have them ----------------------------------------------------


LEFT_BEHIND = [
    ".ipynb_checkpoints/1.png",
    "__MACOSX/cat/._1.png",
    "cat/._000.png",
    "cat/Thumbs.db",
    ".DS_Store",
    "@eaDir/1.png",
    "cat/.git/1.png",
]


@pytest.mark.parametrize("kind", ["folder", "zip", "w"])
def test_what_systems_leave_behind_is_no_class(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    files = layout({"cat": 3, "dog": 3})
    others = {name: picture(99) for name in LEFT_BEHIND}
    path = write(tmp_path / "mine", files | others, kind)
    caplog.set_level("INFO")
    dataset = prepare({"source": "image_folder", "path": str(path)}, seed=1)
    assert dataset.description["class_names"] == ["cat", "dog"]
    assert dataset.size("train") == 6
    assert "mine: hidden, left out: " in caplog.text


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Train", "Test"),
        ("TRAIN", "test"),
        ("training", "testing"),
        ("Training", "VAL"),
        ("training_set", "test_set"),
        ("seg_train", "seg_test"),
        ("train-images", "Validation"),
        ("trainset", "eval"),
    ],
)
def test_parts_have_many_names(tmp_path: Path, train: str, test: str) -> None:
    counts = {f"{train}/cat": 3, f"{train}/dog": 2, f"{test}/cat": 2, f"{test}/dog": 1}
    path = write(tmp_path / "mine", layout(counts), "folder")
    dataset = prepare({"source": "image_folder", "path": str(path)}, seed=1)
    assert dataset.description["class_names"] == ["cat", "dog"]
    assert (dataset.size("train"), dataset.size("test")) == (5, 3)


@pytest.mark.parametrize(
    "counts",
    [
        {"train": 3, "bus": 3},  # vehicles
        {"test": 3, "rest": 3},
        {"night_train": 2, "train_station": 3},
        {"bus/red": 2, "night_train/blue": 3},
    ],
)
def test_classes_may_be_called_as_parts(tmp_path: Path, counts: dict[str, int]) -> None:
    path = write(tmp_path / "mine", layout(counts), "folder")
    dataset = prepare({"source": "image_folder", "path": str(path)}, seed=1)
    assert dataset.description["class_names"] == sorted(name.split("/")[0] for name in counts)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"Train/a": 1, "train/b": 1}, "folders Train, train are the same part"),
        ({"test/a": 1, "val/a": 1}, "a test part, .* but no folder 'train' beside it"),
        ({"test/a": 2, "other/a": 1, "other/b": 1}, "a test part, test, but no folder 'train'"),
        ({"a/train": 1, "a/test": 1, "b/train": 1, "b/test": 1}, "lie within each class"),
        ({"train/a": 2, "train/b": 2, "test/A": 1}, "the training part lacks: A; it has a, b"),
    ],
)
def test_layouts_that_mean_something_else_are_explained(
    tmp_path: Path, counts: dict[str, int], message: str
) -> None:
    path = write(tmp_path / "mine", layout(counts), "folder")
    with pytest.raises(ValueError, match=message):
        prepare({"source": "image_folder", "path": str(path)}, seed=1)


def test_what_is_no_image_is_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = layout({"cat": 2, "dog": 2}) | {"cat/2.gif": b"x", "bird/notes.txt": b"x"}
    files |= {"cat/9.PNG": picture(9), "dog/9.Jpeg": picture(9, suffix="JPEG")}
    path = write(tmp_path / "mine", files, "folder")
    (path / "horse").mkdir()
    dataset = prepare({"source": "image_folder", "path": str(path)}, seed=1)
    assert dataset.size("train") == 6
    assert dataset.description["class_names"] == ["cat", "dog"]
    assert "2 files that are no images, left out ({'.txt': 1, '.gif': 1}): bird/n" in caplog.text
    assert "folders without images, no classes: bird, horse" in caplog.text


def test_links_in_a_circle_and_twice_to_a_folder_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "mine", layout({"cat": 2, "dog": 2}), "folder")
    spec = {"source": "image_folder", "path": str(path)}
    expected = prepare(spec, seed=1)
    for target in (path, path / "dog"):
        (path / "dog" / "again").symlink_to(target)
        with pytest.raises(ValueError, match=r"refused: .*again and .* are one folder"):
            prepare(spec, seed=1)
        (path / "dog" / "again").unlink()
    # A link to what lies elsewhere is as good as a folder.
    (path / "dog").rename(tmp_path / "elsewhere")
    (path / "dog").symlink_to(tmp_path / "elsewhere")
    assert prepare(spec, seed=1).digest == expected.digest


@pytest.mark.parametrize("kind", ["pipe", "socket", "link to nothing", "pipe as a whole"])
def test_what_is_no_file_is_never_opened(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "mine", layout({"cat": 2, "dog": 2}), "folder")
    wrong = path / "cat" / "2.png"
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(str(wrong))
    elif kind == "link to nothing":
        wrong.symlink_to(tmp_path / "nothing")
    else:
        os.mkfifo(wrong)
    spec = {"source": "image_folder", "path": str(wrong if kind == "pipe as a whole" else path)}
    with pytest.raises(ValueError, match=r"cat/2\.png: (refused: )?neither a f"):
        prepare(spec, seed=1)


def test_a_file_that_is_there_twice_is_pointed_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "mine", layout(SPLIT), "folder")
    (path / "test" / "dog" / "again.png").symlink_to(path / "train" / "dog" / "001.png")
    assert prepare({"source": "image_folder", "path": str(path)}, seed=1).size("test") == 5
    assert "1 images are there more than once" in caplog.text
    assert f"{path}/test/dog/again.png is {path}/train/dog/001.png, for one" in caplog.text


def test_a_class_of_one_image_stays_for_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "mine", layout({"a": 1, "b": 1, "c": 8, "d": 1}), "folder")
    spec = {"source": "image_folder", "path": str(path), "test_fraction": 0.5}
    for seed in range(5):
        dataset = prepare(spec, seed=seed)
        assert set(dataset.train_targets.tolist()) == {0, 1, 2, 3}
        assert dataset.size("train") + dataset.size("test") == 11
    assert "classes have too few samples for a test part of 0.5" in caplog.text


def test_damaged_archives_are_named(tmp_path: Path) -> None:
    files = layout({"cat": 3, "dog": 3})
    whole = {
        kind: write(tmp_path / f"whole{number}", files, kind).read_bytes()
        for number, kind in enumerate(["w", "w:gz", "w:xz", "zip"])
    }
    two = {"w": 2 * 1024, "w:gz": len(whole["w:gz"]) // 2, "w:xz": len(whole["w:xz"]) // 2}
    damaged = {
        "between.tar": whole["w"][: two["w"]],
        "in_a_file.tar": whole["w"][:700],
        "in_a_header.tar": whole["w"][: two["w"] + 100],
        "header.tar": whole["w"][: two["w"]] + b"x" * 512 + whole["w"][two["w"] + 512 :],
        "joined.tar": whole["w"] + whole["w"],
        "cut.tar.gz": whole["w:gz"][: two["w:gz"]],
        "cut.tar.xz": whole["w:xz"][: two["w:xz"]],
        "cut.zip": whole["zip"][:-100],
        "changed.zip": whole["zip"].replace(files["cat/000.png"][-40:], b"x" * 40),
        "empty.tar": b"",
        "no_archive.tar": b"x" * 1000,
    }
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(name)) as caught:
            prepare({"source": "image_folder", "path": str(tmp_path / name)}, seed=1)
        assert type(caught.value) is ValueError, name


def test_a_member_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        for name in ("a/1.png", "b/1.png", "./a/1.png"):
            member = tarfile.TarInfo(name)
            archive.addfile(member, io.BytesIO())
    with pytest.raises(ValueError, match=r"0.tar: refused: the member './a/1.png' is there twice"):
        prepare({"source": "image_folder", "path": str(tmp_path / "0.tar")}, seed=1)


def test_given_statistics_replace_those_of_the_data(tmp_path: Path) -> None:
    path = write(tmp_path / "mine", layout(SPLIT), "folder")
    spec = {"source": "image_folder", "path": str(path), "normalisation": "imagenet"}
    dataset = prepare(spec, seed=1)
    inputs, _ = dataset.batch("test", slice(None))
    mean, deviation = (np.array(part)[:, None, None] for part in images.STATISTICS["imagenet"])
    expected = (dataset.test_inputs / 255 - mean) / deviation
    np.testing.assert_allclose(inputs, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="normalisation 'imagnet'; did you mean 'imagenet'"):
        prepare({**spec, "normalisation": "imagnet"}, seed=1)


def test_large_images_are_decoded_to_a_scratch_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "mine", layout(SPLIT), "folder")
    spec = {"source": "image_folder", "path": str(path)}
    expected = prepare(spec, seed=1)
    monkeypatch.setattr("sgnoise.data.reading._IN_MEMORY_BYTES", 0)
    found = prepare(spec, seed=1, scratch=tmp_path)
    assert isinstance(found.train_inputs, np.memmap)
    assert found.digest == expected.digest
    datasets.save(found, str(tmp_path / "arrays.npz"), str(tmp_path / "manifest.json"))
    assert datasets.load(str(tmp_path / "arrays.npz")).digest == expected.digest


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a/1.txt": b"x"}, "no images among 1 files; known are .bmp"),
        ({"a/1.png": picture(0), "2.png": picture(1)}, "2.png lies in no folder of a class"),
        ({"train/1.png": picture(0), "test/a/1.png": picture(1)}, "lies in no folder of a class"),
        ({"a/1.png": picture(0), "a/2.png": picture(1)}, "one class only, 'a'"),
        ({"a/1.png": picture(0), "b/2.png": b"torn"}, "b/2.png: not an image that can be read"),
        ({"a/1.png": picture(0), "b/2.png": picture(1)[:-90]}, "b/2.png: not an image that can"),
    ],
)
def test_wrong_folders_are_explained(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    path = write(tmp_path / "mine", files, "folder")
    with pytest.raises(ValueError, match=message):
        prepare({"source": "image_folder", "path": str(path)}, seed=1)


def test_folders_beside_the_parts_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "mine", layout({**SPLIT, "valid/cat": 5}), "folder")
    dataset = prepare({"source": "image_folder", "path": str(path)}, seed=1)
    assert (dataset.size("train"), dataset.size("test")) == (9, 4)
    assert "passed over: {'valid': 5}" in caplog.text


def test_a_pinned_archive_comes_from_the_mirror_or_the_path(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.tar", layout(SPLIT), "w")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    mirror = tmp_path / "mirror"
    (mirror / "deep").mkdir(parents=True)
    spec = {"source": "image_folder", "path": str(path), "sha256": digest}
    expected = prepare(spec, seed=1, mirror=mirror)
    path.rename(mirror / "deep" / "mine.tar")
    assert prepare(spec, seed=1, mirror=mirror).digest == expected.digest
    assert expected.description["source_sha256"] == digest
    with pytest.raises(ValueError, match=f"mine.tar: no such file .*put the file with .* {digest}"):
        prepare(spec, seed=1)
    path.write_bytes(b"other")
    with pytest.raises(ValueError, match=f"wrong sha256: expected {digest}, found "):
        prepare(spec, seed=1)


def test_missing_images_are_asked_for(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"absent: no such folder .* put the images there as"):
        prepare({"source": "image_folder", "path": absent}, seed=1)
    with pytest.raises(ValueError, match=r"absent/train: no .* terms of use of ImageNet forbid.*"):
        prepare({"source": "imagenet", "path": absent}, seed=1)
    with pytest.raises(ValueError, match=r"no such shards .* tar files that img2dataset wrote"):
        prepare({"source": "webdataset", "shards": [f"{absent}/*.tar"]}, seed=1)


def test_imagenet(tmp_path: Path) -> None:
    files = {
        f"{part}/n{number:08d}/{index}.JPEG": picture(number * 10 + index, (40, 30), "JPEG")
        for part, count in (("train", 4), ("val", 2))
        for number in (1, 2)
        for index in range(count)
    }
    files["test/ILSVRC2012_test_00000001.JPEG"] = picture(0, (40, 30), "JPEG")
    path = write(tmp_path / "imagenet", files, "folder")
    spec = {"source": "imagenet", "path": str(path), "subset": {"train": 4}}
    dataset = prepare(spec, seed=1)
    assert dataset.train_inputs.shape == (4, 3, 224, 224)
    assert dataset.train_targets.tolist() == [0, 0, 1, 1]
    assert dataset.size("test") == 4
    assert dataset.description["class_names"] == ["n00000001", "n00000002"]


# --- CIFAR and CINIC-10 --------------------------------------------------------------------------


def fake_cifar(monkeypatch: pytest.MonkeyPatch, source: str) -> dict[str, bytes]:
    """Files as those of CIFAR, with 20 images each; their checksums replace the real ones."""
    real = images._CIFAR[source]
    rng = np.random.default_rng(0)
    contents: dict[str, bytes] = {}
    for file in (*real.train, real.test):
        labels = np.repeat([0, 1], 10)
        batch = {
            "data": rng.integers(0, 256, (20, 3072), dtype=np.uint8),
            real.labels: rng.permutation(labels).tolist(),
        }
        contents[file.name] = pickle.dumps(batch, protocol=4)
    contents[real.meta.name] = pickle.dumps({real.names: ["cat", "dog"]}, protocol=4)

    def pinned(file: RemoteFile, content: bytes, url: str | None = None) -> RemoteFile:
        return RemoteFile(file.name, url, "md5", hashlib.md5(content).hexdigest())

    members = {name: pinned(RemoteFile(name, None, "", ""), c) for name, c in contents.items()}
    known = images._Cifar(
        real.title,
        pinned(real.archive, packed(contents), "http://127.0.0.1:9/none"),
        tuple(members[file.name] for file in real.train),
        members[real.test.name],
        members[real.meta.name],
        real.labels,
        real.names,
    )
    monkeypatch.setitem(images._CIFAR, source, known)
    return contents


def packed(contents: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"cifar/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.parametrize("source", ["cifar10", "cifar100"])
@pytest.mark.parametrize("form", ["archive", "unpacked"])
def test_cifar_from_the_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, form: str
) -> None:
    contents = fake_cifar(monkeypatch, source)
    mirror = tmp_path / "mirror" / "cifar"
    mirror.mkdir(parents=True)
    if form == "archive":
        (mirror / images._CIFAR[source].archive.name).write_bytes(packed(contents))
    else:
        for name, content in contents.items():
            (mirror / name).write_bytes(content)
    dataset = prepare({"source": source}, seed=1, mirror=tmp_path / "mirror")
    count = 20 * len(images._CIFAR[source].train)
    assert dataset.train_inputs.shape == (count, 3, 32, 32)
    assert dataset.test_inputs.shape == (20, 3, 32, 32)
    assert dataset.description["class_names"] == ["cat", "dog"]
    first = pickle.loads(contents[images._CIFAR[source].train[0].name])
    np.testing.assert_array_equal(dataset.train_inputs[3].ravel(), first["data"][3])
    label = first["labels" if source == "cifar10" else "fine_labels"][3]
    assert dataset.train_targets[3] == label
    spec = {"source": source, "subset": {"train": 10, "test": 6}}
    small = prepare(spec, seed=1, mirror=tmp_path / "mirror")
    assert np.bincount(small.train_targets).tolist() == [5, 5]
    assert np.bincount(small.test_targets).tolist() == [3, 3]


def test_a_file_of_cifar_that_is_not_the_real_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = fake_cifar(monkeypatch, "cifar10")
    known = images._CIFAR["cifar10"]
    changed = packed({**contents, "data_batch_2": b"changed"})
    archive = RemoteFile("a.tar", None, "md5", hashlib.md5(changed).hexdigest())
    monkeypatch.setitem(
        images._CIFAR, "cifar10", images._Cifar(**{**vars(known), "archive": archive})
    )
    (tmp_path / "a.tar").write_bytes(changed)
    with pytest.raises(ValueError, match="cifar/data_batch_2: wrong md5: expected "):
        prepare({"source": "cifar10"}, seed=1, mirror=tmp_path)


def test_cinic10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "CINIC-10.tar.gz", layout({**SPLIT, "valid/cat": 3}), "w:gz")
    digest = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setattr(images, "_CINIC10", RemoteFile("CINIC-10.tar.gz", None, "md5", digest))
    spec = {"source": "cinic10", "subset": {"train": 6}}
    dataset = prepare(spec, seed=1, mirror=tmp_path)
    assert np.bincount(dataset.train_targets).tolist() == [4, 2]
    assert dataset.size("test") == 4


# --- WebDataset ----------------------------------------------------------------------------------


def shard(path: Path, samples: dict[str, dict[str, bytes]]) -> None:
    with tarfile.open(path, "w") as archive:
        for key, files in samples.items():
            for suffix, content in files.items():
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def captioned(key: int) -> dict[str, bytes]:
    words = {"caption": f"other {key}", "url": "https://example.org"}
    return {
        "jpg": picture(key, (20, 16), "JPEG"),
        "txt": f"picture {key}".encode(),
        "json": json.dumps(words).encode(),
    }


def fake_tokens(texts: list[str]) -> np.ndarray:
    tokens = np.zeros((len(texts), 77), np.int64)
    for row, text in zip(tokens, texts, strict=True):
        row[: len(text)] = list(text.encode())
    return tokens


def test_shards_become_images_and_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "clip_tokens", fake_tokens)
    for number in range(2):
        keys = range(number * 10, number * 10 + 5)
        shard(tmp_path / f"{number:05d}.tar", {f"{key:09d}": captioned(key) for key in keys})
    spec: dict[str, Any] = {
        "source": "webdataset",
        "shards": [f"{tmp_path}/*.tar"],
        "image_size": 16,
        "test_fraction": 0.2,
    }
    dataset = prepare(spec, seed=1, threads=2)
    assert dataset.kind == "image_text"
    assert dataset.train_inputs.shape == (8, 3, 16, 16)
    assert dataset.train_targets.shape == (8, 77)
    assert dataset.test_targets.shape == (2, 77)
    assert dataset.classes == 0
    assert dataset.vocabulary == 49408
    for inputs, tokens in zip(dataset.train_inputs, dataset.train_targets, strict=True):
        key = int(bytes(tokens[tokens > 0].astype(np.uint8)).decode().removeprefix("picture "))
        middle = pixels_of(picture(key, (20, 16), "JPEG"))[:, :, 2:18]
        np.testing.assert_array_equal(inputs, middle)
    small = prepare({**spec, "subset": {"train": 3, "test": 1}}, seed=1)
    assert (small.size("train"), small.size("test")) == (3, 1)
    inputs, targets = dataset.batch("train", slice(0, 2))
    assert inputs.dtype == np.float32
    assert targets.dtype == np.int64


def test_a_caption_may_stand_in_the_json_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "clip_tokens", fake_tokens)
    files = {key: captioned(int(key)) for key in ("1", "2")}
    for sample in files.values():
        del sample["txt"]
    shard(tmp_path / "0.tar", files)
    spec = {"source": "webdataset", "shards": [str(tmp_path / "0.tar")], "image_size": 16}
    dataset = prepare(spec, seed=1)
    tokens = dataset.train_targets[0]
    assert bytes(tokens[tokens > 0].astype(np.uint8)) == b"other 1"
    del files["2"]["json"]
    shard(tmp_path / "0.tar", files)
    with pytest.raises(ValueError, match=r"sample '2' has the files \['2.jpg'\]; expected an im"):
        prepare(spec, seed=1)


def test_captions_become_tokens_of_clip() -> None:
    pytest.importorskip("open_clip")
    tokens = images.clip_tokens(["a photo of a cat", "dog"])
    assert tokens.shape == (2, 77)
    assert tokens.dtype == np.int64
    assert tokens[0, 0] == tokens[1, 0] == 49406
    assert (tokens == 49407).sum() == 2
    assert tokens.max() == images.CLIP_VOCABULARY - 1
    assert (tokens[1, 3:] == 0).all()


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        ("txt", "größe".encode("latin-1"), r"0.tar: 1.txt: not UTF-8: .*save it as UTF-8"),
        ("txt", b" \n", r"0.tar: 1.txt: no text"),
        ("json", b"{", r"0.tar: 1.json: not JSON: .*write it again"),
        ("json", b"[1]", r"0.tar: 1.json: no text under 'caption'"),
        ("JSON", b'{"caption": 3}', r"0.tar: 1.JSON: no text under 'caption'"),
    ],
)
def test_wrong_captions_are_explained(
    tmp_path: Path, suffix: str, content: bytes, message: str
) -> None:
    shard(tmp_path / "0.tar", {"1": {"jpg": picture(1, suffix="JPEG"), suffix: content}})
    with pytest.raises(ValueError, match=message) as caught:
        prepare({"source": "webdataset", "shards": [str(tmp_path / "0.tar")]}, seed=1)
    assert type(caught.value) is ValueError


def test_a_shard_named_twice_is_read_once(tmp_path: Path) -> None:
    shard(tmp_path / "0.tar", {"1": captioned(1)})
    (tmp_path / "1.tar").symlink_to(tmp_path / "0.tar")
    whole, again = str(tmp_path / "0.tar"), str(tmp_path / "." / ".." / tmp_path.name / "0.tar")
    assert images.shard_paths([whole, again, f"{tmp_path}/*.tar"]) == [whole]
