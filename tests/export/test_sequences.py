"""Sequences after their export: steps and one call beside naive PyTorch, and what a GPU is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gensdk_export.golden_record import record_golden
from gensdk_export.graphs import export_fp32, prepare_modules
from gensdk_runtime.bundles.writer import write_bundle
from gensdk_runtime.conditions.base import examples_of
from gensdk_runtime.generator import Generator
from gensdk_runtime.programs import sequence, sequence_call
from gensdk_runtime.proof.golden import Golden
from gensdk_runtime.samples import Samples
from gensdk_runtime.spec.manifest import Manifest
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.outputs import TextSpec
from gensdk_runtime.spec.sequence import SequenceSpec
from gensdk_runtime.text.vocabulary import SpecialTokens, vocabulary_bytes
from gensdk_runtime.text.words import Words
from gensdk_training.graphs.sequence_steps import likelihood_graph
from gensdk_training.graphs.voice_steps import Rolls
from gensdk_training.graphs.wavenet_steps import Codes
from gensdk_training.plan import ExportPlan
from gensdk_training.registry import get_family
from support.forms import both_forms
from support.naive_sequences import LOGITS, ends_of, naive_tokens
from support.plans import family_plan
from support.tiny import FAMILIES

SEQUENCES = [name for name in FAMILIES if isinstance(family_plan(name).model.program, SequenceSpec)]
LABELLED = {name: family_plan(name).model.num_classes is not None for name in SEQUENCES}
CASES = [
    (name, labelled) for name in SEQUENCES for labelled in sorted({get_family(name).needs_labels, LABELLED[name]})
]
cases = pytest.mark.parametrize(("family", "labelled"), CASES)
LABELS = [2, 0, 1, 0, 2]


def asked_of(plan: ExportPlan, places: Sequence[int], *, labelled: bool) -> dict[str, Any]:
    """What samples are asked for at `places` of five and more: labels, a prompt where the model is made from one,
    and that nothing is cut, which may be the model's own way."""
    spec, asked = plan.model.program_of(SequenceSpec), {}
    if labelled:
        asked["label"] = [LABELS[place % len(LABELS)] for place in places]
    if plan.model.condition("prompt") is not None:
        asked["prompt"] = examples_of(plan.model, max(places) + 1)["prompt"][list(places)]
    return asked if spec.defaults.top_k is None else {**asked, "top_k": spec.levels}


@pytest.fixture(scope="module")
def exported() -> Callable[[str, bool], tuple[ExportPlan, Mapping[str, bytes]]]:
    """A family's plan with labels or without, and its files in float32."""

    @cache
    def export(family: str, labelled: bool) -> tuple[ExportPlan, Mapping[str, bytes]]:
        plan = family_plan(family, conditional=labelled)
        golden = Golden(record_golden(plan, samples=1, steps=None))
        return plan, export_fp32(plan, prepare_modules(plan), golden).files

    return export


def tokens_of(plan: ExportPlan, samples: Samples) -> list[list[list[int]]]:
    """Of each sample those before its end, of each channel."""
    assert samples.lengths is not None
    whole, decode = samples.data[..., None], plan.modules.get("decode")
    if isinstance(decode, Rolls):
        whole = decode.encode(torch.from_numpy(samples.data)).numpy()
    elif decode is not None:
        codes: Codes = decode.get_submodule("codes")
        whole = codes.encode(torch.from_numpy(samples.data)).numpy()
    return [row[:length].tolist() for row, length in zip(whole, samples.lengths.tolist(), strict=True)]


def test_each_family_of_sequences_has_its_naive_loop() -> None:
    assert SEQUENCES
    assert set(SEQUENCES) == set(LOGITS)


