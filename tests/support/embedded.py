"""The embedded bundles by what they make, and how a test samples each in a moment."""

from __future__ import annotations

from typing import Any

from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.bundles.embedded import embedded_names
from gensdk_runtime.spec.model import ModelSpec


def model_of(name: str) -> ModelSpec:
    """What an embedded bundle says of its model."""
    with Bundle.open(name) as bundle:
        return bundle.manifest.model


def precisions_of(name: str) -> tuple[str, ...]:
    """Those that it has."""
    with Bundle.open(name) as bundle:
        return bundle.manifest.precisions


KINDS = {name: model_of(name).output.kind for name in embedded_names()}
IMAGES = tuple(name for name, kind in KINDS.items() if kind == "image")
STORED_IN_HALF = ("sprites",)
"""Of those, the ones whose weights were rounded when they were exported: the bounds of their proof are loose."""
FEW_STEPS: dict[str, dict[str, Any]] = {"diffusion": {"num_inference_steps": 3}, "sequence": {"max_length": 24}}
"""Options by kind of program with which a sample takes a moment."""
STEPWISE = ("autoregressive", "sequence")
"""Kinds of programs where rounding may flip one element, and all that come after it."""
