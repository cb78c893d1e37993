"""Data sets as the steps of the workflow see them: samples by part and row, from one NPZ file.

``sgnoise.data.sources`` makes a data set; everything else reads it from here.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zipfile
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from sgnoise.files import atomic_path
from sgnoise.messages import unknown_name

KINDS = ("table", "image", "text", "image_text")
# Token that fills up a text to the length of the array; a network must not look at it.
PADDING = 0

Part = Literal["train", "test"]
Rows = np.ndarray | slice

_LOCAL_HEADER = 30


@dataclass(frozen=True)
class Dataset:
    """A data set, ready for a network. Consumers read samples through ``batch``.

    The arrays are what is stored, and may be mapped from a file: tables and images of
    floating-point numbers standardised (float32), images of bytes as they are (uint8; ``batch``
    standardises them), texts as token ids (int64, 0 where there is none).

    Attributes:
        train_inputs: (n, features), (n, channels, height, width) or, of texts, (n, length).
        train_targets: int64, (n,), classes counted from 0; of ``image_text`` the texts' token ids,
            (n, length).
        test_inputs: as ``train_inputs``, with the statistics of the training part; may be empty.
        test_targets: as ``train_targets``.
        classes: the number of classes; of ``image_text`` 0.
        description: plain values: source, licence, sizes, class names.
        kind: ``table``, ``image``, ``text`` or ``image_text``.
        vocabulary: of texts the number of token ids, padding included; else None.
        scaling: of images of bytes what each byte becomes, float32, (channels, 256), else None.
    """

    train_inputs: np.ndarray
    train_targets: np.ndarray
    test_inputs: np.ndarray
    test_targets: np.ndarray
    classes: int
    description: dict[str, Any]
    kind: str = "table"
    vocabulary: int | None = None
    scaling: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown_name("kind of data set", self.kind, KINDS)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return self.train_inputs.shape[1:]

    def size(self, part: Part) -> int:
        """The number of samples in a part."""
        return len(self._stored(part)[1])

    def nbytes(self, part: Part) -> int:
        """Bytes of memory that all inputs of a part take, as ``batch`` gives them."""
        inputs, _ = self._stored(part)
        return inputs.size * (8 if self.kind == "text" else 4)

    def batch(self, part: Part, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Samples as a network takes them.

        Args:
            part: ``train`` or ``test``.
            rows: which, as integers in any order or as a slice (``slice(None)``: all).

        Returns:
            Inputs, float32 (standardised) or, of texts, int64; and targets, int64. New arrays.
        """
        inputs, targets = self._stored(part)
        taken = _own(inputs, rows)
        if self.scaling is not None:
            levels, taken = taken, np.empty(taken.shape, np.float32)
            for channel, scaled in enumerate(self.scaling):
                taken[:, channel] = scaled[levels[:, channel]]
        return taken, _own(targets, rows)

    @cached_property
    def digest(self) -> str:
        """A digest of all samples, of how they are standardised, and of nothing else."""
        digest = hashlib.sha256(json.dumps([self.kind, self.classes, self.vocabulary]).encode())
        stored = (*self._stored("train"), *self._stored("test"), self.scaling)
        for array in stored:
            if array is not None:
                digest.update(f"{array.dtype} {array.shape}".encode())
                for first in range(0, len(array), 1024):
                    digest.update(array[first : first + 1024].tobytes())
        return digest.hexdigest()

    def _stored(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        if part == "train":
            return self.train_inputs, self.train_targets
        if part == "test":
            return self.test_inputs, self.test_targets
        raise unknown_name("part of a data set", part, ("train", "test"))


def _own(array: np.ndarray, rows: Rows) -> np.ndarray:
    """Some rows as a new array: a slice alone would be a view, of a file not even in memory."""
    taken = np.asarray(array[rows])
    return taken.copy() if isinstance(rows, slice) else taken


def save(dataset: Dataset, arrays_path: str, manifest_path: str) -> None:
    """Write the arrays, and a manifest (JSON) with source, licence, shapes and the arrays' sha256.

    The same data set gives the same bytes.
    """
    arrays = {
        "train_inputs": dataset.train_inputs,
        "train_targets": dataset.train_targets,
        "test_inputs": dataset.test_inputs,
        "test_targets": dataset.test_targets,
    }
    if dataset.scaling is not None:
        arrays["scaling"] = dataset.scaling
    about = {
        **dataset.description,
        "kind": dataset.kind,
        "classes": dataset.classes,
        "vocabulary": dataset.vocabulary,
    }
    with atomic_path(arrays_path) as temporary:
        text = np.array(json.dumps(about, sort_keys=True))
        np.savez(temporary, allow_pickle=False, **arrays, about=text)
        with open(temporary, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    manifest = {
        **about,
        "arrays": {
            name: {"shape": list(array.shape), "type": str(array.dtype)}
            for name, array in arrays.items()
        },
        "arrays_sha256": digest,
    }
    with atomic_path(manifest_path) as temporary:
        temporary.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", "utf-8")


def load(arrays_path: str) -> Dataset:
    """What ``save`` wrote, with the arrays mapped from the file: read when they are used."""
    arrays = _mapped(arrays_path)
    about = json.loads(str(arrays.pop("about")))
    return Dataset(
        **arrays,
        kind=about.pop("kind"),
        classes=about.pop("classes"),
        vocabulary=about.pop("vocabulary"),
        description=about,
    )


def _mapped(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of an uncompressed NPZ file, mapped; ``numpy.load`` maps NPY files only.

    Raises:
        ValueError: an array is compressed, or holds pickled objects.
    """
    arrays: dict[str, np.ndarray] = {}
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            # Before the data stand a header of fixed length, the name, and an extra field.
            file.seek(member.header_offset)
            name_length, extra_length = struct.unpack("<26x2H", file.read(_LOCAL_HEADER))
            file.seek(name_length + extra_length, os.SEEK_CUR)
            stored = member.compress_type == zipfile.ZIP_STORED
            if not stored or np.lib.format.read_magic(file) != (1, 0):
                raise ValueError(f"{path}: {name!r} is not as this workflow writes it")
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
            if dtype.hasobject:
                raise ValueError(f"{path}: {name!r} holds pickled objects")
            order: Literal["F", "C"] = "F" if fortran else "C"
            if 0 in shape:
                arrays[name] = np.empty(shape, dtype, order)
            else:
                arrays[name] = np.memmap(path, dtype, "r", file.tell(), shape, order)
    return arrays
