"""Files that no bundle can hold, and hostile ones: one line, and nothing is written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from gensdk_export.importers import onnx_reading
from gensdk_export.importers.onnx_file import import_onnx
from gensdk_export.importers.onnx_meaning import OnnxOptions
from gensdk_runtime.errors import ExportError, GensdkError, InputError
from gensdk_runtime.verify import verify_bundle
from support.onnx_models import FLOAT, conv, convolution, write_onnx

AXES = ["n", 3, 16, 16]
IMAGE, RESULT = [("x", FLOAT, AXES)], [("y", FLOAT, AXES)]


def plain(path: Path, *, name_in: str = "x", **options: Any) -> Path:
    inputs = [(name_in, FLOAT, AXES)]
    return write_onnx(path, [conv(name_in, "y")], inputs, RESULT, convolution(), **options)


def refused(path: Path, options: OnnxOptions | None = None) -> str:
    out = path.parent / "out.gsdk"
    with pytest.raises(GensdkError) as caught:
        import_onnx(path, out, options)
    assert isinstance(caught.value, InputError | ExportError)
    assert len(str(caught.value).splitlines()) == 1
    assert not out.exists()
    return str(caught.value)


def test_what_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = plain(tmp_path / "model.onnx")
    data = path.read_bytes()
    for content, message in (
        (b"", "1 to"),
        (b"PK\x03\x04 not a model", "expected an ONNX file"),
        (data[: len(data) // 2], "model.onnx"),
        (bytes(reversed(data)), "model.onnx"),
        (onnx.ModelProto().SerializeToString() or b"\x08\x08", "without nodes"),
    ):
        path.write_bytes(content)
        assert message in refused(path)
    assert "none" in refused(tmp_path / "missing.onnx")
    path.write_bytes(data)
    monkeypatch.setattr(onnx_reading, "MAX_BYTES", len(data) - 1)
    assert "1 to" in refused(path)


def test_random_and_foreign_operators(tmp_path: Path) -> None:
    noisy = [
        helper.make_node("RandomNormalLike", ["x"], ["noise"]),
        helper.make_node("Add", ["x", "noise"], ["y"]),
    ]
    assert "RandomNormalLike is random" in refused(write_onnx(tmp_path / "noise.onnx", noisy, IMAGE, RESULT))
    path = write_onnx(
        tmp_path / "own.onnx", [helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")], IMAGE, RESULT
    )
    model = onnx.load(str(path))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, str(path))
    assert "com.microsoft.Gelu is no standard ONNX operator" in refused(path)


def with_weights_beside(path: Path, location: str) -> Path:
    onnx.save(
        onnx.load(str(plain(path))),
        str(path),
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    return path


def test_weights_beside_the_model_stay_in_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = with_weights_beside(folder / "model.onnx", "weights.bin")
    import_onnx(path, tmp_path / "fine.gsdk")
    assert verify_bundle(tmp_path / "fine.gsdk", backend="onnxruntime").ok
    shutil.move(folder / "weights.bin", tmp_path / "weights.bin")
    assert "missing" in refused(path)
    (folder / "weights.bin").symlink_to(tmp_path / "weights.bin")
    assert "behind a link" in refused(path)
    for location in ("../weights.bin", str(tmp_path / "weights.bin"), "a\\..\\weights.bin"):
        (folder / "weights.bin").unlink(missing_ok=True)
        shutil.copy(tmp_path / "weights.bin", folder / "weights.bin")
        assert "outside its folder" in refused(with_weights_beside(path, location))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (OnnxOptions(roles={"xx": "image"}), "did you mean 'x'"),
        (OnnxOptions(roles={"x": "imgae"}), "did you mean 'image'"),  # type: ignore[dict-item]
        (OnnxOptions(output="z"), "no output 'z'"),
        (OnnxOptions(scale=2), "expected scale 1"),
        (OnnxOptions(size=(32, 32)), "16x16, which the file fixes"),
        (OnnxOptions(layout="nhwc"), "x"),
        (OnnxOptions(label="x"), "no vector"),
        (OnnxOptions(constants={"x": np.zeros(5)}), "expected a constant"),
        (OnnxOptions(constants={"x": np.full((1, 3, 16, 16), np.nan)}), "finite numbers"),
    ],
)
def test_options_that_do_not_fit(options: OnnxOptions, message: str, tmp_path: Path) -> None:
    assert message in refused(plain(tmp_path / "model.onnx"), options)


def test_shapes_that_do_not_tell(tmp_path: Path) -> None:
    everywhere = [("x", FLOAT, ["n", 3, 16, 3])]
    ambiguous = write_onnx(tmp_path / "a.onnx", [conv("x", "y")], everywhere, [("y", FLOAT, None)], convolution())
    assert "--layout" in refused(ambiguous)
    both = write_onnx(
        tmp_path / "b.onnx",
        [helper.make_node("Add", ["x", "z"], ["y"])],
        [*IMAGE, ("z", FLOAT, AXES)],
        RESULT,
    )
    assert "expected one input that is an image" in refused(both)
    pooled = write_onnx(
        tmp_path / "c.onnx",
        [helper.make_node("GlobalAveragePool", ["x"], ["y"])],
        IMAGE,
        [("y", FLOAT, ["n", 3, 1, 1])],
    )
    assert "--style-encoder" in refused(pooled)
    halved = write_onnx(
        tmp_path / "d.onnx",
        [helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2])],
        IMAGE,
        [("y", FLOAT, ["n", 3, 8, 8])],
    )
    assert "one or more times the size" in refused(halved)


def test_types_that_numpy_has_not(tmp_path: Path) -> None:
    cast = helper.make_node("Cast", ["x"], ["y"], to=FLOAT)
    half = [("x", helper.TensorProto.BFLOAT16, AXES)]
    assert "bfloat16" in refused(write_onnx(tmp_path / "a.onnx", [cast], half, RESULT))


def test_nothing_is_lost_where_an_import_fails(tmp_path: Path) -> None:
    import_onnx(plain(tmp_path / "model.onnx"), tmp_path / "out.gsdk")
    before = (tmp_path / "out.gsdk" / "manifest.json").read_bytes()
    with pytest.raises(InputError):
        import_onnx(tmp_path / "model.onnx", tmp_path / "out.gsdk", OnnxOptions(scale=4))
    assert (tmp_path / "out.gsdk" / "manifest.json").read_bytes() == before
