"""Hostile and damaged bundles: every refusal, each in one line that names the file."""

from __future__ import annotations

import os
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from onnx import TensorProto

from gensdk_runtime.bundles import bundle
from gensdk_runtime.bundles import files as bundle_files
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import BundleError, IntegrityError, ManifestError
from gensdk_runtime.spec.manifest import MAX_MANIFEST_BYTES, SCHEMA_VERSION
from support.tiny_bundle import (
    GRAPH,
    content,
    lay_out,
    pack,
    refusal,
    sealed,
    tiny_files,
    tiny_onnx,
    with_manifest,
)

FILES = sealed(tiny_files())
SIZE = len(FILES[GRAPH])
Place = Callable[..., Path]


@pytest.fixture(params=["folder", "folder without openat", "zip", "stored zip"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Puts files down as each kind of bundle."""
    kind = request.param
    if kind == "folder without openat":
        monkeypatch.setattr(bundle_files, "OPENS_BENEATH", False)
    if kind.startswith("folder"):
        return lambda files: lay_out(tmp_path / "x.gsdk", files)
    method = zipfile.ZIP_STORED if kind == "stored zip" else zipfile.ZIP_DEFLATED
    return lambda files: pack(tmp_path / "x.gsdk", files, method)


@pytest.fixture(params=[True, False], ids=["openat", "without openat"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A valid bundle as a folder, to be spoiled."""
    monkeypatch.setattr(bundle_files, "OPENS_BENEATH", bundle_files.OPENS_BENEATH and request.param)
    return lay_out(tmp_path / "x.gsdk", FILES)


def without(name: str) -> dict[str, bytes]:
    return {key: data for key, data in FILES.items() if key != name}


def flipped(data: bytes) -> bytes:
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


@pytest.mark.parametrize(
    ("files", "error", "reason"),
    [
        (without("manifest.json"), IntegrityError, "no manifest.json"),
        (without(GRAPH), IntegrityError, f"'{GRAPH}' is missing"),
        (without("README.md"), IntegrityError, "'README.md' is missing"),
        ({**FILES, GRAPH: flipped(FILES[GRAPH])}, IntegrityError, f"'{GRAPH}' was altered or damaged"),
        ({**FILES, "README.md": b"scale 2.1\n"}, IntegrityError, "'README.md' was altered or damaged"),
        (
            {**FILES, GRAPH: FILES[GRAPH] + b"\0"},
            IntegrityError,
            f"'{GRAPH}' has {SIZE + 1} bytes, {SIZE} are listed",
        ),
        (
            {**FILES, GRAPH: FILES[GRAPH][:-1]},
            IntegrityError,
            f"'{GRAPH}' has {SIZE - 1} bytes, {SIZE} are listed",
        ),
        ({**FILES, "manifest.json": b""}, ManifestError, "not readable as JSON"),
        ({**FILES, "manifest.json": b" " * (MAX_MANIFEST_BYTES + 1)}, (ManifestError, IntegrityError), "at most"),
        (with_manifest(FILES, schema_version=SCHEMA_VERSION + 1), ManifestError, "upgrade gensdk"),
        (with_manifest(FILES, files={}), ManifestError, "draft"),
        (with_manifest(FILES, golden="../x.npz"), ManifestError, r"golden: path '\.\./x\.npz'"),
        (with_manifest(FILES, golden="/etc/passwd"), ManifestError, "golden: path '/etc/passwd'"),
        ({**FILES, "graphs/other.onnx": b"x"}, IntegrityError, "'graphs/other.onnx' is not listed"),
        ({**FILES, "graphs/deep/er/x": b"x"}, IntegrityError, "'graphs/deep.*' is not listed"),
    ],
)
def test_a_spoiled_bundle_is_refused(
    place: Place, files: dict[str, bytes], error: type[BundleError] | tuple[type[BundleError], ...], reason: str
) -> None:
    path = place(files)
    with pytest.raises(error, match=reason) as caught:
        Bundle.open(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).isprintable()


def external(location: str) -> bytes:
    model = tiny_onnx()
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    model.graph.initializer.append(tensor)
    return model.SerializeToString()


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../../x", "../README.md", "a/../b", "", "*/_ORT_MEM_ADDR_/*"]
)
def test_external_tensors_outside_the_bundle_are_refused(tmp_path: Path, location: str) -> None:
    files = sealed({**tiny_files(), GRAPH: external(location)})
    refusal(lay_out(tmp_path / "x", files), IntegrityError, "external data at .*outside the bundle")


def test_external_tensors_in_an_unlisted_file_are_refused(tmp_path: Path) -> None:
    files = sealed({**tiny_files(), GRAPH: external("scale.data")})
    refusal(lay_out(tmp_path / "x", files), IntegrityError, "which manifest.json does not list")


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (tiny_onnx(output="picture").SerializeToString(), "says outputs image, the graph has 'picture'"),
        (tiny_onnx().SerializeToString()[:-20], "cut off"),
        (b"not an onnx file", "ONNX"),
    ],
)
def test_a_graph_that_is_not_the_manifests_is_refused(place: Place, graph: bytes, reason: str) -> None:
    refusal(place(sealed({**tiny_files(), GRAPH: graph})), IntegrityError, reason)


# ---- folders: links and what is no file


@pytest.mark.parametrize("name", [GRAPH, "manifest.json", "README.md"])
def test_a_linked_file_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    refusal(folder, IntegrityError, f"'{name}' is a link")


def test_a_link_to_a_file_of_the_same_bundle_is_refused_too(folder: Path) -> None:
    (folder / GRAPH).rename(folder / "graphs/scale2.onnx")
    (folder / GRAPH).symlink_to("scale2.onnx")
    refusal(folder, IntegrityError, "is a link")


def test_a_linked_folder_inside_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "graphs").rename(tmp_path / "elsewhere")
    (folder / "graphs").symlink_to(tmp_path / "elsewhere")
    refusal(folder, IntegrityError, f"'{GRAPH}' is a link or lies behind one")


def test_a_link_that_leads_nowhere_is_refused(folder: Path) -> None:
    (folder / GRAPH).unlink()
    (folder / GRAPH).symlink_to("nowhere")
    refusal(folder, IntegrityError, "is a link|is missing")


def test_a_link_to_a_whole_bundle_is_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(folder)
    with Bundle.open(tmp_path / "latest") as opened:
        assert opened.read(GRAPH) == FILES[GRAPH]


def test_a_pipe_a_socket_and_a_folder_in_place_of_a_file_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "README.md").unlink()
    os.mkfifo(folder / "README.md")
    refusal(folder, IntegrityError, "'README.md' is not a regular file")
    (folder / "README.md").unlink()
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(folder)  # the path of a socket must be short
        server.bind("README.md")
        refusal(folder, BundleError, "'README.md' can't be opened")
    (folder / "README.md").unlink()
    (folder / "README.md").mkdir()
    refusal(folder, IntegrityError, "'README.md' is not a regular file")


def test_a_pipe_in_place_of_a_bundle_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x")
    refusal(tmp_path / "x", BundleError, "neither a file nor a folder")


def test_what_systems_leave_behind_and_files_at_the_top_are_tolerated(folder: Path) -> None:
    before = content(folder)
    for name in (".DS_Store", "graphs/.DS_Store", "graphs/._scale.onnx", "graphs/Thumbs.db", "notes.txt"):
        (folder / name).write_bytes(b"x")
    assert content(folder) == before


# ---- larger bundles are checked as they are read


def test_a_large_bundle_is_checked_when_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "VERIFY_AT_OPEN", 10)
    wrong = sealed({**tiny_files(), GRAPH: external("../x")})
    spoiled = {**wrong, "README.md": b"scale 2.1\n"}
    with Bundle.open(place(spoiled)) as opened:
        with pytest.raises(IntegrityError, match=r"'README\.md' was altered"):
            opened.read("README.md")
        with pytest.raises(IntegrityError, match="external data"):
            opened.graph_source("scale", "fp32").read()
        with pytest.raises(IntegrityError, match="external data"):
            _ = opened.graph_source("scale", "fp32").path
        with pytest.raises(IntegrityError):
            opened.verify_files()


def test_a_file_that_changes_after_opening_is_noticed(folder: Path) -> None:
    with Bundle.open(folder) as opened:
        (folder / GRAPH).write_bytes(flipped(FILES[GRAPH]))
        with pytest.raises(IntegrityError, match="was altered"):
            opened.read(GRAPH)
        (folder / GRAPH).write_bytes(FILES[GRAPH] * 2)
        with pytest.raises(IntegrityError, match=f"more than the {SIZE} bytes"):
            opened.graph_source("scale", "fp32").read()
