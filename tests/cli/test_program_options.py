"""Flags are made from the declarations of the options: all of them, on every verb that samples."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from gensdk.cli.main import run
from gensdk_runtime.bench.latency_report import Report
from gensdk_runtime.generator import Generator
from gensdk_runtime.spec.options import all_options, options_of
from gensdk_runtime.spec.settings import SETTINGS
from support.option_values import fake_bundle, others

EVERY, ASCENT = tuple(SETTINGS), ("ascent",)
VERBS = {
    "sample": EVERY,
    "interpolate": EVERY,
    "evaluate": EVERY,
    "bench": EVERY,
    "export": ("diffusion",),
    "dream": ASCENT,
    "detect": ASCENT,
}
"""The programs whose options a verb has flags for."""
OWN = {"bench": {"patience"}}
"""Flags of a verb that have the name of an option and mean something else: the option goes with --set."""
every_program = pytest.mark.parametrize("kind", SETTINGS)


@pytest.fixture(scope="module")
def bundle_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    folder = tmp_path_factory.mktemp("fakes")
    known = {kind: fake_bundle(kind, folder / f"{kind}.gsdk") for kind in SETTINGS}
    return known.__getitem__


def words(options: dict[str, Any], *, flags: bool) -> list[str]:
    """Options as they are typed: each with its flag, or all with ``--set``."""
    typed: list[str] = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if not flags:
            typed += ["--set", f"{name}={str(value).lower() if isinstance(value, bool) else value}"]
        elif isinstance(value, bool):
            typed.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            typed += [f"--{flag}", str(value)]
    return typed


def outcome(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_has_a_flag_that_says_what_it_means(verb: str) -> None:
    command: click.Command = getattr(importlib.import_module(f"gensdk.cli.{verb}"), verb)
    flags = {each.name: each for each in command.params if isinstance(each, click.Option)}
    assert len(flags) == len(command.params) - sum(isinstance(each, click.Argument) for each in command.params)
    assert flags["set_options"].opts == ["--set"]
    for name, options in all_options(VERBS[verb]).items():
        if name in OWN.get(verb, ()):
            continue
        flag = flags[name]
        assert f"--{name.replace('_', '-')}" in flag.opts
        assert flag.help is not None
        assert all(option.meaning in flag.help for option in options)
        for option in options:
            if option.choices:
                assert isinstance(flag.type, click.Choice)
                assert tuple(flag.type.choices) == option.choices
            if option.annotation is bool:
                assert flag.secondary_opts == [f"--no-{name.replace('_', '-')}"]


@every_program
@pytest.mark.parametrize("flags", [True, False], ids=["flags", "set"])
def test_every_option_reaches_sample(kind: str, flags: bool, bundle_of: Any, tmp_path: Path, capsys: Any) -> None:
    options = others(kind)
    given = ["-n", 2, "--seed", 0, "--backend", "fake", "-o", tmp_path / "x.npz", "--json"]
    code, out, err = outcome(capsys, "sample", bundle_of(kind), *given, *words(options, flags=flags))
    assert (code, err) == (0, "")
    assert options.items() <= json.loads(out)["settings"].items()
    code, out, _ = outcome(capsys, "sample", bundle_of(kind), *given)
    with Generator.load(bundle_of(kind), backend="fake") as generator:
        assert json.loads(out)["settings"] == generator.sample(2, seed=0).settings, "left out, the bundle's hold"


@every_program
@pytest.mark.parametrize("flags", [True, False], ids=["flags", "set"])
def test_every_option_is_measured(kind: str, flags: bool, bundle_of: Any, capsys: Any) -> None:
    options = others(kind)
    own = {name: options.pop(name) for name in OWN["bench"] & options.keys()} if flags else {}
    given = ["--backend", "fake", "--warmup", 1, "--duration", 0.01, "--iterations", 1, "--label", 1, "--json"]
    typed = [*words(options, flags=flags), *words(own, flags=False)]
    code, out, err = outcome(capsys, "bench", bundle_of(kind), *given, *typed)
    assert code == 0, err
    (case,) = Report.from_json(out, what="stdout").cases
    assert {**options, **own}.items() <= case.subject.options.options.items()
    assert case.subject.options.options.keys() == {option.name for option in options_of(SETTINGS[kind])} - (
        {"channel", "start", "strength"} - {**options, **own}.keys()
    ), "all that held are in the report, so that no changed default passes unseen"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--set", "cache_intervall=3"], 5, "no option 'cache_intervall'; did you mean 'cache_interval'"),
        (["--set", "jitter=3"], 5, "jitter means nothing to a diffusion model (it is for ascent models)"),
        (["--jitter", "3"], 5, "jitter means nothing to a diffusion model (it is for ascent models)"),
        (["--set", "eta"], 5, "expected NAME=VALUE, such as num_inference_steps=20, got 'eta'"),
        (["--set", "eta=2"], 5, "eta: expected number, 0 <= value <= 1, got '2'"),
        (["--set", "solver=ddiim"], 5, "no solver 'ddiim'; did you mean 'ddim'"),
        (["--set", "clip_sample=maybe"], 5, "clip_sample: expected true | false, got 'maybe'"),
        (["--set", "num-inference-steps=1e3"], 5, "num_inference_steps: expected whole number"),
        (["--set", "eta=0", "--set", "eta=1"], 5, "eta is given twice"),
        (["--eta", "0", "--set", "eta=1"], 5, "eta is given twice, as --eta and with --set; give it once"),
        (["--num-inference-steps", "0"], 5, "num_inference_steps: expected whole number, 1 <= value"),
        (["--steps", "many"], 2, "'--num-inference-steps' / '--steps': 'many' is not a valid integer"),
    ],
)
def test_wrong_options_are_answered_in_one_line(
    arguments: list[str], code: int, message: str, bundle_of: Any, tmp_path: Path, capsys: Any
) -> None:
    output = tmp_path / "x.npz"
    given = ["sample", bundle_of("diffusion"), "--backend", "fake", "-o", output, *arguments]
    found, out, err = outcome(capsys, *given)
    assert (found, out) == (code, "")
    assert message in err
    assert code == 2 or len(err.splitlines()) == 1
    assert not output.exists()


@every_program
def test_inspect_lists_the_options_with_the_values_of_the_bundle(kind: str, bundle_of: Any, capsys: Any) -> None:
    code, out, _ = outcome(capsys, "inspect", bundle_of(kind))
    assert code == 0
    flat = " ".join(out.split())
    for option in options_of(SETTINGS[kind]):
        assert f"{option.values} {option.meaning}" in flat
    assert ("option of sample()" in out) == bool(options_of(SETTINGS[kind]))
    if kind == "ascent":
        assert "num_inference_steps 6 whole number" in flat, "as in support.models, where 100 is the default"


def test_the_flags_of_old_are_there() -> None:
    """Scripts that were written before flags came from declarations go on."""
    diffusion = {"--num-inference-steps", "--solver", "--guidance-scale"}
    sample = diffusion | {"--steps", "--eta", "--timestep-spacing", "--clip-sample", "--use-clipped-model-output"}
    old = {
        "sample": sample | {"--cache-interval"},
        "interpolate": diffusion | {"--steps", "--from", "--to"},
        "bench": diffusion | {"--patience", "--label"},
        "export": diffusion | {"--step"},
        "dream": {"--layer", "--channel", "--jitter", "--num-inference-steps", "--steps", "--learning-rate"},
        "detect": {"--num-inference-steps", "--steps"},
    }
    for verb, flags in old.items():
        command: click.Command = getattr(importlib.import_module(f"gensdk.cli.{verb}"), verb)
        assert flags <= {flag for each in command.params for flag in each.opts}, verb
