"""Options by their names: what there are, what they may be, and what is said where one is wrong.

An option is a field of the settings of a program; see :mod:`gensdk_runtime.spec.settings`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypeVar, get_args, get_origin

import numpy as np
from pydantic import ConfigDict, ValidationError, model_validator

from gensdk_runtime.arguments import shown
from gensdk_runtime.errors import InputError, did_you_mean
from gensdk_runtime.spec.field_words import type_of, values_of
from gensdk_runtime.spec.kinds import PROGRAMS
from gensdk_runtime.spec.settings import SETTINGS, ProgramSettings
from gensdk_runtime.spec.strict import StrictModel, first_problem

if TYPE_CHECKING:
    from gensdk_runtime.spec.model import ModelSpec

SettingsT = TypeVar("SettingsT", bound=ProgramSettings)
MAX_WORD = 200
"""Characters of an option."""
MAX_WHOLE = 2**63


class Option(NamedTuple):
    """One option of the programs of a `kind`: its `value` there, its type, what it may be, and what it means.

    `value`: the default, or that of the settings which :func:`options_of` was asked for; None: left open.
    `annotation`: the type without None and without limits. `choices`: its words, of an option that has such.
    """

    kind: str
    name: str
    value: Any
    annotation: Any
    values: str
    meaning: str

    @property
    def choices(self) -> tuple[str, ...]:
        """The words to choose from; empty for numbers, switches and free text."""
        return get_args(self.annotation) if get_origin(self.annotation) is Literal else ()


def kind_of(settings: type[ProgramSettings]) -> str:
    """The kind of program that has these settings, or those that they are made from."""
    for each in settings.__mro__:
        for kind, known in SETTINGS.items():
            if each is known:
                return kind
    raise KeyError(f"{settings.__name__} are the settings of no program; use register_settings")


def options_of(settings: type[SettingsT] | SettingsT) -> tuple[Option, ...]:
    """The options of a class of settings with their defaults, or of settings with the values that they have."""
    cls = settings if isinstance(settings, type) else type(settings)
    values = (settings() if isinstance(settings, type) else settings).model_dump()
    return tuple(
        Option(
            kind_of(cls),
            name,
            values.get(name),
            type_of(field),
            values_of(field).removesuffix(" or null"),
            field.description or "",
        )
        for name, field in cls.model_fields.items()
    )


def all_options(kinds: Iterable[str] | None = None) -> dict[str, tuple[Option, ...]]:
    """The options by name, each as the programs of these `kinds` have it that have it; None: all programs."""
    found: dict[str, tuple[Option, ...]] = {}
    for kind in SETTINGS if kinds is None else kinds:
        for option in options_of(SETTINGS[kind]):
            found[option.name] = (*found.get(option.name, ()), option)
    return found


def option_row(option: Option) -> tuple[str, str, str, str]:
    """A line of a table: the name, the value, what it may be and what it means."""
    value = "" if option.value is None else json.dumps(option.value).strip('"')
    return option.name, value, option.values, option.meaning


def option_tables(model: ModelSpec) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """The methods of a generator of `model` that have options, each with an :func:`option_row` for those that the
    model's graphs take, with its own defaults."""
    for method, program in (("sample", model.program), ("invert", model.inversion)):
        defaults = getattr(program, "defaults", None)
        if program is not None and defaults is not None:
            untaken = program.untaken(model)
            yield method, [option_row(option) for option in options_of(defaults) if option.name not in untaken]


def settings_under(defaults: SettingsT, options: Mapping[str, Any], *, others: Iterable[str] = ()) -> SettingsT:
    """`defaults`, with `options` in their place; what is None is left as it is.

    Raises :class:`InputError` for an option that these settings do not have (`others`: further names that the
    caller takes, for the nearest match), of a wrong type and out of its range.
    """
    cls = type(defaults)
    given = {name: value for name, value in options.items() if value is not None}
    check_names(given, cls, tuple(others))
    given = {name: _plain(name, value) for name, value in given.items()}
    try:
        return cls.model_validate_json(json.dumps({**defaults.model_dump(), **given}))
    except ValidationError as failure:
        raise InputError(wrong_option(failure, cls, given)) from None


def check_names(names: Iterable[str], cls: type[ProgramSettings], others: Collection[str]) -> None:
    """Raises :class:`InputError` for the first of `names` that is no option of `cls` (`others` as in
    :func:`settings_under`)."""
    for name in names:
        if name not in cls.model_fields:
            raise InputError(_unknown(name, cls, others))


def check_options(kind: str, options: Mapping[str, Any], *, others: Iterable[str] = ()) -> None:
    """Raises :class:`InputError` where the programs of a `kind` don't have these options, or not with such values
    (`others` as in :func:`settings_under`).

    What only the model itself can tell (its classes, its layers) is left to :meth:`Program.resolve`.
    """
    settings_under(SETTINGS[kind](), options, others=others)


