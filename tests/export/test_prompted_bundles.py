"""Texts from texts after their export: drawn, proved, verified, in one call, in half, and from a command line."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from gensdk.cli.main import run
from gensdk_export.export import ExportOptions, export_plan
from gensdk_export.one_call.sampler import OneCall
from gensdk_export.onnx_weights import MemoryGraph
from gensdk_runtime import noise
from gensdk_runtime.backends import create_backend
from gensdk_runtime.backends.base import Session
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.bundles.writer import write_bundle
from gensdk_runtime.errors import BundleError, InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.noise import sample_keys
from gensdk_runtime.plan.costs import Choice
from gensdk_runtime.plan.runner import one_call_runner, open_runner, runner_of
from gensdk_runtime.plan.runners import Runners
from gensdk_runtime.programs import sequence_call
from gensdk_runtime.proof.golden import Recorder
from gensdk_runtime.proof.verify import load_golden, verify_bundle
from gensdk_runtime.spec.manifest import OneCallSpec
from gensdk_runtime.spec.provenance import Provenance
from gensdk_runtime.spec.signature import GraphSpec
from gensdk_training.plan import ExportPlan
from gensdk_training.torch_backend import torch_sessions
from support.forms import both_forms
from support.prompted import LABELS, LENGTH, PROMPTS
from support.prompted_network import naive_texts, prompted_plan
from support.texts import WORDS

TOKENS = [list(WORDS.encode(text).tokens) for text in PROMPTS]
ASKED: dict[str, Any] = {"prompt": PROMPTS, "label": LABELS}
BARE: dict[str, Any] = {"prompt": TOKENS, "label": LABELS}
"""The same, for generators without the vocabulary."""


@pytest.fixture(scope="module")
def plan() -> ExportPlan:
    return prompted_plan()


@pytest.fixture(scope="module")
def bundle(plan: ExportPlan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prompted") / "prompted.gsdk"
    export_plan(plan, Provenance(data="x", data_count=3), out, ExportOptions(fp16=True, one_call=True))
    return out


def graph_files(bundle: Path) -> dict[str, bytes]:
    with Bundle.open(bundle) as opened:
        return {name: opened.read(files["fp32"]) for name, files in opened.manifest.graph_files.items()}


def expected(plan: ExportPlan, seed: int = 6) -> list[list[int]]:
    uniforms = noise.uniform(sample_keys(5, seed), noise.LATENT_STREAM, (LENGTH, 1))[:, :, 0]
    found = naive_texts(plan, torch.from_numpy(uniforms), TOKENS, LABELS)
    assert len({tuple(tokens) for tokens in found}) > 3
    return found


def test_steps_and_one_call_draw_what_naive_pytorch_draws(plan: ExportPlan, bundle: Path) -> None:
    wanted = [WORDS.decode(tokens) for tokens in expected(plan)]
    with Generator.from_sessions(plan.model, torch_sessions(plan), plan.files) as live:
        assert live.sample(5, seed=6, **ASKED).texts == wanted
    with Generator.load(bundle, backend="onnxruntime") as model:
        for batch_size in (None, 2, 1):
            assert model.sample(5, seed=6, batch_size=batch_size, **ASKED).texts == wanted
        whole = model.sample(5, seed=6, **ASKED)
        shorter = model.sample(5, seed=6, max_length=3, **ASKED)
        assert [row[:3].tolist() for row in shorter.data] == [row[:3].tolist() for row in whole.data]
    with both_forms(plan.model, graph_files(bundle)) as forms:
        assert len(forms) == 2
        for form in forms:
            for batch_size in (None, 2):
                samples = form.sample(5, seed=6, batch_size=batch_size, **BARE)
                np.testing.assert_array_equal(samples.data, whole.data)
            alone = form.sample(seed=[whole.seeds[3]], prompt=TOKENS[3:4], label=LABELS[3])
            np.testing.assert_array_equal(alone.data[0], whole.data[3])
            likeliest = form.sample(5, seed=6, top_k=1, **BARE)
            np.testing.assert_array_equal(likeliest.data, form.sample(5, seed=7, top_k=1, **BARE).data)


def test_the_source_is_read_once_in_either_form(
    plan: ExportPlan, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one call too, though that takes several calls of the sampler."""
    monkeypatch.setattr(sequence_call, "CALLS", 4)
    monkeypatch.setattr(sequence_call, "FEWEST", 1)
    files, recorder, engine = graph_files(bundle), Recorder(), create_backend("onnxruntime", threads=1)
    one_call = OneCall(plan.model)
    spec = OneCallSpec(graph=one_call.graph, files={"fp32": "x"})
    files[one_call.graph.name] = one_call.build(files)

    def opened(graph: GraphSpec) -> Session:
        session = engine.open(graph, MemoryGraph(files[graph.name]), precision="fp32")
        return recorder.wrap({graph.name: session})[graph.name]

    steps = runner_of(plan.model, {graph.name: opened(graph) for graph in plan.model.graphs})
    whole = one_call_runner(plan.model, spec, opened)
    drawn = []
    for form, runner in (("steps", steps), ("one_call", whole)):
        choice = Choice(threads=1, form=form)
        with Generator(plan.model, Runners({choice: runner})) as model:
            drawn.append(model.sample(5, seed=6, **BARE).data)
        calls = recorder.take()
        (source,) = [call for call in calls if call.graph == "source"]
        assert len(source.feeds["prompt"]) == 4
        assert len(calls) > 3
    np.testing.assert_array_equal(*drawn)
    assert {spec.name for spec in one_call.graph.inputs} >= {"keys", "values", "hiding"}
    assert not {spec.name for spec in one_call.graph.inputs} & {"prompt", "label"}


