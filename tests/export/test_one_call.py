"""The one-call graph draws what the steps draw, wherever it runs; and it is used only where it can be."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from gensdk.cli.main import run as command
from gensdk_export.engines import AxisRange, build_engine
from gensdk_export.export import ExportOptions, export_plan
from gensdk_export.golden_record import record_golden
from gensdk_export.graphs import export_fp32, prepare_modules
from gensdk_export.one_call import steps as one_call_steps
from gensdk_export.one_call.one_call_proof import prove_one_call
from gensdk_export.one_call.sampler import OneCall
from gensdk_export.onnx_check import MAX_IR_VERSION
from gensdk_export.onnx_export import OPSET
from gensdk_export.proof import GraphSet
from gensdk_runtime.backends import create_backend
from gensdk_runtime.backends.base import Session
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.bundles.writer import write_bundle
from gensdk_runtime.errors import BackendError, ExportError, InputError, ManifestError
from gensdk_runtime.generator import Generator
from gensdk_runtime.plan.costs import Choice, Cost, CostTable
from gensdk_runtime.plan.runner import open_runner
from gensdk_runtime.plan.runners import Runners
from gensdk_runtime.proof.golden import Golden
from gensdk_runtime.proof.verify import load_golden, verify_bundle
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.manifest import OneCallSpec
from gensdk_runtime.spec.model import DiffusionSpec, ModelSpec
from gensdk_runtime.spec.provenance import Provenance
from support.captioned import plan as captioned_plan
from support.forms import STEPS, WHOLE, both_forms
from support.old_bundles import bundle as old_bundle
from support.plans import family_plan, linear_plan

CASES: list[tuple[str, dict[str, Any]]] = [
    ("digits-ddpm", {}),
    ("digits-ddpm", {"solver": "ddpm", "num_inference_steps": 6}),
    ("digits-ddpm", {"solver": "dpmsolver++", "num_inference_steps": 5, "guidance_scale": 3.0}),
    ("digits-ddpm", {"eta": 1.0, "num_inference_steps": 4, "clip_sample": False}),
    ("digits-ddpm of the first contract", {"solver": "ddpm", "num_inference_steps": 6}),
    ("digits-ddpm of the first contract", {"num_inference_steps": 5, "guidance_scale": 3.0}),
    ("digits-pixelcnn", {}),
]


def graph_files(bundle: Bundle, precision: Any = "fp32") -> dict[str, bytes]:
    return {name: bundle.graph_source(name, precision).read() for name in bundle.manifest.graph_files}


def with_one_call(source: str | Path, target: Path, **changed: Any) -> Path:
    """A copy of a bundle with a one-call graph."""
    with Bundle.open(source) as bundle:
        one_call = OneCall(bundle.manifest.model, changed)
        files = {name: bundle.read(name) for name in bundle.manifest.files}
        files["graphs/sampler.onnx"] = one_call.build(graph_files(bundle))
        spec = OneCallSpec(graph=one_call.graph, files={"fp32": "graphs/sampler.onnx"}, settings=one_call.settings)
        write_bundle(target, bundle.manifest.model_copy(update={"one_call": spec, "files": {}}), files).close()
    return target


def embedded(name: str) -> tuple[ModelSpec, dict[str, bytes]]:
    first, old, _ = name.partition(" of the first contract")
    with Bundle.open(old_bundle(first) if old else name) as bundle:
        return bundle.manifest.model, graph_files(bundle)


@pytest.mark.parametrize(("name", "changed"), CASES)
@pytest.mark.parametrize("label", [None, [7, 0, 3]])
def test_one_call_draws_what_the_steps_draw(name: str, changed: dict[str, Any], label: Any) -> None:
    with both_forms(*embedded(name), **changed) as (steps, whole):
        expected = steps.sample(3, seed=5, label=label, **changed)
        samples = whole.sample(3, seed=5, label=label, **changed)
        np.testing.assert_allclose(samples.array, expected.array, atol=0 if "pixelcnn" in name else 1e-4)
        assert np.ptp(samples.array, axis=0).max() > 0.1
        head = whole.sample(1, seed=5, label=label and label[:1], **changed)
        np.testing.assert_allclose(head.array, samples.array[:1], atol=1e-4)
        if whole._sampling.program.latent_shape is not None:
            latents = np.full((2, *whole._sampling.program.latent_shape), 0.3, np.float32)
            given = [each.sample(2, seed=1, latents=latents, **changed).array for each in (steps, whole)]
            np.testing.assert_allclose(given[1], given[0], atol=1e-4)


@pytest.mark.parametrize("conditional", [True, False])
def test_time_embeddings_are_stored_or_computed_in_the_loop(
    conditional: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = family_plan("ddpm", conditional=conditional, channels=8, blocks=1, multipliers=[1])
    golden = Golden(record_golden(plan, samples=1, steps=2))
    files = export_fp32(plan, prepare_modules(plan), golden).files
    settings = {"num_inference_steps": 4, **({"guidance_scale": 2.0} if conditional else {})}
    drawing = {"n": 3, "seed": 1, "label": [2, 0, 1] if conditional else None, **settings}
    waves = []
    for limit in (0, 2**23):
        monkeypatch.setattr(one_call_steps, "MAX_EMBEDDING_BYTES", limit)
        with both_forms(plan.model, files, **settings) as (steps, whole):
            np.testing.assert_allclose(whole.sample(**drawing).array, steps.sample(**drawing).array, atol=1e-4)
        body = body_of(onnx.load_from_string(OneCall(plan.model, settings).build(files)))
        waves.append(sum(node.op_type in ("Sin", "Cos") for node in body.node))
    assert waves[0] > waves[1] == 0


@pytest.fixture(scope="module", params=[None, 3], ids=["texts", "texts and labels"])
def captioned(request: pytest.FixtureRequest) -> tuple[ModelSpec, dict[str, bytes]]:
    """A model that is told texts, or texts and labels, and its graphs."""
    plan = captioned_plan(classes=request.param)
    golden = Golden(record_golden(plan, samples=1, steps=2))
    return plan.model, dict(export_fp32(plan, prepare_modules(plan), golden).files)


@pytest.mark.parametrize(
    "changed",
    [{"guidance_scale": 1.0}, {"guidance_scale": 3.0}, {"guidance_scale": 2.0, "solver": "ddpm"}],
    ids=["unguided", "guided", "guided with noise"],
)
def test_texts_are_told_in_one_call(
    captioned: tuple[ModelSpec, dict[str, bytes]], changed: dict[str, Any]
) -> None:
    model, files = captioned
    settings = {"num_inference_steps": 4, "clip_sample": False, **changed}
    asked = {"prompt": [[4, 7], [], [5, 8, 9, 4]], "negative_prompt": [[8], [], [9, 6]]}
    if model.num_classes is not None:
        asked["label"] = [2, 0, 1]
    guided = changed["guidance_scale"] != 1.0

    def drawn(form: Generator, places: list[int], **other: Any) -> np.ndarray:
        own = {name: [values[place] for place in places] for name, values in {**asked, **other}.items()}
        seeds = [(5, place) for place in places]
        return form.sample(len(places), seed=seeds, **own, **settings).array

    with both_forms(model, files, **settings) as (steps, whole):
        taken = {spec.name for spec in OneCall(model, settings).graph.inputs if spec.role == "condition"}
        assert taken == asked.keys() - (set() if guided else {"negative_prompt"})
        expected = drawn(steps, [0, 1, 2])
        close = 1e-5 * float(np.abs(expected).max())
        for places in ([0, 1, 2], [1], [2, 0]):
            np.testing.assert_allclose(drawn(whole, places), expected[places], atol=close)
        other = drawn(whole, [0, 1, 2], prompt=[[6], [6], [6]])
        assert np.abs(other - expected).max(axis=(1, 2, 3)).min() > 10 * close
        away = drawn(whole, [0, 1, 2], negative_prompt=[[7], [7], [7]])
        assert (np.abs(away - expected).max() > 10 * close) == guided
        left_open = whole.sample(2, seed=1, **settings).array
        np.testing.assert_allclose(left_open, steps.sample(2, seed=1, **settings).array, atol=close)


def test_a_prompted_bundle_keeps_its_proof_in_one_call(tmp_path: Path) -> None:
    settings = {"num_inference_steps": 3, "guidance_scale": 2.0}
    options = ExportOptions(one_call=True, one_call_settings=settings, golden_steps=3)
    report = export_plan(captioned_plan(), Provenance(), tmp_path / "captioned.gsdk", options)
    assert [row.verdict for row in report.rows if row.what == "one call"] == ["ok"]
    checks = verify_bundle(report.bundle, backend="onnxruntime").checks
    assert [check.ok for check in checks if check.what == "one call"] == [True]
    asked: dict[str, Any] = {"prompt": [[4, 7], []], "negative_prompt": [[], [8]], "progress": False}
    with counted(report.bundle, (STEPS, WHOLE)) as (generator, calls):
        whole = generator.sample(2, seed=3, **asked, **settings).array
        assert calls == {"sampler": 1}
        steps = generator.sample(2, seed=3, callback_on_step_end=lambda _: None, **asked, **settings).array
        np.testing.assert_allclose(whole, steps, atol=1e-4)


def body_of(model: onnx.ModelProto) -> onnx.GraphProto:
    (node,) = (node for node in model.graph.node if node.op_type in ("Scan", "Loop"))
    return next(attribute.g for attribute in node.attribute if attribute.name == "body")


@pytest.mark.parametrize("name", ["digits-ddpm", "digits-pixelcnn"])
def test_the_file_is_clean_and_has_each_weight_once(name: str) -> None:
    model, files = embedded(name)
    file = onnx.load_from_string(OneCall(model).build(files))
    onnx.checker.check_model(file, full_check=True)
    assert [(entry.domain, entry.version) for entry in file.opset_import] == [("", OPSET)]
    assert file.ir_version <= MAX_IR_VERSION
    digests: Counter[bytes] = Counter()

    def gather(graph: onnx.GraphProto) -> None:
        for tensor in graph.initializer:
            if numpy_helper.to_array(tensor).size > 64:
                digests[tensor.SerializeToString().replace(tensor.name.encode(), b"")] += 1
        for node in graph.node:
            for attribute in node.attribute:
                gather(attribute.g)

    gather(file.graph)
    assert len(digests) > 10
    assert set(digests.values()) == {1}
    used = [data for graph, data in files.items() if graph not in ("likelihood", "shallow_step")]
    assert file.ByteSize() < 1.1 * sum(map(len, used)) + embedding_bytes(model)


def embedding_bytes(model: ModelSpec) -> int:
    """What the time embeddings of all steps and labels take, which are stored where they are small."""
    program = model.program
    if not isinstance(program, DiffusionSpec) or program.embedding_graph is None:
        return 0
    spec = model.graph(program.embedding_graph).output("embedding")
    assert spec is not None
    return 4 * int(spec.shape[-1]) * program.defaults.num_inference_steps * ((model.num_classes or 0) + 1)


@pytest.mark.parametrize(
    ("family", "config"), [("pixelcnn", {}), ("pixelrnn", {}), ("pixelrnn", {"lstm": "diagonal", "layers": 1})]
)
def test_export_proves_it_verify_replays_it_and_inspect_shows_it(
    family: str, config: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = family_plan(family, channels=16, **config)
    report = export_plan(plan, Provenance(), tmp_path / "ar.gsdk", ExportOptions(one_call=True))
    assert [row.verdict for row in report.rows if row.what == "one call"] == ["ok"]
    with Bundle.open(report.bundle) as bundle:
        spec = bundle.manifest.one_call
        assert spec is not None
    checks = verify_bundle(report.bundle, backend="onnxruntime").checks
    assert [check.ok for check in checks if check.what == "one call"] == [True]
    assert command(["inspect", str(report.bundle)]) == 0
    shown = capsys.readouterr().out
    assert f"one call: graph {spec.graph.name}\n" in shown
    assert spec.files["fp32"] in shown

    wrong = tmp_path / "wrong.gsdk"
    with Bundle.open(report.bundle) as bundle:
        files = {name: bundle.read(name) for name in bundle.manifest.files}
        files[spec.files["fp32"]] = wrecked(files[spec.files["fp32"]])
        write_bundle(wrong, bundle.manifest, files).close()
    problems = verify_bundle(wrong, backend="onnxruntime", precision="fp32").problems
    assert len(problems) == 1
    assert "one call" in problems[0]
    assert "step by step" in problems[0]


def wrecked(data: bytes) -> bytes:
    """The graph with one weight of its body turned around."""
    file = onnx.load_from_string(data)
    weight = max(body_of(file).initializer, key=lambda tensor: tensor.ByteSize())
    weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
    return file.SerializeToString()


@pytest.mark.parametrize("name", ["digits-ddpm", "digits-pixelcnn"])
def test_a_graph_that_draws_something_else_is_no_export(name: str) -> None:
    class Wrong(OneCall):
        def build(self, files: Any) -> bytes:
            return wrecked(super().build(files))

    with Bundle.open(name) as bundle:
        precisions: tuple[Precision, ...] = ("fp32", "fp16")
        sets = {precision: GraphSet(graph_files(bundle, precision)) for precision in precisions}
        golden = load_golden(bundle)
        proved = prove_one_call(OneCall(bundle.manifest.model), sets, golden)
        assert [(row.precision, row.verdict) for row in proved.rows] == [("fp32", "ok"), ("fp16", "ok")]
        with pytest.raises(ExportError, match="nothing was written"):
            prove_one_call(Wrong(bundle.manifest.model), sets, golden)


def test_a_model_of_one_call_says_so(tmp_path: Path) -> None:
    report = export_plan(linear_plan(), Provenance(), tmp_path / "gan.gsdk", ExportOptions(one_call=True))
    assert "one call as it is" in report.warnings[0]
    with Bundle.open(report.bundle) as bundle:
        assert bundle.manifest.one_call is None
        with pytest.raises(InputError, match="--one-call"):
            open_runner(bundle, create_backend("onnxruntime"), "fp32", form="one_call")
    options = ExportOptions(one_call=True, one_call_settings={"solver": "ddim"})
    with pytest.raises(InputError, match="one call as it is"):
        export_plan(linear_plan(), Provenance(), tmp_path / "gan.gsdk", options)


def test_settings_that_a_model_does_not_have_are_refused() -> None:
    with Bundle.open("digits-pixelcnn") as pixelcnn, Bundle.open("digits-ddpm") as ddpm:
        with pytest.raises(InputError, match="solver means nothing"):
            OneCall(pixelcnn.manifest.model, {"solver": "ddim"})
        with pytest.raises(InputError, match="num_inference_steps"):
            OneCall(ddpm.manifest.model, {"num_inference_steps": 0})


def test_a_prefix_is_continued_step_by_step(tmp_path: Path) -> None:
    with counted(with_one_call("digits-pixelcnn", tmp_path / "ar.gsdk"), (STEPS, WHOLE)) as (generator, calls):
        whole = generator.sample(3, seed=2, label=5)
        assert calls == {"sampler": 1}
        continued = generator.sample(3, seed=2, label=5, prefix=whole.array[:, :, :4])
        assert calls == {"sampler": 1, "row": 1, "pixel": 1}
        np.testing.assert_array_equal(continued.array, whole.array)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_one_call("digits-ddpm", tmp_path_factory.mktemp("one-call") / "ddpm.gsdk", num_inference_steps=4)


@contextmanager
def counted(path: Path, choices: tuple[Choice, ...]) -> Iterator[tuple[Generator, Counter[str]]]:
    """A generator that may use `choices`, the one-call ones fastest; how often each graph ran."""
    calls: Counter[str] = Counter()
    with Bundle.open(path) as bundle:

        def opener(choice: Choice) -> Any:
            runner = open_runner(bundle, create_backend("onnxruntime", threads=1), "fp32", form=choice.form)
            for session in runner.sessions.values():
                count_calls(session, calls)
            return runner

        costs = tuple(
            Cost(choice=choice, batch=batch, seconds=0.01 if choice.form == "one_call" else 0.02)
            for choice in choices
            for batch in (1, 8)
        )
        with Generator(
            bundle.manifest.model, Runners({}, costs=CostTable(costs=costs), opener=opener)
        ) as generator:
            yield generator, calls


def count_calls(session: Session, calls: Counter[str]) -> None:
    lend = session.lend

    def counting(*arguments: Any) -> Any:
        calls[session.graph.name] += 1
        return lend(*arguments)

    session.lend = counting  # type: ignore[method-assign]


@pytest.mark.parametrize("choices", [(STEPS, WHOLE), (WHOLE,)])
def test_it_is_used_only_where_it_covers_what_is_asked(tuned: Path, choices: tuple[Choice, ...]) -> None:
    with counted(tuned, choices) as (generator, calls):
        whole = generator.sample(2, seed=3, label=1, num_inference_steps=4).array
        assert calls == {"sampler": 1}
        heard: list[int] = []
        steps = generator.sample(
            2,
            seed=3,
            label=1,
            num_inference_steps=4,
            callback_on_step_end=lambda step: bool(heard.append(step.step)),
        ).array
        assert heard == [0, 1, 2, 3]
        calls.pop("embedding")  # once for each time step
        assert calls == {"sampler": 1, "step": 1}
        generator.sample(2, seed=3, num_inference_steps=5)
        generator.sample(2, seed=3, num_inference_steps=4, batch_size=1)
        calls.pop("embedding")
        assert calls == {"sampler": 3, "step": 2}
        assert set(generator.sessions) == {graph.name for graph in generator.model.graphs}
        np.testing.assert_allclose(whole, steps, atol=1e-4)


def test_likelihoods_come_from_the_models_own_graphs(tmp_path: Path) -> None:
    with counted(with_one_call("digits-pixelcnn", tmp_path / "ar.gsdk"), (WHOLE,)) as (generator, calls):
        drawn = generator.sample(2, seed=0, label=4)
        assert calls == {"sampler": 1}
        assert np.isfinite(generator.log_likelihood(drawn.array, 4)).all()


def test_a_whole_sampler_alone_says_what_it_can_not_do() -> None:
    with (
        both_forms(*embedded("digits-ddpm"), num_inference_steps=3) as (_, whole),
        pytest.raises(BackendError, match="one call alone"),
    ):
        whole.sample(1, num_inference_steps=4)


def test_a_graph_that_does_not_fit_its_settings_is_refused(tuned: Path, tmp_path: Path) -> None:
    with Bundle.open(tuned) as bundle:
        files = {name: bundle.read(name) for name in bundle.manifest.files}
        spec = bundle.manifest.one_call
        assert spec is not None
        assert spec.settings is not None
        settings = spec.settings.model_copy(update={"solver": "ddpm"})
        draft = bundle.manifest.model_copy(
            update={"one_call": spec.model_copy(update={"settings": settings}), "files": {}}
        )
        write_bundle(tmp_path / "wrong.gsdk", draft, files).close()
    with (
        Bundle.open(tmp_path / "wrong.gsdk") as wrong,
        pytest.raises(ManifestError, match="no input 'noise'"),
    ):
        open_runner(wrong, create_backend("onnxruntime"), "fp32", form="one_call")


@pytest.mark.parametrize(("name", "changed"), [("digits-ddpm", {"solver": "ddpm"}), ("digits-pixelcnn", {})])
def test_tensorrt_rtx_builds_it(name: str, changed: dict[str, Any]) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="the extra rtx is not installed")
    model, files = embedded(name)
    one_call = OneCall(model, changed)
    engine = build_engine(one_call.graph, one_call.build(files), precision="fp32", batch=AxisRange(1, 4, 8))
    assert len(engine.data) > 10_000


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs OpenVINO")
@pytest.mark.parametrize(("name", "changed"), [("digits-ddpm", {"solver": "ddpm"}), ("digits-pixelcnn", {})])
def test_openvino_runs_it(name: str, changed: dict[str, Any]) -> None:
    with both_forms(*embedded(name), backend="openvino", **changed) as (steps, whole):
        expected = steps.sample(2, seed=0, label=3, **changed).array
        np.testing.assert_allclose(whole.sample(2, seed=0, label=3, **changed).array, expected, atol=1e-4)


@pytest.mark.parametrize(("family", "settings"), [("ddpm", {"num_inference_steps": 3}), ("pixelcnn", {})])
def test_its_engine_is_built_with_the_others(family: str, settings: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="the extra rtx is not installed")
    options = ExportOptions(
        one_call=True,
        one_call_settings=settings,
        engines=("fp32",),
        batch=AxisRange(1, 2, 4),
        golden_steps=3 if settings else None,
    )
    report = export_plan(family_plan(family, channels=8), Provenance(), tmp_path / "bundle", options)
    names = [graph.name for graph in report_model(tmp_path / "bundle").graphs]
    assert [spec.graph for spec, _ in report.engines] == [*names, "sampler"]
    with Bundle.open(tmp_path / "bundle") as bundle:
        source = bundle.graph_source("sampler", "fp32")
        (engine,) = source.engine_specs("fp32")
        assert source.trusts(engine)
        assert len(source.read_engine(engine)) > 10_000


def report_model(path: Path) -> ModelSpec:
    with Bundle.open(path) as bundle:
        return bundle.manifest.model
