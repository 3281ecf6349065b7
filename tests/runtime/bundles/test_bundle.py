"""Bundles that are in order: round trips, backends, questions, names."""

from __future__ import annotations

import gc
import os
import threading
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from gensdk_runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from gensdk_runtime.bundles import embedded
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.bundles.writer import write_bundle
from gensdk_runtime.errors import BundleError, InputError, IntegrityError
from gensdk_runtime.onnx_files.inline import check_places, inlined
from support.another_os import WINDOWS
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


def with_external_scale(*, offset: int | None = None, length: int | str | None = None) -> bytes:
    model = tiny_onnx()
    weight = model.graph.initializer[0]
    weight.ClearField("float_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="scale.data")
    for key, value in (("offset", offset), ("length", length)):
        if value is not None:
            weight.external_data.add(key=key, value=str(value))
    return model.SerializeToString()


def values(*scale: float) -> bytes:
    return np.array(scale, np.float32).tobytes()


def scales_of(bundle: Bundle) -> list[float]:
    """The weights that a backend gets."""
    source = bundle.graph_source("scale", "fp32")
    with OnnxRuntimeBackend().open(bundle.manifest.model.graph("scale"), source, precision="fp32") as session:
        return session.run({"z": np.ones((1, 4), np.float32)})["image"][0].tolist()


@as_zip
def test_external_tensors_inside_the_bundle_are_found(tmp_path: Path, as_zip: bool) -> None:
    files = {GRAPH: with_external_scale(offset=4, length=16), "graphs/scale.data": values(9, 1, 2, 3, 4, 9)}
    with write_bundle(tmp_path / "x", tiny_manifest(), files, as_zip=as_zip) as bundle:
        assert bundle.graph_source("scale", "fp32").path is None
        whole = onnx.load_from_string(bundle.graph_source("scale", "fp32").read())
        onnx.checker.check_model(whole)
        assert onnx.numpy_helper.to_array(whole.graph.initializer[0]).tolist() == [1, 2, 3, 4]
        assert scales_of(bundle) == [1, 2, 3, 4]


def test_external_tensors_are_checked_as_they_are_read(tmp_path: Path) -> None:
    files = {GRAPH: with_external_scale(), "graphs/scale.data": values(1, 2, 3, 4)}
    with write_bundle(tmp_path / "x", tiny_manifest(), files) as bundle:
        (tmp_path / "x/graphs/scale.data").write_bytes(bytes(16))
        with pytest.raises(IntegrityError, match=r"'graphs/scale\.data' was altered"):
            bundle.graph_source("scale", "fp32").read()


@pytest.mark.skipif(WINDOWS, reason="files that are open can't be swapped")
@pytest.mark.parametrize("copied", [False, True])
def test_weights_that_are_swapped_all_the_time_never_get_through(tmp_path, monkeypatch, copied) -> None:
    """The path is opened again by nobody: what was checked is what is loaded."""
    files = {GRAPH: with_external_scale(), "graphs/scale.data": values(1, 2, 3, 4)}
    write_bundle(tmp_path / "x", tiny_manifest(), files).close()
    target, good, evil = tmp_path / "x/graphs/scale.data", values(1, 2, 3, 4), values(5, 6, 7, 8)
    if copied:
        monkeypatch.setattr("gensdk_runtime.bundles.bundle.LARGEST_INLINED", len(files[GRAPH]))
    done = threading.Event()

    def swap() -> None:
        turn = 0
        while not done.is_set():
            turn += 1
            beside = target.with_name(f"beside{turn % 2}")
            beside.write_bytes(evil if turn % 2 else good)
            beside.replace(target)
            with target.open("r+b") as file:  # in place too
                file.write(good if turn % 3 else evil)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(60):
            try:
                with Bundle.open(tmp_path / "x") as bundle:
                    assert scales_of(bundle) == [1, 2, 3, 4]
            except BundleError:
                continue
    finally:
        done.set()
        thread.join()
    target.write_bytes(good)
    with Bundle.open(tmp_path / "x") as bundle:
        assert scales_of(bundle) == [1, 2, 3, 4]
        assert (bundle.graph_source("scale", "fp32").path is not None) == copied


def test_a_graph_too_large_for_one_file_is_loaded_from_a_copy(tmp_path, monkeypatch) -> None:
    files = {GRAPH: with_external_scale(), "graphs/scale.data": values(1, 2, 3, 4)}
    with write_bundle(tmp_path / "x", tiny_manifest(), files) as bundle:
        monkeypatch.setattr("gensdk_runtime.bundles.bundle.LARGEST_INLINED", 10)
        monkeypatch.setattr("gensdk_runtime.bundles.bundle.MAX_ONNX_BYTES", 10)
        path = bundle.graph_source("scale", "fp32").path
        assert path is not None
        assert not path.is_relative_to(tmp_path)
        assert path.parent.parent.stat().st_mode & 0o777 == 0o700
        assert scales_of(bundle) == [1, 2, 3, 4]
        with pytest.raises(BundleError, match="over 2 GiB"):
            bundle.graph_source("scale", "fp32").read()
    assert not path.exists()


def test_a_copy_that_has_no_room_is_told_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {GRAPH: with_external_scale(), "graphs/scale.data": values(1, 2, 3, 4)}
    monkeypatch.setattr("gensdk_runtime.bundles.bundle.LARGEST_INLINED", 10)
    with write_bundle(tmp_path / "x", tiny_manifest(), files) as bundle:
        source = bundle.graph_source("scale", "fp32")
        with monkeypatch.context() as full:

            def write(*_: object) -> None:
                raise OSError(28, "No space left on device")

            full.setattr("gensdk_runtime.bundles.bundle.Path.open", write)
            with pytest.raises(BundleError, match=r"No space left on device.*TMPDIR") as failure:
                source.path  # noqa: B018 - it makes the copy
        assert "\n" not in str(failure.value)
        assert scales_of(bundle) == [1, 2, 3, 4]


@pytest.mark.parametrize(("offset", "length"), [(8, 16), (-4, 16), (0, -1), (2**70, 4)])
def test_external_tensors_beyond_their_file_are_refused(tmp_path: Path, offset: int, length: int) -> None:
    files = {GRAPH: with_external_scale(offset=offset, length=length), "graphs/scale.data": values(1, 2, 3, 4)}
    with pytest.raises(IntegrityError, match="a tensor lies at"):
        write_bundle(tmp_path / "x", tiny_manifest(), files)


@pytest.mark.parametrize("length", ["0x10", "1e1", " 16", "1_6", ""])
def test_external_tensors_lie_at_plain_numbers(tmp_path: Path, length: str) -> None:
    files = {GRAPH: with_external_scale(length=length), "graphs/scale.data": values(1, 2, 3, 4)}
    with pytest.raises(IntegrityError, match="does not say where it lies"):
        write_bundle(tmp_path / "x", tiny_manifest(), files)


def test_tensors_share_a_file_but_not_without_limit() -> None:
    model = onnx.load_from_string(with_external_scale())
    weights = model.graph.initializer
    weights.extend(weights[0] for _ in range(3))
    check_places(model.SerializeToString(), {"scale.data": 16})
    weights.append(weights[0])
    with pytest.raises(IntegrityError, match="take 80 bytes of files of 16, at most 64"):
        inlined(model.SerializeToString(), {"scale.data": bytes(16)})


def test_a_location_stands_once() -> None:
    model = onnx.load_from_string(with_external_scale())
    model.graph.initializer[0].external_data.add(key="location", value="other.data")
    with pytest.raises(IntegrityError, match="does not say where it lies"):
        check_places(model.SerializeToString(), {"scale.data": 16, "other.data": 16})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="it has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_copies_are_left_by_a_forked_process_and_not_made_of_a_closed_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {GRAPH: with_external_scale(), "graphs/scale.data": values(1, 2, 3, 4)}
    monkeypatch.setattr("gensdk_runtime.bundles.bundle.LARGEST_INLINED", 10)
    with write_bundle(tmp_path / "x", tiny_manifest(), files) as bundle:
        source = bundle.graph_source("scale", "fp32")
        path = source.path
        assert path is not None
        child = os.fork()
        if not child:
            try:
                bundle.close()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert path.exists()
    assert not path.exists()
    with pytest.raises(BundleError, match="closed"):
        source.path  # noqa: B018 - it makes the copy


def test_a_temporary_folder_that_can_not_be_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {GRAPH: with_external_scale(), "graphs/scale.data": values(1, 2, 3, 4)}
    monkeypatch.setattr("gensdk_runtime.bundles.bundle.LARGEST_INLINED", 10)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with (
        write_bundle(tmp_path / "x", tiny_manifest(), files) as bundle,
        pytest.raises(InputError, match=r"can't make a temporary folder .*TMPDIR"),
    ):
        bundle.graph_source("scale", "fp32").path  # noqa: B018 - it makes the copy


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
