"""The way back of models that have one: images to latents and to classes, and through the latent to images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.conditions.inputs import check_images, check_labels
from gensdk_runtime.errors import InputError
from gensdk_runtime.noise import Float32
from gensdk_runtime.programs.base import Int64, Program
from gensdk_runtime.programs.feedforward import FeedforwardProgram
from gensdk_runtime.spec.manifest import FeedforwardSpec, ModelSpec


def encode(model: ModelSpec, program: Program[Any], images: Any, label: Any, batch: int) -> Float32:
    """Latents float32 [n, ...] of checked `images`, at most `batch` at once; see :meth:`Generator.encode`."""
    encoder = require_encoder(model, program)
    pixels = check_images(images, model.require_image(), levels=None)
    labels = check_labels(label, len(pixels), model)
    if labels is None and encoder.encodes_labels:
        raise InputError(f"the encoder of {model.name!r} is conditional: pass label, one for each image")
    return np.concatenate(
        [
            encoder.encode(
                pixels[first : first + batch], None if labels is None else labels[first : first + batch]
            )
            for first in range(0, len(pixels), batch)
        ]
    )


def classify(model: ModelSpec, program: Program[Any], images: Any, batch: int) -> Float32:
    """Probabilities float32 [n, K] of checked `images`; see :meth:`Generator.classify`."""
    if not (isinstance(model.program, FeedforwardSpec) and model.program.classifier is not None):
        raise InputError(f"model {model.name!r} has no classifier; a semi-supervised family (sgan) exports one")
    assert isinstance(program, FeedforwardProgram)  # noqa: S101 - chosen by the kind
    pixels = check_images(images, model.require_image(), levels=None)
    parts = [program.classify(pixels[first : first + batch]) for first in range(0, len(pixels), batch)]
    logits = np.concatenate(parts).astype(np.float64)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: Float32 = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
    return found


def complete(
    images: Float32, mask: Float32, middle: float, again: Callable[[Float32], Float32], times: int
) -> Float32:
    """``x <- m x + (1 - m) G(E(x))``, `times` times, from `middle` in the missing pixels; known ones stay.

    `images` [n, C, H, W]; `mask` [n, 1 or C, H, W], 1 where a pixel is known; `again`: ``x -> G(E(x))``.
    """
    known = mask * images
    completed = known + (1 - mask) * np.float32(middle)
    for _ in range(times):
        completed = known + (1 - mask) * again(completed)
    return np.where(mask == 1, images, completed).astype(np.float32)


def inverts(model: ModelSpec) -> bool:
    """Whether the way back to latents is an inversion, there being no encoder."""
    own = isinstance(model.program, FeedforwardSpec) and model.program.encoder is not None
    return model.inversion is not None and not own


def require_encoder(model: ModelSpec, program: Program[Any]) -> FeedforwardProgram:
    """The program of a model with an encoder; :class:`InputError` for another."""
    if not (isinstance(model.program, FeedforwardSpec) and model.program.encoder is not None):
        raise InputError(
            f"model {model.name!r} has no encoder; families ae, bigan and vae export one, and anogan, glo and gon "
            "an inversion"
        )
    assert isinstance(program, FeedforwardProgram)  # noqa: S101 - chosen by the kind
    return program


def decoding_labels(model: ModelSpec, label: Any, n: int) -> Int64 | None:
    """Labels that decoding needs; :class:`InputError` where a conditional model gets none."""
    labels = check_labels(label, n, model)
    if labels is None and model.num_classes is not None:
        raise InputError(f"model {model.name!r} is conditional: pass label, one for each image")
    return labels


def as_images(images: Any, model: ModelSpec) -> NDArray[np.float32]:
    """`images` float32 [n, C, H, W] in the model's value range, checked."""
    return check_images(images, model.require_image(), levels=None)
