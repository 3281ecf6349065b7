"""How samples come out of graphs: one file a program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gensdk_runtime.backends.base import Session
from gensdk_runtime.programs.ascent import AscentProgram
from gensdk_runtime.programs.autoregressive import AutoregressiveProgram
from gensdk_runtime.programs.base import Program
from gensdk_runtime.programs.diffusion import DiffusionProgram
from gensdk_runtime.programs.feedforward import FeedforwardProgram
from gensdk_runtime.programs.translation import TranslationProgram
from gensdk_runtime.spec.manifest import ModelSpec

PROGRAMS: dict[str, type[Program[Any]]] = {
    "feedforward": FeedforwardProgram,
    "diffusion": DiffusionProgram,
    "autoregressive": AutoregressiveProgram,
    "ascent": AscentProgram,
}


def make_program(model: ModelSpec, sessions: Mapping[str, Session]) -> Program[Any]:
    """The program that the model names, over its sessions."""
    if model.source is not None and model.program.kind == "feedforward":
        return TranslationProgram(model, sessions)
    return PROGRAMS[model.program.kind](model, sessions)
