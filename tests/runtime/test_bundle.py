"""Bundles that are in order: round trips, backends, questions, names."""

from __future__ import annotations

import gc
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from gensdk_runtime import embedded
from gensdk_runtime.backends.onnxruntime import OnnxRuntimeBackend
from gensdk_runtime.bundle import Bundle
from gensdk_runtime.bundle_writer import write_bundle
from gensdk_runtime.errors import BundleError, InputError, IntegrityError
from support.tiny_bundle import (
    GRAPH,
    content,
    open_descriptors,
    pack,
    tiny_files,
    tiny_manifest,
    tiny_onnx,
    tree,
)

as_zip = pytest.mark.parametrize("as_zip", [False, True], ids=["folder", "zip"])


@as_zip
def test_what_is_written_is_read(tmp_path: Path, as_zip: bool) -> None:
    files = tiny_files()
    with write_bundle(tmp_path / "new" / "x.gsdk", tiny_manifest(), files, as_zip=as_zip) as bundle:
        assert {name: bundle.read(name) for name in files} == files
        assert set(bundle.manifest.files) == set(files)
        assert bundle.manifest.model == tiny_manifest().model
        assert bundle.graph_source("scale", "fp32").read() == files[GRAPH]
        assert bundle.graph_source("scale", "fp32").path is None
        bundle.verify_files()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.gsdk"]
    assert (tmp_path / "new" / "x.gsdk").is_file() == as_zip


def test_folder_to_zip_to_folder(tmp_path: Path) -> None:
    first = write_bundle(tmp_path / "a", tiny_manifest(), tiny_files())
    names = list(first.manifest.files)
    zipped = write_bundle(tmp_path / "b", first.manifest, {n: first.path / n for n in names}, as_zip=True)
    again = write_bundle(tmp_path / "c", zipped.manifest, {n: zipped.read(n) for n in names})
    assert first.manifest == zipped.manifest == again.manifest
    assert tree(tmp_path / "a") == tree(tmp_path / "c")
    with zipfile.ZipFile(tmp_path / "b") as archive:
        archive.extractall(tmp_path / "d")
    assert tree(tmp_path / "d") == tree(tmp_path / "a")
    assert content(pack(tmp_path / "e", tree(tmp_path / "a"))) == tiny_files()  # as any zip tool packs it
    for bundle in (first, zipped, again):
        bundle.close()


def test_equal_content_gives_equal_zip_files(tmp_path: Path) -> None:
    files = tiny_files()
    write_bundle(tmp_path / "a", tiny_manifest(), files, as_zip=True).close()
    write_bundle(tmp_path / "b", tiny_manifest(), dict(reversed(files.items())), as_zip=True).close()
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@as_zip
def test_a_backend_runs_the_graph(tmp_path: Path, as_zip: bool) -> None:
    with write_bundle(tmp_path / "x", tiny_manifest(), tiny_files(3.0), as_zip=as_zip) as bundle:
        source = bundle.graph_source("scale", "fp32")
        session = OnnxRuntimeBackend().open(bundle.manifest.model.graph("scale"), source, precision="fp32")
    with session:
        z = np.arange(8, dtype=np.float32).reshape(2, 4)
        np.testing.assert_array_equal(session.run({"z": z})["image"], 3 * z)


def test_external_tensors_inside_the_bundle_are_checked_and_found(tmp_path: Path) -> None:
    model = tiny_onnx()
    weight = model.graph.initializer[0]
    data = np.array([1, 2, 3, 4], np.float32).tobytes()
    weight.ClearField("float_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="scale.data")
    files = {GRAPH: model.SerializeToString(), "graphs/scale.data": data}
    with write_bundle(tmp_path / "x", tiny_manifest(), files) as bundle:
        path = bundle.graph_source("scale", "fp32").path
        assert path is not None
        with pytest.raises(BundleError, match="load it from its path"):
            bundle.graph_source("scale", "fp32").read()
        assert onnx.numpy_helper.to_array(onnx.load(path).graph.initializer[0]).tolist() == [1, 2, 3, 4]
        (tmp_path / "x/graphs/scale.data").write_bytes(bytes(16))
        with pytest.raises(IntegrityError, match=r"'graphs/scale\.data' was altered"):
            _ = bundle.graph_source("scale", "fp32").path
    with pytest.raises(IntegrityError, match="unzip it"):
        write_bundle(tmp_path / "z", tiny_manifest(), files, as_zip=True)
    assert not (tmp_path / "z").exists()


def test_questions_that_a_bundle_cannot_answer(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "x", tiny_manifest(), tiny_files())
    with pytest.raises(InputError, match=r"has no fp16 file, only fp32; .*`gensdk export --fp16`"):
        bundle.graph_source("scale", "fp16")
    with pytest.raises(InputError, match=r"no graph 'scael'; did you mean 'scale'\?"):
        bundle.graph_source("scael", "fp32")
    with pytest.raises(InputError, match=r"no file 'README'; did you mean 'README\.md'\?"):
        bundle.read("README")
    bundle.close()
    bundle.close()
    with pytest.raises(BundleError, match="closed"):
        bundle.read(GRAPH)


@as_zip
def test_a_forgotten_bundle_closes_its_files(tmp_path: Path, as_zip: bool) -> None:
    before = open_descriptors()
    bundle = write_bundle(tmp_path / "x", tiny_manifest(), tiny_files(), as_zip=as_zip)
    assert open_descriptors() > before or not before
    del bundle
    gc.collect()
    assert open_descriptors() == before


# ---- names


def test_embedded_bundles_open_by_name_and_a_path_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "embedded"
    monkeypatch.setattr(embedded, "FOLDER", inside)
    assert embedded.embedded_names() == ()
    for name in ("digits-ddpm", "digits-vae"):
        write_bundle(inside / f"{name}.gsdk", tiny_manifest(), tiny_files(), as_zip=True).close()
    monkeypatch.chdir(tmp_path)
    assert embedded.embedded_names() == ("digits-ddpm", "digits-vae")
    with Bundle.open("digits-vae") as bundle:
        assert bundle.path == inside / "digits-vae.gsdk"
    write_bundle("digits-vae", tiny_manifest(), tiny_files()).close()
    with Bundle.open("digits-vae") as bundle:
        assert bundle.path == Path("digits-vae")
    with pytest.raises(BundleError, match=r"no bundle 'digits-dpm'; did you mean 'digits-ddpm'\? \(expected"):
        Bundle.open("digits-dpm")
    for strange in ("../embedded/digits-ddpm", "digits-ddpm/x", "", ".", "nul\0", "x" * 5000):
        with pytest.raises(BundleError):
            Bundle.open(strange)


def test_an_unknown_path_names_the_nearest_neighbour_and_what_is_expected(tmp_path: Path) -> None:
    write_bundle(tmp_path / "run-1.gsdk", tiny_manifest(), tiny_files()).close()
    expected = r"did you mean 'run-1\.gsdk'\? \(expected: a folder with manifest\.json, a \.gsdk file, or the name"
    with pytest.raises(BundleError, match=expected):
        Bundle.open(tmp_path / "run-l.gsdk")
