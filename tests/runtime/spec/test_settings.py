"""Options are declared once, in the settings of the programs, and reach all that take them."""

from __future__ import annotations

import contextlib
import inspect
import json
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
from pydantic import Field, create_model

from gensdk_runtime.bench.latency_report import SamplingOptions
from gensdk_runtime.errors import GensdkWarning, InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.plan.request import ARGUMENTS
from gensdk_runtime.plan.sampling import SampleArguments
from gensdk_runtime.proof.golden import Call, Golden, Trajectory, TrajectorySettings
from gensdk_runtime.spec.field_words import type_of
from gensdk_runtime.spec.kinds import CONDITIONS, PROGRAMS
from gensdk_runtime.spec.options import (
    Option,
    OptionValues,
    all_options,
    options_of,
    parse_options,
    settings_under,
)
from gensdk_runtime.spec.settings import (
    SETTINGS,
    TAKEN,
    AscentOptions,
    AscentSettings,
    DiffusionSettings,
    FeedforwardSettings,
    ProgramSettings,
    SampleOptions,
    register_settings,
)
from support.models import MODELS, generator
from support.option_values import MODEL_OF, another, beside, others

every_program = pytest.mark.parametrize("kind", SETTINGS)
EVERY_OPTION = [option for options in all_options().values() for option in options]
every_option = pytest.mark.parametrize("option", EVERY_OPTION, ids=lambda each: f"{each.kind}-{each.name}")


def sampler(kind: str) -> Generator:
    return generator(MODELS[MODEL_OF[kind]](3))


@every_program
def test_each_program_has_settings_and_each_settings_a_program(kind: str) -> None:
    PROGRAMS.load(kind)
    program = PROGRAMS.known_class(kind)
    assert program is not None
    assert program.Settings is SETTINGS[kind]
    assert program.Spec is PROGRAMS.spec(kind)


@pytest.mark.parametrize(
    ("options", "models"), [(AscentOptions, [AscentSettings]), (SampleOptions, list(SETTINGS.values()))]
)
def test_the_arguments_are_the_fields_of_the_settings(options: Any, models: list[type[ProgramSettings]]) -> None:
    """The one line that is written twice: names and types of the TypedDict, and of the models."""
    fields = {name: field for model in models for name, field in model.model_fields.items()}
    hints = get_type_hints(options)
    assert hints.keys() == fields.keys()
    for model in models:
        for name, field in model.model_fields.items():
            assert hints[name] == type_of(field) | None, f"{model.__name__}.{name}"


@every_option
def test_each_option_has_a_default_a_range_and_a_sentence(option: Option) -> None:
    settings = SETTINGS[option.kind]
    assert (
        option.value is None or settings.model_validate_json(json.dumps({option.name: option.value})) == settings()
    )
    assert option.values
    assert 10 < len(option.meaning) < 250
    assert option.meaning[0].isupper()
    assert option.meaning[-1] == "."
    assert option.annotation in (int, float, bool, str) or option.choices


@every_program
def test_settings_are_frozen_and_come_back_from_json(kind: str) -> None:
    settings = SETTINGS[kind]()
    assert SETTINGS[kind].from_json(settings.to_json(), what="settings") == settings
    assert None not in settings.model_dump().values(), "what is left open is not written"
    assert hash(settings) == hash(SETTINGS[kind]())
    for option in options_of(settings):
        with pytest.raises(ValueError, match="frozen"):
            setattr(settings, option.name, option.value)


@every_option
def test_each_option_reaches_sample_and_its_record(option: Option) -> None:
    value = another(option)
    with sampler(option.kind) as model:
        samples = model.sample(1, seed=0, **beside(option), **{option.name: value})
        left_out = model.sample(1, seed=0, **beside(option), **{option.name: None})
        default = model.sample(1, seed=0, **beside(option))
    assert samples.settings[option.name] == value
    assert left_out.settings == default.settings