def test_prefix_and_continuation_equal_the_whole(bundle: Path) -> None:
    with Generator.load(bundle, backend="onnxruntime") as model:
        whole = model.sample(5, seed=6, **ASKED)
        assert whole.lengths is not None
        long = [at for at, length in enumerate(whole.lengths.tolist()) if length >= 2]
        assert long
        again = model.sample(
            len(long),
            seed=[whole.seeds[at] for at in long],
            prefix=whole.data[long, :2],
            prompt=[PROMPTS[at] for at in long],
            label=[LABELS[at] for at in long],
        )
    np.testing.assert_array_equal(again.data, whole.data[long])
    assert again.prompts == [PROMPTS[at] for at in long]


def test_the_likelihood_is_the_sum_along_the_steps(plan: ExportPlan, bundle: Path) -> None:
    step: Any = plan.modules["step"]
    with Generator.load(bundle, backend="onnxruntime") as model:
        samples = model.sample(5, seed=6, **ASKED)
        bits = model.log_likelihood(samples.data, LABELS, prompt=PROMPTS, lengths=samples.lengths)
        others = model.log_likelihood(
            samples.data, LABELS, prompt=[*PROMPTS[1:], PROMPTS[0]], lengths=samples.lengths
        )
    assert samples.lengths is not None
    assert (bits != others).any()
    for at, length in enumerate(samples.lengths.tolist()):
        tokens = [*samples.data[at, :length].tolist(), *([2] if length < LENGTH else [])]
        padded = torch.tensor([TOKENS[at] + [0] * (5 - len(TOKENS[at]))])
        with torch.no_grad():
            source = step.network.source(padded, torch.tensor([LABELS[at]]))
            hidden, before, nats = torch.zeros(1, 16), torch.tensor([1]), 0.0
            for token in tokens:
                logits, hidden = step.network.step(source, before, hidden)
                nats += float(torch.log_softmax(logits, dim=1)[0, token])
                before = torch.tensor([token])
        assert bits[at] == pytest.approx(-nats / np.log(2) / len(tokens), rel=1e-4)


def test_half_draws_texts_and_keeps_its_source_graph(bundle: Path) -> None:
    with Bundle.open(bundle) as opened:
        assert {name for name, files in opened.manifest.graph_files.items() if "fp16" in files} == {
            "step",
            "likelihood",
            "source",
        }
        source = onnx.load_from_string(opened.read(opened.manifest.graph_files["source"]["fp16"]))
        types = {numpy_helper.to_array(weight).dtype for weight in source.graph.initializer}
        assert np.dtype(np.float16) in types
    with Generator.load(bundle, backend="onnxruntime", precision="fp16") as model:
        samples = model.sample(5, seed=6, **ASKED)
        np.testing.assert_array_equal(samples.data, model.sample(5, seed=6, batch_size=2, **ASKED).data)


