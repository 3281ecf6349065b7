"""What an import makes of files that hardly say what they are: guessed from what they do, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from gensdk_export.importers.import_report import ImportReport
from gensdk_export.importers.onnx.import_onnx import import_onnx
from gensdk_export.importers.onnx.meaning import OnnxOptions
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import ExportError, GensdkError, InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.proof.verify import verify_bundle
from support.onnx_models import FLOAT, INT64, conv, convolution, run_onnx, write_onnx

node = helper.make_node
IMAGE = ["n", 3, "h", "w"]


def told(report: ImportReport) -> dict[str, Any]:
    return {guess.what: guess for guess in report.guesses}


def sine_embedding(name: str) -> list[Any]:
    return [
        node("Cast", [name], ["tf"], to=FLOAT),
        node("Mul", ["tf", "frequency"], ["angle"]),
        node("Sin", ["angle"], ["sine"]),
        node("Cos", ["angle"], ["cosine"]),
        node("Add", ["sine", "cosine"], ["level"]),
    ]


@pytest.mark.parametrize(
    ("name", "kind", "shape", "channels", "outputs"),
    [
        ("t", INT64, ["n"], 3, 3),
        ("timestep", INT64, [], 3, 6),
        ("timesteps", FLOAT, [1], 4, 4),
        ("onnx::Cast_1", INT64, ["n"], 3, 3),
        ("t", FLOAT, ["n", 1], 16, 16),
    ],
)
def test_a_denoiser_is_no_generator(
    name: str, kind: int, shape: list[Any], channels: int, outputs: int, tmp_path: Path
) -> None:
    """eps(x, t) became a "generator" of one step, with the verdict ok."""
    path = denoiser(tmp_path / "eps.onnx", name, kind, shape, channels, outputs)
    for options in (OnnxOptions(), OnnxOptions(kind="generator"), OnnxOptions(roles={"sample": "noise"})):
        with pytest.raises(InputError, match=r"denoiser of a diffusion model.*diffusers folder") as caught:
            import_onnx(path, tmp_path / "out.gsdk", options)
        assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "out.gsdk").exists()


def denoiser(path: Path, name: str, kind: int, shape: list[Any], channels: int, outputs: int) -> Path:
    nodes = [
        *sine_embedding(name),
        node("ReduceMean", ["level"], ["mean"], keepdims=0),
        conv("sample", "c"),
        node("Mul", ["c", "mean"], ["noise_pred"]),
    ]
    weights = {**convolution(channels, outputs), "frequency": np.asarray(0.01, np.float32)}
    inputs = [("sample", FLOAT, ["n", channels, 32, 32]), (name, kind, shape)]
    return write_onnx(path, nodes, inputs, [("noise_pred", FLOAT, ["n", outputs, 32, 32])], weights)


def test_a_level_that_is_said_is_told(tmp_path: Path) -> None:
    path = denoiser(tmp_path / "eps.onnx", "t", INT64, ["n"], 3, 3)
    options = OnnxOptions(constants={"t": np.array([3])})
    assert "time step" in told(import_onnx(path, tmp_path / "out.gsdk", options))["doubtful kind"].value


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([("y", FLOAT, ["n", 1])], "discriminator"),
        ([("y", FLOAT, ["n", 10])], "--dream"),
        ([("y", FLOAT, ["n", 8, 4, 4])], "encoder"),
        ([("y", FLOAT, ["n", 3, 8, 8])], "encoder"),
    ],
)
def test_what_makes_no_images_is_named(outputs: list[Any], message: str, tmp_path: Path) -> None:
    shape = outputs[0][2]
    pool = 16 if len(shape) == 2 else 16 // shape[-1]
    nodes = [node("Conv", ["x", "weight", "bias"], ["c"], pads=[1] * 4)]
    kernel = {"kernel_shape": [pool, pool], "strides": [pool, pool]}
    nodes.append(node("AveragePool", ["c"], ["p" if len(shape) == 2 else "y"], **kernel))
    nodes += [node("Flatten", ["p"], ["y"])] if len(shape) == 2 else []
    path = write_onnx(
        tmp_path / "m.onnx", nodes, [("x", FLOAT, ["n", 3, 16, 16])], outputs, convolution(3, shape[1])
    )
    with pytest.raises(GensdkError, match=message):
        import_onnx(path, tmp_path / "out.gsdk")


def test_a_text_encoder_is_named(tmp_path: Path) -> None:
    table = {"table": np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)}
    nodes = [node("Gather", ["table", "input_ids"], ["hidden"])]
    path = write_onnx(
        tmp_path / "m.onnx", nodes, [("input_ids", INT64, ["n", 7])], [("hidden", FLOAT, ["n", 7, 4])], table
    )
    with pytest.raises(InputError, match="text encoder"):
        import_onnx(path, tmp_path / "out.gsdk")


ENDS: dict[str, tuple[list[Any], tuple[float, float]]] = {
    "tanh * 0.5 + 0.5": ([node("Mul", ["t", "half"], ["m"]), node("Add", ["m", "half"], ["y"])], (0.0, 1.0)),
    "(tanh + 1) / 2": ([node("Add", ["t", "one"], ["m"]), node("Div", ["m", "two"], ["y"])], (0.0, 1.0)),
    "127.5 tanh + 127.5": ([node("Mul", ["t", "grey"], ["m"]), node("Add", ["grey", "m"], ["y"])], (0.0, 255.0)),
    "1 - tanh": ([node("Sub", ["one", "t"], ["y"])], (0.0, 2.0)),
    "tanh": ([node("Identity", ["t"], ["y"])], (-1.0, 1.0)),
    "abs(tanh)": ([node("Abs", ["t"], ["y"])], (0.0, 1.0)),
    "tanh, expanded": ([node("Expand", ["t", "form"], ["y"])], (-1.0, 1.0)),
}


def generator(path: Path, end: list[Any]) -> Path:
    random = np.random.default_rng(0)
    numbers = {"half": 0.5, "one": 1.0, "two": 2.0, "grey": 127.5}
    weights: dict[str, Any] = {name: np.asarray(value, np.float32) for name, value in numbers.items()}
    weights |= {"dense": random.standard_normal((6, 3 * 64)).astype(np.float32)}
    weights |= {"form": np.array([1, 3, 8, 8]), "shape": np.array([-1, 3, 8, 8])}
    nodes = [
        node("MatMul", ["z", "dense"], ["flat"]),
        node("Reshape", ["flat", "shape"], ["r"]),
        node("Tanh", ["r"], ["t"]),
        *end,
    ]
    return write_onnx(path, nodes, [("z", FLOAT, ["n", 6])], [("y", FLOAT, ["n", 3, 8, 8])], weights)


@pytest.mark.parametrize("name", ENDS)
def test_the_range_is_what_the_end_or_the_samples_show(name: str, tmp_path: Path) -> None:
    """``tanh * 0.5 + 0.5`` was taken for -1 to 1, and washed out."""
    end, expected = ENDS[name]
    path = generator(tmp_path / "gan.onnx", end)
    report = import_onnx(path, tmp_path / "out.gsdk")
    z = np.random.default_rng(1).standard_normal((2, 6)).astype(np.float32)
    with Generator.load(tmp_path / "out.gsdk", backend="onnxruntime", threads=1) as loaded:
        assert loaded.model.output.value_range == expected
        samples = loaded.sample(2, latents=z)
    np.testing.assert_allclose(samples.array, run_onnx(path, z=z), atol=1e-5)
    assert "doubtful range of the result" not in told(report)


def test_a_range_that_was_not_seen_is_doubted(tmp_path: Path) -> None:
    """It ends in tanh, of numbers above 0 alone: no sample shows the lower half."""
    end = [node("Relu", ["t"], ["p"]), node("Tanh", ["p"], ["y"])]
    doubt = told(import_onnx(generator(tmp_path / "gan.onnx", end), tmp_path / "out.gsdk"))
    assert doubt["range of the result"].value == "-1 to 1"
    assert "nothing below 0" in doubt["doubtful range of the result"].reason
    assert doubt["doubtful range of the result"].option == "--output-range"


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("channels", [1, 3])
def test_axes_that_exporters_named(layout: str, channels: int, tmp_path: Path) -> None:
    """All axes have made-up names; how the image lies is what the first convolution takes."""
    nodes = [node("Mul", ["img", "one"], ["scaled"])]
    if layout == "nhwc":
        nodes += [node("Transpose", ["scaled"], ["t"], perm=[0, 3, 1, 2]), conv("t", "c")]
        nodes += [node("Transpose", ["c"], ["out"], perm=[0, 2, 3, 1])]
    else:
        nodes += [conv("scaled", "out")]
    before, after = ([f"Reshape{name}_dim_{axis}" for axis in range(4)] for name in ("img", "out"))
    weights = {**convolution(channels, channels), "one": np.asarray(1, np.float32)}
    path = write_onnx(tmp_path / "m.onnx", nodes, [("img", FLOAT, before)], [("out", FLOAT, after)], weights)
    report = import_onnx(path, tmp_path / "out.gsdk", OnnxOptions(size=(16, 16)))
    assert told(report)["layout"].value == layout
    assert told(report)["channels"].value == str(channels)
    assert ("colours" in told(report)) is (channels == 1)
    assert verify_bundle(tmp_path / "out.gsdk", backend="onnxruntime").ok


def test_the_advice_of_a_layout_can_be_followed(tmp_path: Path) -> None:
    axes = [f"Reshapeimg_dim_{axis}" for axis in range(4)]
    nodes = [node("Sigmoid", ["img"], ["out"])]
    path = write_onnx(tmp_path / "m.onnx", nodes, [("img", FLOAT, axes)], [("out", FLOAT, axes)])
    with pytest.raises(InputError, match="--layout nchw or nhwc"):
        import_onnx(path, tmp_path / "out.gsdk", OnnxOptions(size=(16, 16)))
    import_onnx(path, tmp_path / "out.gsdk", OnnxOptions(size=(16, 16), layout="nhwc"))
    assert verify_bundle(tmp_path / "out.gsdk", backend="onnxruntime").ok


def cutting(path: Path, *, kernel: int, layers: int, scale: int) -> Path:
    """Convolutions without padding, and pixels made of channels."""
    random = np.random.default_rng(0)
    nodes, name, weights = list[Any](), "x", dict[str, np.ndarray]()
    for index in range(layers):
        outputs = 3 * scale**2 if index == layers - 1 else 3
        weight = random.standard_normal((outputs, 3, kernel, kernel)).astype(np.float32)
        weights[f"w{index}"] = weight / np.abs(weight).sum(axis=(1, 2, 3), keepdims=True)
        nodes.append(node("Conv", [name, f"w{index}"], [f"c{index}"]))
        name = f"c{index}"
    nodes += [node("DepthToSpace", [name], ["y"], blocksize=scale)]
    return write_onnx(path, nodes, [("x", FLOAT, IMAGE)], [("y", FLOAT, ["n", 3, "H", "W"])], weights)


@pytest.mark.parametrize("uint8", [True, False])
def test_convolutions_without_padding_get_a_border(uint8: bool, tmp_path: Path) -> None:
    """waifu2x and its kind give 2 h - 28: the advice went round in a loop."""
    path = cutting(tmp_path / "valid.onnx", kernel=3, layers=7, scale=2)
    report = import_onnx(path, tmp_path / "out.gsdk", OnnxOptions(size=(32, 32), uint8=uint8))
    assert told(report)["border"].value == "7 pixels, mirrored"
    assert told(report)["scale"].value == "2"
    assert verify_bundle(tmp_path / "out.gsdk", backend="onnxruntime").ok
    image = np.random.default_rng(1).integers(0, 256, (21, 30, 3), dtype=np.uint8)
    with Generator.load(tmp_path / "out.gsdk", backend="onnxruntime", threads=1) as generator:
        result = generator.translate(image)
    padded = np.pad(image, ((7, 7), (7, 7), (0, 0)), mode="reflect").astype(np.float32).transpose(2, 0, 1)[None]
    expected = np.rint(np.clip(run_onnx(path, x=padded / 255)[0].transpose(1, 2, 0), 0, 1) * 255)
    assert isinstance(result, np.ndarray)
    assert result.shape == (42, 60, 3)
    assert np.abs(result.astype(int) - expected).max() <= 1


def test_a_border_that_does_not_come_out_even(tmp_path: Path) -> None:
    path = cutting(tmp_path / "valid.onnx", kernel=4, layers=1, scale=1)
    with pytest.raises(ExportError, match="less 3 pixels, which its convolutions cut off; that can't be made up"):
        import_onnx(path, tmp_path / "out.gsdk")


def baked(path: Path, side: int) -> Path:
    """Named axes, and a Reshape that knows one size."""
    weights = {**convolution(), "form": np.array([-1, 3, side, side])}
    nodes = [conv("x", "c"), node("Reshape", ["c", "form"], ["y"], name="/up/Reshape_3")]
    return write_onnx(path, nodes, [("x", FLOAT, ["n", 3, "h", "w"])], [("y", FLOAT, IMAGE)], weights)


def test_sizes_that_are_baked_in_behind_named_axes(tmp_path: Path) -> None:
    report = import_onnx(baked(tmp_path / "usual.onnx", 96), tmp_path / "out.gsdk")
    assert told(report)["sizes"].value == "96 x 96 alone"
    assert "'/up/Reshape_3' (Reshape) has sizes baked in" in told(report)["sizes"].reason
    assert verify_bundle(tmp_path / "out.gsdk", backend="onnxruntime").ok
    odd = baked(tmp_path / "odd.onnx", 44)
    with pytest.raises(ExportError, match=r"'/up/Reshape_3' \(Reshape\) has sizes baked in.*--size") as caught:
        import_onnx(odd, tmp_path / "other.gsdk")
    assert len(str(caught.value)) < 300
    import_onnx(odd, tmp_path / "other.gsdk", OnnxOptions(size=(44, 44)))
    assert verify_bundle(tmp_path / "other.gsdk", backend="onnxruntime").ok


def two_images(path: Path, channels: int, *, layout: str = "nchw") -> Path:
    """x where the mask is 1, y elsewhere; for more channels than one, their mean with the reference."""
    shape = ["n", channels, "h", "w"]
    nodes = [conv("x", "c"), node("Mul", ["c", "second"], ["m"]), node("Sigmoid", ["m"], ["y"])]
    inputs = [("x", FLOAT, IMAGE), ("second", FLOAT, shape)]
    return write_onnx(path, nodes, inputs, [("y", FLOAT, IMAGE)], convolution())


@pytest.mark.parametrize("uint8", [True, False])
@pytest.mark.parametrize(("channels", "ranges"), [(1, {}), (3, {"second": (0.0, 255.0)})])
def test_an_image_and_a_second_one(channels: int, ranges: Any, uint8: bool, tmp_path: Path) -> None:
    """Inpainting takes an image and a mask, which was impossible: one array holds both, channel by channel."""
    path = two_images(tmp_path / "two.onnx", channels)
    options = OnnxOptions(size=(16, 16), ranges=ranges, uint8=uint8, source_range=(-1.0, 1.0))
    report = import_onnx(path, tmp_path / "out.gsdk", options)
    assert "'second'" in told(report)["image beside it"].value
    assert verify_bundle(tmp_path / "out.gsdk", backend="onnxruntime").ok
    image = np.random.default_rng(1).integers(0, 256, (2, 16, 24, 3 + channels), dtype=np.uint8)
    planes = image.transpose(0, 3, 1, 2).astype(np.float32)
    with Generator.load(tmp_path / "out.gsdk", backend="onnxruntime", threads=1) as loaded:
        result = loaded.sample(image=image).array
    expected = run_onnx(path, x=planes[:, :3] / 127.5 - 1, second=planes[:, 3:] / (255 if channels == 1 else 1))
    np.testing.assert_allclose(result, expected, atol=1e-4)


def test_images_of_two_sizes_are_refused(tmp_path: Path) -> None:
    nodes = [conv("x", "c"), node("ReduceMean", ["style"], ["s"], axes=[2, 3]), node("Mul", ["c", "s"], ["y"])]
    inputs = [("x", FLOAT, IMAGE), ("style", FLOAT, [1, 3, 256, 256])]
    path = write_onnx(tmp_path / "two.onnx", nodes, inputs, [("y", FLOAT, IMAGE)], convolution())
    with pytest.raises(InputError, match=r"images of one size.*--constant NAME=FILE.npy"):
        import_onnx(path, tmp_path / "out.gsdk")
    reference = np.random.default_rng(0).random((1, 3, 256, 256)).astype(np.float32)
    import_onnx(path, tmp_path / "out.gsdk", OnnxOptions(constants={"style": reference}, size=(16, 16)))
    assert verify_bundle(tmp_path / "out.gsdk", backend="onnxruntime").ok


def test_constants_that_are_no_numbers_tell_nothing(tmp_path: Path) -> None:
    """Texts among the weights, and offsets that are not finite, once ended in an error of Python's."""
    words = helper.make_tensor("word", helper.TensorProto.STRING, [1], [b"abc"])
    endless = np.asarray(np.inf, np.float32)
    nodes = [
        conv("x", "c"),
        node("Tanh", ["c"], ["t"]),
        node("Min", ["t", "endless"], ["m"]),
        node("Sub", ["m", "nothing"], ["y"]),
    ]
    weights = {**convolution(), "endless": endless, "nothing": np.asarray(0, np.float32)}
    edges = ([("x", FLOAT, IMAGE)], [("y", FLOAT, IMAGE)], weights)
    import_onnx(write_onnx(tmp_path / "m.onnx", nodes, *edges), tmp_path / "out.gsdk", OnnxOptions(size=(16, 16)))
    assert verify_bundle(tmp_path / "out.gsdk", backend="onnxruntime").ok
    texts = write_onnx(tmp_path / "t.onnx", [node("Constant", [], ["text"], value=words), *nodes], *edges)
    with pytest.raises(InputError, match=r"t\.onnx: it works on texts \(string tensors\)"):
        import_onnx(texts, tmp_path / "texts.gsdk", OnnxOptions(size=(16, 16)))


