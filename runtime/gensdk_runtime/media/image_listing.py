"""The image files of a folder and of the folders in it, what their results are called, and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gensdk_runtime.media.image_files import SUFFIXES, CorruptImageError, file_header

MAX_DEPTH = 32
LISTED = 8
"""Kinds of files that a remark names."""


@dataclass(frozen=True)
class ImageListing:
    """`files`: the path of each by the name of its result, a ``.png`` in the same folder, in the order of names.
    `remarks`: what was left out or renamed, in words."""

    files: Mapping[str, Path]
    remarks: tuple[str, ...] = ()


def list_images(path: Path) -> ImageListing:
    """The images of a folder, or the one image that `path` is. Raises `OSError`.

    Files without a suffix count where their first bytes are an image's. Names that begin with a point are not
    looked at, and links to folders are not followed. Two files whose results would have one name keep their
    suffixes in it: ``a.jpg.png`` and ``a.png.png``.
    """
    if not path.is_dir():
        return ImageListing({f"{path.stem}.png": path})
    files, left_out = list[Path](), Counter[str]()
    for file in _walk(path, 0, left_out):
        if file.suffix.lower() in SUFFIXES or (not file.suffix and _is_image(file)):
            files.append(file)
        else:
            left_out[file.suffix.lower() or "file without a suffix"] += 1
    remarks = [_left_out(path, left_out)] if left_out else []
    named, renamed = _names({file: file.relative_to(path) for file in files})
    if renamed:
        remarks.append(
            f"{path}: {len(renamed)} files have another one's name but for the suffix; their results keep it, as "
            f"in {Path(renamed[0]).name}"
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


def _walk(folder: Path, depth: int, left_out: Counter[str]) -> Iterator[Path]:
    """Files, those of each folder before those of the folders in it."""
    found = sorted(each for each in folder.iterdir() if not each.name.startswith("."))
    yield from (each for each in found if each.is_file())
    for each in found:
        if each.is_dir() and (each.is_symlink() or depth == MAX_DEPTH):
            left_out["link to a folder" if each.is_symlink() else "folder too deep"] += 1
        elif each.is_dir():
            yield from _walk(each, depth + 1, left_out)
        elif not each.is_file():
            left_out["link to nothing" if each.is_symlink() else "special file"] += 1


def _is_image(file: Path) -> bool:
    try:
        file_header(file)
    except (OSError, CorruptImageError):
        return False
    return True


def _left_out(path: Path, kinds: Counter[str]) -> str:
    """``photos: left out 3 .txt, 1 .heic``."""
    listed = [f"{count} {kind}" for kind, count in kinds.most_common(LISTED)]
    rest = sum(kinds.values()) - sum(count for _, count in kinds.most_common(LISTED))
    return f"{path}: left out {', '.join(listed)}" + (f" and {rest} others" if rest else "")
