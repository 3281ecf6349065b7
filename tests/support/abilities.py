"""What a method of a generator is called with, whatever the model, to see whether it works."""

from __future__ import annotations

from typing import Any

import numpy as np

from gensdk_runtime.conditions.base import examples_of
from gensdk_runtime.spec.model import ModelSpec

OF_PICTURES = ("translate", "dream")
ALONG_LATENTS = ("interpolate", "walk", "traverse", "arithmetic")
WITH_CLASSES = (*ALONG_LATENTS, "log_likelihood", "reconstruct", "encode")


def arguments(model: ModelSpec, ability: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and named; images of two samples, a class where there are classes."""
    examples = examples_of(model, 1)
    low, high = model.output.value_range
    middle = (low + high) / 2 if model.output.discrete_step is None else low
    given: dict[str, tuple[Any, ...]] = {
        "latents": (2, 0),
        "interpolate": (0, 1, 3),
        "walk": ((0, 1), 3),
        "traverse": (0, 0, 3),
        "arithmetic": ([[0, 1]], [[2]]),
        **dict.fromkeys(OF_PICTURES, (examples.get("image", np.zeros((1, 4, 4, 3), np.uint8))[0],)),
    }
    images = np.full((2, *model.output.shape), middle, model.output.dtype)
    label = model.num_classes is not None and ability in WITH_CLASSES
    named: dict[str, Any] = {"label": 1} if label else {}
    if ability in ALONG_LATENTS and "audio" in examples:
        named["audio"] = examples["audio"][0]
    if ability == "log_likelihood" and getattr(model.program, "decode_graph", None) is not None:
        named["lengths"] = [model.output.shape[model.program.axis]] * 2  # type: ignore[attr-defined]
    if ability == "log_likelihood" and "prompt" in examples:
        named["prompt"] = np.repeat(examples["prompt"], 2, axis=0)
    return given.get(ability, (images,)), named
