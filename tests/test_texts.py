"""Readers of sentences, on small files of the layout of the real ones."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from sgnoise.data import datasets, texts
from sgnoise.data.downloads import RemoteFile
from sgnoise.data.sources import prepare

TRAIN = "gj04\t1\t\tThe cat won't sit.\ngj04\t0\t*\tThe the cat.\ngj04\t1\t\t\"Sit!\n"
TEST = "gj04\t0\t*\tThe bird sat.\n"
OTHER = "cj99\t1\t\tBirds sing.\ncj99\t0\t?*\tSit cat the.\n"


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror with small files in the place of those of CoLA."""
    for name, content in (("_TRAIN", TRAIN), ("_TEST", TEST), ("_OUT_OF_DOMAIN", OTHER)):
        real: RemoteFile = getattr(texts, name)
        digest = hashlib.sha256(content.encode()).hexdigest()
        monkeypatch.setattr(texts, name, RemoteFile(real.name, None, "sha256", digest))
        (tmp_path / real.name).write_text(content)
    return tmp_path


def decoded(dataset: datasets.Dataset, part: datasets.Part) -> list[str]:
    words = dataset.description["words"]
    inputs, _ = dataset.batch(part, slice(None))
    return [" ".join(words[index] for index in row if index) for row in inputs]


def test_cola_as_words(mirror: Path) -> None:
    dataset = prepare({"source": "cola"}, seed=1, mirror=mirror)
    assert dataset.kind == "text"
    assert decoded(dataset, "train") == [
        "[CLS] the cat won't sit . [SEP]",
        "[CLS] the the cat . [SEP]",
        '[CLS] " sit ! [SEP]',
    ]
    assert decoded(dataset, "test") == ["[CLS] the [UNK] [UNK] . [SEP]"]
    assert dataset.train_targets.tolist() == [1, 0, 1]
    assert dataset.test_targets.tolist() == [0]
    assert dataset.input_shape == (7,)
    assert dataset.vocabulary == len(dataset.description["words"]) == 4 + 7
    assert dataset.train_inputs.dtype == np.int64
    assert (dataset.train_inputs[2, 5:] == datasets.PADDING).all()
    assert dataset.description["class_names"] == ["unacceptable", "acceptable"]


def test_the_most_frequent_words_are_kept(mirror: Path) -> None:
    dataset = prepare({"source": "cola", "vocabulary": 6}, seed=1, mirror=mirror)
    assert dataset.description["words"] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "."]
    assert dataset.vocabulary == 6
    assert dataset.train_inputs.max() == 5


def test_long_sentences_are_cut_and_counted(mirror: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = prepare({"source": "cola", "length": 5}, seed=1, mirror=mirror)
    assert decoded(dataset, "train")[0] == "[CLS] the cat won't [SEP]"
    assert dataset.input_shape == (5,)
    assert "3 sentences are cut to 5 tokens; the longest has 7" in caplog.text


def test_the_sentences_of_other_sources_are_added_when_asked_for(mirror: Path) -> None:
    dataset = prepare({"source": "cola", "out_of_domain": True}, seed=1, mirror=mirror)
    assert dataset.test_targets.tolist() == [0, 1, 0]
    assert dataset.size("train") == 3


def test_a_tokenizer_of_hugging_face(mirror: Path) -> None:
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sit", "##s", ".", "bird"]
    folder = mirror / "tokenizer"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    )
    spec = {"source": "cola", "tokenizer": str(folder)}
    dataset = prepare(spec, seed=1, mirror=mirror)
    known = transformers.AutoTokenizer.from_pretrained(str(folder))
    assert dataset.vocabulary == len(words)
    for row, sentence in zip(
        dataset.train_inputs, ["The cat won't sit.", "The the cat.", '"Sit!'], strict=True
    ):
        expected = known(sentence)["input_ids"]
        assert row[: len(expected)].tolist() == expected
        assert (row[len(expected) :] == 0).all()


def test_a_tokenizer_that_cannot_be_had_is_explained(
    mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    spec = {"source": "cola", "tokenizer": str(mirror / "absent")}
    with pytest.raises(ValueError, match=r"absent' cannot be had .* or use 'words'"):
        prepare(spec, seed=1, mirror=mirror)


def test_a_file_of_another_layout_is_refused(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = "gj04\t1\tno mark\n"
    (mirror / "in_domain_dev.tsv").write_text(content)
    digest = hashlib.sha256(content.encode()).hexdigest()
    monkeypatch.setattr(texts, "_TEST", RemoteFile("in_domain_dev.tsv", None, "sha256", digest))
    with pytest.raises(ValueError, match=r"in_domain_dev.tsv: line 1: expected source, 0 or 1"):
        prepare({"source": "cola"}, seed=1, mirror=mirror)
