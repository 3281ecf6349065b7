"""Members of one batch that differ, over real graphs in ONNX Runtime: each comes out exactly as it does alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gensdk_export.golden_record import record_golden
from gensdk_export.graphs import export_fp32, prepare_modules
from gensdk_export.onnx_weights import MemoryGraph
from gensdk_runtime.backends import create_backend
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.bundles.embedded import embedded_names
from gensdk_runtime.plan.runner import open_runner
from gensdk_runtime.programs import make_program
from gensdk_runtime.programs.diffusion import DiffusionProgram
from gensdk_runtime.proof.golden import Golden
from gensdk_training.graphs.diffusion_plan import diffusion_plan
from gensdk_training.plan import ExportPlan
from support.members import assert_halves_are_each_as_alone
from support.old_bundles import bundle as old_bundle
from support.plans import family_plan


class BlackBox(nn.Module):
    """A denoiser whose embedding nobody can take apart."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor:
        out: Tensor = self.network(*inputs)
        return out


def tiny_plan(*, conditional: bool) -> ExportPlan:
    return family_plan("ddpm", conditional=conditional, channels=8, blocks=1, multipliers=[1])


def black_box(*, conditional: bool) -> ExportPlan:
    plan = tiny_plan(conditional=conditional)
    model, network = plan.model, plan.modules["embedding"].denoiser
    return diffusion_plan(
        BlackBox(network),
        model.output,
        model.program.schedule,  # type: ignore[union-attr]
        name="box",
        family="ddpm",
        num_classes=model.num_classes,
    )


def of_bundle(bundle: str | Path, precision: Any = "fp32") -> Callable[[ExitStack], Any]:
    def opened(stack: ExitStack) -> Any:
        files = stack.enter_context(Bundle.open(bundle))
        runner = open_runner(files, create_backend("onnxruntime", threads=1), precision)
        stack.callback(runner.close)
        return runner.program

    return opened


def of_plan(make: Callable[[], ExportPlan]) -> Callable[[ExitStack], Any]:
    def opened(stack: ExitStack) -> Any:
        plan, backend = make(), create_backend("onnxruntime", threads=1)
        golden = Golden(record_golden(plan, samples=1, steps=2))
        files = export_fp32(plan, prepare_modules(plan), golden).files
        graphs = {graph.name: graph for graph in plan.model.graphs}
        sessions = {
            name: stack.enter_context(backend.open(graph, MemoryGraph(files[name]), precision="fp32"))
            for name, graph in graphs.items()
        }
        return make_program(plan.model, sessions)

    return opened


def diffusion_bundles() -> list[tuple[str, str]]:
    """The embedded ones of this program, in each precision that they have."""
    found = []
    for name in embedded_names():
        with Bundle.open(name) as bundle:
            if bundle.manifest.model.program.kind == "diffusion":
                found += [(name, precision) for precision in bundle.manifest.precisions]
    return found


PROGRAMS: dict[str, Callable[[ExitStack], Any]] = {
    **{f"{name} {p}": of_bundle(name, p) for name, p in diffusion_bundles()},
    **{f"first contract, {p}": of_bundle(old_bundle("digits-ddpm"), p) for p in ("fp32", "fp16")},
    "no classes": of_plan(lambda: tiny_plan(conditional=False)),
    "black box": of_plan(lambda: black_box(conditional=True)),
}


@pytest.fixture(scope="module", params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> Iterator[DiffusionProgram]:
    with ExitStack() as stack:
        opened = PROGRAMS[request.param](stack)
        assert isinstance(opened, DiffusionProgram)
        yield opened


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_halves_at_different_steps_are_each_as_alone(program: DiffusionProgram, data: st.DataObject) -> None:
    assert_halves_are_each_as_alone(program, data)
