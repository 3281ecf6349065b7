"""Files that no bundle can hold, and hostile ones: one line, and nothing is written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ml_dtypes import bfloat16
from onnx import helper, numpy_helper

from gensdk_export.importers.onnx import original as onnx_original
from gensdk_export.importers.onnx import reading as onnx_reading
from gensdk_export.importers.onnx.import_onnx import import_onnx
from gensdk_export.importers.onnx.meaning import OnnxOptions
from gensdk_export.importers.onnx.style_vector import Style, with_style
from gensdk_export.importers.onnx.wrapping_proof import FLOAT_CEILING
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import ExportError, GensdkError, InputError
from gensdk_runtime.proof.verify import load_golden, verify_bundle
from support.another_os import WINDOWS
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


posix = pytest.mark.skipif(WINDOWS, reason="a colon belongs to a drive")


@pytest.mark.parametrize(
    "name", ["my model", "Größe", "модель", "模型", pytest.param("a:b", marks=posix), "e\u0301"]
)
def test_weights_beside_the_model_are_called_as_it_is(name: str, tmp_path: Path) -> None:
    """Exporters call them after the model, in whatever letters; that was "outside its folder"."""
    location = f"{name}.onnx.data"
    path = with_weights_beside(tmp_path / f"{name}.onnx", location)
    (tmp_path / "weights.bin").rename(tmp_path / location)
    import_onnx(path, tmp_path / "fine.gsdk")
    assert verify_bundle(tmp_path / "fine.gsdk", backend="onnxruntime").ok


def drifting(strength: float) -> tuple[Callable[..., Any], list[float]]:
    """ONNX Runtime as it would be with an optimizer that adds `strength` to what comes out."""
    whole, seen = onnx_original.open_session, list[float]()

    class Moved:
        def __init__(self, session: Any) -> None:
            self.session = session

        def run(self, names: Any, feeds: Any) -> Any:
            first, *others = self.session.run(names, feeds)
            seen.append(strength)
            return [np.asarray(first + np.float32(strength)), *others]

    def opened(data: bytes, *, optimized: bool = True) -> Any:
        session = whole(data, optimized=optimized)
        return Moved(session) if optimized else session

    return opened, seen


@pytest.mark.parametrize(("strength", "fine"), [(0.02, False), (0.3, False), (1e-3, True)])
def test_allowed_drift_has_a_ceiling(
    strength: float, fine: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, seen = drifting(strength)
    monkeypatch.setattr(onnx_original, "open_session", opened)
    if not fine:
        message = refused(plain(tmp_path / "model.onnx"))
        assert "optimizer changes what the model gives" in message
        assert f"at most {FLOAT_CEILING:.2g}" in message
        assert "PSNR" in message
    else:
        report = import_onnx(plain(tmp_path / "model.onnx"), tmp_path / "out.gsdk")
        allowed = {guess.what: float(guess.value) for guess in report.guesses if guess.what == "allowed drift"}
        assert strength < allowed["allowed drift"] <= FLOAT_CEILING
        with Bundle.open(tmp_path / "out.gsdk") as bundle:
            assert load_golden(bundle).bounds["fp32"].graph <= FLOAT_CEILING
    assert seen


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (OnnxOptions(roles={"xx": "image"}), "did you mean 'x'"),
        (OnnxOptions(class_names=("a", "b")), "class_names name the classes of a label"),
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


def test_two_styles_of_one_name(tmp_path: Path) -> None:
    style = Style((Path("a/ink.png"), Path("b/ink.jpg")), tmp_path / "encoder.onnx")
    with pytest.raises(InputError, match="two are called 'ink'"):
        with_style(onnx_reading.read_onnx(plain(tmp_path / "model.onnx")), OnnxOptions(), style)


def test_shapes_that_do_not_tell(tmp_path: Path) -> None:
    everywhere = [("x", FLOAT, ["n", 3, 16, 3])]
    relu = [helper.make_node("Relu", ["x"], ["y"])]
    ambiguous = write_onnx(tmp_path / "a.onnx", relu, everywhere, [("y", FLOAT, None)])
    assert "--layout" in refused(ambiguous)
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
    message = refused(write_onnx(tmp_path / "a.onnx", [cast], half, RESULT))
    assert "'x' is bfloat16; ONNX Runtime has no bfloat16 on the CPU; export the model with" in message
    path = plain(tmp_path / "b.onnx")
    model = onnx.load(str(path))
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(bfloat16), tensor.name))
    inner = [helper.make_node("Cast", ["x"], ["x16"], to=helper.TensorProto.BFLOAT16)]
    inner += [conv("x16", "y16"), helper.make_node("Cast", ["y16"], ["y"], to=FLOAT)]
    del model.graph.node[:]
    model.graph.node.extend(inner)
    onnx.save(model, str(path))
    assert "its weights are bfloat16" in refused(path)


def test_nothing_is_lost_where_an_import_fails(tmp_path: Path) -> None:
    import_onnx(plain(tmp_path / "model.onnx"), tmp_path / "out.gsdk")
    before = (tmp_path / "out.gsdk" / "manifest.json").read_bytes()
    with pytest.raises(InputError):
        import_onnx(tmp_path / "model.onnx", tmp_path / "out.gsdk", OnnxOptions(scale=4))
    assert (tmp_path / "out.gsdk" / "manifest.json").read_bytes() == before
