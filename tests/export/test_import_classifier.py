"""Classifiers that others trained: run as ONNX Runtime runs them, differentiated as by autograd, dreamt on."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from gensdk.cli.main import run
from gensdk_export.importers.classifier.dream_plan import DreamOptions, classifier_plan
from gensdk_export.importers.classifier.import_classifier import import_classifier
from gensdk_export.importers.onnx.meaning import OnnxOptions
from gensdk_runtime.backends import create_backend
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import ExportError
from gensdk_runtime.generator import Generator
from gensdk_runtime.media.images import encode_image
from gensdk_runtime.proof.verify import verify_bundle
from gensdk_training.plan import ExportPlan
from gensdk_training.torch_backend import TorchSession
from support.classifiers import CLASSES, KINDS, SIZES, Resnet, classifier, write_classifier

TOP = {"vgg": "features_features.4_Relu", "resnet": "Relu", "mobilenet": "last_last.1_Mul"}
TOP |= {"inception": "Concat", "nhwc": "Relu"}
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def seen(kind: str, images: Tensor, *, bgr: bool = False) -> Tensor:
    """Images in [-1, 1] as the classifier was trained on: normalized, in its layout."""
    column = (1, 3, 1, 1)
    whole = ((images + 1) / 2 - torch.tensor(MEAN).reshape(column)) / torch.tensor(STD).reshape(column)
    whole = whole.flip(1) if bgr else whole
    return whole.permute(0, 2, 3, 1) if kind == "nhwc" else whole


def by_autograd(energy: Callable[[Tensor], Tensor], images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x = torch.from_numpy(images).requires_grad_()
    objective = energy(x)
    (gradient,) = torch.autograd.grad(objective.sum(), x)
    return objective.detach().numpy(), gradient.numpy()


def features_of(kind: str, network: nn.Module, *, bgr: bool = False) -> Callable[[Tensor], Tensor]:
    """Half the energy of the last features, of the model that was exported."""

    def energy(images: Tensor) -> Tensor:
        given = seen(kind, images, bgr=bgr)
        features = network.features(given.permute(0, 3, 1, 2) if kind == "nhwc" else given)
        return features.square().sum(dim=(1, 2, 3)) / 2

    return energy


def random_images(height: int, width: int, n: int = 2) -> np.ndarray:
    return np.random.default_rng(height).uniform(-1, 1, (n, 3, height, width)).astype(np.float32)


def near(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(1.0, float(np.abs(expected).max())))


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, ExportPlan, Any]]:
    """Read, and proved equal to ONNX Runtime; nothing is exported yet."""

    @functools.cache
    def make(kind: str) -> tuple[Path, ExportPlan, Any]:
        folder = tmp_path_factory.mktemp(kind)
        path = write_classifier(folder / f"{kind}.onnx", classifier(kind), SIZES[kind], nhwc=kind == "nhwc")
        plan, _, guesses = classifier_plan(path, None, DreamOptions(mean=MEAN, std=STD))
        return path, plan, guesses

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_original_at_any_size(kind: str, plans: Any) -> None:
    """That features and logits are those of ONNX Runtime was proved while the plan was made."""
    _, plan, guesses = plans(kind)
    network, objectives = classifier(kind), plan.model.program.objectives
    assert next(iter(objectives)) == TOP[kind] or len(objectives) > 3
    graph = plan.model.graph(objectives[TOP[kind]])
    session = TorchSession(graph, plan.modules[graph.name])
    ones = np.ones(graph.inputs[1].shape, np.float32)
    multiple = plan.model.source.multiple
    for height, width in ((8 * multiple, 8 * multiple), (9 * multiple, 11 * multiple), (23, 37)):
        if height % multiple or width % multiple:
            continue
        images = random_images(height, width)
        found = session.run({"variable": images, "channels": ones})
        objective, gradient = by_autograd(features_of(kind, network), images)
        near(found["objective"], objective)
        near(found["gradient"], gradient)
    left_out = {guess.value for guess in guesses if guess.what == "left out"}
    assert left_out == ({"logits"} if kind == "vgg" else set())
    assert ("logits" in objectives) == (kind != "vgg")


def test_each_graph_holds_what_lies_below_its_layer(plans: Any) -> None:
    _, plan, _ = plans("resnet")
    sizes = {name: sum(each.numel() for each in module.parameters()) for name, module in plan.modules.items()}
    assert 0 < sizes["gradient_stem_stem.2_Relu"] < sizes["gradient_Relu"] < sizes["gradient_logits"]
    assert not any(each.requires_grad for module in plan.modules.values() for each in module.parameters())


@pytest.fixture(scope="module")
def dreamer(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path, Path, Any]:
    """A ResNet that wants blue first, imported with two layers."""
    folder, network = tmp_path_factory.mktemp("dreamer"), classifier("resnet")
    path = write_classifier(folder / "somebody's resnet.onnx", network, SIZES["resnet"])
    out = folder / "dream.gsdk"
    options = DreamOptions(layers=("/Relu", "logits"), mean=MEAN, std=STD, bgr=True)
    report = import_classifier(path, out, OnnxOptions(source_range=(0.0, 1.0)), options)
    return network, path, out, report


def test_the_bundle_has_the_gradients_of_the_original(dreamer: Any) -> None:
    network, _, out, _ = dreamer
    assert isinstance(network, Resnet)
    assert verify_bundle(out, backend="onnxruntime").ok

    def logit(images: Tensor) -> Tensor:
        pooled = network.features(seen("resnet", images, bgr=True)).mean(dim=(2, 3))
        return network.head(pooled)[:, 3]

    with Bundle.open(out) as bundle:
        model = bundle.manifest.model
        assert list(model.program.objectives) == ["Relu", "logits"]
        for layer, energy in (("Relu", features_of("resnet", network, bgr=True)), ("logits", logit)):
            graph = model.graph(model.program.objectives[layer])
            source = bundle.graph_source(graph.name, "fp32")
            channels = np.ones(8, np.float32) if layer == "Relu" else np.eye(CLASSES, dtype=np.float32)[3]
            with create_backend("onnxruntime").open(graph, source, precision="fp32") as session:
                for height, width in ((32, 32), (40, 56), (24, 80)):
                    images = random_images(height, width)
                    found = session.run({"variable": images, "channels": channels})
                    objective, gradient = by_autograd(energy, images)
                    near(found["objective"], objective)
                    near(found["gradient"], gradient)


def test_dreams_climb_from_octave_to_octave(dreamer: Any) -> None:
    network, _, out, _ = dreamer
    files = sorted(path for path in out.rglob("*") if path.is_file())
    before = [hashlib.sha256(path.read_bytes()).digest() for path in files]
    rows, columns = np.mgrid[0:61, 0:83]
    photo = np.stack([rows * 3, columns * 3, 255 - rows - columns], axis=2).clip(0, 255).astype(np.uint8)
    given = seen("resnet", torch.from_numpy(photo / 127.5 - 1).float().permute(2, 0, 1)[None], bgr=True)
    live = int(network.features(given).sum(dim=(0, 2, 3)).argmax())
    with Generator.load(out, backend="onnxruntime", threads=1) as generator:
        for options in ({}, {"layer": "Relu", "channel": live}, {"layer": "logits", "channel": 2}):
            heard: list[Any] = []
            dreamt = generator.dream(
                photo, octaves=3, num_inference_steps=5, jitter=0,
                callback_on_step_end=lambda step, heard=heard: bool(heard.append(step)), **options,
            )  # fmt: skip
            assert dreamt.shape == photo.shape
            assert not np.array_equal(dreamt, photo)
            for octave in range(3):
                heights = [float(step.objective[0]) for step in heard[5 * octave : 5 * octave + 5]]
                assert heights[-1] > heights[0], (options, octave)
    assert [hashlib.sha256(path.read_bytes()).digest() for path in files] == before


def test_pooling_and_branches_as_a_bundle(plans: Any, tmp_path: Path) -> None:
    """ONNX Runtime's gradient at a size that is not the file's own."""
    path, _, _ = plans("inception")
    out = tmp_path / "dream.gsdk"
    import_classifier(path, out, None, DreamOptions(layers=("/Concat",), mean=MEAN, std=STD))
    with Bundle.open(out) as bundle:
        (graph,) = bundle.manifest.model.graphs
        with create_backend("onnxruntime").open(
            graph, bundle.graph_source(graph.name, "fp32"), precision="fp32"
        ) as session:
            images = random_images(26, 38)
            found = session.run({"variable": images, "channels": np.ones(graph.inputs[1].shape, np.float32)})
    near(found["gradient"], by_autograd(features_of("inception", classifier("inception")), images)[1])


def test_the_command_line_imports_and_dreams(plans: Any, tmp_path: Path, capsys: Any) -> None:
    path, _, _ = plans("vgg")
    out, photo = tmp_path / "dream.gsdk", tmp_path / "photo.png"
    photo.write_bytes(encode_image(np.arange(40 * 52 * 3, dtype=np.uint8).reshape(40, 52, 3), ".png", {}))
    mean, std = (",".join(map(str, numbers)) for numbers in (MEAN, STD))
    flags = ["--dream", "--layer", TOP["vgg"], "--mean", mean, "--std", std]
    assert run(["import", str(path), "-o", str(out), *flags, "--json"]) == 0
    told = {guess["what"] for guess in json.loads(capsys.readouterr().out)["guesses"]}
    assert {"layout", "range of the source", "order of colours"} <= told
    assert not {"layers", "mean and deviation"} & told
    assert run(["inspect", str(out)]) == 0
    assert f"layers: {TOP['vgg']}" in capsys.readouterr().out
    assert f"Layers: {TOP['vgg']}" in (out / "README.md").read_text()
    with Bundle.open(out) as bundle:
        (graph,) = bundle.manifest.model.graphs
        data = bundle.graph_source(graph.name, "fp32").read()
    # No batch norm was folded: the weights are the file's, bit by bit.
    kept = {numpy_helper.to_array(each).tobytes() for each in onnx.load_from_string(data).graph.initializer}
    assert classifier("vgg").features[3].weight.detach().numpy().tobytes() in kept
    dream = ["dream", str(photo), "--bundle", str(out), "--octaves", "1", "--steps", "2", "-o"]
    assert run([*dream, str(tmp_path / "dream.png"), "--backend", "onnxruntime"]) == 0
    assert run([*dream, str(tmp_path / "none.png"), "--layer", "logits"]) == 5
    assert "known: features" in capsys.readouterr().err
    assert not (tmp_path / "none.png").exists()
    before = hashlib.sha256((out / "manifest.json").read_bytes()).digest()
    for wrong, message in (
        (("--dream", "--layer", "features_4"), "no layer 'features_4'"),
        (("--dream", "--layer", "logits"), "a dream takes any size"),
        (("--dream", "--std", "0"), "above 0"),
        (("--dream", "--mean", "1,2"), "--mean as one number or 3"),
        (("--dream", "--fp16"), "--fp16 says nothing"),
        (("--dream", "--label", "x"), "--label says nothing"),
        (("--bgr",), "give --dream too"),
        ((), "a classifier can --dream"),
    ):
        assert run(["import", str(path), "-o", str(out), *wrong]) in (5, 7)
        (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.endswith("...")]
        assert message in line
    assert run(["import", str(tmp_path / "x.pth"), "-o", str(out), "--dream"]) == 5
    assert run(["import", str(path), "-o", str(out), "--dream", "--mean", "a,b"]) == 2
    assert hashlib.sha256((out / "manifest.json").read_bytes()).digest() == before


def test_hostile_names_become_short_and_unique(tmp_path: Path) -> None:
    path = write_classifier(tmp_path / "model.onnx", classifier("vgg"), 32)
    model = onnx.load(str(path))
    for node, name in zip(
        model.graph.node, ("../../etc\x00\n\x1b[2J", "é" * 500, "a/" * 2000, "", "CON."), strict=False
    ):
        node.name = name
    onnx.save(model, str(path))
    plan, provenance, _ = classifier_plan(path)
    names = list(plan.model.program.objectives)
    assert all(name.isascii() and name.isprintable() and "/" not in name and len(name) < 60 for name in names)
    assert len({name.lower() for name in names}) == len(names) >= 2
    assert set(provenance.config["layers"]) == set(names)


def test_a_batch_of_one_that_was_written_down_becomes_any(tmp_path: Path) -> None:
    """Exports without dynamic axes reshape to [1, 8]; two images at once are then each alone."""
    network = classifier("resnet")
    path = tmp_path / "one.onnx"
    write_classifier(path, network, 32)
    model = onnx.load(str(path))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    constants = {node.output[0]: node for node in model.graph.node if node.op_type == "Constant"}
    reshape = next(node for node in model.graph.node if node.op_type == "Reshape")
    constants[reshape.input[1]].attribute[0].t.CopyFrom(numpy_helper.from_array(np.array([1, 8], np.int64)))
    onnx.save(model, str(path))
    plan, _, _ = classifier_plan(path)
    assert "logits" in plan.model.program.objectives


def test_a_batch_that_is_mixed_is_refused(tmp_path: Path) -> None:
    path = write_classifier(tmp_path / "mixed.onnx", classifier("nhwc"), 24, nhwc=True)
    model = onnx.load(str(path))
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    mixed = helper.make_node("ReduceMean", [relu.output[0]], ["mean"], axes=[0], keepdims=1)
    added = helper.make_node("Sub", [relu.output[0], "mean"], ["less"])
    place = list(model.graph.node).index(relu) + 1
    for node in list(model.graph.node)[place:]:
        for index, name in enumerate(node.input):
            if name == relu.output[0]:
                node.input[index] = "less"
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:place], mixed, added, *nodes[place:]])
    onnx.save(model, str(path))
    with pytest.raises(ExportError, match="differs from ONNX Runtime"):
        classifier_plan(path)