def test_a_bundle_is_verified(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", str(bundle), "--backend", "onnxruntime"]) == 0
    printed = capsys.readouterr().out
    for graph in ("step", "likelihood", "source", "one call"):
        assert graph in printed
    with Bundle.open(bundle) as opened:
        golden = load_golden(opened)
    (first, *_) = golden.trajectories
    assert first.conditions["prompt"].shape == (2, 5)
    assert len(golden.calls("source")) == 1


def test_another_source_graph_is_found_out(bundle: Path, tmp_path: Path) -> None:
    with Bundle.open(bundle) as opened:
        files = {name: opened.read(name) for name in opened.manifest.files}
        name = opened.manifest.graph_files["source"]["fp32"]
        model = onnx.load_from_string(files[name])
        weight = next(each for each in model.graph.initializer if len(each.dims) == 2)
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.1), weight.name))
        files[name] = model.SerializeToString()
        write_bundle(tmp_path / "x.gsdk", opened.manifest, files).close()
    report = verify_bundle(tmp_path / "x.gsdk", backend="onnxruntime", precision="fp32")
    assert not report.ok
    assert any(problem.startswith("source") or "'source'" in problem for problem in report.problems)


def test_card_and_inspect_say_what_a_prompt_is(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Bundle.open(bundle) as opened:
        card = opened.read("README.md").decode()
        assert opened.manifest.used_files.count("vocabulary.json") == 1
    assert 'seed=0, prompt="a cat sat don t", label=0)' in card
    assert '--prompt "a cat sat don t" --label 0 -o samples.txt' in card
    assert "prompts of up to 5 of 14 tokens" in card
    assert run(["inspect", str(bundle)]) == 0
    printed = capsys.readouterr().out
    assert "prompt: 1 to 5 tokens, of 14 in vocabulary.json" in printed
    assert "context" in printed


def test_a_command_line_makes_texts_from_texts(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def outcome(*arguments: object) -> tuple[int, str, str]:
        code = run(["sample", str(bundle), "--seed", "6", "--backend", "onnxruntime", *map(str, arguments)])
        return code, *capsys.readouterr()

    with Generator.load(bundle, backend="onnxruntime") as model:
        one = model.sample(4, seed=6, prompt="a cat", label=1).texts
        every = model.sample(5, seed=6, **ASKED).texts
    code, out, err = outcome("-n", 4, "--prompt", "a cat", "--label", 1)
    assert (code, out.splitlines()) == (0, one)
    assert "4 samples of prompted from seed 6" in err
    assert outcome("-n", 4, "--condition", "prompt=a cat", "--label", 1)[1] == out
    assert len(outcome("--prompt", "a")[1].splitlines()) == 16
    listed = tmp_path / "prompts.txt"
    listed.write_text("".join(f"{text}\n" for text in PROMPTS), "utf-8")
    labels = ",".join(map(str, LABELS))
    code, out, _ = outcome("--prompts", listed, "--label", labels)
    assert (code, out.splitlines()) == (0, every)
    told = json.loads(outcome("--prompts", listed, "--label", labels, "--json")[1])
    assert told["settings"]["prompts"] == PROMPTS
    alone = tmp_path / "one.txt"
    alone.write_text("a cat\n")
    assert outcome("-n", 4, "--prompts", alone, "--label", 1)[1].splitlines() == one
    code, out, err = outcome("-n", 1, "--prompt", "a dog")
    assert (code, "1 of 2 tokens are unknown to the model ('dog')" in err) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "is made from a text: pass prompt"),
        (["--prompt", ""], "the prompt is empty"),
        (["--prompt", "a a a a a a"], "has 6 tokens, the model takes at most 5"),
        (["--prompt", "a", "--prompts", "LISTED"], "given twice"),
        (["--prompt", "a", "--condition", "prompt=a"], "prompt is given twice"),
        (["--prompts", "none.txt"], "can't read none.txt"),
        (["--prompts", "LISTED", "-n", "3"], "one prompt for each of the 3 samples, got 2"),
        (["--prompts", "EMPTY"], "holds no line"),
        (["--prompts", "BLANK"], "prompt 1 is empty"),
        (["--prompts", "BYTES"], "UTF-8"),
        (["--prompts", "a\0b"], "--prompts"),
    ],
)
def test_a_command_line_refuses_what_is_no_prompt(
    bundle: Path, arguments: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"LISTED": b"a\ncat\n", "EMPTY": b"", "BLANK": b"a\n\n", "BYTES": b"\xff\xfe"}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    placed = [str(tmp_path / each) if each in files else each for each in arguments]
    assert run(["sample", str(bundle), "--backend", "onnxruntime", *placed]) == 5
    err = capsys.readouterr().err
    assert reason in err
    assert len(err.splitlines()) == 1


