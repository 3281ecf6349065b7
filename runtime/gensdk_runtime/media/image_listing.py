"""The image files of a folder, what their results are called, and what was left out, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gensdk_runtime.media.image_folder import list_images

LISTED = 8
"""Kinds of files, and broken files, that are named."""


@dataclass(frozen=True)
class ImageListing:
    """`files`: the path of each by the name of its result, a ``.png`` in the same folder, in the order of names.
    `remarks`: what was left out or renamed, in words."""

    files: Mapping[str, Path]
    remarks: tuple[str, ...] = ()


def named_images(path: Path) -> ImageListing:
    """The images of a folder and of the folders in it, or the one image that `path` is.

    Two files whose results would have one name keep their suffixes in it: ``a.jpg.png`` and ``a.png.png``. Raises
    :class:`InputError` where the folder can't be read.
    """
    if not path.is_dir():
        return ImageListing({f"{path.stem}.png": path})
    found = list_images(path, nameless=True)
    named, renamed = _names({file: file.relative_to(path) for file in found.files})
    remarks = [_left_out(path, found.left_out)] if found.left_out else []
    remarks += [f"{broken}: left out, {problem}" for broken, problem in found.broken[:LISTED]]
    if len(found.broken) > LISTED:
        remarks.append(f"{path}: {len(found.broken) - LISTED} more can't be read")
    if renamed:
        remarks.append(
            f"{path}: {len(renamed)} files differ from another one in their suffix alone; their results keep it, "
            f"as in {Path(renamed[0]).name}"
        )
    return ImageListing(named, tuple(remarks))


def _names(files: Mapping[Path, Path]) -> tuple[dict[str, Path], list[str]]:
    """The name of each result, and those that are not the usual ones; `files` with their paths in the folder.

    File systems that ignore case would take names for one that differ in it alone.
    """
    usual = {file: inside.with_suffix(".png").as_posix() for file, inside in files.items()}
    wanted = Counter(name.lower() for name in usual.values())
    named, taken, renamed = dict[str, Path](), {name for name, count in wanted.items() if count == 1}, list[str]()
    for file, inside in files.items():
        name = usual[file]
        if wanted[name.lower()] > 1:
            name, number = f"{inside.as_posix()}.png", 1
            while name.lower() in taken:
                number += 1
                name = f"{inside.as_posix()}.{number}.png"
            taken.add(name.lower())
            renamed.append(name)
        named[name] = file
    return named, renamed


def _left_out(path: Path, kinds: Counter[str]) -> str:
    """``photos: left out 3 .txt, 1 .heic``."""
    listed = [f"{count} {kind or 'without a suffix'}" for kind, count in kinds.most_common(LISTED)]
    rest = sum(kinds.values()) - sum(count for _, count in kinds.most_common(LISTED))
    return f"{path}: left out {', '.join(listed)}" + (f" and {rest} others" if rest else "")
