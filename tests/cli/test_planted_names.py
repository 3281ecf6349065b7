"""What files say reaches a terminal written out: no escape sequence, no hidden sign, no markup, from no verb.

The texts are planted in every string of a manifest, of an ONNX file, of a run and of a data set.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

from gensdk.cli.main import run
from gensdk_runtime.bundles.writer import write_bundle
from gensdk_runtime.errors import BundleError, GensdkError
from gensdk_runtime.printable import markdown, printable
from gensdk_runtime.spec.manifest import Manifest
from support.another_os import WINDOWS
from support.onnx_models import FLOAT, conv, convolution, write_onnx
from support.tiny_bundle import lay_out, sealed, tiny_files

ESCAPE = "\x1b]0;x\x07"
PLANTS = (ESCAPE, "\x9b2J\u202etxt\u200b", "\r\x08\x00", "[red]<script>alert(1)</script>[/nothing]")
EVERYTHING = "".join(PLANTS)


def clean(text: str) -> bool:
    """Whether a terminal shows all of it and obeys nothing."""
    return all(character.isprintable() or character == "\n" for character in text)


@pytest.fixture
def verb(capsys) -> Callable[..., int]:
    """Runs a verb and looks at what it printed."""

    def call(*arguments: object) -> int:
        code = run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert clean(out), repr(out)
        assert clean(err), repr(err)
        assert "Traceback" not in err
        assert code != 70, err
        return code

    return call


def test_plain_text_comes_back_as_it_is_and_all_else_is_written_out() -> None:
    for text in ("", "digits-vae", "Größe 3 µm, 写真", "a\\b", "[1, 3] <x>"):
        assert printable(text) == text
    assert printable(ESCAPE) == r"\x1b]0;x\x07"
    assert printable("a\nb\tc") == "a b c"
    assert printable("a\nb\tc", lines=True) == "a\nb\tc"
    assert printable("\udcff") == r"\udcff"
    for number in (*range(32), *range(127, 160), 0x200B, 0x202E, 0x2066, 0x2028, 0xFEFF, 0xAD, 0xE0041):
        assert printable(f"a{chr(number)}b").isprintable()


def test_markdown_holds_no_markup() -> None:
    text = markdown("<script>alert(1)</script> [x](http://y) ![i](z) `c` *b* _i_ | # & ~\n\n# title" + ESCAPE)
    assert clean(text)
    assert "\n" not in text
    assert not re.search(r"(?<!\\)[<>\[\]`*_|#!&~]", text)


@pytest.mark.parametrize("error", [GensdkError, BundleError])
def test_errors_are_one_printable_line(error) -> None:
    assert clean(str(error(f"no file {EVERYTHING}\nsecond line")))
    assert "\n" not in str(error("a\nb"))


# ---- bundles


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where strings stand: values, and keys of dictionaries (marked by None at the end)."""
    if isinstance(value, str):
        yield path
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key, None)
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, (*path, index))


def _set(root: Any, path: tuple[Any, ...], text: str) -> Any:
    at = root
    if path[-1] is None:
        *way, key, _ = path
        for step in way:
            at = at[step]
        at[text] = at.pop(key)
    else:
        *way, last = path
        for step in way:
            at = at[step]
        at[last] = text
    return root


def full_manifest() -> dict[str, Any]:
    """With something in every free text."""
    draft = json.loads(sealed(tiny_files())["manifest.json"])
    draft["provenance"] |= {
        "data": "d", "created": "c", "versions": {"torch": "1"}, "metrics": {"loss": 1.0}, "steps": 3,
        "config": {"imported_from": "x.onnx", "list": ["a"]},
    }  # fmt: skip
    return draft


PLACES = list(leaves(full_manifest()))


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)))
def test_no_string_of_a_manifest_reaches_the_terminal(tmp_path, verb, place) -> None:
    path = lay_out(tmp_path / "sent.gsdk", tiny_files())
    for text in (EVERYTHING, f"scale{ESCAPE}"):
        manifest = _set(full_manifest(), place, text)
        (path / "manifest.json").write_text(json.dumps(manifest))
        verb("inspect", path)
        verb("sample", path, "-n", 1, "-o", tmp_path / "o.png", "--backend", "onnxruntime")


FREE = {
    "data": EVERYTHING, "created": EVERYTHING, "versions": {EVERYTHING: EVERYTHING}, "metrics": {EVERYTHING: 1.0},
    "steps": 3, "config": {EVERYTHING: EVERYTHING},
}  # fmt: skip


@pytest.fixture
def sent(tmp_path) -> Path:
    """A bundle that works, with all free texts planted."""
    from gensdk_runtime.bundles.bundle import Bundle

    with Bundle.open("digits-vae") as bundle:
        files = {name: bundle.read(name) for name in bundle.manifest.files}
        data = json.loads(bundle.manifest.to_json())
    data["provenance"] |= FREE
    (classes,) = (each for each in data["model"]["conditions"] if each["kind"] == "label")
    classes["class_names"] = [f"{number}{EVERYTHING}" for number in range(classes["num_classes"])]
    try:
        draft = Manifest.from_json(json.dumps(data), what="planted")
    except GensdkError:  # class names are held to what is printable
        del classes["class_names"]
        draft = Manifest.from_json(json.dumps(data), what="planted")
    path = tmp_path / ("sent [red].gsdk" if WINDOWS else "sent [red]<script>.gsdk")
    write_bundle(path, draft, files).close()
    return path


