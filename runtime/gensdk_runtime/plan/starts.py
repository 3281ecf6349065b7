"""The images that samples of a latent space start from: encoded, each of them once, with masks of their size."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.errors import InputError
from gensdk_runtime.host.memory import check_room
from gensdk_runtime.plan.executor import Executor
from gensdk_runtime.plan.judging import ENCODING


def encoded(executor: Executor, starts: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """What samples start from, as :meth:`Output.starts` gives it, in the latent space: the "image" [m, C, h, w],
    and of masks those of the places of latents, [m, 1, h, w].

    :class:`InputError` for a model without an encoder.
    """
    program = executor.runners.steps.program
    if program.encoder_conditions is None or program.latent_shape is None:
        raise InputError(
            f"model {executor.model.name!r} has no encoder, which an image goes through; export it with one, or "
            "leave image out"
        )
    images, shape = starts["image"], program.latent_shape
    numbers: dict[bytes, int] = {}
    places = [numbers.setdefault(sha256(image.tobytes()).digest(), len(numbers)) for image in images]
    first = np.unique(places, return_index=True)[1]  # of each that differs from those before it
    check_room(len(first), prod(shape))
    latents = np.empty((len(first), *shape), np.float32)
    ENCODING.fill(latents, {"image": images[first]}, executor, None)
    found = {"image": latents[places]}
    if "mask_image" in starts:
        found["mask_image"] = nearest(starts["mask_image"], shape[1], shape[2])
    return found


def nearest(masks: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Masks [m, 1, H, W] of another size, each place as the nearest pixel of those above and left of it has it;
    PyTorch's and so diffusers' way."""
    rows = np.arange(height) * masks.shape[2] // height
    columns = np.arange(width) * masks.shape[3] // width
    return masks[:, :, rows[:, None], columns]
