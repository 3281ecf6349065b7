"""What a :class:`Generator` does by gradient steps on an input: find latents, judge images, dream."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.arguments import check_callback, check_flag
from gensdk_runtime.errors import InputError
from gensdk_runtime.host.closable import Closable
from gensdk_runtime.host.memory import Room
from gensdk_runtime.methods.dream import dream_on
from gensdk_runtime.methods.inversion import Detection, Inversion, check_threshold, invert_all
from gensdk_runtime.noise import Seeds
from gensdk_runtime.plan.lineup import Lineup
from gensdk_runtime.programs.ascent import AscentProgram
from gensdk_runtime.programs.base import StepCallback
from gensdk_runtime.samples import Samples
from gensdk_runtime.spec.manifest import ModelSpec
from gensdk_runtime.spec.settings import OptimizerName, Start


class AscentMethods(Closable):
    """The part of :class:`Generator` that runs gradient graphs."""

    model: ModelSpec
    _lineup: Lineup
    _room: Room

    @abstractmethod
    def _draw(self, n: int | None, options: Mapping[str, Any]) -> Samples:
        """:meth:`Generator.sample` of `n` samples."""

    def invert(
        self,
        images: NDArray[Any],
        *,
        start: Start | None = None,
        num_inference_steps: int | None = None,
        optimizer: OptimizerName | None = None,
        learning_rate: float | None = None,
        lr_schedule: Literal["constant", "linear"] | None = None,
        patience: int | None = None,
        seed: Seeds | None = 0,
        batch_size: int | None = None,
        callback_on_step_end: StepCallback | None = None,
        progress: bool | None = None,
    ) -> Inversion:
        """Finds the latents whose images come nearest to `images`, by gradient steps on all of them at once.

        `images`: uint8 [n, H, W, C] (or [n, H, W] for one channel), or float [n, C, H, W] in the model's value
        range. What is found for one depends on no other. `start`: the model's "encoder", "noise" from `seed`, or
        "zeros"; None: the encoder where there is one, or else the bundle's default, as for the other settings
        (:class:`gensdk_runtime.spec.settings.AscentSettings`). Raises :class:`InputError` for a model that has no
        inversion, for other shapes, values out of range and NaN, and :class:`BackendError` where the backend fails
        or gives NaN.
        """
        if self.model.inversion is None:
            raise InputError(f"model {self.model.name!r} has no inversion; train anogan, glo or gon for one")
        check_callback(callback_on_step_end, "callback_on_step_end")
        options = {
            "start": start,
            "num_inference_steps": num_inference_steps,
            "optimizer": optimizer,
            "learning_rate": learning_rate,
            "lr_schedule": lr_schedule,
            "patience": patience,
        }
        return invert_all(
            AscentProgram(self.model, self._lineup.steps.sessions),
            images,
            options,
            seed=seed,
            batch_size=batch_size,
            progress=progress,
            on_step_end=callback_on_step_end,
        )

    def detect(
        self, images: NDArray[Any], *, threshold: float | None = None, fast: bool = False, **options: Any
    ) -> Detection:
        """How unlike the images that the model was trained on `images` are: scores and heat maps.

        `threshold`: a score, as :meth:`Detection.normal_threshold` finds it from normal images. `fast`: take what
        the encoder gives, and search no further (Schlegl et al. 2019). `options` and the rest as for
        :meth:`invert`.
        """
        check_threshold(threshold)
        if check_flag(fast, "fast"):
            options = {**options, "start": "encoder", "num_inference_steps": 0}
        return Detection(self.invert(images, **options), threshold)

    def dream(
        self,
        image: NDArray[np.uint8],
        *,
        layer: str | None = None,
        channel: int | None = None,
        octaves: int = 4,
        octave_scale: float = 1.4,
        num_inference_steps: int | None = None,
        learning_rate: float | None = None,
        jitter: int | None = None,
        seed: int = 0,
        tile: int | None = None,
        callback_on_step_end: StepCallback | None = None,
    ) -> NDArray[np.uint8]:
        """DeepDream on `image`, uint8 [H, W, C] of any size; gives the same kind back.

        `num_inference_steps` steps at each of `octaves` sizes, each `octave_scale` times as large as the one
        before. `layer`, `channel`, `learning_rate` and `jitter` as in :meth:`sample`, `tile` as in
        :meth:`translate`. A seed gives the same picture again. Raises as :meth:`sample` does.
        """
        options = {
            "layer": layer,
            "channel": channel,
            "num_inference_steps": num_inference_steps,
            "learning_rate": learning_rate,
            "jitter": jitter,
            "seed": seed,
            "callback_on_step_end": callback_on_step_end,
        }
        return dream_on(
            self.model,
            lambda n=None, **given: self._draw(n, given),
            image,
            octaves=octaves,
            octave_scale=octave_scale,
            tile=tile,
            room=self._room,
            options=options,
        )
