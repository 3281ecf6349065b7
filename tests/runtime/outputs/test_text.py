"""Models of text: sampling, files, the way back, bundles with a vocabulary, and clear refusals."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gensdk.cli.main import run
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.bundles.writer import write_bundle
from gensdk_runtime.errors import (
    BackendError,
    BundleError,
    GensdkWarning,
    InputError,
    IntegrityError,
    ManifestError,
)
from gensdk_runtime.generator import Generator
from gensdk_runtime.outputs.text import TextOutput
from gensdk_runtime.samples import Samples
from gensdk_runtime.spec.manifest import Manifest
from gensdk_runtime.spec.outputs import TextSpec
from gensdk_runtime.text.lines import MAX_FILE, from_line
from gensdk_runtime.text.vocabulary import SpecialTokens, Vocabulary
from gensdk_runtime.text.words import Words
from support.models import feedforward_model, generator
from support.texts import (
    CHARACTERS,
    GRAPH,
    LENGTH,
    VOCABULARIES,
    WORDS,
    files_of,
    text_manifest,
    text_model,
    writer,
    writer_onnx,
    written,
)
from support.tiny_bundle import lay_out, sealed


def opened(vocabulary: Vocabulary = WORDS, classes: int | None = None) -> Generator:
    model = text_model(vocabulary, classes=classes)
    return generator(model, {"writer": writer(vocabulary.size)}, files_of(vocabulary))


def drawn(n: int = 11, vocabulary: Vocabulary = WORDS, classes: int | None = None) -> Samples:
    with opened(vocabulary, classes) as model:
        return model.sample(n, seed=3)


@pytest.mark.parametrize("name", sorted(VOCABULARIES))
def test_texts_don_t_depend_on_their_batch(name: str) -> None:
    vocabulary = VOCABULARIES[name]
    with opened(vocabulary) as model:
        samples = model.sample(20, seed=3)
        head = model.sample(4, seed=3, batch_size=3)
        again = model.sample(settings=samples[7:9].settings)
    assert samples.array.shape == (20, LENGTH)
    assert samples.array.dtype == np.int64
    assert samples.texts == [vocabulary.decode(row) for row in samples.array.tolist()]
    assert head.texts == samples.texts[:4]
    assert again.texts == samples[7:9].texts == samples.texts[7:9]
    assert len(set(samples.texts)) > 10
    assert repr(samples).startswith(f"<Samples: 20 texts of up to {LENGTH} tokens, of writer")


def test_lengths_end_a_text() -> None:
    samples = drawn(3)
    short = Samples(**{**vars(samples), "lengths": np.array([1, 0, LENGTH])})
    assert short.texts == [WORDS.decode(samples.array[0, :1].tolist()), "", samples.texts[2]]
    assert short[1:].lengths is not None
    assert short[1:].lengths.tolist() == [0, LENGTH]
    assert short[2].texts == [samples.texts[2]]
    assert samples[1:].lengths is None


@pytest.mark.parametrize("name", sorted(VOCABULARIES))
@pytest.mark.parametrize("classes", [None, 3])
def test_saved_texts_come_back(name: str, classes: int | None, tmp_path: Path) -> None:
    samples = drawn(40, VOCABULARIES[name], classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GensdkWarning)
        lines = samples.save(tmp_path / "all.txt").read_text(encoding="utf-8").split("\n")
    assert [from_line(line) for line in lines] == [*samples.texts, ""]
    rows = [json.loads(line) for line in samples.save(tmp_path / "all.jsonl").read_text("utf-8").splitlines()]
    assert [row["text"] for row in rows] == samples.texts
    assert [row["tokens"] for row in rows] == samples.array.tolist()
    assert [tuple(row["seed"]) for row in rows] == list(samples.seeds)
    assert [row.get("label") for row in rows] == (
        [None] * 40 if samples.labels is None else samples.labels.tolist()
    )
    with np.load(samples.save(tmp_path / "all.npz")) as file:
        np.testing.assert_array_equal(file["array"], samples.array)
        assert file["texts"].tolist() == samples.texts
    folder = samples.save(tmp_path / "folder")
    files = sorted(folder.iterdir())
    assert [file.read_text("utf-8") for file in files] == [f"{text}\n" for text in samples.texts]
    with pytest.raises(InputError, match=r"holds 40 texts of an earlier run \(00000.txt\)"):
        samples.save(folder)
    page = samples.save(tmp_path / "page.png")
    assert page.stat().st_size > 1000
    assert samples.picture().dtype == np.uint8
    assert samples._repr_png_() is not None


def test_line_breaks_in_a_file_of_lines_are_told(tmp_path: Path) -> None:
    samples = drawn(40, CHARACTERS)
    broken = sum(bool({"\n", "\\"} & set(text)) for text in samples.texts)
    assert broken > 0
    with pytest.warns(GensdkWarning, match=f"{broken} of 40 texts hold line breaks"):
        samples.save(tmp_path / "x.txt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn(40).save(tmp_path / "y.txt")


@pytest.mark.parametrize("name", ["x.csv", "x.mid"])
def test_other_files_are_refused_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"use a file with one of \.txt, \.jsonl, \.npz"):
        drawn().save(tmp_path / name)
    with pytest.raises(InputError, match="are for images, and these are texts"):
        drawn().save(tmp_path / "x.txt", columns=2)
    assert list(tmp_path.iterdir()) == []


def test_what_is_for_other_kinds_is_refused() -> None:
    with opened() as model:
        for attempt, message in (
            (lambda: model.sample(2, output_type="uint8"), "which have no bytes"),
            (lambda: model.sample(2).images, "are texts, not images"),
            (lambda: model.sample(2).points, "are texts, not points"),
            (lambda: model.encode(np.zeros((1, 2))), "no encoder|does not"),
        ):
            with pytest.raises(InputError, match=message):
                attempt()
    with generator(feedforward_model()) as images, pytest.raises(InputError, match="are images, not texts"):
        _ = images.sample(1).texts
    with generator(text_model(), {"writer": writer(WORDS.size)}) as bare:
        samples = bare.sample(2, seed=0)
        assert samples.array.shape == (2, LENGTH)
        assert samples._repr_png_() is None
        with pytest.raises(InputError, match=r"no 'vocabulary\.json' at hand"):
            _ = samples.texts


def test_a_graph_that_does_not_fit_its_vocabulary() -> None:
    with generator(text_model(), {"writer": writer(1000)}, files_of(WORDS)) as model:
        samples = model.sample(5, seed=0)
        with pytest.raises(BackendError, match=r"gave token \d+, and its vocabulary has 14"):
            _ = samples.texts


def output(length: int = LENGTH, vocabulary: Vocabulary = WORDS) -> TextOutput:
    return TextOutput(TextSpec.of(length, vocabulary.size), vocabulary)


def test_texts_become_tokens_and_come_back() -> None:
    text = output()
    tokens = text.given(["A cat sat.", "a", ""])
    assert tokens.tolist() == [[4, 5, 6, 10, 2, 0, 0], [4, 2, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0, 0]]
    assert [WORDS.decode(row) for row in tokens.tolist()] == ["a cat sat.", "a", ""]
    assert text.given("a cat").tolist() == text.given(["a cat"]).tolist()
    np.testing.assert_array_equal(text.given(tokens.astype(np.int32)), tokens)
    begun, lengths = text.beginning(["a cat", "", "sat"])
    assert (begun.tolist(), lengths.tolist()) == ([[4, 5], [0, 0], [6, 0]], [2, 0, 1])
    with pytest.warns(GensdkWarning, match=r"2 of 4 tokens are unknown to the model \('dog', 'zebra'\)"):
        assert text.given(["a dog", "zebra sat"]).tolist()[0] == [4, 3, 2, 0, 0, 0, 0]


def test_tokens_without_an_end_fill_the_whole_length() -> None:
    fixed = output(3, Words(tokens=("x", "y", "z")))
    assert fixed.given("x y z").tolist() == [[0, 1, 2]]
    with pytest.raises(InputError, match=r"text 1 has 2 tokens, the model takes exactly 3; make it longer"):
        fixed.given(["x x x", "y z"])
    padded = output(3, Words(tokens=("x", "<end>"), special=SpecialTokens(end=1)))
    assert padded.given("x").tolist() == [[0, 1, 1]]


def test_fewer_tokens_are_no_text_but_a_beginning() -> None:
    tokens = np.array([[4, 5, 6], [6, 5, 4]])
    with pytest.raises(InputError, match=r"int64 \[n, 7\]"):
        output().given(tokens)
    begun, lengths = output().beginning(tokens)
    np.testing.assert_array_equal(begun, tokens)
    assert lengths.tolist() == [3, 3]
    for filled in (np.pad(tokens, ((0, 0), (0, LENGTH - 3))), [[4, 5, 6, 0], [6, 5, 4]], ["a cat sat", [6, 5, 4]]):
        begun, lengths = output().beginning(filled)
        np.testing.assert_array_equal(begun, tokens)
        assert lengths.tolist() == [3, 3]
    assert output().beginning([[], "a"])[1].tolist() == [0, 1]


def test_a_text_of_the_whole_length_has_no_end() -> None:
    """As a sample has none that was drawn up to there."""
    words = ["a"] * LENGTH
    assert output().given(" ".join(words)).tolist() == output().given([[4] * LENGTH]).tolist() == [[4] * LENGTH]
    assert output().given(" ".join(words[1:])).tolist() == [[*[4] * (LENGTH - 1), 2]]
    for begun in (" ".join(words), [[4] * LENGTH], np.full((1, LENGTH), 4)):
        with pytest.raises(InputError, match="text 0 has 7 tokens, which leaves a model of 7 nothing to add"):
            output().beginning(begun)


def test_texts_are_taken_in_each_form_that_prompts_have() -> None:
    whole = output().given(["a cat", "sat"])
    for texts in (("a cat", "sat"), np.array(["a cat", "sat"]), np.array(["a cat", "sat"], object)):
        np.testing.assert_array_equal(output().given(texts), whole)
        np.testing.assert_array_equal(output().beginning(texts)[0], [[4, 5], [6, 0]])
    for tokens in (whole.tolist(), [whole[0], "sat"], whole.astype(np.uint8)):
        np.testing.assert_array_equal(output().given(tokens), whole)


def test_only_samples_of_the_same_vocabulary_say_the_same() -> None:
    output().check_like(output())
    other = Words(tokens=(*WORDS.tokens[:-1], "dog"), special=WORDS.special, lower_case=True)
    with pytest.raises(InputError, match="expected texts of this model's vocabulary, got others"):
        output().check_like(output(vocabulary=other))
    with pytest.raises(InputError, match=r"expected texts of up to 7 .*, got samples of another model of texts"):
        output().check_like(output(LENGTH - 1))


def test_beginnings_of_several_lengths_are_filled_up_with_pad() -> None:
    special = WORDS.special
    assert special.pad is not None
    others = [token for token in range(WORDS.size) if token not in special.silent][:3]
    tokens = np.array([[*others[:1], special.pad, special.pad], others, [special.pad] * 3])
    _, lengths = output().beginning(tokens)
    assert lengths.tolist() == [1, 3, 0]
    marks = [token for token in (special.pad, special.begin) if token is not None]
    for mark in marks:
        with pytest.raises(InputError, match="text 1 has a token inside that stands before or behind texts"):
            output().beginning(np.array([others, [others[0], mark, others[1]]]))


def test_the_lines_of_a_file_begin_texts(tmp_path: Path) -> None:
    path = tmp_path / "begun.txt"
    path.write_text("a cat\nsat\\n\n\n", "utf-8")
    assert output().prefix_of(path) == ["a cat", "sat\n", ""]
    with pytest.raises(InputError, match="leave the length of the prefix out"):
        output().prefix_of(path, 3)
    for data, reason in ((b"", "holds no line"), (b"\xff\xfe", "UTF-8"), (b"a" * (MAX_FILE + 1), "over")):
        path.write_bytes(data)
        with pytest.raises(InputError, match=reason) as failure:
            output().prefix_of(path)
        assert "\n" not in str(failure.value)
    with pytest.raises(InputError, match="can't read"):
        output().prefix_of(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("a a a a a a a a", "text 0 has 8 tokens, the model takes at most 7; shorten it"),
        ([], "expected a text as str, a list of them, or tokens .* got none"),
        (3, "expected a text as str, a list of them, .* got int$"),
        (b"a", "expected a text as str, a list of them, .* got bytes"),
        ({"a"}, "expected a text as str, a list of them, .* got set"),
        (np.array("a"), r"expected a text as str, .* got <U1 \[\]"),
        (np.array([b"a"]), r"expected a text as str, .* got \|S1 \[1\]"),
        (["a", 3], "expected text 1 as str, or its tokens .* got int$"),
        (["a", b"a"], "expected text 1 as str, or its tokens .* got bytes"),
        (["a", [[4], [5, 5]]], "expected text 1 as an array, got rows of several lengths"),
        (["a", ["b"]], r"expected text 1 as str, or its tokens .* got <U1 \[1\]"),
        (np.zeros((2, LENGTH)), r"int64 \[n, 7\]"),
        (np.full((2, LENGTH), 14), "expected tokens from 0 to 13"),
        (np.full((2, LENGTH), -1), "expected tokens from 0 to 13"),
    ],
)
def test_what_is_no_text_is_refused(given: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        output().given(given)
    with pytest.raises(InputError):
        output().beginning(given)


def bundle_files(vocabulary: Vocabulary = WORDS) -> dict[str, bytes]:
    return {GRAPH: writer_onnx(vocabulary.size), **files_of(vocabulary)}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "writer.gsdk", text_manifest(), bundle_files(), as_zip=True).close()
    return tmp_path / "writer.gsdk"


def test_a_bundle_brings_its_vocabulary(bundle: Path) -> None:
    with Bundle.open(bundle) as opened_bundle:
        assert "vocabulary.json" in opened_bundle.manifest.used_files
        assert Manifest.parse(opened_bundle.manifest.to_json().encode(), what="x") == opened_bundle.manifest
    with Generator.load(bundle, backend="onnxruntime") as model:
        samples = model.sample(6, seed=3)
    assert samples.texts == drawn(6).texts


def test_a_bundle_without_its_vocabulary_can_t_be_written(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"'vocabulary.json' is used but not listed"):
        write_bundle(tmp_path / "x.gsdk", text_manifest(), {GRAPH: writer_onnx(WORDS.size)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (files_of(CHARACTERS)["vocabulary.json"], "has 12 tokens, the manifest says 14"),
        (written(tokens=["\x1b[2J"] * 14), "stands twice"),
        (b"not JSON", "JSON"),
        (b" " * (48 * 2**20 + 1), "at most 50331648 are read"),
    ],
)
def test_a_hostile_vocabulary_in_a_bundle_is_refused(data: bytes, reason: str, tmp_path: Path) -> None:
    files = sealed({GRAPH: writer_onnx(WORDS.size), "vocabulary.json": data}, text_manifest())
    path = lay_out(tmp_path / "x.gsdk", files)
    with pytest.raises(BundleError, match=reason) as caught:
        Generator.load(path, backend="onnxruntime")
    assert str(caught.value).startswith(f"{path}: 'vocabulary.json'")
    assert str(caught.value).isprintable()


def test_an_altered_vocabulary_is_refused(tmp_path: Path) -> None:
    files = sealed(bundle_files(), text_manifest())
    files["vocabulary.json"] = files["vocabulary.json"].replace(b"cat", b"dog")
    with pytest.raises(IntegrityError, match=r"'vocabulary.json' was altered or damaged"):
        Bundle.open(lay_out(tmp_path / "x.gsdk", files))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"value_range": [0.0, 13.5]}, "whole number"),
        ({"value_range": [1.0, 13.0]}, "a range of tokens"),
        ({"value_range": [0.0, 1e9]}, "below 1048576"),
        ({"vocabulary": "../x"}, "not a plain relative path"),
        ({"vocabulary": "manifest.json"}, "can't be one of the files"),
        ({"length": 0}, "length"),
        ({"length": 2**40}, "length"),
    ],
)
def test_what_a_manifest_can_t_say_of_text(fields: dict[str, Any], reason: str) -> None:
    files = sealed(bundle_files(), text_manifest())
    data = json.loads(files["manifest.json"])
    data["model"]["output"].update(fields)
    with pytest.raises(ManifestError, match=reason):
        Manifest.parse(json.dumps(data).encode(), what="x")


def test_the_command_line_prints_texts_or_writes_them(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def outcome(*arguments: object) -> tuple[int, str, str]:
        code = run(
            ["sample", str(bundle), "-n", "4", "--seed", "3", "--backend", "onnxruntime", *map(str, arguments)]
        )
        return code, *capsys.readouterr()

    texts = drawn(4).texts
    code, out, err = outcome()
    assert (code, out.splitlines()) == (0, texts)
    assert "4 samples of writer from seed 3" in err
    as_json = json.loads(outcome("--json")[1])
    assert (as_json["output"], as_json["samples"]) == (None, texts)
    assert outcome("-o", tmp_path / "x.txt")[1].endswith("x.txt\n")
    assert (tmp_path / "x.txt").read_text("utf-8").splitlines() == texts
    code, _, err = outcome("-o", tmp_path / "x.csv")
    assert (code, "use a file with one of .txt, .jsonl" in err) == (5, True)
    assert run(["inspect", str(bundle)]) == 0
    assert "texts of up to 7 of 14 tokens" in capsys.readouterr().out
