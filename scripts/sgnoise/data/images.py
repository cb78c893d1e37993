"""Readers of images: CIFAR, folders and archives with a folder a class, and WebDataset shards."""

from __future__ import annotations

import glob
import hashlib
import io
import json
import logging
import math
import os
import re
import struct
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from sgnoise.data.downloads import (
    Archive,
    RemoteFile,
    digest_of,
    find_in_mirror,
    obtain,
    read_pickle,
)
from sgnoise.data.reading import Raw, Workspace, held_back_rows, subset_rows
from sgnoise.messages import unknown_name

logger = logging.getLogger("sgnoise")

# Mean and deviation that networks with published weights expect, in shares of the largest byte.
STATISTICS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}

_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
# Names of the folders of parts, in any case: the best known first.
_TRAIN_FOLDERS = ("train", "training")
_TEST_FOLDERS = ("test", "testing", "val", "valid", "validation", "eval", "evaluation")
_PART = re.compile(
    rf"(?P<prefix>(?:.*[ _.-])?)(?P<part>{'|'.join((*_TRAIN_FOLDERS, *_TEST_FOLDERS))})"
    r"(?:[ _.-]?(?:set|data|images?|part|split))?"
)
_CHUNK = 256
# 16-bit images lose all but their upper 8 bits. Below this share of the range fewer than 64 levels
# would be left, as of 12-bit values that were not scaled up.
_LOWEST_TOP = 0.25

_CINIC10 = RemoteFile(
    "CINIC-10.tar.gz",
    "https://datashare.ed.ac.uk/bitstream/handle/10283/3192/CINIC-10.tar.gz",
    "md5",
    "6ee4d0c996905fe93221de577967a372",
)


@dataclass(frozen=True)
class _Cifar:
    """One of the two CIFAR sets: its archive and the files in it, with their md5."""

    title: str
    archive: RemoteFile
    train: tuple[RemoteFile, ...]
    test: RemoteFile
    meta: RemoteFile
    labels: str
    names: str


def _member(name: str, digest: str) -> RemoteFile:
    return RemoteFile(name, None, "md5", digest)


