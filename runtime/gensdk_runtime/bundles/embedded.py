"""The small bundles that come with gensdk, by name, so that the first samples need no training and no network."""

from __future__ import annotations

from pathlib import Path

SUFFIX = ".gsdk"
FOLDER = Path(__file__).with_name("embedded")


def embedded_names() -> tuple[str, ...]:
    """The names of the embedded bundles, in alphabetical order."""
    return tuple(sorted(file.stem for file in FOLDER.glob(f"*{SUFFIX}")))


def embedded_path(name: str) -> Path | None:
    """The file of the embedded bundle called `name`, or None if there is none."""
    return FOLDER / f"{name}{SUFFIX}" if name in embedded_names() else None
