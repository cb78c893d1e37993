"""Readers of images: CIFAR, folders and archives with a folder a class, and WebDataset shards."""

from __future__ import annotations

import glob
import hashlib
import io
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from sgnoise import seeds
from sgnoise.data.downloads import (
    Archive,
    RemoteFile,
    digest_of,
    find_in_mirror,
    obtain,
    read_pickle,
)
from sgnoise.data.reading import Raw, Workspace, stratified, subset_rows
from sgnoise.messages import unknown_name

logger = logging.getLogger("sgnoise")

# Mean and deviation that networks with published weights expect, in shares of the largest byte.
STATISTICS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}

_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
_TEST_FOLDERS = ("test", "val", "valid", "validation")
_CHUNK = 256

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
    (``test``, or else ``val``, ``valid`` or ``validation``), below any folders that all files
    share. All images become RGB.

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
        ValueError: nothing there, another layout, other content, or a file that is no image.
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
            ``val/<class>/<file>.JPEG``.
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
    captions: dict[str, list[str]] = {}
    for part, rows in (("train", train), ("test", test)):
        captions[part] = []
        chosen = [samples[row] for row in rows]
        contents = _shard_contents(chosen, captions[part])
        parts[part] = _decoded(
            contents, len(chosen), workspace, part, size=image_size, margin=1.0, seen={}
        )
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
    """The files that names and patterns stand for, sorted.

    Raises:
        ValueError: a name or pattern stands for none.
    """
    found: dict[str, None] = {}
    for shard in shards:
        paths = sorted(glob.glob(shard))
        if not paths:
            raise ValueError(
                f"{shard}: no such shards (relative paths start at {Path.cwd()}); put the tar "
                "files that img2dataset wrote (output_format webdataset) there"
            )
        found |= dict.fromkeys(paths)
    return list(found)


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
) -> Raw:
    statistics = statistics_of(normalisation)
    with Archive(path) as archive:
        train, test = _layout(archive.names, path)
        class_names = sorted({entry[0] for entry in (*train, *(test or []))})
        if len(class_names) < 2:
            raise ValueError(f"{path}: one class only, {class_names[0]!r}")
        number = {name: index for index, name in enumerate(class_names)}
        targets = np.array([number[entry[0]] for entry in train], np.int64)
        test_targets = None
        if test is not None:
            test_targets = np.array([number[entry[0]] for entry in test], np.int64)
        rows, test_rows = _parts(targets, test_targets, subset, test_fraction, workspace)
        if test is None or test_targets is None:
            test, test_targets = train, targets
        position = {name: index for index, name in enumerate(archive.names)}
        seen: dict[tuple[int, int], str] = {}

        def part(name: str, entries: list[tuple[str, str]], chosen: np.ndarray) -> np.ndarray:
            files = [entries[row][1] for row in chosen]
            # In the order in which they lie: a packed file can only be read forwards.
            order = sorted(range(len(files)), key=lambda index: position[files[index]])
            contents = ((index, files[index], archive.read(files[index])) for index in order)
            return _decoded(
                contents, len(files), workspace, name, size=image_size, margin=margin, seen=seen
            )

        return Raw(
            kind="image",
            inputs=part("train", train, rows),
            targets=targets[rows],
            class_names=class_names,
            description=description,
            test=(part("test", test, test_rows), test_targets[test_rows]),
            statistics=statistics,
        )


def _layout(
    names: Iterable[str], where: Path
) -> tuple[list[tuple[str, str]], list[tuple[str, str]] | None]:
    """Class and name of each image of the training and the test part, sorted.

    The test part is None where there is no such folder.
    """
    names = list(names)
    files = [PurePosixPath(name).parts for name in names]
    pairs = [
        (parts, name)
        for parts, name in zip(files, names, strict=True)
        if parts[-1].lower().endswith(_SUFFIXES) and not parts[-1].startswith(".")
    ]
    if len(pairs) < len(names):
        logger.info("%s: %d files that are no images", where, len(names) - len(pairs))
    if not pairs:
        raise ValueError(f"{where}: no images; known are {', '.join(_SUFFIXES)}")
    while len({parts[0] for parts, _ in pairs}) == 1 and min(len(p) for p, _ in pairs) > 2:
        pairs = [(parts[1:], name) for parts, name in pairs]
    folders = Counter(parts[0] for parts, _ in pairs)
    train, held_back = pairs, pairs[:0]
    if "train" in folders:
        # ImageNet's test part has no classes, so it is none here.
        classed = {parts[0] for parts, _ in pairs if len(parts) > 2}
        test = next((folder for folder in _TEST_FOLDERS if folder in classed), None)
        others = {name: count for name, count in folders.items() if name not in ("train", test)}
        if others:
            logger.warning("%s: neither training nor test part, passed over: %s", where, others)
        train, held_back = (
            [(parts[1:], name) for parts, name in pairs if parts[0] == folder]
            for folder in ("train", test)
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
    return by_class, test_by_class or None


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
    held_back = stratified(
        targets,
        int(np.ceil(len(targets) * test_fraction)),
        seeds.generator(workspace.seed, "split"),
    )
    train, test = np.flatnonzero(~held_back), np.flatnonzero(held_back)
    return (
        train[subset_rows(targets[train], subset, "train", workspace)],
        test[subset_rows(targets[test], subset, "test", workspace)],
    )


def _decoded(
    contents: Iterable[tuple[int, str, bytes]],
    count: int,
    workspace: Workspace,
    part: str,
    *,
    size: int | None,
    margin: float,
    seen: dict[tuple[int, int], str],
) -> np.ndarray:
    """Decode (row, name, content) of ``count`` images into bytes, (n, 3, height, width).

    ``seen`` remembers the size of the first image, where no size is asked for.
    """
    images: np.ndarray | None = None
    decode = partial(_decode, size=size, margin=margin)
    with ThreadPoolExecutor(workspace.threads) as pool:
        for chunk in _chunks(contents):
            names = [name for _, name, _ in chunk]
            for (row, name, _), pixels in zip(
                chunk, pool.map(decode, [c for *_, c in chunk], names), strict=True
            ):
                shape = pixels.shape[1:]
                seen.setdefault(shape, name)
                if len(seen) > 1:
                    (first, of), (other, another), *_ = seen.items()
                    raise ValueError(
                        f"the images differ in size: {of} is {first}, {another} is {other} "
                        "(height, width); set image_size"
                    )
                if images is None:
                    images = workspace.room(part, (count, *pixels.shape))
                images[row] = pixels
    if images is None:
        side = next(iter(seen), (size or 0, size or 0))
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


def _decode(content: bytes, name: str, *, size: int | None, margin: float) -> np.ndarray:
    """An image as bytes, (3, height, width), scaled and cut to ``size`` if that is given."""
    try:
        with Image.open(io.BytesIO(content)) as opened:
            image = opened.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{name}: not an image that can be read: {error}") from error
    if size is not None and image.size != (size, size):
        target = round(size * margin)
        scale = target / min(image.size)
        width, height = (max(target, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - size) // 2, (height - size) // 2
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(image).transpose(2, 0, 1)


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
            caption = sorted(name for name in names if name.endswith((".json", ".txt")))
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
            text = opened.read(caption).decode("utf-8")
            if caption.endswith(".json"):
                text = json.loads(text).get("caption")
                if not isinstance(text, str):
                    raise ValueError(f"{path}: {caption}: no text under 'caption'")
            captions.append(text.strip())
            yield row, f"{path}: {image}", opened.read(image)
    finally:
        if opened is not None:
            opened.close()
