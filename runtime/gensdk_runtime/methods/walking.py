"""Walks through the latents of a model, as methods of :class:`gensdk_runtime.generator.Generator`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.arguments import check_count
from gensdk_runtime.conditions.label import Label
from gensdk_runtime.errors import InputError
from gensdk_runtime.noise import Seeds, sample_keys
from gensdk_runtime.plan.sampling import SampleArguments, Sampling
from gensdk_runtime.samples import Samples

if TYPE_CHECKING:
    from gensdk_runtime.methods.latents import Latents, Method, Point, Walk


class Walking:
    """Latents, and walks between them."""

    _sampling: Sampling

    if TYPE_CHECKING:  # which a generator has

        def sample(self, *arguments: Any, **options: Any) -> Samples:
            """See :meth:`gensdk_runtime.generator.Generator.sample`."""

    def latents(self, n: int, seed: Seeds) -> NDArray[np.float32]:
        """The latents, float32 [n, ...], that ``sample(n, seed=seed)`` starts from: z, or the first noise x_T;
        :class:`InputError` for a model that has none."""
        return self._latents.of(sample_keys(check_count(n), seed))

    def interpolate(
        self,
        a: Point,
        b: Point,
        n: int,
        *,
        method: Method | None = None,
        label: Label | None = None,
        **options: Unpack[SampleArguments],
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
        **options: Unpack[SampleArguments],
    ) -> Samples:
        """As :meth:`interpolate`, through two `points` or more, `n` samples a leg with both of its ends.

        ``(len(points) - 1) (n - 1) + 1`` samples; with `loop` a leg leads from the last point back to the first,
        which is not repeated: ``len(points) (n - 1)`` samples.
        """
        return self._along(self._latents.walk(points, n, method=method, loop=loop), label, options)

    def traverse(
        self,
        point: Point,
        axis: int,
        n: int = 16,
        *,
        low: float | None = None,
        high: float | None = None,
        label: Label | None = None,
        **options: Unpack[SampleArguments],
    ) -> Samples:
        """`n` samples from one latent whose value number `axis` goes from `low` to `high`.

        By default from -3 to 3, or from 0 to 1 where the latent is uniform. `point`, `label` and `options` as for
        :meth:`interpolate`.
        """
        return self._along(self._latents.traverse(point, axis, n, low=low, high=high), label, options)

    def arithmetic(
        self,
        plus: Sequence[Sequence[Point]],
        minus: Sequence[Sequence[Point]] = (),
        *,
        label: Label | None = None,
        **options: Unpack[SampleArguments],
    ) -> Samples:
        """One sample of the sum of means: "a - b + c" is ``plus=[a, c], minus=[b]``, each a list of points.

        Radford et al. (2015), section 6.3.2. `label` and `options` as for :meth:`interpolate`.
        """
        return self._along(self._latents.arithmetic(plus, minus), label, options)

    @property
    def _latents(self) -> Latents:
        from gensdk_runtime.methods.latents import Latents  # which few need

        return Latents(self._sampling.program)

    def _along(self, walk: Walk, label: Label | None, options: Mapping[str, Any]) -> Samples:
        """A sample for each latent of a walk."""
        for name in {"seed", "latents"} & set(options):
            raise InputError(f"a walk brings its own {name}; leave it out")
        return self.sample(len(walk.keys), seed=walk.keys, latents=walk.latents, label=label, **options)
