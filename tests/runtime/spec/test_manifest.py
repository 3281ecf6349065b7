"""Manifests: round trips, each refusal, and nothing but documented errors for anything that is fed in."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gensdk_runtime.errors import InputError, ManifestError
from gensdk_runtime.programs.schedules import make_schedule
from gensdk_runtime.spec.conditions import LabelSpec
from gensdk_runtime.spec.fields import check_path
from gensdk_runtime.spec.manifest import (
    MAX_MANIFEST_BYTES,
    SCHEMA_VERSION,
    EngineSpec,
    FileEntry,
    Manifest,
    Precision16Report,
)
from gensdk_runtime.spec.model import DiffusionSpec, ScheduleSpec
from gensdk_runtime.spec.outputs import ImageSpec
from gensdk_runtime.spec.provenance import Provenance
from support.models import MODELS
from support.tiny_bundle import GRAPH, sealed, tiny_files, tiny_manifest

VALID = sealed(tiny_files())["manifest.json"]
LABEL = {"kind": "label", "num_classes": 2}
ENTRY = {"sha256": "0" * 64, "size": 1}


def rich_manifest() -> Manifest:
    """A manifest that uses every field."""
    model = MODELS["autoregressive"](3).with_condition(LabelSpec(num_classes=3, class_names=("a", "b", "ü")))
    graphs = {graph.name: {"fp32": f"graphs/{graph.name}.onnx"} for graph in model.graphs}
    engine = EngineSpec(
        graph="row",
        precision="fp32",
        file="engines/row.plan",
        runtime="tensorrt-rtx",
        version="1.7",
        min_batch=1,
        opt_batch=4,
        max_batch=8,
    )
    names = [*(files["fp32"] for files in graphs.values()), "engines/row.plan", "golden/fp32.npz", "README.md"]
    return Manifest(
        gensdk_version="0.1.0",
        model=model,
        graph_files=graphs,
        golden="golden/fp32.npz",
        engines=(engine,),
        fp16=Precision16Report(islands={"row": ("norm", "out")}, max_abs_activation=3.5),
        provenance=Provenance(config={"lr": 1e-3, "widths": (1, 2), "nested": {"a": None}}, metrics={"bpd": 1.9}),
        files={name: FileEntry(**ENTRY) for name in names},
    )


def refusal(text: bytes) -> str:
    with pytest.raises(ManifestError) as caught:
        Manifest.parse(text, what="x/manifest.json")
    message = str(caught.value)
    assert message.startswith("x/manifest.json: ")
    assert message.isprintable()
    assert len(message) < 600
    return message


def changed(*path: str | int, to: Any) -> bytes:
    """The valid manifest with the value at `path` set."""
    data = json.loads(VALID)
    here = data
    for part in path[:-1]:
        here = here[part]
    here[path[-1]] = to
    return json.dumps(data).encode()


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_manifest_survives_json(model: Any) -> None:
    for classes in (None, 10):
        spec = model(classes)
        graphs = {graph.name: {"fp32": f"graphs/{graph.name}.onnx"} for graph in spec.graphs}
        files = {f"graphs/{graph.name}.onnx": FileEntry(**ENTRY) for graph in spec.graphs}
        manifest = Manifest(model=spec, graph_files=graphs, files=files)
        assert Manifest.parse(manifest.to_json().encode(), what="x") == manifest


def test_every_field_survives_json() -> None:
    manifest = rich_manifest()
    text = manifest.to_json()
    again = Manifest.parse(text.encode(), what="x")
    assert again.to_json() == text
    assert again.model == manifest.model
    assert again.engines == manifest.engines
    assert again.fp16 == manifest.fp16


def test_a_draft_is_sealed_with_files_and_refused_on_disk_without() -> None:
    draft = tiny_manifest()
    entries = {GRAPH: FileEntry(**ENTRY), "README.md": FileEntry(**ENTRY)}
    whole = draft.with_files(entries)
    assert whole.files == entries
    assert draft.files == {}
    assert whole.with_files({GRAPH: entries[GRAPH]}).files == {GRAPH: entries[GRAPH]}
    with pytest.raises(ManifestError, match=r"'graphs/scale\.onnx' is used but not listed"):
        draft.with_files({"README.md": entries["README.md"]})
    assert "draft" in refusal(draft.to_json().encode())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "not readable as JSON"),
        (b"[]", "valid object|Input should be"),
        (b"{", "not readable as JSON"),
        (b"[" * 100_000, "not readable as JSON"),
        (b'{"a": 1, "a": 2}', "not readable as JSON"),
        (b"\xff\xfe{\x00}\x00", "no schema_version|not readable"),
        (b"{}", "no schema_version"),
        (b" " * (MAX_MANIFEST_BYTES + 1), "at most"),
        (changed("schema_version", to=SCHEMA_VERSION + 1), "upgrade gensdk"),
        (changed("schema_version", to=10**4000), "upgrade gensdk"),
        (changed("schema_version", to=0), "schema_version"),
        (changed("schema_version", to=True), "schema_version"),
        (changed("schema_version", to="1"), "schema_version"),
        (changed("modell", to=1), "unknown key 'modell'; did you mean 'model'"),
        (changed("model", "max_bach", to=1), "model: unknown key 'max_bach'; did you mean 'max_batch'"),
        (
            changed("model", "graphs", 0, "inputs", 0, "rolle", to=1),
            r"model\.graphs\.0\.inputs\.0: unknown key 'rolle'; did you mean 'role'",
        ),
        (changed("model", "program", "grph", to=1), r"unknown key 'grph'; did you mean 'graph'"),
        (changed("files", GRAPH, "sha265", to=1), r"unknown key 'sha265'; did you mean 'sha256'"),
        (changed("model", "\x1b[2J\n", to=1), r"unknown key '\\x1b"),
        (changed("files", "\x1b[2J\n", to=ENTRY), r"\\x1b"),
        (changed("model", "program", to={"kind": "\x1b[2J"}), r"\\x1b"),
        (changed("model", "name", to="a b"), "is no name"),
        (changed("model", "max_batch", to="8"), "valid integer"),
        (changed("model", "max_batch", to=8.0), "valid integer"),
        (changed("model", "output", "value_range", to=[1.0, 1.0]), r"^x/manifest\.json: model\.output.*empty"),
        (changed("model", "output", "value_range", to=[-1.0, 1e999]), "finite"),
        (
            changed("model", "output", "chanels", to=1),
            r"model\.output: unknown key 'chanels'; did you mean 'channels'",
        ),
        (changed("model", "output", to=None), "expected output, an object with a kind"),
        (changed("model", "output", to={"channels": 1}), "expected output, an object with a kind such as 'audio'"),
        (changed("model", "output", "kind", to="smell"), r"no output of the kind 'smell'.*image.*points.*upgrade"),
        (changed("model", "output", to={"kind": "points", "dimensions": 2**13}), "less than or equal to 4096"),
        (changed("model", "conditions", to=[{"kind": "\x1b[2J"}]), r"\\x1b"),
        (changed("model", "conditions", to=[LABEL, LABEL]), "two conditions are of one kind"),
        (changed("model", "program", "graph", to="other"), "needs a graph 'other', which is missing"),
        (changed("model", "conditions", to=[{**LABEL, "class_names": ["a"]}]), "1 class_names for num_classes 2"),
        (changed("model", "conditions", to=[{**LABEL, "class_name": ["a"]}]), "did you mean 'class_names'"),
        (changed("provenance", "config", to={"lr": float("nan")}), "not writable as JSON"),
        (changed("graph_files", to={}), "has no fp32 file"),
        (changed("graph_files", "ghost", to={"fp32": GRAPH}), "'ghost' has a file or an engine but is no graph"),
        (changed("golden", to="golden/x.npz"), "used but not listed"),
        (changed("files", "manifest.json", to=ENTRY), "can't be one of the files"),
        (changed("files", "Readme.md", to=ENTRY), "differ in case"),
        (changed("files", f"{GRAPH}/x", to=ENTRY), "lies inside it"),
        (changed("files", GRAPH, "sha256", to="A" * 64), "pattern"),
        (changed("files", GRAPH, "size", to=0), "greater than"),
        (changed("files", to={**{f"f{i}": ENTRY for i in range(600)}, GRAPH: ENTRY}), "at most 512"),
    ],
)
def test_each_refusal_is_one_line_that_says_why(text: bytes, reason: str) -> None:
    message = refusal(text)
    assert re.search(reason, message), message


def test_an_engine_must_have_an_ordered_profile() -> None:
    engine = rich_manifest().engines[0].model_dump()
    with pytest.raises(InputError, match="min_batch <= opt_batch <= max_batch"):
        EngineSpec.from_dict({**engine, "opt_batch": 9}, what="engine")


@pytest.mark.parametrize(
    "path",
    [
        *("/a", "../a", "a/../b", "a/..", ".", "..", "a//b", "a/", "./a", "", "a" * 241),
        *("a\\b", "C:a", "C:/a", "a:b", "a*b", "a?b", "a|b", "a<b", "a>b"),
        *("a\nb", "a\x00b", "ü", "a\u202eb", "a/\ud800", "aux", "nul.txt", "x/COM1", "a.", "a/b.", "a ", " /a "),
    ],
)
def test_paths_that_leave_the_bundle_or_some_file_system_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        check_path(path)


@pytest.mark.parametrize("path", ["README.md", "graphs/a-b_c.1.onnx", "a/b/c", ".hidden", "..a", "a b.txt"])
def test_plain_paths_are_kept(path: str) -> None:
    assert check_path(path) == path


def test_python_lists_and_foreign_objects() -> None:
    data = {"channels": 1, "height": 2, "width": 3, "value_range": [0.0, 1.0]}
    assert ImageSpec.from_dict(data, what="image").value_range == (0.0, 1.0)
    for bad in ({**data, "width": object()}, {**data, ("a",): 1}, {**data, "value_range": float("nan")}):
        with pytest.raises(InputError, match="image"):
            ImageSpec.from_dict(bad, what="image")
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    with pytest.raises(InputError, match="image"):
        ImageSpec.from_dict(loop, what="image")
    with pytest.raises(ValidationError):
        Provenance(config={"x": object()})


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


def places(value: Any, here: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The paths of all values inside JSON data."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(place for key, inner in items for place in places(inner, (*here, key)))]


def parses_or_is_refused(text: bytes) -> None:
    message = ""
    try:
        manifest = Manifest.parse(text, what="x")
    except ManifestError as failure:
        message = str(failure)
    else:
        assert Manifest.parse(manifest.to_json().encode(), what="x").to_json() == manifest.to_json()
    assert message.isprintable()


@settings(max_examples=200, deadline=None)
@given(ANYTHING, st.booleans())
def test_random_json_raises_nothing_but_the_documented_errors(value: Any, versioned: bool) -> None:
    if versioned and isinstance(value, dict):
        value = {**value, "schema_version": SCHEMA_VERSION}
    parses_or_is_refused(json.dumps(value).encode())


RICH = json.loads(rich_manifest().to_json())
KEYS = sorted({str(place[-1]) for place in places(RICH) if place})


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutated_manifests_raise_nothing_but_the_documented_errors(data: st.DataObject) -> None:
    manifest = json.loads(json.dumps(RICH))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(places(manifest)[1:] or [("schema_version",)]))
        parent = manifest
        for part in place[:-1]:
            parent = parent[part]
        kind = data.draw(st.sampled_from(["replace", "remove", "add", "copy"]))
        if kind == "remove":
            del parent[place[-1]]
        elif kind == "add" and isinstance(parent, dict):
            parent[data.draw(st.sampled_from(KEYS) | st.text(max_size=12))] = data.draw(ANYTHING)
        elif kind == "copy":
            other = manifest
            for part in data.draw(st.sampled_from(places(manifest))):
                other = other[part]
            parent[place[-1]] = json.loads(json.dumps(other))
        else:
            parent[place[-1]] = data.draw(ANYTHING)
    parses_or_is_refused(json.dumps(manifest).encode())


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_bytes_raise_nothing_but_the_documented_errors(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(VALID)))
    parses_or_is_refused(
        VALID[:at] + data.draw(st.binary(max_size=6)) + VALID[at + data.draw(st.integers(0, 9)) :]
    )


NEWER = {
    "rescale_betas_zero_snr": True,
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "final_sigmas_type": "sigma_min",
    "whole_timesteps": True,
}


@pytest.mark.parametrize("name", NEWER)
def test_older_versions_read_schedules_that_need_none_of_it(name: str) -> None:
    assert name not in ScheduleSpec().model_dump()
    spec = ScheduleSpec.model_validate_json(json.dumps({name: NEWER[name]}))
    assert spec.model_dump()[name] == NEWER[name]
    assert ScheduleSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize("name", sorted(NEWER.keys() - {"whole_timesteps"}))
def test_a_flow_has_nothing_of_noise_schedules(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is of noise schedules"):
        ScheduleSpec.model_validate_json(json.dumps({"kind": "flow", name: NEWER[name]}))


def test_a_schedule_without_signal_takes_no_eps() -> None:
    schedule = ScheduleSpec(rescale_betas_zero_snr=True)
    assert DiffusionSpec(graph="step", schedule=schedule, prediction_type="v_prediction").schedule == schedule
    with pytest.raises(ValueError, match="needs prediction_type v_prediction or sample, not epsilon"):
        DiffusionSpec(graph="step", schedule=schedule)
    with pytest.raises(ValueError, match="two time steps or more"):
        ScheduleSpec(rescale_betas_zero_snr=True, num_train_timesteps=1)


def test_a_schedule_holds_betas_where_no_formula_gives_them() -> None:
    betas = (0.001, 0.01, 0.02)
    spec = ScheduleSpec(kind="betas", num_train_timesteps=3, betas=betas)
    assert ScheduleSpec.model_validate_json(spec.model_dump_json()) == spec
    np.testing.assert_allclose(make_schedule(spec).alphas_cumprod, np.cumprod(1 - np.array(betas)))
    assert "betas" not in ScheduleSpec().model_dump()  # older versions read what needs none
    scaled = make_schedule(ScheduleSpec(kind="scaled_linear", beta_start=0.00085, beta_end=0.012)).betas
    np.testing.assert_allclose(np.diff(np.sqrt(scaled)), (0.012**0.5 - 0.00085**0.5) / 999, rtol=1e-9)
    for wrong in (
        {"kind": "betas"},
        {"kind": "linear", "betas": betas},
        {"kind": "betas", "betas": betas, "num_train_timesteps": 4},
        {"kind": "betas", "betas": (0.0,), "num_train_timesteps": 1},
    ):
        with pytest.raises(ValueError, match="betas"):
            ScheduleSpec.model_validate(wrong)