BROUGHT: dict[str, tuple[list[tuple[str, float]], tuple[float, float]]] = {
    "bytes to 0..1": ([("Div", 255.0)], (0.0, 255.0)),
    "bytes to -1..1": ([("Sub", 127.5), ("Mul", 1 / 127.5)], (0.0, 255.0)),
    "bytes by 128": ([("Div", 128.0), ("Sub", 1.0)], (0.0, 255.0)),
    "0..1 to -1..1": ([("Mul", 2.0), ("Sub", 1.0)], (0.0, 1.0)),
    "-1..1 to 0..1": ([("Add", 1.0), ("Mul", 0.5)], (-1.0, 1.0)),
    "nothing usual": ([("Mul", 3.0)], (0.0, 1.0)),
}


@pytest.mark.parametrize("name", BROUGHT)
@pytest.mark.parametrize("end", ["Sigmoid", "Relu"])
def test_what_comes_first_tells_the_range_that_a_model_takes(name: str, end: str, tmp_path: Path) -> None:
    """Else pictures of 0 to 1 go into a model that divides by 255, which then sees black."""
    steps, expected = BROUGHT[name]
    nodes, weights, last = list[Any](), dict[str, np.ndarray](), "x"
    for place, (operator, number) in enumerate(steps):
        weights[f"n{place}"] = np.asarray(number, np.float32)
        nodes.append(helper.make_node(operator, [last, f"n{place}"], [f"s{place}"]))
        last = f"s{place}"
    weights["w"], weights["b"] = np.full((3, 3, 3, 3), 0.03, np.float32), np.zeros(3, np.float32)
    nodes.append(helper.make_node("Conv", [last, "w", "b"], ["z"], pads=[1, 1, 1, 1]))
    nodes.append(helper.make_node(end, ["z"], ["y"]))
    axes = [1, 3, "h", "w"]
    path = write_onnx(tmp_path / "model.onnx", nodes, [("x", FLOAT, axes)], [("y", FLOAT, axes)], weights)
    report = import_onnx(path, tmp_path / "out", OnnxOptions(size=(32, 32)))
    with Bundle.open(tmp_path / "out") as bundle:
        model = bundle.manifest.model
    assert model.source is not None
    assert model.source.value_range == expected
    assert model.output.value_range[1] == 1.0  # nothing that came out in the trial is of 255
    assert {"range of the source", "range of the result"} <= {guess.what for guess in report.guesses}
