"""Readers of images, on small files of the layout of the real ones."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
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
    with pytest.raises(ValueError, match=r"a/1.png is \(20, 40\), b/1.jpg is \(31, 16\) .*imag"):
        prepare(spec, seed=1)


def test_grey_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    streams = [io.BytesIO(), io.BytesIO()]
    Image.new("L", (4, 4), 77).save(streams[0], "PNG")
    Image.new("RGBA", (4, 4), (1, 2, 3, 255)).save(streams[1], "PNG")
    files = {"a/1.png": streams[0].getvalue(), "b/1.png": streams[1].getvalue()}
    path = write(tmp_path / "mine", files, "folder")
    dataset = prepare({"source": "image_folder", "path": str(path)}, seed=1)
    assert dataset.train_inputs[:, :, 0, 0].tolist() == [[77, 77, 77], [1, 2, 3]]


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
        ({"a/1.txt": b"x"}, "no images; known are .bmp"),
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