@cases
def test_steps_and_one_call_draw_what_naive_pytorch_draws(exported: Any, family: str, labelled: bool) -> None:
    plan, files = exported(family, labelled)
    asked = asked_of(plan, range(5), labelled=labelled)
    expected = naive_tokens(plan, 5, seed=6, label=asked.get("label"), prompt=asked.get("prompt"))
    wanted = [row[:end].tolist() for row, end in zip(expected, ends_of(plan, expected), strict=True)]
    with both_forms(plan.model, files) as forms:
        assert len(forms) == 2
        for model in forms:
            for batch_size in (None, 2):
                samples = model.sample(5, seed=6, batch_size=batch_size, **asked)
                assert tokens_of(plan, samples) == wanted
            alone = model.sample(1, seed=[samples.seeds[3]], **asked_of(plan, [3], labelled=labelled))
            np.testing.assert_array_equal(alone.data[0], samples.data[3])
            shorter = model.sample(5, seed=6, max_length=7, **asked)
            assert tokens_of(plan, shorter) == [row[:7] for row in wanted]
            hot = model.sample(5, seed=6, temperature=0.4, **asked)
            assert tokens_of(plan, hot) != wanted


@cases
@pytest.mark.parametrize(("calls", "fewest"), [(1, 1), (16, 1), (5, 1), (3, 7)])
def test_calls_of_any_length_draw_the_same(
    exported: Any, family: str, labelled: bool, calls: int, fewest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequence_call, "CALLS", calls)
    monkeypatch.setattr(sequence_call, "FEWEST", fewest)
    plan, files = exported(family, labelled)
    with both_forms(plan.model, files) as (steps, whole):
        asked = asked_of(plan, range(6), labelled=labelled)
        expected, samples = (each.sample(6, seed=2, **asked) for each in (steps, whole))
        np.testing.assert_array_equal(samples.data, expected.data)
        np.testing.assert_array_equal(samples.lengths, expected.lengths)


