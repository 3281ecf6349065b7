"""The smallest real bundle there is, for tests of the container: one ONNX graph, ``image = z * scale``."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import BundleError
from gensdk_runtime.spec.manifest import FileEntry, Manifest
from gensdk_runtime.spec.model import FeedforwardSpec, ModelSpec
from gensdk_runtime.spec.outputs import ImageSpec
from gensdk_runtime.spec.signature import GraphSpec, TensorSpec

GRAPH = "graphs/scale.onnx"


def tiny_onnx(scale: float = 2.0, *, output: str = "image") -> onnx.ModelProto:
    constant = helper.make_tensor("scale", TensorProto.FLOAT, [4], [scale] * 4)
    z, image = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("z", output))
    node = helper.make_node("Mul", ["z", "scale"], [output])
    graph = helper.make_graph([node], "scale", [z], [image], [constant])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def tiny_manifest() -> Manifest:
    """A draft, without checksums."""
    z = TensorSpec(name="z", dtype="float32", shape=("batch", 4), role="noise", distribution="normal")
    image = TensorSpec(name="image", dtype="float32", shape=("batch", 4), role="image")
    model = ModelSpec(
        name="tiny",
        family="test",
        program=FeedforwardSpec(graph="scale"),
        graphs=(GraphSpec(name="scale", inputs=(z,), outputs=(image,)),),
        output=ImageSpec(channels=1, height=2, width=2),
    )
    return Manifest(model=model, graph_files={"scale": {"fp32": GRAPH}})


def tiny_files(scale: float = 2.0) -> dict[str, bytes]:
    return {GRAPH: tiny_onnx(scale).SerializeToString(), "README.md": b"scale %r\n" % scale}


def sealed(files: Mapping[str, bytes], manifest: Manifest | None = None) -> dict[str, bytes]:
    """`files` and the manifest that lists them, as the writer would make it, but without its checks."""
    entries = {name: FileEntry(sha256=hashlib.sha256(d).hexdigest(), size=len(d)) for name, d in files.items()}
    draft = manifest or tiny_manifest()
    return {**files, "manifest.json": draft.with_files(entries).to_json().encode()}


def lay_out(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def pack(path: Path, files: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def with_manifest(files: Mapping[str, bytes], /, **changes: Any) -> dict[str, bytes]:
    """`files` with top-level keys of the manifest set to other JSON."""
    return {**files, "manifest.json": json.dumps(json.loads(files["manifest.json"]) | changes).encode()}


def refusal(path: Path, error: type[BundleError], reason: str) -> None:
    """Checks that opening `path` is refused in one line that names it, and that no file stays open."""
    before = open_descriptors()
    with pytest.raises(BundleError, match=reason) as caught:
        Bundle.open(path)
    assert type(caught.value) is error
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).isprintable()
    assert open_descriptors() == before


def open_descriptors() -> int:
    """How many files this process has open; always 0 where the system does not say."""
    listing = Path("/proc/self/fd")
    return len(list(listing.iterdir())) if listing.is_dir() else 0


def content(path: Path) -> dict[str, bytes]:
    """The files that a bundle lists."""
    with Bundle.open(path) as bundle:
        return {name: bundle.read(name) for name in bundle.manifest.files}


def tree(folder: Path) -> dict[str, bytes]:
    """All that lies in a folder, hidden files too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
