"""Plain ONNX files in every form that people publish them, as bundles that give what the files give."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from gensdk_export.importers.onnx import original as onnx_original
from gensdk_export.importers.onnx.import_onnx import import_onnx
from gensdk_export.importers.onnx.meaning import OnnxOptions
from gensdk_export.importers.onnx.trial_sizes import PROVED_AT
from gensdk_export.importers.onnx.wrapping_proof import HALF_CEILING, QUANTIZED_PSNR
from gensdk_export.proof import OTHER_MACHINES
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import ExportError
from gensdk_runtime.generator import Generator
from gensdk_runtime.proof.verify import load_golden, verify_bundle
from support.onnx_models import FLOAT, INT64, UINT8, conv, convolution, run_onnx, write_onnx

SIZE = 16


@dataclass(frozen=True)
class Form:
    """How an image model may be published."""

    layout: str = "nchw"
    low_high: tuple[float, float] = (0.0, 1.0)
    dtype: str = "float32"
    dynamic: bool = True
    batch: Any = "n"
    scale: int = 1
    opset: int = 17
    names: tuple[str, str] = ("x:0", "y/out")


FORMS = {
    "usual": Form(),
    "nhwc": Form(layout="nhwc"),
    "bytes": Form(low_high=(0.0, 255.0)),
    "symmetric, fixed": Form(low_high=(-1.0, 1.0), dynamic=False, batch=1),
    "uint8 nhwc": Form(layout="nhwc", low_high=(0.0, 255.0), dtype="uint8"),
    "half": Form(dtype="float16", batch=1),
    "twice as large": Form(scale=2, low_high=(0.0, 255.0)),
    "our own names": Form(names=("image", "source")),
    "opset 9": Form(opset=9),
    "opset 11": Form(opset=11, layout="nhwc", scale=2),
}


def write(path: Path, form: Form) -> Path:
    """A convolution; where it enlarges, pixels are made of channels."""
    weights = convolution(3, 3 * form.scale**2)
    before, after = form.names
    nodes, name = [], before
    if form.layout == "nhwc":
        nodes.append(helper.make_node("Transpose", [name], ["t0"], perm=[0, 3, 1, 2]))
        name = "t0"
    if form.dtype != "float32":
        nodes.append(helper.make_node("Cast", [name], ["t1"], to=FLOAT))
        name = "t1"
    nodes.append(conv(name, "t2"))
    name = "t2"
    if form.scale > 1:
        nodes.append(helper.make_node("DepthToSpace", [name], ["t3"], blocksize=form.scale))
        name = "t3"
    if form.dtype == "uint8":
        bounds = {"low": np.float32(0.0), "high": np.float32(255.0)}
        weights |= {key: np.asarray(value) for key, value in bounds.items()}
        nodes.append(helper.make_node("Clip", [name, "low", "high"], ["t4"]))
        name = "t4"
    if form.dtype != "float32":
        nodes.append(helper.make_node("Cast", [name], ["t5"], to=getattr(helper.TensorProto, form.dtype.upper())))
        name = "t5"
    last = helper.make_node("Transpose" if form.layout == "nhwc" else "Identity", [name], [after])
    if form.layout == "nhwc":
        last.attribute.append(helper.make_attribute("perm", [0, 2, 3, 1]))
    sides = ["h", "w"] if form.dynamic else [SIZE, SIZE]
    out = ["oh", "ow"] if form.dynamic else [SIZE * form.scale] * 2
    orders = [[3, *sides], [3, *out]] if form.layout == "nchw" else [[*sides, 3], [*out, 3]]
    kind = {"float32": FLOAT, "uint8": UINT8, "float16": helper.TensorProto.FLOAT16}[form.dtype]
    values = [(name, kind, [form.batch, *order]) for name, order in zip(form.names, orders, strict=True)]
    return write_onnx(path, [*nodes, last], values[:1], values[1:], weights, opset=form.opset)


@pytest.fixture(scope="module", params=[(name, uint8) for name in FORMS for uint8 in (False, True)], ids=str)
def imported(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Form]:
    name, uint8 = request.param
    folder = tmp_path_factory.mktemp("import")
    path = write(folder / "somebody's model.onnx", FORMS[name])
    said = {} if FORMS[name].dtype == "uint8" else {"source_range": FORMS[name].low_high}
    options = OnnxOptions(**said, uint8=uint8, size=(SIZE, SIZE))
    import_onnx(path, folder / "out.gsdk", options)
    return path, folder / "out.gsdk", FORMS[name]


def by_hand(path: Path, form: Form, images: np.ndarray) -> np.ndarray:
    """uint8 [n, H, W, 3] through the file alone, one by one; uint8 [n, H', W', 3], rounded and cut off."""
    low, high = form.low_high
    values = low + images.astype(np.float64) / 255 * (high - low)
    ordered = values if form.layout == "nhwc" else values.transpose(0, 3, 1, 2)
    session_in = [each[None].astype(form.dtype) for each in ordered]
    results = np.concatenate([run_onnx(path, **{form.names[0]: each}) for each in session_in]).astype(np.float64)
    ordered = results if form.layout == "nhwc" else results.transpose(0, 2, 3, 1)
    return np.rint(np.clip((ordered - low) / (high - low), 0, 1) * 255).astype(int)


def test_it_gives_what_the_file_gives(imported: tuple[Path, Path, Form]) -> None:
    path, bundle, form = imported
    images = np.random.default_rng(1).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    expected = by_hand(path, form, images)
    with Generator.load(bundle, backend="onnxruntime", threads=1) as generator:
        drawn = generator.sample(image=images, output_type="uint8").images
        floats = generator.sample(image=images)
        translated = generator.translate(images)
    assert drawn.shape == (3, SIZE * form.scale, SIZE * form.scale, 3)
    for result in (drawn, floats.images, translated):
        assert np.abs(result.astype(int) - expected).max() <= 1
    low, high = form.low_high
    assert floats.array.min() >= low
    assert floats.array.max() <= high


def test_it_verifies_and_takes_any_size(imported: tuple[Path, Path, Form]) -> None:
    path, bundle, form = imported
    assert verify_bundle(bundle, backend="onnxruntime").ok
    image = np.random.default_rng(2).integers(0, 256, (13, 21, 3), dtype=np.uint8)
    with Generator.load(bundle, backend="onnxruntime", threads=1) as generator:
        result = generator.translate(image[:, :SIZE] if not form.dynamic else image)
    assert isinstance(result, np.ndarray)
    if form.dynamic:
        assert np.abs(result.astype(int) - by_hand(path, form, image[None])[0]).max() <= 1
    else:
        assert result.shape == (13, SIZE, 3)


def test_guesses_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "model.onnx", Form(layout="nhwc"))
    report = import_onnx(path, tmp_path / "out.gsdk", OnnxOptions(size=(SIZE, SIZE)))
    told = {guess.what: guess.value for guess in report.guesses}
    assert told["layout"] == "nhwc"
    assert told["range of the source"] == "0 to 1"
    assert told["scale"] == "1"
    assert told["multiple"] == "1"
    assert "--range" in report.text()


def old_upsampling(weights: dict[str, np.ndarray]) -> list[Any]:
    return [
        conv("x", "a"),
        helper.make_node("Upsample", ["a"], ["y"], mode="nearest", scales=[1.0, 1.0, 2.0, 2.0]),
    ]


def old_padding(weights: dict[str, np.ndarray]) -> list[Any]:
    weights |= {"gain": np.full(3, 0.2, np.float32), "shift": np.full(3, 0.5, np.float32)}
    return [
        helper.make_node("Pad", ["x"], ["p"], mode="reflect", pads=[0, 0, 1, 1, 0, 0, 1, 1]),
        helper.make_node("Conv", ["p", "weight", "bias"], ["c"]),
        helper.make_node("InstanceNormalization", ["c", "gain", "shift"], ["i"]),
        helper.make_node("Clip", ["i"], ["y"], min=0.0, max=1.0),
    ]


def new_swish(weights: dict[str, np.ndarray]) -> list[Any]:
    return [conv("x", "a"), helper.make_node("HardSwish", ["a"], ["h"]), helper.make_node("Tanh", ["h"], ["y"])]


@pytest.mark.parametrize(("make", "opset"), [(old_upsampling, 7), (old_padding, 9), (new_swish, 22)])
def test_old_and_new_operators(make: Any, opset: int, tmp_path: Path) -> None:
    """Old ones are converted, and old files name their weights among their inputs."""
    weights = convolution()
    nodes = make(weights)
    inputs = [("x", FLOAT, ["n", 3, "h", "w"])]
    if opset < 10:
        inputs += [(name, FLOAT, list(value.shape)) for name, value in weights.items()]
    path = write_onnx(
        tmp_path / "model.onnx",
        nodes,
        inputs,
        [("y", FLOAT, ["n", 3, "H", "W"])],
        weights,
        opset=opset,
        ir_version=3 if opset < 10 else 10,
    )
    report = import_onnx(path, tmp_path / "out.gsdk", OnnxOptions(size=(SIZE, SIZE), uint8=True))
    told = {guess.what: guess.reason for guess in report.guesses}
    assert told.get("operators") == (f"converted from opset {opset}" if opset < 13 else None)
    assert report.export.rows[0].drift.scaled <= 1e-6
    assert verify_bundle(tmp_path / "out.gsdk", backend="onnxruntime").ok


def unet_like(path: Path) -> Path:
    """Halved twice and doubled twice, with a skip: only multiples of four come back; the end is tanh."""
    nodes = [
        helper.make_node("AveragePool", ["x"], ["small"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Resize", ["small", "", "scales"], ["large"], mode="nearest"),
        helper.make_node("Add", ["x", "large"], ["sum"]),
        conv("sum", "z"),
        helper.make_node("Tanh", ["z"], ["y"]),
    ]
    weights = {**convolution(), "scales": np.array([1, 1, 4, 4], np.float32)}
    axes = ["batch", 3, "h", "w"]
    return write_onnx(path, nodes, [("x", FLOAT, axes)], [("y", FLOAT, axes)], weights)


def test_the_multiple_and_the_ranges_are_found(tmp_path: Path) -> None:
    import_onnx(unet_like(tmp_path / "unet.onnx"), tmp_path / "out.gsdk", OnnxOptions(size=(32, 32)))
    with Bundle.open(tmp_path / "out.gsdk") as bundle:
        source = bundle.manifest.model.source
        assert source is not None
        assert source.multiple == 4
        assert source.value_range == bundle.manifest.model.output.value_range == (-1.0, 1.0)
        assert bundle.manifest.model.max_batch > 1


STYLES = np.eye(4, dtype=np.float32)


def styled(path: Path, *, batched: bool) -> Path:
    """A convolution, and a shift of the colours by weights of four styles."""
    shifts = np.random.default_rng(3).uniform(-0.4, 0.4, (4, 3)).astype(np.float32)
    nodes = [
        conv("photo", "z"),
        helper.make_node("MatMul", ["style", "shifts"], ["shift"]),
        helper.make_node("Reshape", ["shift", "form"], ["column"]),
        helper.make_node("Add", ["z", "column"], ["painting"]),
    ]
    weights = {**convolution(), "shifts": shifts, "form": np.array([-1, 3, 1, 1], np.int64)}
    inputs = [
        ("photo", FLOAT, ["n" if batched else 1, 3, "h", "w"]),
        ("style", FLOAT, ["n", 4] if batched else [4]),
    ]
    outputs = [("painting", FLOAT, ["n" if batched else 1, 3, "h", "w"])]
    return write_onnx(path, nodes, inputs, outputs, weights)


@pytest.mark.parametrize("batched", [True, False])
def test_a_label_chooses_a_style(tmp_path: Path, batched: bool) -> None:
    path = styled(tmp_path / "styles.onnx", batched=batched)
    import_onnx(path, tmp_path / "out.gsdk", OnnxOptions(label="style", size=(SIZE, SIZE)))
    image = np.random.default_rng(1).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)
    photo = image.astype(np.float32).transpose(0, 3, 1, 2) / 255
    with Generator.load(tmp_path / "out.gsdk", backend="onnxruntime", threads=1) as generator:
        assert generator.model.num_classes == 4
        results = generator.sample(image=image, label=[0, 3, 1, 2]).array
    for row, style in enumerate((0, 3, 1, 2)):
        weights = STYLES[style : style + 1] if batched else STYLES[style]
        expected = run_onnx(path, photo=photo[row : row + 1], style=weights)[0]
        np.testing.assert_allclose(results[row], np.clip(expected, 0, 1), atol=1e-5)


def test_a_constant_is_baked_in_and_a_table_has_rows(tmp_path: Path) -> None:
    path = styled(tmp_path / "styles.onnx", batched=True)
    mixed = np.array([[0.5, 0, 0, 0.5]], np.float32)
    import_onnx(path, tmp_path / "one.gsdk", OnnxOptions(constants={"style": mixed}, size=(SIZE, SIZE)))
    table = np.concatenate([STYLES[2:3], mixed])
    options = OnnxOptions(
        constants={"style": table}, label="style", class_names=("plain", "mixed"), size=(SIZE, SIZE)
    )
    import_onnx(path, tmp_path / "two.gsdk", options)
    image = np.random.default_rng(1).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    with (
        Generator.load(tmp_path / "one.gsdk", backend="onnxruntime", threads=1) as one,
        Generator.load(tmp_path / "two.gsdk", backend="onnxruntime", threads=1) as two,
    ):
        alone, both = one.sample(image=image).array, two.sample(image=image, label=["mixed", "plain"]).array
    np.testing.assert_allclose(both[0], alone[0], atol=1e-6)
    assert np.abs(both[1] - alone[1]).max() > 0.01


def test_noise_and_a_class_become_an_image(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    weights = {
        "embedding": generator.standard_normal((3, 6)).astype(np.float32),
        "dense": generator.standard_normal((6, 3 * 64)).astype(np.float32) / 2,
        "form": np.array([-1, 3, 8, 8], np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["embedding", "class"], ["e"]),
        helper.make_node("Add", ["latent:0", "e"], ["sum"]),
        helper.make_node("MatMul", ["sum", "dense"], ["flat"]),
        helper.make_node("Tanh", ["flat"], ["bounded"]),
        helper.make_node("Reshape", ["bounded", "form"], ["picture"]),
    ]
    inputs = [("latent:0", FLOAT, ["n", 6]), ("class", INT64, ["n"])]
    path = write_onnx(tmp_path / "gan.onnx", nodes, inputs, [("picture", FLOAT, ["n", 3, 8, 8])], weights)
    import_onnx(path, tmp_path / "gan.gsdk", OnnxOptions(label="class", classes=3, uint8=True))
    assert verify_bundle(tmp_path / "gan.gsdk", backend="onnxruntime").ok
    z = generator.standard_normal((2, 6)).astype(np.float32)
    with Generator.load(tmp_path / "gan.gsdk", backend="onnxruntime", threads=1) as loaded:
        samples = loaded.sample(2, latents=z, label=[2, 0])
    expected = run_onnx(path, **{"latent:0": z, "class": np.array([2, 0])})
    np.testing.assert_allclose(samples.array, expected, atol=1e-6)


def quantized(path: Path) -> Path:
    """A convolution of 8 bits between quantized tensors, as quantizers write it."""
    weights = convolution()
    q = np.clip(np.rint(weights["weight"] / 0.012), -127, 127).astype(np.int8)
    scales = {"s_in": 1 / 255, "s_w": 0.012, "s_out": 1 / 255}
    constants: dict[str, Any] = {name: np.asarray(value, np.float32) for name, value in scales.items()}
    constants |= {"z_u": np.asarray(0, np.uint8), "z_i": np.asarray(0, np.int8), "q": q, "bias": weights["bias"]}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s_in", "z_u"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s_in", "z_u"], ["xf"]),
        helper.make_node("DequantizeLinear", ["q", "s_w", "z_i"], ["weight"]),
        conv("xf", "c"),
        helper.make_node("QuantizeLinear", ["c", "s_out", "z_u"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "s_out", "z_u"], ["y"]),
    ]
    axes = [1, 3, SIZE, SIZE]
    return write_onnx(path, nodes, [("x", FLOAT, axes)], [("y", FLOAT, axes)], constants, opset=13)


HALF = helper.TensorProto.FLOAT16


def enlarging(path: Path, kinds: tuple[int, int], *, rounded: bool = True) -> Path:
    """Six convolutions with residuals, all in half where `rounded`, and twice the size; `kinds` go in and out."""
    generator = np.random.default_rng(0)
    width, kind = 16, np.float16 if rounded else np.float32
    weights: dict[str, np.ndarray] = {}

    def layer(name: str, outputs: int, inputs: int) -> None:
        weights[name] = (generator.standard_normal((outputs, inputs, 3, 3)) / (9 * inputs) ** 0.5).astype(kind)

    nodes = [helper.make_node("Cast", ["x"], ["x0"], to=HALF if rounded else FLOAT)]
    layer("w0", width, 3)
    nodes.append(helper.make_node("Conv", ["x0", "w0"], ["a0"], pads=[1] * 4))
    for index in range(6):
        layer(f"w{index + 1}", width, width)
        nodes.append(helper.make_node("Conv", [f"a{index}", f"w{index + 1}"], [f"c{index}"], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        nodes.append(helper.make_node("Add", [f"a{index}", f"r{index}"], [f"a{index + 1}"]))
    layer("w7", 12, width)
    nodes.append(helper.make_node("Conv", ["a6", "w7"], ["flat"], pads=[1] * 4))
    nodes.append(helper.make_node("DepthToSpace", ["flat"], ["large"], blocksize=2))
    nodes.append(helper.make_node("Sigmoid", ["large"], ["z"]))
    nodes.append(helper.make_node("Cast", ["z"], ["y"], to=kinds[1]))
    values = [("x", kinds[0], ["n", 3, "h", "w"])], [("y", kinds[1], ["n", 3, "H", "W"])]
    return write_onnx(path, nodes, *values, weights)


@pytest.mark.parametrize("kinds", [(HALF, HALF), (HALF, FLOAT), (FLOAT, HALF), (FLOAT, FLOAT)], ids=str)
def test_half_precision_is_told_and_proved(kinds: tuple[int, int], tmp_path: Path) -> None:
    """A file whose inputs are half was refused for the rounding at its edges."""
    path = enlarging(tmp_path / "half.onnx", kinds)
    report = import_onnx(path, tmp_path / "out.gsdk", OnnxOptions(size=(SIZE, SIZE)))
    drift = {guess.what: guess for guess in report.guesses}["allowed drift"]
    assert "float16" in drift.reason
    assert float(drift.value) == OTHER_MACHINES * HALF_CEILING
    assert max(row.drift.scaled for row in report.export.rows) <= HALF_CEILING
    assert verify_bundle(tmp_path / "out.gsdk", backend="onnxruntime").ok
    image = np.random.default_rng(1).integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8)
    given = (image.transpose(0, 3, 1, 2) / 255).astype(np.float16 if kinds[0] == HALF else np.float32)
    with Generator.load(tmp_path / "out.gsdk", backend="onnxruntime", threads=1) as generator:
        result = generator.sample(image=image).array
    np.testing.assert_allclose(result, run_onnx(path, x=given), atol=4e-3)


def test_doubles_go_in_and_come_out(tmp_path: Path) -> None:
    double = helper.TensorProto.DOUBLE
    path = enlarging(tmp_path / "double.onnx", (double, double), rounded=False)
    report = import_onnx(path, tmp_path / "out.gsdk", OnnxOptions(size=(SIZE, SIZE)))
    assert max(row.drift.scaled for row in report.export.rows) <= 1e-5
    assert "allowed drift" not in {guess.what for guess in report.guesses}


def test_a_quantized_file_keeps_its_eight_bits(tmp_path: Path) -> None:
    report = import_onnx(quantized(tmp_path / "int8.onnx"), tmp_path / "out.gsdk")
    told = {guess.what: guess for guess in report.guesses}
    assert told["range of the source"].reason == "its quantization covers it"
    assert told["range of the source"].value == told["range of the result"].value == "0 to 1"
    assert [row.verdict for row in report.export.rows] == ["ok"] * len(report.export.rows)
    assert report.export.rows[0].drift.max_abs == 0  # without the optimizer: the same to the last bit
    with Bundle.open(tmp_path / "out.gsdk") as bundle:
        assert load_golden(bundle).bounds["fp32"].psnr == QUANTIZED_PSNR
    assert verify_bundle(tmp_path / "out.gsdk", backend="onnxruntime").ok


def test_a_model_too_large_to_prove_at_the_usual_size_is_proved_at_a_smaller_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attention between all pixels of 256 x 256 asks for 17 GB; the machine's memory is not the file's to take."""
    path = unet_like(tmp_path / "unet.onnx")
    ran, run = list[tuple[int, ...]](), onnx_original.run_output

    def bounded(session: Any, file: Any, output: str, feeds: Any) -> Any:
        (shape,) = [value.shape for value in feeds.values() if value.ndim == 4]
        if max(shape) > 100:
            raise onnx_original.TooMuchMemoryError("it asks for 17.0 GiB at once")
        ran.append(shape)
        return run(session, file, output, feeds)

    monkeypatch.setattr(onnx_original, "run_output", bounded)
    report = import_onnx(path, tmp_path / "unet")
    assert max(max(shape) for shape in ran) <= 100
    told = next(guess for guess in report.guesses if guess.what == PROVED_AT)
    assert (told.value, told.option) == ("64 x 64", "--size")
    assert "memory" in told.reason
    with pytest.raises(ExportError, match=r"17\.0 GiB"):
        import_onnx(path, tmp_path / "other", OnnxOptions(size=(256, 256)))


def test_what_a_file_asks_for_is_bounded(tmp_path: Path) -> None:
    """What asks for terabytes is refused in one line, and takes no machine along."""
    shape = helper.make_node("ConstantOfShape", ["many"], ["much"])
    nodes = [shape, helper.make_node("ReduceSum", ["much"], ["sum"]), helper.make_node("Add", ["x", "sum"], ["y"])]
    path = tmp_path / "bomb.onnx"
    image = ["batch", 3, "height", "width"]
    write_onnx(path, nodes, [("x", FLOAT, image)], [("y", FLOAT, image)], {"many": np.array([2**40], np.int64)})
    with pytest.raises(ExportError, match="allowed for all together"):
        import_onnx(path, tmp_path / "bomb")
