"""An option, and the program that has it, of another package: under 40 lines are on all that samples."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pytest
from pydantic import Field

from gensdk import Generator, InputError
from gensdk.cli.main import run as command
from gensdk_runtime.backends.bound import Array, Bound
from gensdk_runtime.bench.latency_report import Report
from gensdk_runtime.programs.base import Program, Wanted, register_program, require_signature
from gensdk_runtime.programs.run import OneRun, Run
from gensdk_runtime.proof.golden import TrajectorySettings
from gensdk_runtime.spec.fields import Name
from gensdk_runtime.spec.kinds import PROGRAMS, ProgramSpec
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.settings import SETTINGS, ProgramSettings, register_settings
from support.models import diffusion_model, feedforward_model, generator
from support.option_values import bundle_of_fakes

MOST = 40
"""Lines that it may take."""


class LitSettings(ProgramSettings):
    """How the images are lit."""

    brightness: float = Field(default=0.5, ge=0, le=1, description="Share of the light that falls on an image.")


class LitSpec(ProgramSpec):
    """One run of `graph`, from ``z`` to ``image``, in some light."""

    makes: ClassVar[frozenset[str]] = frozenset(("image",))

    kind: Literal["lit"] = "lit"
    graph: Name
    defaults: LitSettings = LitSettings()

    @property
    def graphs(self) -> tuple[str, ...]:
        return (self.graph,)


class LitProgram(Program[LitSettings]):
    Spec, Settings = LitSpec, LitSettings

    def check(self) -> None:
        image = Wanted(("batch", *self.model.output.shape))
        require_signature(self.sessions["generator"].graph, {"z": Wanted(("batch", 5))}, {"image": image})

    def begin(self, run: Run, settings: LitSettings) -> OneRun:
        def lit(bound: Bound, as_bytes: bool) -> Array:
            return (bound.output("image") + 1) * np.float32(settings.brightness) - 1

        state = OneRun(run, self.sessions["generator"], {"batch": len(run)}, lit)
        run.latent(state.bound.input("z"))
        return state


PACKAGE = (LitSettings, LitSpec, LitProgram)


def lit_model(brightness: float = 0.5) -> ModelSpec:
    program = LitSpec(graph="generator", defaults=LitSettings(brightness=brightness))
    return feedforward_model().model_copy(update={"name": "lit", "program": program})


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    register_program(LitProgram)
    yield
    for table in (SETTINGS, PROGRAMS._specs, PROGRAMS._classes):
        table.pop("lit")  # type: ignore[attr-defined]


def test_it_is_short() -> None:
    assert sum(len(inspect.getsource(each).splitlines()) for each in PACKAGE) <= MOST


def test_it_is_sampled_with_its_own_option() -> None:
    with generator(lit_model()) as model:
        dark, default = model.sample(2, seed=0, settings={"brightness": 0}), model.sample(2, seed=0)
        bright = model.sample(2, seed=0, brightness=1.0)  # type: ignore[call-arg]
        assert model.sample(2, seed=0, settings=LitSettings(brightness=1)).settings == bright.settings
        np.testing.assert_array_equal(model.sample(settings=bright.settings).data, bright.data)
        np.testing.assert_array_equal(model.prepare(2, settings={"brightness": 0}).draw(0).data, dark.data)
        with pytest.raises(InputError, match="brightness: expected number, 0 <= value <= 1, got 2"):
            model.sample(1, settings={"brightness": 2})
        with pytest.raises(InputError, match="no option 'brightnes'; did you mean 'brightness'"):
            model.sample(1, settings={"brightnes": 1})
    assert default.settings["brightness"] == 0.5
    np.testing.assert_array_equal(dark.array, -1)
    np.testing.assert_allclose(default.array, (bright.array - 1) / 2, atol=1e-6)
    with (
        generator(diffusion_model()) as other,
        pytest.raises(InputError, match=r"brightness means nothing to a diffusion model \(it is for lit models\)"),
    ):
        other.sample(1, settings={"brightness": 1})


def test_it_is_packed_measured_proved_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = bundle_of_fakes(lit_model(0.25), tmp_path / "lit.gsdk")
    with Generator.load(bundle, backend="fake") as model:
        assert model.model == lit_model(0.25)
        assert model.sample(1).settings["brightness"] == 0.25
        golden = TrajectorySettings.from_dict({"seeds": [3], "brightness": 1}, what="golden")
        assert model.sample(**golden.sample_arguments()).settings["brightness"] == 1.0
    given = ["--backend", "fake", "--set", "brightness=0.75", "--json"]
    assert command(["sample", bundle, "-n", "1", "-o", str(tmp_path / "x.png"), *given]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["brightness"] == 0.75
    assert command(["bench", bundle, "--duration", "0.01", "--warmup", "0", "--iterations", "1", *given]) == 0
    (case,) = Report.from_json(capsys.readouterr().out, what="stdout").cases
    assert case.subject.options.options == {"brightness": 0.75}
    assert command(["inspect", bundle]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "brightness 0.25 number, 0 <= value <= 1 Share of the light that falls on an image." in shown


def test_a_manifest_of_it_is_checked_as_others_are() -> None:
    """Unknown keys are named beside the nearest, values have their ranges, and kinds are known or not."""
    whole = lit_model().model_dump(mode="json")
    for program, said in (
        ({"defaults": {"brightnes": 1}}, "unknown key 'brightnes'; did you mean 'brightness'"),
        ({"defaults": {"brightness": 2}}, "less than or equal to 1"),
        ({"grapf": "generator"}, "unknown key 'grapf'; did you mean 'graph'"),
        ({"kind": "unlit"}, "no program of the kind 'unlit' is known"),
    ):
        with pytest.raises(InputError, match=said) as failure:
            ModelSpec.from_dict({**whole, "program": {**whole["program"], **program}}, what="model")
        assert "\n" not in str(failure.value)


def test_two_programs_of_a_kind_are_an_error() -> None:
    class Second(LitProgram):
        Settings = SETTINGS["diffusion"]

    register_program(LitProgram)  # the same again is none
    with pytest.raises(ValueError, match="two programs of the kind 'lit'"):
        register_program(Second)
    with pytest.raises(ValueError, match="'lit' has settings already"):
        register_settings("lit")(SETTINGS["diffusion"])


def test_an_installed_package_is_found_by_its_entry_point(tmp_path: Path) -> None:
    """In a process that never heard of it: by the bundle, and by the name of its option."""
    bundle = bundle_of_fakes(lit_model(), tmp_path / "lit.gsdk")
    package, info = tmp_path / "site" / "lit_images.py", tmp_path / "site" / "lit_images-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lit-images\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gensdk.programs]\nlit = lit_images\n")
    imports = [line for line in Path(__file__).read_text().splitlines() if line.startswith(("from ", "import "))]
    own = [line for line in imports if "support" not in line and "cli" not in line]
    sources = [textwrap.dedent(inspect.getsource(each)) for each in PACKAGE]
    package.write_text("\n".join([*own, *sources, "register_program(LitProgram)\n"]))
    words = ["sample", bundle, "--backend", "fake", "-o", "x.png", "--json", "--set", "brightness=0.75"]
    paths = os.pathsep.join([str(tmp_path / "site"), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-m", "gensdk", *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["settings"]["brightness"] == 0.75
