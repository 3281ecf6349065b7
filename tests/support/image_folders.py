"""Folders of small pictures that say who they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_image(path: Path, number: int, size: tuple[int, int] = (4, 4)) -> Path:
    """A grey picture of (height, width) whose pixels all are `number`; its format is that of the suffix, lossless
    for ``.png`` and ``.bmp``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size, number, np.uint8)).save(path)
    return path


def write_images(root: Path, names: list[str], size: tuple[int, int] = (4, 4)) -> Path:
    """A picture under each name, which says its place in the list."""
    for number, name in enumerate(names):
        write_image(root / name, number, size)
    return root


def numbers(images: np.ndarray) -> list[int]:
    """What the first pixel of each image says."""
    return [int(number) for number in images[:, 0, 0, 0]]