def test_no_verb_prints_what_a_bundle_says(sent, tmp_path, verb, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert verb("inspect", sent) == 0
    assert verb("inspect", sent, "--json") == 0
    assert verb("verify", sent, "--backend", "onnxruntime", "--precision", "fp32") == 0
    assert verb("sample", sent, "-n", 1, "-o", "o.png", "--backend", "onnxruntime") == 0
    assert verb("sample", sent, "-n", 1, "--label", EVERYTHING, "-o", "o.png") in (0, 5)
    assert verb("sample", sent, "-o", f"{ESCAPE}.gif") == 5
    assert verb("sample", f"{ESCAPE}.gsdk") == 3
    assert verb("interpolate", sent, "-o", "w.png", "--backend", "onnxruntime", "--frames", 2) in (0, 2)
    assert (
        verb("bench", sent, "--duration", "0.01", "--warmup", 0, "--iterations", 1, "--backend", "onnxruntime")
        == 0
    )
    assert verb("translate", sent, "--source", f"{ESCAPE}.png", "--sink", "x.png") != 0
    assert verb("dream", f"{ESCAPE}.png", "--bundle", sent, "-o", "d.png") != 0
    assert verb("detect", sent, "--images", f"{ESCAPE}.png") != 0
    assert verb("evaluate", sent, "--data", f"{ESCAPE}") != 0
    assert verb(f"{ESCAPE}") == 2
    assert verb("inspect", sent, f"--{ESCAPE}") == 2


# ---- ONNX files


def onnx_file(path: Path, place: str) -> Path:
    """A model that imports, or would but for the text in one place."""
    size = [1, 3, 8, 8] if place != "axes" else ["n", 3, f"h{EVERYTHING}", f"w{EVERYTHING}"]
    names = ("image", "out") if place != "names" else (f"image{EVERYTHING}", f"out{EVERYTHING}")
    ends = (names[0], FLOAT, size), (names[1], FLOAT, size)
    write_onnx(path, [conv(*names, name="first")], [ends[0]], [ends[1]], convolution())
    model = onnx.load(str(path))
    node = model.graph.node[0]
    if place == "operator":
        node.op_type = f"Conv{EVERYTHING}"
    elif place == "domain":
        node.domain = f"own{EVERYTHING}"
        model.opset_import.append(helper.make_opsetid(f"own{EVERYTHING}", 1))
    elif place == "node and texts":
        node.name = model.producer_name = model.graph.name = model.doc_string = EVERYTHING
        node.doc_string = model.domain = EVERYTHING
        model.metadata_props.add(key=EVERYTHING, value=EVERYTHING)
    elif place == "attribute":
        node.attribute.append(helper.make_attribute(f"auto_pad{EVERYTHING}", "SAME"))
    elif place == "weight":
        for name in (model.graph.initializer[0],):
            name.name += EVERYTHING
        node.input[1] = model.graph.initializer[0].name
    elif place == "type":
        model.graph.input[0].type.denotation = EVERYTHING
        model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.STRING
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("place", ["operator", "domain", "attribute", "type"])
def test_no_name_in_an_onnx_file_that_is_refused_reaches_the_terminal(tmp_path, verb, place) -> None:
    out = tmp_path / "imported.gsdk"
    assert verb("import", onnx_file(tmp_path / f"sent{ESCAPE}.onnx", place), "-o", out) != 0
    assert not out.exists()


@pytest.mark.parametrize("place", ["axes", "names", "node and texts", "weight"])
def test_no_name_in_an_onnx_file_that_is_imported_reaches_the_terminal(tmp_path, verb, place) -> None:
    out = tmp_path / "imported.gsdk"
    assert verb("import", onnx_file(tmp_path / f"sent{ESCAPE}.onnx", place), "-o", out) == 0
    assert verb("inspect", out) == 0
    card = (out / "README.md").read_text()
    assert clean(card)
    assert "<script>" not in card


# ---- runs and data sets


def test_no_name_in_a_data_set_or_a_run_reaches_the_terminal(tmp_path, verb, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    data = tmp_path / f"data{ESCAPE}"
    for name in ("one", f"two{ESCAPE}", "three<script>[red]"):
        (data / name.replace("/", "")).mkdir(parents=True)
        for number in range(4):
            image = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(image).save(data / name.replace("/", "") / f"{number}{ESCAPE}.png")
        (data / name / f"broken{ESCAPE}.png").write_bytes(b"no picture")
    out = tmp_path / "run"
    assert verb("train", "vae", "--data", data, "--out", out, "--steps", 2, "--batch-size", 4, "--size", 8) == 0
    shutil.rmtree(data / f"two{ESCAPE}")
    (data / f"two{ESCAPE}").mkdir()
    verb("evaluate", "digits-vae", "--data", data)
    monkeypatch.chdir(tmp_path)
    verb("export", out, "-o", tmp_path / "out.gsdk")
    for path in out.glob("*.json"):
        content = json.loads(path.read_text())
        for place in list(leaves(content))[::5]:
            path.write_text(json.dumps(_set(json.loads(json.dumps(content)), place, EVERYTHING)))
            verb("export", out, "-o", tmp_path / "again.gsdk", "--step", 99)
        path.write_text(json.dumps(content))