def parse_options(words: Iterable[str], kinds: Collection[str] = ()) -> dict[str, Any]:
    """The options that words such as ``num_inference_steps=20`` give, each of the type that its program has.

    An option of no program stays text, for the model to refuse, which alone can say what it has; with `kinds` of
    programs it is refused here. Raises :class:`InputError` for a word of another form, an option that is given
    twice and a value that no program takes.
    """
    options: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        name, text = name.strip().replace("-", "_"), text.strip()
        if not equals or not name:
            raise InputError(f"expected NAME=VALUE, such as num_inference_steps=20, got {shown(word)!r}")
        if name in options:
            raise InputError(f"{name} is given twice; give it once")
        if _known_programs(name):
            options[name] = _by_any_program(name, text, as_text=True)
        elif kinds:
            raise InputError(f"no option {shown(name)!r}{did_you_mean(name[:80], all_options(kinds))}")
        else:
            options[name] = text
    return options


def in_words(options: Mapping[str, Any]) -> str:
    """Options for a line of a report: "ddim, num_inference_steps 20, guidance_scale 2"."""
    said = (f"{name} {value:g}" if type(value) is float else f"{name} {value}" for name, value in options.items())
    return ", ".join(
        value if isinstance(value, str) else text for value, text in zip(options.values(), said, strict=True)
    )


class OptionValues(StrictModel):
    """Base of what stores options beside fields of its own, flat: each name that is no field is an option.

    An option is checked by the settings of the programs that have it; None is as if it were left out.
    """

    model_config = ConfigDict(extra="allow")

    @property
    def options(self) -> dict[str, Any]:
        """The options by name."""
        return dict(self.__pydantic_extra__ or {})

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        options = self.__pydantic_extra__ or {}
        for name in tuple(options):
            value = options.pop(name)
            if value is not None:
                options[name] = _by_any_program(name, value)
        return self


def _by_any_program(name: str, value: Any, *, as_text: bool = False) -> Any:
    """The value of an option, read from its text or not, as the first program has it that takes it."""
    known = _known_programs(name)
    if not known:
        raise InputError(f"no option {shown(name)!r}{did_you_mean(name[:80], all_options())}")
    for cls in known:
        try:
            read = cls.model_validate_strings if as_text else cls.model_validate
            return getattr(read({name: value}), name)
        except ValidationError as failure:
            problem = wrong_option(failure, cls, {name: value})
    raise InputError(problem)


def _known_programs(name: str) -> list[type[ProgramSettings]]:
    """As :func:`_programs_with`, among those of other packages where gensdk's own have no such option."""
    found = _programs_with(name)
    if not found:
        PROGRAMS.load_others()
        found = _programs_with(name)
    return found


def _programs_with(name: str) -> list[type[ProgramSettings]]:
    return [cls for cls in SETTINGS.values() if name in cls.model_fields]


def _plain(name: str, value: Any) -> Any:
    """A number, a word or a bool of Python."""
    plain = value.item() if isinstance(value, np.generic) else value
    if not isinstance(plain, int | float | str):
        raise InputError(f"expected {name} as a number, a word or a bool, got {type(value).__name__}")
    if isinstance(plain, int) and abs(plain) > MAX_WHOLE:  # beyond it neither JSON nor str() need take it
        raise InputError(f"expected {name} as a number within 2^63, got {shown(plain)}")
    if isinstance(plain, str) and len(plain) > MAX_WORD:
        raise InputError(f"expected {name} as a word, got {len(plain)} characters")
    if isinstance(plain, str) and not plain.isprintable():
        raise InputError(f"expected {name} as a word, got {shown(plain)!r}, which can't be printed")
    return plain


def _unknown(name: str, cls: type[ProgramSettings], others: Collection[str] = ()) -> str:
    """What is said of an option that settings do not have."""
    kind = kind_of(cls)
    elsewhere = [option.kind for option in all_options().get(name, ())]
    if elsewhere:
        model = f"{'an' if kind[0] in 'aeiou' else 'a'} {kind} model"
        return f"{name} means nothing to {model} (it is for {' and '.join(elsewhere)} models); leave it out"
    if name in others:
        return f"{name} is not an option of the program; pass it as an argument of its own"
    near = did_you_mean(name[:80], {*cls.model_fields, *others}, listed=cls.model_fields)
    return f"no option {shown(name)!r}{near}"


def wrong_option(failure: ValidationError, cls: type[ProgramSettings], given: Mapping[str, Any]) -> str:
    """What is said of the first option of those `given` that settings do not have, or not with such a value."""
    for name in given:
        if name not in cls.model_fields:
            return _unknown(name, cls)
    place = failure.errors(include_url=False, include_context=False, include_input=False)[0]["loc"]
    name = str(place[0]) if place else ""
    if name not in given:
        return first_problem(failure, cls)
    option = next(option for option in options_of(cls) if option.name == name)
    value = given[name]
    if option.choices and isinstance(value, str):
        return f"no {name} {shown(value)!r}{did_you_mean(value[:80], option.choices)}"
    got = repr(shown(value)) if isinstance(value, str) else shown(value)
    return f"{name}: expected {option.values}, got {got}"