@every_option
def test_each_option_is_read_from_words_as_its_own_type(option: Option) -> None:
    value = another(option)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    for name in (option.name, option.name.replace("_", "-")):
        (found,) = parse_options([f"{name}={text}"]).items()
        assert found == (option.name, value)
        assert type(found[1]) is type(value)


@every_option
def test_each_option_is_stored_flat_and_checked(option: Option) -> None:
    value = another(option)
    stored = OptionValues.from_dict({"solver": None, "layer": None, option.name: value}, what="options")
    assert stored.options == {option.name: value}
    assert OptionValues.from_json(stored.to_json(), what="options") == stored
    for wrong in ([1], {"a": 1}, -1 if option.annotation in (int, float) else 7):
        with pytest.raises(InputError, match=option.name):
            OptionValues.from_dict({option.name: wrong}, what="options")


@every_option
def test_a_program_without_an_option_says_whose_it_is(option: Option) -> None:
    others = [kind for kind in SETTINGS if option.name not in SETTINGS[kind].model_fields]
    assert others
    for kind in others:
        with sampler(kind) as model, pytest.raises(InputError) as failure:
            model.sample(1, **{option.name: another(option)})  # type: ignore[arg-type]
        said = str(failure.value)
        assert f"{option.name} means nothing to a" in said
        assert option.kind in said.partition("(it is for ")[2]
        assert "leave it out" in said
        assert "\n" not in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps: expected whole number, 1 <= value <= 100000, got 0"),
        ({"num_inference_steps": 2.5}, "num_inference_steps: expected whole number, .*, got 2.5"),
        ({"num_inference_steps": "5"}, "num_inference_steps: expected whole number, .*, got '5'"),
        ({"num_inference_steps": True}, "num_inference_steps: expected whole number, .*, got True"),
        ({"num_inference_steps": [5]}, "expected num_inference_steps as a number, a word or a bool, got list"),
        ({"eta": float("inf")}, "eta: expected number, 0 <= value <= 1, got inf"),
        ({"solver": "dpmsolver"}, r"no solver 'dpmsolver'; did you mean 'dpmsolver\+\+'"),
        ({"solver": 3}, "solver: expected ddpm | ddim"),
        ({"clip_sample": "no"}, "clip_sample: expected true | false, got 'no'"),
        ({"timestep_spacing": "\ud800"}, "expected timestep_spacing as a word, got '.*', which can't be"),
        ({"solver": "x" * 300}, "expected solver as a word, got 300 characters"),
        ({"num_inference_steps": 10**5000}, "expected num_inference_steps as a number within 2.63, got int"),
        ({"eta": -(10**400)}, "expected eta as a number within 2.63, got -1000"),
    ],
)
def test_what_is_said_of_wrong_values(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as failure:
        settings_under(DiffusionSettings(), given)
    assert "\n" not in str(failure.value)
    assert str(failure.value).isprintable()
    with sampler("diffusion") as model, pytest.raises(InputError) as again:
        model.sample(1, **given)
    assert str(again.value) == str(failure.value)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match="no option 'num_inference_step'; did you mean 'num_inference_steps'"):
        settings_under(DiffusionSettings(), {"num_inference_step": 3})
    with pytest.raises(InputError, match="no option 'labels'; did you mean 'label'"):
        settings_under(DiffusionSettings(), {"labels": 3}, others=("label", "seed"))
    with pytest.raises(InputError, match="no option 'qqq'; none is known"):
        settings_under(FeedforwardSettings(), {"qqq": 3})
    for words, said in (
        (["sovler=ddim"], "no option 'sovler'; did you mean 'solver'"),
        (["solver"], "expected NAME=VALUE, such as num_inference_steps=20, got 'solver'"),
        (["=3"], "expected NAME=VALUE"),
        (["eta=1", "eta=0"], "eta is given twice"),
        (["eta=nan"], "eta: expected number"),
        (["num_inference_steps=many"], "num_inference_steps: expected whole number, .*, got 'many'"),
    ):
        with pytest.raises(InputError, match=said):
            parse_options(words, ["diffusion"])
    with pytest.raises(InputError, match="no option 'qqq'; known: max_length, temperature, top_k, top_p"):
        parse_options(["qqq=ddim"], ["sequence"])
    assert parse_options(["qqq=ddim", "eta=0"]) == {"qqq": "ddim", "eta": 0.0}, "a model refuses it"


