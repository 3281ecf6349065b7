"""The image files below a folder, and a record of all files that were left out."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.image_files import SUFFIXES, file_header
from gensdk_runtime.media.image_reader import CorruptImageError

MAX_FILES = 10_000_000
MAX_DEPTH = 64


@dataclass
class ImageFolder:
    """What lies below `root`.

    `files`: images by their suffix, in the order of their paths; with `nameless` also files without a suffix whose
    first bytes are an image's. `broken`: names with such a suffix that are no readable file, and links that lead
    nowhere, each with the reason. `left_out`: how many files have another suffix ("" for none). `links`: links
    that were followed; `outside`: those of them that lead out of `root`. `empty`: folders at the top without an
    image.
    """

    root: Path
    nameless: bool = False
    suffixes: tuple[str, ...] = SUFFIXES
    files: list[Path] = field(default_factory=list)
    broken: list[tuple[Path, str]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    links: int = 0
    outside: int = 0
    empty: tuple[str, ...] = ()


def list_images(root: Path, *, nameless: bool = False, suffixes: tuple[str, ...] = SUFFIXES) -> ImageFolder:
    """Looks through `root` and all folders in it. Hidden files and folders (``.name``) are no part of the data.

    `suffixes`: of files of another kind, such as sounds, which are listed in place of images.

    Links are followed, each folder once: one that leads back to where it was reached from is not entered again.
    Raises :class:`InputError` where `root` can't be read.
    """
    found = ImageFolder(root, nameless, suffixes)
    home = os.path.realpath(root)
    seen = {home}
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                inside = sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)
        except OSError as failure:
            if folder == root:
                raise InputError(f"can't read folder {root} ({failure.strerror})") from None
            found.broken.append((folder, failure.strerror or "the folder can't be read"))
            continue
        folders = [path for entry in inside if (path := _look_at(entry, found, home, seen)) is not None]
        waiting += reversed(folders)
        if len(found.files) > MAX_FILES:
            raise InputError(f"{root}: more than {MAX_FILES} files; make several data sets of it")
    found.files.sort(key=lambda path: path.relative_to(root).as_posix())
    found.broken.sort()
    found.empty = _empty(found)
    return found


def _look_at(entry: os.DirEntry[str], found: ImageFolder, home: str, seen: set[str]) -> Path | None:
    """Notes what `entry` is; the folder to enter, if it is one."""
    path, link = Path(entry.path), entry.is_symlink()
    try:
        is_folder, is_file = entry.is_dir(), entry.is_file()
    except OSError as failure:  # links in a circle
        found.broken.append((path, failure.strerror or "it can't be read"))
        return None
    if link and not (is_folder or is_file) and not path.exists():
        found.broken.append((path, "a link that leads nowhere"))
        return None
    if not (is_folder or is_file):
        if path.name.lower().endswith(found.suffixes):
            found.broken.append((path, "it is no plain file"))
        return None
    target = os.path.realpath(entry.path) if link or is_folder else ""
    outside = link and os.path.commonpath((home, target)) != home
    if is_folder:
        if problem := _not_entered(target, link, home, seen, len(path.relative_to(found.root).parts)):
            found.broken.append((path, problem))
            return None
        seen.add(target)
    found.links += link
    found.outside += outside
    if is_folder:
        return path
    if path.name.lower().endswith(found.suffixes) or (found.nameless and not path.suffix and _is_image(path)):
        found.files.append(path)
    else:
        found.left_out[path.suffix.lower()[:16]] += 1
    return None


def _not_entered(target: str, link: bool, home: str, seen: set[str], depth: int) -> str | None:
    """Why a folder, whose real path is `target`, is not part of the data; None if it is."""
    shared = os.path.commonpath((home, target))
    if link and shared == target:
        return "a link that leads back to where it lies"
    if target in seen or (link and shared == home):
        return "a link to a folder that is among the data already"
    return f"more than {MAX_DEPTH} folders deep" if depth > MAX_DEPTH else None


def _is_image(file: Path) -> bool:
    try:
        file_header(file)
    except (OSError, CorruptImageError):
        return False
    return True


def _empty(found: ImageFolder) -> tuple[str, ...]:
    try:
        tops = sorted(p.name for p in found.root.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError:
        return ()
    filled = {path.relative_to(found.root).parts[0] for path in found.files}
    return tuple(name for name in tops if name not in filled)
