"""Typed, frozen settings that come from JSON: unknown keys fail, and the nearest known key is named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from gensdk_runtime.errors import GensdkError, InputError, did_you_mean


class StrictModel(BaseModel):
    """Base of all settings: frozen, no silent conversion (``"1"`` is no int), unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: object) -> object:
        if isinstance(data, Mapping):
            for key in data:
                if key not in cls.model_fields:
                    raise ValueError(f"unknown key {str(key)[:80]!r}{did_you_mean(str(key), cls.model_fields)}")
        return data

    @classmethod
    def from_json(cls, text: str | bytes, *, what: str, error: type[GensdkError] = InputError) -> Self:
        """Parses and checks `text`; `what` names it in the one-line message of the `error` that is raised."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as failure:
            raise error(f"{what}: {first_problem(failure)}") from None
        except (ValueError, RecursionError) as failure:  # lone surrogates and the like, below pydantic
            raise error(f"{what}: not readable as JSON ({str(failure)[:120]})") from None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, what: str, error: type[GensdkError] = InputError) -> Self:
        """Checks `data` as if it had come as JSON (lists may stand for tuples)."""
        return cls.from_json(json.dumps(dict(data)), what=what, error=error)

    def to_json(self) -> str:
        """The settings as indented JSON with a final newline; :meth:`from_json` gives them back."""
        return self.model_dump_json(indent=2) + "\n"


def first_problem(failure: ValidationError) -> str:
    """The first of pydantic's complaints as ``where: what`` in one line."""
    problem = failure.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part)[:40] for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ").replace("\n", " ")
    return f"{where}: {message}" if where else message
