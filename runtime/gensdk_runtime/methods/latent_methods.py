"""What a :class:`Generator` does with latents: encode, reconstruct, interpolate, and calculate with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.conditions.inputs import check_count, check_iterations, check_mask
from gensdk_runtime.errors import InputError
from gensdk_runtime.methods import encoding
from gensdk_runtime.methods.ascent_methods import AscentMethods
from gensdk_runtime.methods.latents import Latents, Method, Point, Walk
from gensdk_runtime.noise import Seeds, sample_keys
from gensdk_runtime.plan.request import Label, batch_limit
from gensdk_runtime.programs.base import Program
from gensdk_runtime.samples import Samples


class LatentMethods(AscentMethods):
    """The part of :class:`Generator` that works on latents, over its ``sample``."""

    _program: Program[Any]

    def encode(
        self, images: NDArray[Any], label: Label | None = None, *, batch_size: int | None = None
    ) -> NDArray[np.float32]:
        """Latents, float32 [n, ...], of images: what ``sample(latents=...)`` takes. By the model's encoder, or
        where it has an inversion instead (GLO, GON, AnoGAN) by that, with its defaults.

        `images`: uint8 [n, H, W, C] (or [n, H, W] for one channel), or float [n, C, H, W] in the model's value
        range. `label` where the encoder wants one. Raises :class:`InputError` for a model without either, other
        shapes, and values out of range, and :class:`BackendError` where the backend fails or gives NaN.
        """
        if encoding.inverts(self.model):
            starts = [0] * len(encoding.as_images(images, self.model))  # the place of an image plays no part
            return self.invert(images, seed=starts, batch_size=batch_size).latents
        size = batch_limit(self.model, batch_size)
        return encoding.encode(self.model, self._lineup.steps.program, images, label, size)

    def reconstruct(
        self,
        images: NDArray[Any],
        label: Label | None = None,
        *,
        mask: NDArray[Any] | None = None,
        num_iterations: int = 20,
        batch_size: int | None = None,
    ) -> Samples:
        """Images encoded (see :meth:`encode`) and decoded again; a conditional model needs `label`.

        `mask` [H, W], [n, H, W] or [n, C, H, W], 1 where a pixel is known and 0 where it is missing, completes
        images: ``x <- m x + (1 - m) G(E(x))``, `num_iterations` times, from the middle of the value range in the
        missing pixels (what `images` holds there plays no part, but must be in the range). Known pixels stay as
        they are. For the rest as :meth:`encode`.
        """
        if not encoding.inverts(self.model):
            encoding.require_encoder(self.model, self._lineup.steps.program)
        known = encoding.as_images(images, self.model)
        numbers = encoding.decoding_labels(self.model, label, len(known))
        labels = None if numbers is None else numbers.tolist()
        taken: list[Samples] = []

        def again(present: NDArray[np.float32]) -> NDArray[np.float32]:
            latents = self.encode(present, labels, batch_size=batch_size)
            options = {"seed": 0, "label": labels, "latents": latents, "batch_size": batch_size}
            taken[:] = [self._draw(len(known), {**options, "progress": False})]
            return taken[0].array

        if mask is None:
            again(known)
            return taken[0]
        weights = check_mask(mask, len(known), self.model.require_image())
        times = check_iterations(num_iterations)
        completed = encoding.complete(
            known, weights, sum(self.model.require_image().value_range) / 2, again, times
        )
        return replace(taken[0], data=completed)

    def classify(self, images: NDArray[Any], *, batch_size: int | None = None) -> NDArray[np.float32]:
        """Probabilities, float32 [n, K], of the K classes for `images`, by a model with a classifier.

        Takes `images` and raises as :meth:`encode`.
        """
        size = batch_limit(self.model, batch_size)
        return encoding.classify(self.model, self._lineup.steps.program, images, size)

    def latents(self, n: int, seed: Seeds) -> NDArray[np.float32]:
        """The latents, float32 [n, ...], that ``sample(n, seed=seed)`` starts from: z, or the first noise x_T.

        Raises :class:`InputError` for a model that has none.
        """
        return Latents(self._program).of(sample_keys(check_count(n), seed))

    def interpolate(
        self,
        a: Point,
        b: Point,
        n: int,
        *,
        method: Method | None = None,
        label: Label | None = None,
        **options: Any,
    ) -> Samples:
        """`n` samples on the way from `a` to `b`, both ends among them.

        `a`, `b`: seeds (an int or a (seed, position) pair), whose samples the ends are, or latents [...] such as
        :meth:`encode` and :meth:`latents` give. `method`: "slerp" along a great circle, which None takes for
        normal latents, or "lerp" in a line. `label` and `options` as for :meth:`sample`. What a sample draws
        beside its latent (a label left open, the noise of later steps) it has from the nearer end. Raises
        :class:`InputError` for a model without a latent, and as :meth:`sample` does.
        """
        return self.walk((a, b), n, method=method, label=label, **options)

    def walk(
        self,
        points: Sequence[Point],
        n: int,
        *,
        method: Method | None = None,
        loop: bool = False,
        label: Label | None = None,
        **options: Any,
    ) -> Samples:
        """As :meth:`interpolate`, through two `points` or more, `n` samples a leg with both of its ends.

        ``(len(points) - 1) (n - 1) + 1`` samples; with `loop` a leg leads from the last point back to the first,
        which is not repeated: ``len(points) (n - 1)`` samples.
        """
        return self._along(Latents(self._program).walk(points, n, method=method, loop=loop), label, options)

    def traverse(
        self,
        point: Point,
        axis: int,
        n: int = 16,
        *,
        low: float | None = None,
        high: float | None = None,
        label: Label | None = None,
        **options: Any,
    ) -> Samples:
        """`n` samples from one latent whose value number `axis` goes from `low` to `high`.

        By default from -3 to 3, or from 0 to 1 where the latent is uniform. `point`, `label` and `options` as for
        :meth:`interpolate`.
        """
        return self._along(Latents(self._program).traverse(point, axis, n, low=low, high=high), label, options)

    def arithmetic(
        self,
        plus: Sequence[Sequence[Point]],
        minus: Sequence[Sequence[Point]] = (),
        *,
        label: Label | None = None,
        **options: Any,
    ) -> Samples:
        """One sample of the sum of means: "a - b + c" is ``plus=[a, c], minus=[b]``, each a list of points.

        Radford et al. (2015), section 6.3.2. `label` and `options` as for :meth:`interpolate`.
        """
        return self._along(Latents(self._program).arithmetic(plus, minus), label, options)

    def _along(self, walk: Walk, label: Label | None, options: Mapping[str, Any]) -> Samples:
        """A sample for each latent of a walk."""
        for name in {"seed", "latents"} & set(options):
            raise InputError(f"a walk brings its own {name}; leave it out")
        given = {"seed": walk.keys, "latents": walk.latents, "label": label}
        return self._draw(len(walk.keys), {**given, **options})