def test_numbers_of_numpy_are_numbers() -> None:
    given = {"num_inference_steps": np.int32(5), "eta": np.float32(0.5), "clip_sample": np.bool_(False)}
    found = settings_under(DiffusionSettings(), given)
    assert found == DiffusionSettings(num_inference_steps=5, eta=0.5, clip_sample=False)
    assert type(found.num_inference_steps) is int


@every_program
def test_settings_draw_as_their_options_do(kind: str) -> None:
    """As an object, of which counts what was set, as a dict, and under options."""
    options = others(kind)
    with sampler(kind) as model:
        expected = model.sample(2, seed=0, **options)  # type: ignore[arg-type]
        for settings in (SETTINGS[kind](**options), options):
            found = model.sample(2, seed=0, settings=settings)
            np.testing.assert_array_equal(found.data, expected.data)
            assert found.settings == expected.settings
        default = model.sample(2, seed=0)
        assert model.sample(2, seed=0, settings=SETTINGS[kind]()).settings == default.settings
        assert model.sample(2, seed=0, settings=None).settings == default.settings
        for name, value in options.items():
            back: dict[str, Any] = {name: default.settings[name]} if name in default.settings else {}
            over = model.sample(2, seed=0, settings={name: value}, **back)
            assert over.settings == (default.settings if back else {**default.settings, name: value})


@pytest.mark.parametrize("program", MODELS)
@pytest.mark.parametrize("classes", [None, 3])
def test_what_is_recorded_draws_the_same_again(program: str, classes: int | None) -> None:
    """After a way through JSON, with seeds and labels of its own; and where n is given, others alike."""
    with generator(MODELS[program](classes)) as model:
        options: dict[str, Any] = {"label": [2, 0, 1]} if classes else {}
        for given in ({"seed": [5, (6, 2), 7], **options}, {"seed": 3}):
            first = model.sample(3, **given)
            again = model.sample(settings=json.loads(json.dumps(dict(first.settings))))
            np.testing.assert_array_equal(again.data, first.data)
            assert again.settings == first.settings
            one = first[1]
            np.testing.assert_array_equal(model.sample(settings=one.settings).data, first.data[1:2])
            labels = {} if first.settings["labels"] is None else {"labels": {"label": 0}}
            for more in ({"seed": 1}, {}):
                left = " and ".join([*({"seeds"} - {f"{name}s" for name in more}), *labels])
                said = f"with n=5 only the options of these settings count, and not their {left}; leave n out"
                with pytest.warns(GensdkWarning, match=said) if left else contextlib.nullcontext():
                    assert len(model.sample(5, settings=first.settings, **more)) == 5
            asked: dict[str, Any] = {"seed": 1, **labels.get("labels", {})}
            others = model.sample(5, settings=first.settings, **asked)
            np.testing.assert_array_equal(others.data, model.sample(5, **asked).data)
            np.testing.assert_array_equal(model.sample(settings=first.settings, seed=9).data, model.sample(
                3, seed=9, label=first.settings["labels"]).data)  # fmt: skip


