"""The settings of a family, each with its default, its range or choices, and a sentence."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from gensdk_runtime.spec.field_words import values_of
from gensdk_training.family import FamilyConfig

_ENTRY = re.compile(r"^([a-z][a-z0-9_]*): (.+(?:\n {4}.+)*)", re.MULTILINE)


@dataclass(frozen=True)
class Setting:
    """One setting: `default` as JSON has it, `values` in words ("number, 0 < value", "mlp | conv"), meaning."""

    name: str
    default: Any
    values: str
    meaning: str


def settings_of(config: type[FamilyConfig]) -> tuple[Setting, ...]:
    """All settings of `config`, its own first, then those that it shares with others.

    The sentence comes from the docstring of the config that has it, or of one that it is made from.
    """
    shared = set(FamilyConfig.model_fields)
    names = sorted(config.model_fields, key=lambda name: name in shared)  # stable: else in the order of the code
    defaults = json.loads(config().model_dump_json())
    meanings: dict[str, str] = {}
    for each in reversed(config.__mro__):
        meanings |= _meanings(each)
    return tuple(
        Setting(name, defaults[name], values_of(field), meanings.get(name, ""))
        for name, field in ((name, config.model_fields[name]) for name in names)
    )


@cache
def _meanings(config: type) -> dict[str, str]:
    """The entries ``name: sentence`` in the docstring that this very class has."""
    text = inspect.cleandoc(config.__dict__.get("__doc__") or "")
    return {name: " ".join(said.split()) for name, said in _ENTRY.findall(text)}
