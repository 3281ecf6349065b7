"""What a :class:`Generator` does with images of any size: translate them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.conditions.given_images import Picture
from gensdk_runtime.methods.ascent_methods import AscentMethods
from gensdk_runtime.methods.translate import Through, translate_all
from gensdk_runtime.plan.request import Label


class TranslationMethods(AscentMethods):
    """The part of :class:`Generator` that translates, over its ``sample``."""

    @overload
    def translate(
        self,
        images: NDArray[Any] | Picture,
        *,
        label: Label | None = None,
        tile: int | None = None,
        resize: tuple[int, int] | None = None,
    ) -> NDArray[np.uint8]: ...

    @overload
    def translate(
        self,
        images: Sequence[NDArray[Any] | Picture],
        *,
        label: Label | None = None,
        tile: int | None = None,
        resize: tuple[int, int] | None = None,
    ) -> list[NDArray[np.uint8]]: ...

    def translate(
        self,
        images: NDArray[Any] | Picture | Sequence[NDArray[Any] | Picture],
        *,
        label: Label | None = None,
        tile: int | None = None,
        resize: tuple[int, int] | None = None,
    ) -> NDArray[np.uint8] | list[NDArray[np.uint8]]:
        """Translates `images`: uint8 [H, W, C], [n, H, W, C], or a list of [H, W, C] of several sizes (a grey one
        may come without C), or pictures of Pillow's. Gives arrays back, at the model's scale: one of an image or
        of [n, H, W, C], and otherwise a list.

        With a channel more than the model takes, which is transparency, colours are translated and transparency
        goes through the same geometry; a model that looks at all of an image gets it on white.

        `resize`: (height, width) that images are brought to before. Sizes that the graph does not take are padded
        and cut back. `tile`: cut images into tiles of about so many pixels, which overlap and are blended; 0:
        never; None: where an image has over a million pixels, or more than the graph takes, and tiles give what
        the whole image gives, as the model's graph tells (:class:`gensdk_runtime.spec.signature.ReceptiveField`).
        A model that looks at all of an image (instance normalization, attention) gets it whole. Where a graph
        takes one size alone, larger images are resized for it and their results enlarged, with a
        :class:`GensdkWarning`.

        `label` as in :meth:`Generator.sample`. Raises as that does, and :class:`InputError` for an image that does
        not fit into memory, with the choices.
        """
        through = Through(self.model, lambda n=None, **given: self._draw(n, given), self._room, tile, resize)
        return translate_all(through, images, label)