@pytest.mark.parametrize("family", SEQUENCES)
def test_a_callback_takes_steps_and_a_clock_hears_of_calls(
    exported: Any, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that tells elements for calls makes a tuning believe that one call takes a hundred times as long."""
    monkeypatch.setattr(sequence_call, "FEWEST", 4)
    plan, files = exported(family, False)
    length = plan.model.program_of(SequenceSpec).length
    with both_forms(plan.model, files) as (steps, whole):
        program = whole._sampling.program
        assert not program.covers(program.defaults, listening=True)
        heard: dict[str, list[int]] = {"steps": [], "calls": []}
        for name, model in zip(heard, (steps, whole), strict=True):
            runner = model._executor.runners.first
            clock_of(runner, model.model, heard[name])
        assert set(heard["steps"]) == {length}
        assert set(heard["calls"]) == {len(range(0, length, 4))}
        assert len(heard["calls"]) <= len(range(0, length, 4))


def clock_of(runner: Any, model: ModelSpec, heard: list[int]) -> None:
    from gensdk_runtime.noise import sample_keys
    from gensdk_runtime.programs.run import Run

    data = np.zeros((2, *model.output.shape), model.output.dtype)
    run = Run(sample_keys(2, 0), data, examples_of(model, 2), clock=lambda count: bool(heard.append(count)))
    runner.program.run(run, runner.program.defaults)


class TokenLikelihood(nn.Module):
    """Of tokens as they are."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, text: Tensor, lengths: Tensor) -> Tensor:
        log_p = torch.log_softmax(self.network(text), dim=-1).gather(-1, text.unsqueeze(-1)).squeeze(-1)
        place = torch.arange(text.shape[1]).unsqueeze(0)
        return torch.where(place < lengths.unsqueeze(1), log_p, torch.zeros_like(log_p)).sum(dim=1)


def texts_of(plan: ExportPlan) -> ExportPlan:
    """The same network, whose codes are tokens of a text."""
    spec = plan.model.program_of(SequenceSpec).model_copy(update={"decode_graph": None})
    output = TextSpec.of(spec.length, spec.levels)
    step, *_ = plan.model.graphs
    graphs = (step, likelihood_graph(spec, output))
    model = ModelSpec(name="codes", family="test", program=spec, graphs=graphs, output=output, max_batch=8)
    network = plan.modules["likelihood"].get_submodule("network")
    modules = {"step": plan.modules["step"], "likelihood": TokenLikelihood(network).eval()}
    return ExportPlan(model=model, modules=modules)


def bundle_of(plan: ExportPlan, files: Mapping[str, bytes], path: Path) -> Path:
    paths = {name: f"graphs/{name}.onnx" for name in files}
    names = tuple(f"w{number}" for number in range(plan.model.program_of(SequenceSpec).levels))
    words = Words(tokens=names, special=SpecialTokens(end=len(names) - 1), joining="spaces")
    extra = dict.fromkeys(plan.model.output.files, vocabulary_bytes(words))
    manifest = Manifest(model=plan.model, graph_files={name: {"fp32": file} for name, file in paths.items()})
    write_bundle(path, manifest, {paths[name]: data for name, data in files.items()} | extra).close()
    return path


@pytest.mark.parametrize("look", [1024, 8])
@pytest.mark.parametrize("decoded", [False, True], ids=["tokens", "sounds"])
def test_a_sample_on_a_gpu_passes_once_back(
    exported: Any, decoded: bool, look: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="the extra rtx is not installed")
    pytest.importorskip("cuda.bindings.runtime", reason="the extra rtx is not installed")
    from support.engines_here import engines_here
    from support.gpu_counts import DOWN, UP, WAITS, counted

    monkeypatch.setattr(sequence, "LOOK_EVERY_ON_DEVICE", look)
    plan, files = exported("wavenet", False)
    if not decoded:
        plan = texts_of(plan)
        golden = Golden(record_golden(plan, samples=1, steps=None))
        files = export_fp32(plan, prepare_modules(plan), golden).files
    host = engines_here("rtx", monkeypatch, tmp_path)
    with both_forms(plan.model, files) as (steps, _):
        expected = steps.sample(3, seed=4)
        assert expected.lengths is not None
    bundle = bundle_of(plan, files, tmp_path / "codes.gsdk")
    with Generator.load(bundle, backend=host.backend) as model:
        samples, calls = counted(host.cuda, lambda: model.sample(3, seed=4))
        whole = [at for at, length in enumerate(expected.lengths.tolist()) if length > 5]
        assert whole
        begun = {"seed": [expected.seeds[at] for at in whole], "prefix": expected.data[whole][:, :5]}
        again = model.sample(len(whole), **begun)
    np.testing.assert_array_equal(samples.data, expected.data)
    np.testing.assert_array_equal(samples.lengths, expected.lengths)
    np.testing.assert_array_equal(again.data, expected.data[whole])
    looks = 0 if look == 1024 else 24 // look - 1
    assert calls[UP] <= 3
    assert (calls[DOWN], calls[WAITS], calls["allocated"]) == (1 + looks, 1 + looks, 0)


@pytest.mark.parametrize("family", SEQUENCES)
@pytest.mark.parametrize("count", [1, 4, 9])
def test_prefix_and_continuation_equal_the_whole(exported: Any, family: str, count: int) -> None:
    """In either form: with a prefix the steps are taken."""
    plan, files = exported(family, LABELLED[family])
    asked = asked_of(plan, range(5), labelled=LABELLED[family])
    with both_forms(plan.model, files) as (steps, _):
        whole = steps.sample(5, seed=6, **asked)
        assert whole.lengths is not None
        long = [at for at, length in enumerate(whole.lengths.tolist()) if length >= count]
        assert long
        some = asked_of(plan, long, labelled=LABELLED[family])
        begun = np.take(whole.data[long], range(count), axis=plan.model.program_of(SequenceSpec).axis + 1)
        again = steps.sample(len(long), seed=[whole.seeds[at] for at in long], prefix=begun, **some)
    np.testing.assert_array_equal(again.data, whole.data[long])
    np.testing.assert_array_equal(again.lengths, whole.lengths[long])
