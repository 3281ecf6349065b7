"""How samples come out of graphs: one file a program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gensdk_runtime.backends.base import Session
from gensdk_runtime.programs.base import Program
from gensdk_runtime.programs.feedforward import FeedforwardProgram
from gensdk_runtime.programs.translation import TranslationProgram
from gensdk_runtime.spec.kinds import PROGRAMS
from gensdk_runtime.spec.model import AscentSpec, FeedforwardSpec, ModelSpec

ABILITIES = ("encode", "reconstruct", "invert", "detect", "classify", "log_likelihood", "latents", "interpolate",
             "walk", "traverse", "arithmetic", "translate", "dream")  # fmt: skip
"""The methods of a generator that not every model has."""
_INVERTED = frozenset(("encode", "reconstruct", "invert", "detect"))


def program_type(model: ModelSpec) -> type[Program[Any]]:
    """The program that the model names."""
    found: type[Program[Any]] = PROGRAMS.class_of(model.program)
    return TranslationProgram if found is FeedforwardProgram and model.source is not None else found


def abilities(model: ModelSpec) -> tuple[str, ...]:
    """Those of :data:`ABILITIES` that `model` has, in that order."""
    found = program_type(model).abilities(model) | (_INVERTED if model.inversion is not None else set())
    return tuple(name for name in ABILITIES if name in found)


def one_run(model: ModelSpec) -> str | None:
    """The graph whose one run makes samples; None for a program of many runs."""
    return model.program.graph if isinstance(model.program, FeedforwardSpec) else None


def layers(model: ModelSpec) -> tuple[str, ...]:
    """The layers that an ascent model can optimize, the default first; empty for other models."""
    return tuple(model.program.objectives) if isinstance(model.program, AscentSpec) else ()


def make_program(model: ModelSpec, sessions: Mapping[str, Session]) -> Program[Any]:
    """The program that the model names, over its sessions."""
    return program_type(model)(model, sessions)
