"""Readers of sentences: CoLA, as token ids of a published tokenizer or of its own words."""

from __future__ import annotations

import csv
import logging
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sgnoise.data.datasets import PADDING
from sgnoise.data.downloads import RemoteFile, obtain
from sgnoise.data.reading import Raw, Workspace

logger = logging.getLogger("sgnoise")

# Tokens of the vocabulary of words, besides the words: what fills up, what is not known, and what
# begins and ends a sentence, at the numbers at which BERT's tokenizer has them.
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")

_COMMIT = "dd095d3646ed05a315280aaa8ed4ec84ba435b3e"
_FOLDER = "acceptability_corpus/cola_public/raw"


def _file(name: str, digest: str) -> RemoteFile:
    address = f"https://raw.githubusercontent.com/nyu-mll/CoLA-baselines/{_COMMIT}/{_FOLDER}/{name}"
    return RemoteFile(name, address, "sha256", digest)


_TRAIN = _file(
    "in_domain_train.tsv", "f320a10f92d3bce6b29152fde322a362eac39238e50d8de0c8815457fdf4fc12"
)
_TEST = _file(
    "in_domain_dev.tsv", "77176f6a03faa5a1c4f23c69971fc1bff565931112fb65af47b2d6e24b7f42f7"
)
_OUT_OF_DOMAIN = _file(
    "out_of_domain_dev.tsv", "201b9c57b2a20f1282242eec0ed8995729e3be19c29a46c047b3727338836c05"
)


def read_cola(
    workspace: Workspace,
    *,
    tokenizer: str = "words",
    vocabulary: int = 5000,
    length: int | None = None,
    out_of_domain: bool = False,
) -> Raw:
    """The Corpus of Linguistic Acceptability: is a sentence of English acceptable?

    Args:
        workspace: see there.
        tokenizer: ``words``: the most frequent words of the training part; or the name or folder
            of a Hugging Face tokenizer, such as ``bert-base-uncased``.
        vocabulary: of ``words``: how many, special tokens included.
        length: tokens of a sentence, special ones included; longer ones are cut. None: as many as
            the longest has.
        out_of_domain: whether the test part has the sentences from other sources as well.

    Raises:
        ValueError: the files are not as expected, or the tokenizer cannot be had.
    """
    files = {"train": [_TRAIN], "test": [_TEST, *([_OUT_OF_DOMAIN] if out_of_domain else [])]}
    sentences: dict[str, list[str]] = {}
    targets: dict[str, np.ndarray] = {}
    for part, remotes in files.items():
        rows: list[tuple[int, str]] = []
        for remote in remotes:
            rows += _read_tsv(obtain(remote, folder=workspace.downloads, mirror=workspace.mirror))
        targets[part] = np.array([label for label, _ in rows], np.int64)
        sentences[part] = [sentence for _, sentence in rows]
    description = {
        "name": "cola",
        "title": "CoLA (Corpus of Linguistic Acceptability)",
        "source": f"https://github.com/nyu-mll/CoLA-baselines/tree/{_COMMIT}/{_FOLDER}",
        "source_sha256": {file.name: file.digest for part in files.values() for file in part},
        "licence": "the sentences belong to their authors; research use",
        "tokenizer": tokenizer,
    }
    if tokenizer == "words":
        words = frequent_words(sentences["train"], vocabulary)
        description["words"] = words
        size = len(words)
        ids = {part: word_ids(texts, words) for part, texts in sentences.items()}
    else:
        size, ids = _hugging_face_ids(tokenizer, sentences)
    longest = max(len(row) for part in ids.values() for row in part)
    width = longest if length is None else length
    cut = sum(len(row) > width for part in ids.values() for row in part)
    if cut:
        logger.warning("%d sentences are cut to %d tokens; the longest has %d", cut, width, longest)
    return Raw(
        kind="text",
        inputs=_padded(ids["train"], width),
        targets=targets["train"],
        class_names=["unacceptable", "acceptable"],
        description=description,
        test=(_padded(ids["test"], width), targets["test"]),
        vocabulary=size,
    )


def words_of(sentence: str) -> list[str]:
    """Words in lower case, and marks one by one."""
    return re.findall(r"\w+(?:'\w+)?|[^\w\s]", sentence.lower())


def frequent_words(sentences: Sequence[str], count: int) -> list[str]:
    """The special tokens and the most frequent words, ``count`` in all; ties by the alphabet."""
    counts = Counter(word for sentence in sentences for word in words_of(sentence))
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    return [*SPECIAL, *ordered[: max(0, count - len(SPECIAL))]]


def word_ids(sentences: Sequence[str], words: Sequence[str]) -> list[list[int]]:
    """Each sentence as positions in ``words``, between the marks of its beginning and end."""
    number = {word: index for index, word in enumerate(words)}
    unknown, start, end = (number[mark] for mark in SPECIAL[1:])
    return [
        [start, *(number.get(word, unknown) for word in words_of(sentence)), end]
        for sentence in sentences
    ]


def _hugging_face_ids(
    name: str, sentences: dict[str, list[str]]
) -> tuple[int, dict[str, list[list[int]]]]:
    """The size of the tokenizer's vocabulary, and the ids of each sentence."""
    try:
        from transformers import AutoTokenizer
    except ModuleNotFoundError as error:
        raise ValueError(
            f"tokenizer {name!r} needs the optional library transformers: pip install transformers"
        ) from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"tokenizer {name!r} cannot be had ({error}). It comes from the Hugging Face hub; "
            "without internet name a folder that holds one, or use 'words'"
        ) from error
    if tokenizer.pad_token_id != PADDING:
        raise ValueError(
            f"tokenizer {name!r} fills up with the id {tokenizer.pad_token_id}; the networks here "
            f"take {PADDING} for padding"
        )
    return len(tokenizer), {
        part: tokenizer(texts, add_special_tokens=True)["input_ids"]
        for part, texts in sentences.items()
    }


def _padded(ids: Sequence[Sequence[int]], width: int) -> np.ndarray:
    """Token ids, int64, (sentences, width): cut, or filled up."""
    padded = np.full((len(ids), width), PADDING, np.int64)
    for row, sentence in zip(padded, ids, strict=True):
        # The last token, the mark of the end, stays.
        if len(sentence) > width:
            sentence = [*sentence[: width - 1], sentence[-1]]
        row[: len(sentence)] = sentence
    return padded


def _read_tsv(path: Path) -> list[tuple[int, str]]:
    """Label and sentence of each line: source, label, mark of the author, sentence."""
    rows = []
    with open(path, encoding="utf-8", newline="") as file:
        lines = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        for number, fields in enumerate(lines, start=1):
            if len(fields) != 4 or fields[1] not in ("0", "1"):
                raise ValueError(
                    f"{path}: line {number}: expected source, 0 or 1, mark and sentence, between "
                    "tabs"
                )
            rows.append((int(fields[1]), fields[3]))
    return rows