def test_other_models_take_no_prompt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.txt").write_text("a\n")
    for given in (["--prompt", "a"], ["--prompts", str(tmp_path / "x.txt")]):
        arguments = ["sample", "digits-vae", *given, "-o", str(tmp_path / "x.png"), "--backend", "onnxruntime"]
        assert run(arguments) == 5
        err = capsys.readouterr().err
        assert "prompt" in err
    assert not (tmp_path / "x.png").exists()


def test_nothing_is_written_without_the_vocabulary(plan: ExportPlan, tmp_path: Path) -> None:
    with pytest.raises((BundleError, InputError), match=r"'vocabulary\.json'"):
        export_plan(replace(plan, files={}), Provenance(), tmp_path / "x.gsdk")
    assert list(tmp_path.iterdir()) == []


def test_one_call_opens_the_source_graph_beside_it(bundle: Path) -> None:
    with Bundle.open(bundle) as opened:
        runner = open_runner(opened, create_backend("onnxruntime", threads=1), "fp32", form="one_call")
        try:
            assert set(runner.sessions) == {"sampler", "source"}
        finally:
            runner.close()


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs OpenVINO")
def test_openvino_draws_the_same(plan: ExportPlan, bundle: Path) -> None:
    wanted = expected(plan)
    with both_forms(plan.model, graph_files(bundle), backend="openvino") as forms:
        assert len(forms) == 2
        for form in forms:
            samples = form.sample(5, seed=6, batch_size=3, **BARE)
            assert samples.lengths is not None
            found = zip(samples.data.tolist(), samples.lengths.tolist(), strict=True)
            assert [row[:length] for row, length in found] == wanted
        steps, _ = forms
        bits = steps.log_likelihood(samples.data, LABELS, prompt=TOKENS, lengths=samples.lengths)
    with Generator.load(bundle, backend="onnxruntime") as model:
        others = model.log_likelihood(samples.data, LABELS, prompt=PROMPTS, lengths=samples.lengths)
        same = model.log_likelihood(samples.data, LABELS, prompt="a cat", lengths=samples.lengths)
        each = model.log_likelihood(samples.data, LABELS, prompt=["a cat"] * 5, lengths=samples.lengths)
    np.testing.assert_allclose(bits, others, rtol=1e-4)
    np.testing.assert_array_equal(same, each)


def test_contexts_stay_on_a_gpu(
    plan: ExportPlan, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the source graph makes is handed over there once: neither the prompt nor it passes the host again."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="the extra rtx is not installed")
    pytest.importorskip("cuda.bindings.runtime", reason="the extra rtx is not installed")
    from support.engines_here import engines_here
    from support.gpu_counts import DOWN, UP, WAITS, counted

    host = engines_here("rtx", monkeypatch, tmp_path)
    with Generator.load(bundle, backend="onnxruntime") as model:
        wanted = model.sample(5, seed=6, **ASKED)
    with Bundle.open(bundle) as opened, Generator.load(opened, backend=host.backend) as model:
        samples, calls = counted(host.cuda, lambda: model.sample(5, seed=6, **ASKED))
        few, fewer = counted(host.cuda, lambda: model.sample(5, seed=6, max_length=2, **ASKED))
    np.testing.assert_array_equal(samples.data, wanted.data)
    np.testing.assert_array_equal(few.data[:, :2], wanted.data[:, :2])
    assert calls[UP] == fewer[UP], "no step sends anything"
    assert (calls[DOWN], calls[WAITS]) == (fewer[DOWN], fewer[WAITS]) == (1, 1)
    assert calls["allocated"] == 0