def test_what_was_drawn_from_latents_needs_them_again() -> None:
    with sampler("feedforward") as model:
        latents = np.ones((2, 5), np.float32)
        first = model.sample(2, seed=0, latents=latents)
        with pytest.raises(InputError, match="drawn from latents; pass latents too"):
            model.sample(settings=first.settings)
        np.testing.assert_array_equal(model.sample(settings=first.settings, latents=latents).data, first.data)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"stepz": 3}, "no option 'stepz'; known: cache_interval, clip_sample"),
        ({"labelz": 3}, "no option 'labelz'; did you mean 'label'"),
        ({"seed": 3}, "seed is not an option of the program"),
        ({3: 3}, "no option '3'"),
        (AscentSettings(), "expected settings as DiffusionSettings, got AscentSettings"),
        ([("eta", 1)], "expected settings as DiffusionSettings, a dict of options or Samples.settings, got list"),
        ("eta=1", "expected settings as DiffusionSettings, .* got str"),
        ({"n": "three"}, "expected n as an int, got str"),
        ({"n": 2, "labels": "cat"}, "no class 'cat'"),
        ({"n": 2, "seeds": "first"}, "seed"),
    ],
)
def test_settings_that_are_none_are_refused(settings: Any, said: str) -> None:
    with sampler("diffusion") as model, pytest.raises(InputError, match=said) as failure:
        model.sample(settings=settings)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("labels", "did you mean 'label'"),
        ("outputtype", "did you mean 'output_type'"),
        ("num_steps", "did you mean 'num_inference_steps'"),
        ("guidance", "did you mean 'guidance_scale'"),
    ],
)
def test_a_wrong_argument_is_answered_with_the_nearest(wrong: str, said: str) -> None:
    with sampler("diffusion") as model, pytest.raises(InputError, match=f"no option '{wrong}'; {said}"):
        model.sample(1, **{wrong: 1})  # type: ignore[arg-type]


def test_the_named_arguments_are_those_that_messages_know() -> None:
    shown = inspect.signature(Generator.sample).parameters.values()
    named = {each.name for each in shown} - {"self", *all_options()}
    assert named == set(ARGUMENTS)
    assert set(get_type_hints(SampleArguments)) == {*all_options(), *ARGUMENTS} - {
        "n",
        "seed",
        "label",
        "latents",
        "prefix",
        "image",
        "mask_image",
        "prompt",
    }


@pytest.mark.parametrize(
    ("method", "kinds"),
    [("sample", None), ("prepare", None), ("invert", ["ascent"]), ("dream", ["ascent"])],
)
def test_help_tells_every_option(method: str, kinds: list[str] | None) -> None:
    function = getattr(Generator, method)
    parameters = inspect.signature(function).parameters
    for options in all_options(kinds).values():
        for option in options:
            assert f"`{option.name}`, {option.values}: " in function.__doc__
            assert " ".join(option.meaning.split()) in " ".join(function.__doc__.split())
            assert parameters[option.name].annotation == option.annotation | None
            assert parameters[option.name].default is None
    assert all(len(line) < 120 for line in function.__doc__.splitlines())


