"""Typed, frozen settings that come from JSON: unknown keys fail, and the nearest known key is named."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from gensdk_runtime.errors import GensdkError, InputError, did_you_mean
from gensdk_runtime.printable import printable


class StrictModel(BaseModel):
    """Base of all settings: frozen, no silent conversion (``"1"`` is no int), unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes, *, what: str, error: type[GensdkError] = InputError) -> Self:
        """Parses and checks `text`; `what` names it in the one-line message of the `error` that is raised."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as failure:
            raise error(f"{what}: {first_problem(failure, cls)}") from None
        except (ValueError, RecursionError) as failure:  # lone surrogates and the like, below pydantic
            raise error(f"{what}: not readable as JSON ({_one_line(str(failure))})") from None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, what: str, error: type[GensdkError] = InputError) -> Self:
        """Checks `data` as if it had come as JSON (lists may stand for tuples)."""
        try:
            text = json.dumps(dict(data))
        except (TypeError, ValueError, RecursionError) as failure:
            raise error(f"{what}: not writable as JSON ({_one_line(str(failure))})") from None
        return cls.from_json(text, what=what, error=error)

    def to_json(self) -> str:
        """The settings as indented JSON with a final newline; :meth:`from_json` gives them back."""
        return self.model_dump_json(indent=2) + "\n"


def first_problem(failure: ValidationError, settings: type[BaseModel]) -> str:
    """The first of pydantic's complaints about `settings` as ``where: what`` in one printable line."""
    problem = failure.errors(include_url=False, include_context=False, include_input=False)[0]
    location = problem["loc"]
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        key, location = str(location[-1])[:80], location[:-1]
        message = f"unknown key {key!r}{did_you_mean(key, _keys_at(settings, location))}"
    where = ".".join(str(part)[:40] for part in location)
    return _one_line(f"{where}: {message}" if where else message)


def _keys_at(settings: type[BaseModel], location: tuple[int | str, ...]) -> set[str]:
    """The keys of the settings that pydantic found at `location` within `settings`.

    Not done while validating: a validator that sees the raw data makes pydantic refuse JSON's lists as tuples.
    """
    models = {settings}
    for part in location:
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        if fields:
            models = {inner for field in fields for inner in _settings_in(field.annotation)}
        else:  # an index, a key of a dict, or the tag of a union
            tagged = {m for m in models if "kind" in m.model_fields and m.model_fields["kind"].default == part}
            models = tagged or models
    return {key for model in models for key in model.model_fields}


def _settings_in(annotation: object) -> Iterator[type[BaseModel]]:
    """All settings in a type such as ``tuple[A, ...] | dict[str, B]``, and those that may stand for one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for kind in annotation.__subclasses__():
            yield from _settings_in(kind)
    for argument in get_args(annotation):
        yield from _settings_in(argument)


def _one_line(text: str) -> str:
    """At most 400 characters, printable: keys of a hostile file reach the message, and so the terminal."""
    return printable(text[:400])
