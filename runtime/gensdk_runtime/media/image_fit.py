"""Brings an image to a wanted size."""

from __future__ import annotations

from typing import Literal

from gensdk_runtime.media.image_pixels import Images, resize

Fit = Literal["crop", "stretch"]


def fit_size(image: Images, size: tuple[int, int], fit: Fit) -> Images:
    """`image` uint8 [H, W, C] at `size` (height, width): cut to the shape from the centre, or stretched.

    The mean over areas where it shrinks, bicubic where it grows.
    """
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    if fit == "crop":
        scale = min(image.shape[0] / height, image.shape[1] / width)
        cut_h, cut_w = max(1, round(height * scale)), max(1, round(width * scale))
        top, left = (image.shape[0] - cut_h) // 2, (image.shape[1] - cut_w) // 2
        image = image[top : top + cut_h, left : left + cut_w]
    return resize(image, height, width)
