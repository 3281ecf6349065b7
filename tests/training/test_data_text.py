"""Texts as data: what files are taken for, what is dropped is said, and what is broken is refused in one line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gensdk.cli.main import run
from gensdk.cli.train import parse_text_options
from gensdk_runtime.errors import InputError
from gensdk_training.data import load_data
from gensdk_training.data.dataset import holdout_indices
from gensdk_training.data.description import describe
from gensdk_training.data.feed import Feed
from gensdk_training.data.text_file import MAX_CHARACTERS
from gensdk_training.data.text_options import TextOptions
from gensdk_training.data.text_set import TextDataset, text_parts
from gensdk_training.family import DataInfo
from gensdk_training.run_config import DataConfig, RunConfig, identity

SENTENCES = ["A cat sat.", "the cat, the mat", "a dog (and a cat)", "Don't sit!", "a cat sat."] * 4


def write(path: Path, lines: list[str]) -> str:
    data = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def opened(spec: str, **options: Any) -> TextDataset:
    dataset = load_data(spec, **options)
    assert isinstance(dataset, TextDataset)
    return dataset


def notes(dataset: TextDataset) -> str:
    return "\n".join(describe(dataset).lines())


ROWS: dict[str, list[str]] = {
    "x.txt": SENTENCES,
    "x.txt.gz": SENTENCES,
    "x.tsv": [f"{at}\t{text}" for at, text in enumerate(SENTENCES)],
    "headed.tsv": ["id\tText", *(f"{at}\t{text}" for at, text in enumerate(SENTENCES))],
    "table.txt": [f"{at}\t{text}" for at, text in enumerate(SENTENCES)],
    "x.jsonl": [json.dumps({"n": at, "text": text}) for at, text in enumerate(SENTENCES)],
    "x.jsonl.gz": [json.dumps({"text": text}) for text in SENTENCES],
}


@pytest.mark.parametrize("name", ROWS)
def test_each_form_gives_the_same_texts(name: str, tmp_path: Path) -> None:
    dataset = opened(write(tmp_path / name, ROWS[name]), text=TextOptions(min_count=1))
    assert dataset.texts == tuple(SENTENCES)
    vocabulary = dataset.info.require_text().vocabulary
    batch = dataset.batch(np.arange(len(dataset)))
    special = vocabulary.special
    for row, length, text in zip(batch.images.tolist(), batch.lengths.tolist(), SENTENCES, strict=True):
        assert (row[0], row[length - 1]) == (special.begin, special.end)
        assert set(row[length:]) <= {special.pad}
        assert vocabulary.decode(row) == text.lower()
    assert batch.images.dtype == np.int64
    assert batch.labels is None
    assert dataset.info.output.shape == (batch.images.shape[1] - 1,)
    assert dataset.info.kind == "texts"


def test_a_batch_of_the_trainer(tmp_path: Path) -> None:
    dataset = opened(write(tmp_path / "x.txt", SENTENCES))
    feed = Feed(dataset, seed=0, batch_size=4, device=torch.device("cpu"))
    batch = feed.batch(0)
    assert (batch.images.dtype, batch.images.shape) == (torch.int64, (4, dataset.info.width + 1))
    assert batch.lengths is not None
    assert torch.equal(batch.lengths, (batch.images != 0).sum(dim=1))
    assert feed.spread(20).lengths is not None


def test_information_goes_through_json(tmp_path: Path) -> None:
    info = opened(write(tmp_path / "x.txt", SENTENCES)).info
    assert DataInfo.from_json(info.to_json(), what="x") == info
    for ask, kind in ((info.require_points, "points"), (lambda: info.image, "images")):
        with pytest.raises(InputError, match=f"expected {kind}, but 'x' are texts"):
            ask()


def test_parts_are_those_of_all_data_and_their_duplicates_are_said(tmp_path: Path) -> None:
    spec = write(tmp_path / "x.txt", [f"text number {at % 150}" for at in range(200)])
    options = TextOptions(valid=0.2, min_count=1)
    parts: dict[str, TextDataset] = {
        split: opened(spec, holdout=0.1, split=split, text=options) for split in ("train", "valid", "test")
    }
    assert [len(part) for part in parts.values()] == [140, 40, 20]
    assert len({part.info.require_text() for part in parts.values()}) == 1, "one vocabulary, one length"
    shared = sum(text in set(parts["train"].texts) for text in parts["test"].texts)
    assert f"{shared} of the 20 test texts are among the training texts" in notes(parts["test"])
    assert "test, of 140 train, 40 valid, 20 test" in notes(parts["test"])
    assert opened(spec, holdout=0.1, split="test", text=options).fingerprint == parts["test"].fingerprint
    with pytest.raises(InputError, match="the valid part of 200 texts is empty"):
        load_data(spec, split="valid")


@given(st.integers(3, 300), st.floats(0, 0.4), st.floats(0, 0.4))
def test_parts_are_a_partition(count: int, test: float, valid: float) -> None:
    parts = text_parts(count, test, valid)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(count))
    assert parts["test"].tolist() == (holdout_indices(count, test, "test").tolist() if round(test * count) else [])


def test_the_vocabulary_knows_the_training_part_alone(tmp_path: Path) -> None:
    spec = write(tmp_path / "x.txt", [f"word{at}" for at in range(40)])
    train = opened(spec, holdout=0.25, text=TextOptions(min_count=1))
    test = opened(spec, holdout=0.25, split="test", text=TextOptions(min_count=1))
    assert train.info.require_text().vocabulary.size == 4 + 30
    assert "100.00% of the tokens of the test part (10 of 10)" in notes(test)
    assert (test.tokens[:, 1] == 3).all()


def test_scores_become_classes(tmp_path: Path) -> None:
    scores = [2.5, -1.0, 0.2, -0.5, 0.5, 3.0, -4.0, 0.0]
    lines = [f"{at}\t{score}\ttext number {at}" for at, score in enumerate(scores)]
    dataset = opened(write(tmp_path / "x.txt", lines), text=TextOptions(threshold=0.5, min_count=1))
    assert dataset.info.class_names == ("negative", "positive")
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [1, 0, 1, 0]
    assert [text[-1] for text in dataset.texts] == ["0", "1", "5", "6"]
    assert "4 texts between are left out" in notes(dataset)
    assert "negative (2), positive (2)" in notes(dataset)
    named = opened(write(tmp_path / "y.tsv", ["label\ttext", "good\ta cat", "bad\ta dog", "good\ta mat"]))
    assert named.info.class_names == ("bad", "good")
    assert opened(str(tmp_path / "y.tsv"), labels="none").labels is None
    assert opened(str(tmp_path / "y.tsv"), only=["good"]).texts == ("a cat", "a mat")


def test_what_is_long_is_dropped_or_cut_and_told(tmp_path: Path) -> None:
    spec = write(tmp_path / "x.txt", ["a b", "a b c d e f", "a b c"] * 2)
    dropped = opened(spec, text=TextOptions(length=4))
    assert dropped.texts == ("a b", "a b c") * 2
    assert "2 texts of over 3 tokens are left out" in notes(dropped)
    cut = opened(spec, text=TextOptions(length=4, over_long="cut"))
    assert len(cut) == 6
    assert cut.info.require_text().vocabulary.decode(cut.tokens[1].tolist()) == "a b c"
    with pytest.raises(InputError, match="all texts have over 1 tokens"):
        load_data(spec, text=TextOptions(length=2))


def test_what_nobody_sees_is_taken_out_and_told(tmp_path: Path) -> None:
    lines = ["a\u200bb  c\u00a0d", "", "\u202e", "e\u0301 x\x1b[2J", "\ufeffplain"]
    dataset = opened(write(tmp_path / "x.txt", lines), text=TextOptions(min_count=1))
    assert dataset.texts == ("ab c d", "é x[2J", "plain")
    assert "4 texts had characters that nobody sees" in notes(dataset)
    assert "1 texts are empty and left out" in notes(dataset)
    assert "1 empty lines skipped" in notes(dataset)
    vocabulary = dataset.info.require_text().vocabulary
    assert all(vocabulary.surface(token).isprintable() for token in range(vocabulary.size))


def test_min_count_and_the_largest_vocabulary(tmp_path: Path) -> None:
    spec = write(tmp_path / "x.txt", ["c c c b b a", "c b"])
    assert opened(spec, text=TextOptions(min_count=3)).info.require_text().vocabulary.size == 4 + 2
    many = write(tmp_path / "y.txt", [f"w{at}" for at in range(20)] * 2)
    assert opened(many, text=TextOptions(most=8)).info.require_text().vocabulary.size == 8
    with pytest.raises(InputError, match="no words stand 9 times in it; lower"):
        load_data(spec, text=TextOptions(min_count=9))


BROKEN: dict[str, tuple[str, bytes, str]] = {
    "latin": ("x.txt", b"a cat\ncaf\xe9 noir\n", r"byte 0xe9 at 9 \(line 2\) is not UTF-8; convert it"),
    "utf-16": ("x.txt", "a cat".encode("utf-16"), r"byte 0xff at 0 \(line 1\) is not UTF-8"),
    "empty": ("x.txt", b"\n \n", "there are no texts in it"),
    "unseen": ("x.txt", "\u200b\n".encode(), "there are no texts in it"),
    "cut gzip": ("x.txt.gz", gzip.compress(b"a cat sat " * 99)[:30], "can't be read"),
    "no gzip": ("x.txt.gz", b"a cat sat", "can't be read"),
    "bent gzip": ("x.txt.gz", gzip.compress(b"a cat")[:10] + b"\xff" * 20, "can't be read"),
    "ragged": ("x.tsv", b"1\ta\n2\tb\tc\n", "expected 2 columns in each line, got 3 in line 2"),
    "header alone": ("x.tsv", b"label\ttext\n", "there are no texts"),
    "no JSON": ("x.jsonl", b'{"text": "a"}\nnot\n', "line 2 is no JSON object"),
    "deep JSON": ("x.jsonl", b"[" * 9999 + b"\n", "line 1 is no JSON object"),
    "no text": ("x.jsonl", b'{"words": "a"}\n', "line 1 has no text under 'text'"),
    "text is a number": ("x.jsonl", b'{"text": "a"}\n{"text": 7}\n', "line 2 has no text"),
    "long": ("x.txt", b"a" * (MAX_CHARACTERS + 1), "at most 65536 are read"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    name, data, reason = BROKEN[case]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=reason) as caught:
        load_data(str(tmp_path / name))
    assert str(caught.value).isprintable()


def test_a_bomb_is_refused_before_it_goes_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gensdk_training.data.text_file.MAX_BYTES", 1000)
    (tmp_path / "x.txt.gz").write_bytes(gzip.compress(b"a " * 10**6))
    with pytest.raises(InputError, match="over 1000 bytes of text"):
        load_data(str(tmp_path / "x.txt.gz"))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"size": 4}, "size is for images, and these data are texts"),
        ({"channels": 3}, "channels is for images"),
        ({"labels": "stars"}, "it has no columns, so no labels 'stars'"),
        ({"text": TextOptions(threshold=1.0)}, "a threshold is for scores"),
        ({"holdout": 0.6, "text": TextOptions(valid=0.5)}, "no text of 20 is left to train on"),
        ({"split": "tset"}, "expected split 'train' or 'test' or 'valid'"),
        ({"inputs": "digits"}, "inputs go with images"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason):
        load_data(write(tmp_path / "x.txt", SENTENCES), **options)


def test_tables_say_which_column_is_missing(tmp_path: Path) -> None:
    spec = write(tmp_path / "x.tsv", ["stars\ttext", "1.5\ta cat", "-2.5\ta dog"])
    for options, reason in (
        ({"labels": "star"}, "no column 'star' of labels; did you mean 'stars'"),
        ({"text": TextOptions(column=7)}, "no column '7' of texts"),
        ({"labels": "text", "text": TextOptions(threshold=1)}, "expected scores, numbers"),
        ({"labels": "stars", "text": TextOptions(threshold=9)}, "all scores lie within 9 of 0"),
    ):
        with pytest.raises(InputError, match=reason):
            load_data(spec, **options)
    assert opened(spec, labels="stars", text=TextOptions(threshold=1, min_count=1)).labels is not None


def test_text_options_are_for_texts() -> None:
    with pytest.raises(InputError, match="text options are for texts, and 'digits' are images"):
        load_data("digits", text=TextOptions())
    with pytest.raises(InputError, match="a validation part is for texts"):
        load_data("digits", split="valid")
    with pytest.raises(InputError, match="a tokenizer brings its own rule; leave min_count out"):
        TextOptions.from_dict({"tokenizer": "x.json", "min_count": 3}, what="x")


def test_a_tokenizer_of_the_library(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="the extra text is not installed")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    trainer = tokenizers.trainers.WordLevelTrainer(
        special_tokens=["<pad>", "<unk>", "<s>", "</s>"], show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.save(str(tmp_path / "own.json"))
    spec = write(tmp_path / "x.txt", SENTENCES)
    dataset = opened(spec, text=TextOptions(tokenizer=str(tmp_path / "own.json")))
    assert describe(dataset).values == "tokenizers, WordLevel"
    assert dataset.info.require_text().vocabulary.special.end == 3
    assert DataInfo.from_json(dataset.info.to_json(), what="x") == dataset.info
    for text, reason in (("{}", "it has no begin token"), ("[", "not the JSON of a tokenizer")):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(InputError, match=reason):
            load_data(spec, text=TextOptions(tokenizer=str(tmp_path / "bad.json")))


def test_a_run_keeps_its_text_options(tmp_path: Path) -> None:
    dataset = opened(write(tmp_path / "x.txt", SENTENCES))
    plain = RunConfig(family="vae", data=DataConfig(source="x.txt"))
    chosen = plain.model_copy(update={"data": DataConfig(source="x.txt", text=TextOptions(min_count=3))})
    first, second = (identity(each, dataset.info, dataset.fingerprint, 1) for each in (plain, chosen))
    assert "data.text.min_count" not in first
    assert second["data.text.min_count"] == 3
    assert RunConfig.from_json(chosen.to_json(), what="x") == chosen
    assert parse_text_options(("min_count=3", "vocabulary=characters")) == {
        "min_count": 3,
        "vocabulary": "characters",
    }
    with pytest.raises(InputError, match="expected --text KEY=VALUE"):
        parse_text_options(("min_count",))


def test_other_families_refuse_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = write(tmp_path / "x.txt", SENTENCES)
    assert run(["train", "vae", "--data", spec, "--dry-run"]) == 5
    assert "vae makes images, but 'x' are texts" in capsys.readouterr().err
