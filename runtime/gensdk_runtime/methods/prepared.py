"""One call of ``sample()`` or ``translate()``, made ready: what is left is noise, graph calls and the result."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.arguments import check_flag
from gensdk_runtime.errors import InputError
from gensdk_runtime.methods.translate import Given, Through, translate, way_of
from gensdk_runtime.noise import Seeds
from gensdk_runtime.outputs.base import OutputType, check_output_type
from gensdk_runtime.plan.lease import Lease
from gensdk_runtime.plan.request import Asked, Request
from gensdk_runtime.plan.sampling import Sampling
from gensdk_runtime.samples import Samples

if TYPE_CHECKING:
    from gensdk_runtime.conditions.audio import Audio
    from gensdk_runtime.conditions.prompt import Prompt

Size = tuple[int, int]


class Prepared:
    """A call that was checked, planned and bound once, and is made again and again; see :meth:`Generator.prepare`.

    Threads may share it: graphs are lent to one run at a time, and a second run at the same moment gets buffers of
    its own. It belongs to its generator, and ends with it.
    """

    def __init__(
        self,
        sampling: Sampling,
        asked: Asked,
        conditions: Mapping[str, Any],
        options: Mapping[str, Any],
        output_type: OutputType,
        *,
        warm: bool,
    ) -> None:
        self._source = sampling.model.source
        check_output_type(output_type)
        check_flag(warm, "warm")
        if self._source is not None and asked.size is None:
            asked = asked._replace(size=(self._source.height, self._source.width))
        self._sampling, self._asked = sampling, asked
        conditions = deepcopy(dict(conditions))  # what the caller does with them later is none of its affairs
        self._conditions, self._options, self._output_type = conditions, options, output_type
        self._through: Through | None = None
        self._planned: dict[bool, tuple[Any, Request, Lease]] = {}
        if self._source is not None and asked.size is not None:
            through = Through(sampling, given=Given(label=conditions.get("label"), options=options))
            if way_of(through, *asked.size).how != "whole":
                self._through = through
                return
        request, lease = self._request(started=sampling.starts and options.get("strength") is not None)
        # Refuses bytes of what has none.
        sampling.output.empty(0, output_type, request.shape, makes_bytes=False)
        if warm:
            sampling.warm(request, output_type, lease)

    def _request(self, *, started: bool = False) -> tuple[Request, Lease]:
        """What was planned, and its buffers; planned anew where a backend was left out meanwhile, or memory was
        short. `started`: for samples that start from images."""
        requests, planned = self._sampling.requests, self._planned.get(started)
        if planned is None or planned[0] != requests.state:
            request = requests.get(self._asked._replace(started=started), self._conditions, self._options)
            planned = self._planned[started] = requests.state, request, self._sampling.executor.lease()
        return planned[1:]

    def draw(
        self,
        seed: Seeds | None = None,
        *,
        latents: Any = None,
        image: Any = None,
        mask_image: Any = None,
        prompt: Prompt | None = None,
        negative_prompt: Prompt | None = None,
        audio: Audio | None = None,
    ) -> Samples:
        """The samples of one seed, as ``sample()`` with all else that was prepared gives them, to the bit.

        `seed`, `latents` and what samples are asked for as there. Raises as it does.
        """
        if self._through is not None:
            raise InputError(
                f"images of {list(self._asked.size or ())} go through {self._sampling.model.name!r} in tiles or "
                "resized; use translate(image)"
            )
        request, lease = self._request(started=self._sampling.starts and image is not None)
        return self._sampling.draw(
            request,
            lease=lease,
            seed=seed,
            latents=latents,
            conditions={
                "image": image,
                "mask_image": mask_image,
                "prompt": prompt,
                "negative_prompt": negative_prompt,
                "audio": audio,
            },
            output_type=self._output_type,
        )

    def translate(self, image: NDArray[np.uint8], *, audio: Audio | None = None) -> NDArray[np.uint8]:
        """`image`, uint8 [H, W, C] of the size that was prepared, translated: uint8 [s H, s W, C'].

        `audio`: for a model that makes a face talk, the window of sound around this frame. Raises
        :class:`InputError` for a model that does not translate, and for another size or type.
        """
        source, size = self._source, self._asked.size
        if source is None or size is None:
            raise InputError(f"model {self._sampling.model.name!r} does not translate images; use draw()")
        if self._asked.n != 1:
            raise InputError(f"expected prepare(1) for translate(image), got {self._asked.n}; use draw(image=...)")
        expected = (*size, source.channels)
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape != expected:
            got = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
            raise InputError(f"expected an image uint8 {list(expected)}, as was prepared, got {got}")
        if self._through is not None:
            whole = translate(self._through, image)
            return whole if isinstance(whole, np.ndarray) else whole[0]
        request, lease = self._request()
        asked = {"image": image[None], "audio": audio}
        samples = self._sampling.draw(request, conditions=asked, output_type="uint8", lease=lease)
        first: NDArray[np.uint8] = samples.images[0]
        return first