# Addresses and checksums as torchvision has them.
_CIFAR = {
    "cifar10": _Cifar(
        "CIFAR-10",
        RemoteFile(
            "cifar-10-python.tar.gz",
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            "md5",
            "c58f30108f718f92721af3b95e74349a",
        ),
        (
            _member("data_batch_1", "c99cafc152244af753f735de768cd75f"),
            _member("data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
            _member("data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
            _member("data_batch_4", "634d18415352ddfa80567beed471001a"),
            _member("data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
        ),
        _member("test_batch", "40351d587109b95175f43aff81a1287e"),
        _member("batches.meta", "5ff9c542aee3614f3951f8cda6e48888"),
        "labels",
        "label_names",
    ),
    "cifar100": _Cifar(
        "CIFAR-100",
        RemoteFile(
            "cifar-100-python.tar.gz",
            "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            "md5",
            "eb9058c3a382ffc7106e4002c42a8d85",
        ),
        (_member("train", "16019d7e3df5f24257cddd939b257f8d"),),
        _member("test", "f0ef6b0ae62326f3e7ffdfab6717acfc"),
        _member("meta", "7973b15100ade9c7d40fb424638fde48"),
        "fine_labels",
        "fine_label_names",
    ),
}


def read_cifar(
    workspace: Workspace,
    *,
    source: str,
    subset: dict[str, int] | None = None,
    normalisation: str = "data",
) -> Raw:
    """CIFAR-10 or CIFAR-100, from its Python files.

    Args:
        workspace: see there.
        source: ``cifar10`` or ``cifar100``.
        subset: how many images of each part, the same share of each class; None: all.
        normalisation: see ``statistics_of``.
    """
    known = _CIFAR[source]
    contents = _cifar_files(known, workspace)
    meta = read_pickle(contents[known.meta.name], known.meta.name)

    def part(files: Sequence[RemoteFile], name: str) -> tuple[np.ndarray, np.ndarray]:
        batches = [read_pickle(contents[file.name], file.name) for file in files]
        pixels = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
        labels = np.concatenate([batch[known.labels] for batch in batches]).astype(np.int64)
        rows = subset_rows(labels, subset, name, workspace)
        return pixels[rows], labels[rows]

    inputs, targets = part(known.train, "train")
    return Raw(
        kind="image",
        inputs=inputs,
        targets=targets,
        class_names=list(meta[known.names]),
        description={
            "name": source,
            "title": known.title,
            "source": known.archive.url,
            "source_md5": {file.name: file.digest for file in (*known.train, known.test)},
            "licence": "none stated",
        },
        test=part([known.test], "test"),
        statistics=statistics_of(normalisation),
    )


def _cifar_files(known: _Cifar, workspace: Workspace) -> dict[str, bytes]:
    """The content of each file: from the mirror, unpacked, or else from the archive."""
    files = (*known.train, known.test, known.meta)
    found = {file.name: find_in_mirror(file, workspace.mirror) for file in files}
    if all(found.values()):
        return {name: path.read_bytes() for name, path in found.items() if path is not None}
    path = obtain(known.archive, folder=workspace.downloads, mirror=workspace.mirror)
    contents = {}
    digests = {file.name: file.digest for file in files}
    with Archive(path) as archive:
        for member in archive.names:
            name = PurePosixPath(member).name
            if name in digests:
                contents[name] = archive.read(member)
                actual = hashlib.md5(contents[name], usedforsecurity=False).hexdigest()
                if actual != digests[name]:
                    raise ValueError(
                        f"{path}: {member}: wrong md5: expected {digests[name]}, found {actual}"
                    )
    missing = digests.keys() - contents.keys()
    if missing:
        raise ValueError(f"{path}: no file {', '.join(sorted(missing))} in it")
    return contents


def read_image_folder(
    workspace: Workspace,
    *,
    path: str,
    sha256: str | None = None,
    image_size: int | None = None,
    subset: dict[str, int] | None = None,
    test_fraction: float = 0.0,
    normalisation: str = "data",
) -> Raw:
    """Images in a folder a class, or in a tar or zip file of one.

    The layout is ``<class>/<file>`` or ``train/<class>/<file>`` with a test part beside it
    (``test``, or else ``val``, ``valid`` or ``validation``, in any case, and with the likes of
    ``_set`` behind it), below any folders that all files share. All images become RGB bytes, the
    right way up as their EXIF says; what is transparent becomes white; of 16 bits the upper 8 stay.

    Args:
        workspace: see there.
        path: the folder or file; with ``sha256`` the mirror is searched for the file first.
        sha256: of the file.
        image_size: side in pixels: the shorter side is scaled to it and the middle cut out. None:
            the images have one size already.
        subset: how many images of each part, the same share of each class; None: all.
        test_fraction: share to hold back if there is no test part.
        normalisation: see ``statistics_of``.

    Raises:
        ValueError: nothing there, another layout, other content, or a file that is no image or
            whose meaning is open: floating-point or 32-bit pixels, several frames or pages.
    """
    found = Path(path)
    if sha256 is not None:
        found = _pinned(found, sha256, workspace)
    elif not found.exists():
        raise ValueError(
            f"{path}: no such folder or file (relative paths start at {Path.cwd()}); put the "
            "images there as train/<class>/<file> and test/<class>/<file>, or as <class>/<file>"
        )
    description = {
        "name": found.stem,
        "title": found.stem,
        "source": found.name,
        "licence": "that of the files",
    }
    if found.is_file():
        description["source_sha256"] = sha256 or digest_of(found)
    return _read_classes(
        workspace,
        found,
        description,
        image_size=image_size,
        subset=subset,
        test_fraction=test_fraction,
        normalisation=normalisation,
        upright=True,
    )


def read_cinic10(
    workspace: Workspace, *, subset: dict[str, int] | None = None, normalisation: str = "data"
) -> Raw:
    """CINIC-10: its training and its test part; the validation part is left alone.

    Args:
        workspace: see there.
        subset: how many images of each part, the same share of each class; None: all.
        normalisation: see ``statistics_of``.
    """
    path = obtain(_CINIC10, folder=workspace.downloads, mirror=workspace.mirror)
    description = {
        "name": "cinic10",
        "title": "CINIC-10",
        "source": _CINIC10.url,
        "source_md5": _CINIC10.digest,
        "licence": "that of CIFAR-10 (none stated) and of ImageNet (research only)",
    }
    return _read_classes(workspace, path, description, subset=subset, normalisation=normalisation)


def read_imagenet(
    workspace: Workspace,
    *,
    path: str,
    image_size: int = 224,
    subset: dict[str, int] | None = None,
    normalisation: str = "data",
) -> Raw:
    """ImageNet (ILSVRC 2012), which its terms of use forbid to download by a program.

    Args:
        workspace: see there.
        path: folder with ``train/<class>/<file>.JPEG`` and, if there is to be a test part,
            ``val/<class>/<file>.JPEG``. The images stay as they lie, whatever their EXIF says, as
            the networks with published weights were trained and measured.
        image_size: side in pixels: the shorter side is scaled to 8/7 of it, and the middle cut out.
        subset: how many images of each part, the same share of each class; None: all.
        normalisation: see ``statistics_of``.

    Raises:
        ValueError: the folder is not there, or laid out otherwise.
    """
    folder = Path(path)
    if not (folder / "train").is_dir():
        raise ValueError(
            f"{folder / 'train'}: no such folder (relative paths start at {Path.cwd()}). The terms "
            "of use of ImageNet forbid an automatic download: register at "
            "https://image-net.org/download.php, fetch ILSVRC2012_img_train.tar (and "
            "ILSVRC2012_img_val.tar for a test part), and unpack them to "
            f"{folder}/train/<class>/<image>.JPEG and {folder}/val/<class>/<image>.JPEG, where "
            "<class> is a name such as n01440764 (the training file is a tar file of one tar file "
            "a class)"
        )
    description = {
        "name": "imagenet",
        "title": "ImageNet (ILSVRC 2012)",
        "source": "https://image-net.org/download.php",
        "licence": "research only, see https://image-net.org/download.php",
    }
    return _read_classes(
        workspace,
        folder,
        description,
        image_size=image_size,
        margin=8 / 7,
        subset=subset,
        normalisation=normalisation,
    )


def read_webdataset(
    workspace: Workspace,
    *,
    shards: Sequence[str],
    image_size: int = 224,
    subset: dict[str, int] | None = None,
    test_fraction: float = 0.0,
    normalisation: str = "clip",
) -> Raw:
    """Images with captions from WebDataset shards, as ``img2dataset`` writes them.

    A sample is the files of one name in one shard: an image, and its caption in a ``.txt`` file or
    under ``caption`` in a ``.json`` file.

    Args:
        workspace: see there.
        shards: tar files, or patterns such as ``laion/*.tar``.
        image_size: side in pixels: the shorter side is scaled to it and the middle cut out.
        subset: how many samples of each part; None: all.
        test_fraction: share to hold back.
        normalisation: see ``statistics_of``.

    Raises:
        ValueError: no shards, or a sample without an image or a caption.
    """
    samples = list(_captioned(shard_paths(shards)))
    if not samples:
        raise ValueError(f"shards {list(shards)}: no samples in them")
    nowhere = np.zeros(len(samples), np.int64)
    train, test = _parts(nowhere, None, subset, test_fraction, workspace)
    parts = {}
    seen = _Seen(str(list(shards)))
    captions: dict[str, list[str]] = {}
    for part, rows in (("train", train), ("test", test)):
        captions[part] = []
        chosen = [samples[row] for row in rows]
        contents = _shard_contents(chosen, captions[part])
        parts[part] = _decoded(contents, len(chosen), workspace, part, size=image_size, seen=seen)
    seen.check()
    tokens = {part: clip_tokens(texts) for part, texts in captions.items()}
    return Raw(
        kind="image_text",
        inputs=parts["train"],
        targets=tokens["train"],
        class_names=[],
        description={
            "name": "webdataset",
            "title": "Images with captions",
            "source": [Path(path).name for path in shard_paths(shards)],
            "licence": "that of each image",
        },
        test=(parts["test"], tokens["test"]),
        vocabulary=CLIP_VOCABULARY,
        statistics=statistics_of(normalisation),
    )


CLIP_VOCABULARY = 49408


def clip_tokens(texts: Sequence[str]) -> np.ndarray:
    """The token ids of CLIP, int64, (texts, 77), filled up with 0.

    Raises:
        ValueError: the optional library is missing.
    """
    try:
        from open_clip.tokenizer import SimpleTokenizer  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise ValueError(
            "captions need the optional library open_clip: pip install open_clip_torch"
        ) from error
    tokenizer = SimpleTokenizer()
    tokens = np.zeros((len(texts), tokenizer.context_length or 77), np.int64)
    for first in range(0, len(texts), _CHUNK):
        tokens[first : first + _CHUNK] = tokenizer(list(texts[first : first + _CHUNK])).numpy()
    return tokens


def statistics_of(
    normalisation: str,
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and deviation to standardise with; of ``data`` None: those of the training part."""
    if normalisation == "data":
        return None
    if normalisation not in STATISTICS:
        raise unknown_name("normalisation", normalisation, ["data", *STATISTICS])
    return STATISTICS[normalisation]


def shard_paths(shards: Sequence[str]) -> list[str]:
    """The files that names and patterns stand for, sorted, each once.

    Raises:
        ValueError: a name or pattern stands for none.
    """
    found: dict[str, str] = {}
    for shard in shards:
        paths = sorted(glob.glob(shard))
        if not paths:
            raise ValueError(
                f"{shard}: no such shards (relative paths start at {Path.cwd()}); put the tar "
                "files that img2dataset wrote (output_format webdataset) there"
            )
        for path in paths:
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def _pinned(path: Path, sha256: str, workspace: Workspace) -> Path:
    """The file of that name and sha256, in the mirror or at ``path``."""
    found = find_in_mirror(RemoteFile(path.name, None, "sha256", sha256), workspace.mirror)
    if found is not None:
        return found
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file (relative paths start at {Path.cwd()}), nor is it in the mirror "
            f"({workspace.mirror}); put the file with the sha256 {sha256} there"
        )
    actual = digest_of(path)
    if actual != sha256:
        raise ValueError(f"{path}: wrong sha256: expected {sha256}, found {actual}")
    return path


def _read_classes(
    workspace: Workspace,
    path: Path,
    description: dict[str, Any],
    *,
    image_size: int | None = None,
    margin: float = 1.0,
    subset: dict[str, int] | None,
    test_fraction: float = 0.0,
    normalisation: str,
    upright: bool = False,
) -> Raw:
    statistics = statistics_of(normalisation)
    with Archive(path) as archive:
        train, test = _layout(archive)
        class_names = sorted({entry[0] for entry in train})
        if len(class_names) < 2:
            raise ValueError(
                f"{path}: one class only, {class_names[0]!r}; each class is a folder of images"
            )
        number = {name: index for index, name in enumerate(class_names)}
        targets = np.array([number[entry[0]] for entry in train], np.int64)
        test_targets = None
        if test is not None:
            test_targets = np.array([number[entry[0]] for entry in test], np.int64)
        rows, test_rows = _parts(targets, test_targets, subset, test_fraction, workspace)
        if test is None or test_targets is None:
            test, test_targets = train, targets
        position = {name: index for index, name in enumerate(archive.names)}
        seen = _Seen(str(path))

        def part(name: str, entries: list[tuple[str, str]], chosen: np.ndarray) -> np.ndarray:
            files = [entries[row][1] for row in chosen]
            # In the order in which they lie: a packed file can only be read forwards.
            order = sorted(range(len(files)), key=lambda index: position[files[index]])
            contents = (
                (index, archive.place(files[index]), archive.read(files[index])) for index in order
            )
            return _decoded(
                *(contents, len(files), workspace, name),
                size=image_size,
                seen=seen,
                margin=margin,
                upright=upright,
            )

        raw = Raw(
            kind="image",
            inputs=part("train", train, rows),
            targets=targets[rows],
            class_names=class_names,
            description=description,
            test=(part("test", test, test_rows), test_targets[test_rows]),
            statistics=statistics,
        )
    seen.check()
    return raw


def _layout(archive: Archive) -> tuple[list[tuple[str, str]], list[tuple[str, str]] | None]:
    """Class and name of each image of the training and the test part, sorted.

    The test part is None where there is no such folder.
    """
    where, names = archive.path, archive.names
    if archive.hidden:
        logger.info("%s: hidden, left out: %s", where, _some(archive.hidden))
    pairs = [
        (PurePosixPath(name).parts, name) for name in names if name.lower().endswith(_SUFFIXES)
    ]
    if not pairs:
        raise ValueError(
            f"{where}: no images among {len(names)} files; known are {', '.join(_SUFFIXES)}"
        )
    _log_what_is_no_image(archive, {name for _, name in pairs})
    while len({parts[0] for parts, _ in pairs}) == 1 and min(len(p) for p, _ in pairs) > 2:
        pairs = [(parts[1:], name) for parts, name in pairs]
    folders = Counter(parts[0] for parts, _ in pairs)
    train, held_back = pairs, pairs[:0]
    train_folder, test_folder = _part_folders(pairs, where)
    if train_folder is not None:
        others = {
            name: count
            for name, count in folders.items()
            if name not in (train_folder, test_folder)
        }
        if others:
            logger.warning("%s: neither training nor test part, passed over: %s", where, others)
        train, held_back = (
            [(parts[1:], name) for parts, name in pairs if parts[0] == folder]
            for folder in (train_folder, test_folder)
        )
    for parts, name in (*train, *held_back):
        if len(parts) < 2:
            raise ValueError(
                f"{where}: {name} lies in no folder of a class; expected <class>/<file>, or "
                "train/<class>/<file> and test/<class>/<file>"
            )
    by_class, test_by_class = (
        sorted((parts[0], name) for parts, name in entries) for entries in (train, held_back)
    )
    _check_classes(by_class, test_by_class, where)
    return by_class, test_by_class or None


def _log_what_is_no_image(archive: Archive, images: set[str]) -> None:
    others = [name for name in archive.names if name not in images]
    if others:
        kinds = Counter(PurePosixPath(name).suffix.lower() or "no suffix" for name in others)
        # A picture of a kind that is not read is a sample less; a list of names is not.
        pictures = kinds.keys() & Image.registered_extensions().keys()
        logger.log(
            logging.WARNING if pictures else logging.INFO,
            "%s: %d files that are no images, left out (%s): %s",
            *(archive.path, len(others), dict(kinds), _some(others)),
        )
    full = {str(folder) for name in images for folder in PurePosixPath(name).parents}
    empty = sorted(set(archive.folders) - full)
    if empty:
        logger.warning("%s: folders without images, no classes: %s", archive.path, _some(empty))


def _some(names: Sequence[str], count: int = 5) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def _part_folders(
    pairs: Sequence[tuple[tuple[str, ...], str]], where: Path
) -> tuple[str | None, str | None]:
    """The folders of the training and of the test part; None where there is none.

    A folder of a part has folders of classes in it: without them it is a class of that name.
    """
    roles: dict[str, re.Match[str]] = {}
    inner: dict[str, set[str]] = {}
    for parts, _ in pairs:
        found = _PART.fullmatch(parts[0].casefold())
        if len(parts) > 2:
            inner.setdefault(parts[0], set()).add(parts[1])
        if found is not None:
            roles.setdefault(parts[0], found)
    # "seg_train" is a part beside "seg_test" only.
    parts_of: dict[str, dict[str, list[str]]] = {}
    for folder, found in roles.items():
        # ImageNet's test part has no classes, so it is none here. A training part without them
        # is one if others have some.
        role = "train" if found["part"] in _TRAIN_FOLDERS else found["part"]
        if folder in inner or (role == "train" and inner):
            parts_of.setdefault(found["prefix"], {}).setdefault(role, []).append(folder)
    for prefix, found_parts in sorted(parts_of.items()):
        if prefix and not ("train" in found_parts and len(found_parts) > 1):
            continue
        doubled = next((same for same in found_parts.values() if len(same) > 1), None)
        if doubled:
            raise ValueError(
                f"{where}: the folders {', '.join(sorted(doubled))} are the same part by their "
                "names; put their images into one, or move one away"
            )
        if "train" not in found_parts:
            raise ValueError(
                f"{where}: a test part, {_some(sorted(roles))}, but no folder 'train' beside it; "
                "expected train/<class>/<file> and test/<class>/<file>, or <class>/<file>"
            )
        test = next((found_parts[part][0] for part in _TEST_FOLDERS if part in found_parts), None)
        return found_parts["train"][0], test
    matches = {
        folder: {match["part"] for name in names if (match := _PART.fullmatch(name.casefold()))}
        for folder, names in inner.items()
    }
    if matches and all(len(found) > 1 for found in matches.values()):
        raise ValueError(
            f"{where}: training and test part lie within each class ({_some(sorted(matches))}); "
            "expected train/<class>/<file> and test/<class>/<file>"
        )
    return None, None


def _check_classes(
    train: Sequence[tuple[str, str]], test: Sequence[tuple[str, str]], where: Path
) -> None:
    classes, tested = ({name for name, _ in part} for part in (train, test))
    if tested - classes:
        raise ValueError(
            f"{where}: classes of the test part that the training part lacks: "
            f"{_some(sorted(tested - classes))}; it has {_some(sorted(classes))}"
        )
    if len({name.casefold() for name in classes}) < len(classes):
        logger.warning(
            "%s: classes whose names differ in capitals alone count as different: %s",
            where,
            _some([name for name in sorted(classes) if name.swapcase() in classes]),
        )


def _parts(
    targets: np.ndarray,
    test_targets: np.ndarray | None,
    subset: dict[str, int] | None,
    test_fraction: float,
    workspace: Workspace,
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the training and of the test part: of ``targets`` both, if there is no other."""
    if test_targets is not None:
        train = subset_rows(targets, subset, "train", workspace)
        return train, subset_rows(test_targets, subset, "test", workspace)
    held_back = held_back_rows(targets, test_fraction, workspace.seed)
    train, test = np.flatnonzero(~held_back), np.flatnonzero(held_back)
    return (
        train[subset_rows(targets[train], subset, "train", workspace)],
        test[subset_rows(targets[test], subset, "test", workspace)],
    )


@dataclass
class _Seen:
    """What the images of all parts have in common, or should have.

    Attributes:
        where: the data set, for messages.
        sizes: height and width, and the first image that has it.
        top: the largest value of 16-bit images, in shares of their range; None without such.
        transparent: how many images have transparent pixels.
        files: the first image of each content, by its digest.
        twice: images whose file is that of an earlier one, byte by byte, and that one.
    """

    where: str
    sizes: dict[tuple[int, int], str] = field(default_factory=dict)
    top: float | None = None
    transparent: int = 0
    files: dict[bytes, str] = field(default_factory=dict)
    twice: list[tuple[str, str]] = field(default_factory=list)

    def add(self, image: _Decoded, name: str) -> None:
        """Take note of an image.

        Raises:
            ValueError: it has another size than the first.
        """
        self.sizes.setdefault(image.pixels.shape[1:], name)
        if len(self.sizes) > 1:
            (size, of), (other, another), *_ = self.sizes.items()
            raise ValueError(
                f"the images differ in size: {of} is {size}, {another} is {other} "
                "(height, width); set image_size"
            )
        if image.top is not None:
            self.top = max(image.top, self.top or 0.0)
        self.transparent += image.transparent
        first = self.files.setdefault(image.digest, name)
        if first != name:
            self.twice.append((name, first))

    def check(self) -> None:
        """Say what became of the images.

        Raises:
            ValueError: 16-bit images use so little of their range that bytes cannot hold them.
        """
        if self.top is not None and self.top < _LOWEST_TOP:
            raise ValueError(
                f"{self.where}: no value of its 16-bit images is above {self.top:.2%} of the range "
                "(12-bit values, it may be), and bytes would leave few levels; scale them to the "
                "full range, or save them with 8 bits"
            )
        if self.top is not None:
            logger.info("%s: of 16-bit images the upper 8 bits are taken", self.where)
        if self.transparent:
            logger.info(
                "%s: transparent pixels of %d images become white", self.where, self.transparent
            )
        if self.twice:
            logger.warning(
                "%s: %d images are there more than once, byte by byte: %s is %s, for one",
                *(self.where, len(self.twice), *self.twice[0]),
            )


def _decoded(
    contents: Iterable[tuple[int, str, bytes]],
    count: int,
    workspace: Workspace,
    part: str,
    *,
    size: int | None,
    seen: _Seen,
    margin: float = 1.0,
    upright: bool = False,
) -> np.ndarray:
    """Decode (row, name, content) of ``count`` images into bytes, (n, 3, height, width)."""
    images: np.ndarray | None = None
    decode = partial(_decode, size=size, margin=margin, upright=upright)
    with warnings.catch_warnings(), ThreadPoolExecutor(workspace.threads) as pool:
        # Pillow warns of images that are larger in memory than any photograph.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for chunk in _chunks(contents):
            names = [name for _, name, _ in chunk]
            for (row, name, _), image in zip(
                chunk, pool.map(decode, [c for *_, c in chunk], names), strict=True
            ):
                seen.add(image, name)
                if images is None:
                    images = workspace.room(part, (count, *image.pixels.shape))
                images[row] = image.pixels
    if images is None:
        side = next(iter(seen.sizes), (size or 0, size or 0))
        images = np.empty((0, 3, *side), np.uint8)
    return images


def _chunks(contents: Iterable[tuple[int, str, bytes]]) -> Iterator[list[tuple[int, str, bytes]]]:
    chunk: list[tuple[int, str, bytes]] = []
    for item in contents:
        chunk.append(item)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


@dataclass(frozen=True)
class _Decoded:
    """Pixels, uint8, (3, height, width), and what ``_Seen`` takes note of."""

    pixels: np.ndarray
    digest: bytes
    top: float | None
    transparent: bool


def _decode(
    content: bytes, name: str, *, size: int | None, margin: float, upright: bool
) -> _Decoded:
    """An image as bytes, (3, height, width), scaled and cut to ``size`` if that is given."""
    try:
        opened = Image.open(io.BytesIO(content))
        frames = getattr(opened, "n_frames", 1)
        opened.load()
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{name}: refused: {error} (a decompression bomb has so many pixels for its bytes); "
            "scale the image down"
        ) from error
    except UnidentifiedImageError as error:
        raise ValueError(
            f"{name}: not an image that can be read: {len(content)} bytes that begin with "
            f"{content[:8]!r}; replace the file or leave it out"
        ) from error
    except _UNREADABLE as error:
        raise ValueError(
            f"{name}: not an image that can be read: {error}; replace the file or leave it out"
        ) from error
    # A JPEG of several pictures (MPO) is a photograph with, say, its depth behind it.
    if frames > 1 and opened.format != "MPO":
        raise ValueError(
            f"{name}: {frames} frames or pages, and a sample is one image; save the one that is "
            "meant, or each as a file of its own"
        )
    image, top, transparent = _rgb(opened, name)
    if upright:
        turn = _TURNS.get(_orientation(opened) or 1)
        image = image if turn is None else image.transpose(turn)
    if size is not None and image.size != (size, size):
        target = round(size * margin)
        scale = target / min(image.size)
        width, height = (max(target, round(side * scale)) for side in image.size)
        if width * height > (Image.MAX_IMAGE_PIXELS or math.inf):
            raise ValueError(
                f"{name}: {image.width} x {image.height} pixels are too narrow: with image_size "
                f"{size} they become {width} x {height}; cut the image first"
            )
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top_edge = (width - size) // 2, (height - size) // 2
        image = image.crop((left, top_edge, left + size, top_edge + size))
    digest = hashlib.md5(content, usedforsecurity=False).digest()
    return _Decoded(np.asarray(image).transpose(2, 0, 1), digest, top, transparent)


def _rgb(image: Image.Image, name: str) -> tuple[Image.Image, float | None, bool]:
    """As RGB; the largest value of 16 bits in shares of their range; whether it shows through."""
    if image.mode in ("F", "I"):
        numbers = "floating-point numbers" if image.mode == "F" else "32-bit whole numbers"
        raise ValueError(
            f"{name}: its pixels are {numbers}, which do not say what is black and what is white; "
            "scale them to 0 .. 255 and save them as bytes"
        )
    top, transparent = None, False
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint16)
        top = float(values.max()) / 65535
        image = Image.fromarray((values >> 8).astype(np.uint8))
    elif image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        transparent = np.asarray(with_alpha)[..., 3].min() < 255
        if transparent:
            white = Image.new("RGBA", image.size, (255, 255, 255, 255))
            image = Image.alpha_composite(white, with_alpha)
    try:
        return image.convert("RGB"), top, transparent
    except ValueError as error:
        raise ValueError(f"{name}: its colours cannot be read: {error}; save it as RGB") from error


# What Pillow raises at damaged images.
_UNREADABLE = (
    *(UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError),
    *(TypeError, LookupError, struct.error),
)
# How to undo what the EXIF tag "Orientation" says, for its values other than 1.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _orientation(image: Image.Image) -> int | None:
    try:
        found = image.getexif().get(ExifTags.Base.Orientation)
    except _UNREADABLE:
        # Damaged EXIF in an image that is whole is common.
        return None
    return found if isinstance(found, int) else None


def _captioned(paths: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Shard, image and caption file of each sample."""
    for path in paths:
        groups: dict[str, list[str]] = {}
        with Archive(Path(path)) as archive:
            for name in archive.names:
                # A key ends at the first dot of the file's name; folders may have dots.
                folder, slash, file = name.rpartition("/")
                groups.setdefault(folder + slash + file.partition(".")[0], []).append(name)
        for key, names in groups.items():
            image = [name for name in names if name.lower().endswith(_SUFFIXES)]
            # The text file comes first where there are both.
            caption = sorted(
                (name for name in names if name.lower().endswith((".json", ".txt"))), key=str.lower
            )
            if len(image) != 1 or not caption:
                raise ValueError(
                    f"{path}: the sample {key!r} has the files {names}; expected an image and a "
                    "caption (.txt or .json)"
                )
            yield path, image[0], caption[-1]


def _shard_contents(
    samples: Sequence[tuple[str, str, str]], captions: list[str]
) -> Iterator[tuple[int, str, bytes]]:
    """Row, name and content of each image; its caption is appended to ``captions``."""
    opened: Archive | None = None
    try:
        for row, (path, image, caption) in enumerate(samples):
            if opened is None or str(opened.path) != path:
                if opened is not None:
                    opened.close()
                opened = Archive(Path(path))
            captions.append(_caption(opened.read(caption), opened.place(caption)))
            yield row, opened.place(image), opened.read(image)
    finally:
        if opened is not None:
            opened.close()


def _caption(content: bytes, where: str) -> str:
    """The text of a caption's file, or under ``caption`` in it."""
    try:
        text = content.decode("utf-8-sig")
        if where.lower().endswith(".json"):
            text = json.loads(text)["caption"]
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not UTF-8: {error}; save it as UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON: {error}; write it again") from error
    except (KeyError, TypeError):
        text = ""
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{where}: no text under 'caption', or none at all; leave the sample out")
    return text.strip()