@every_option
def test_each_option_is_proved_by_golden_trajectories(option: Option) -> None:
    """Stored flat beside seeds, as ever, and drawn with again; labels that stand there in older files are read."""
    value = another(option)
    settings = TrajectorySettings.from_dict({"seeds": [0, 4], "labels": [1, 2], option.name: value}, what="golden")
    assert settings.sample_arguments() == {"n": 2, "seed": [0, 4], option.name: value}
    calls = (Call("g", 0, {"x": np.zeros(1)}, {"y": np.ones(1)}),)
    golden = Golden((Trajectory(settings, np.zeros((2, 1), np.float32), calls),))
    (run,) = Golden.from_bytes(golden.to_bytes()).trajectories
    assert run.settings == settings.model_copy(update={"labels": None})
    assert run.sample_arguments()["label"].tolist() == [1, 2]
    with sampler(option.kind) as model:
        assert model.sample(**run.sample_arguments(), **beside(option)).settings[option.name] == value


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"batch_size": 1}, "no option 'batch_size'"),
        ({"callback_on_step_end": "x"}, "no option 'callback_on_step_end'"),
        ({"solvr": "ddim"}, "no option 'solvr'; did you mean 'solver'"),
        ({"solver": "euler?"}, r"no solver 'euler\?'"),
        ({"num_inference_steps": 10_001}, "num_inference_steps: expected at most 10000, got 10001"),
        ({"eta": [0.5]}, "eta: expected number"),
        ({"eta": {"eta": 1}}, "eta: expected number"),
    ],
)
def test_golden_files_hold_options_and_nothing_else(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as failure:
        TrajectorySettings.from_dict({"seeds": [0], **given}, what="golden")
    assert "\n" not in str(failure.value)


def test_reports_of_before_an_option_stay_comparable() -> None:
    """A baseline says nothing of an option that came later: it was at its default."""
    old = SamplingOptions.from_json('{"num_inference_steps": 20, "eta": 0.0, "label": null}', what="baseline")
    new = SamplingOptions.from_dict({**old.options, "cache_interval": 1}, what="report")
    assert not [*new.differences(old), *old.differences(new)]
    faster = SamplingOptions.from_dict({**old.options, "cache_interval": 3}, what="report")
    assert list(faster.differences(old)) == ["cache_interval: 3 here, 1 there"]
    assert list(old.differences(faster)) == ["cache_interval: 1 here, 3 there"]
    labelled = SamplingOptions(label=3)
    assert list(labelled.differences(SamplingOptions())) == ["label: 3 here, None there"]


def test_two_settings_of_one_kind_are_an_error() -> None:
    with pytest.raises(ValueError, match="'ascent' has settings already"):
        register_settings("ascent")(FeedforwardSettings)


@pytest.mark.parametrize("name", sorted(TAKEN))
def test_an_argument_is_no_name_of_an_option(name: str) -> None:
    """It could never be given."""
    odd = create_model("Odd", __base__=ProgramSettings, **{name: (int, Field(0, description="Odd."))})  # type: ignore[call-overload]
    with pytest.raises(ValueError, match=f"can't be called '{name}'"):
        register_settings("odd")(odd)
    assert "odd" not in SETTINGS


def test_the_arguments_are_those_of_the_generator() -> None:
    """But for conditions, which are named by their kind, and for options."""
    of = {
        name for method in (Generator.sample, Generator.prepare) for name in inspect.signature(method).parameters
    }
    assert of - {"self", *all_options(), *CONDITIONS.names} == TAKEN


def test_choices_and_values_say_the_same() -> None:
    chosen = [option for option in EVERY_OPTION if option.choices]
    assert chosen
    for option in chosen:
        assert tuple(option.values.split(" | ")) == option.choices
        assert all(isinstance(choice, str) for choice in get_args(option.annotation))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"solvr": "ddim"}, "no option 'solvr'; did you mean 'solver'?"),
        ({"solver": "ddmi"}, "no solver 'ddmi'; did you mean 'ddim'?"),
        ({"eta": 2.0}, "eta: expected number, 0 <= value <= 1, got 2.0"),
        ({"jitter": 2}, "jitter means nothing to a diffusion model (it is for ascent models); leave it out"),
    ],
)
def test_settings_are_refused_in_the_words_of_sample(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as made:
        DiffusionSettings(**options)
    with pytest.raises(InputError) as drawn, sampler("diffusion") as model:
        model.sample(1, settings=options)
    assert str(made.value) == said == str(drawn.value)


def test_settings_take_numbers_of_numpy() -> None:
    assert DiffusionSettings(num_inference_steps=np.int64(5)) == DiffusionSettings(num_inference_steps=5)


def test_an_unknown_option_is_named_before_its_value_is_judged() -> None:
    with sampler("diffusion") as model, pytest.raises(InputError, match="no option 'melody'"):
        model.sample(1, melody=np.zeros(3))  # type: ignore[call-arg]
