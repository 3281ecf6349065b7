"""Writes bundles: sealed with checksums, checked as a reader would, then put in place all or nothing."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.bundles.files import CHUNK
from gensdk_runtime.errors import BundleError, InputError
from gensdk_runtime.host.atomic import check_no_dangling_link, put_in_place, sibling
from gensdk_runtime.host.system import OPENS_FOLDERS, sync
from gensdk_runtime.spec.fields import check_case, check_path
from gensdk_runtime.spec.manifest import MANIFEST_FILE, FileEntry, Manifest

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip file can name


def write_bundle(
    target: str | Path, manifest: Manifest, files: Mapping[str, bytes | Path], *, as_zip: bool = False
) -> Bundle:
    """Writes a bundle to `target`, a folder or with `as_zip` one zip file, and opens it.

    `files` gives every file by its name in the bundle, as bytes or as a path to copy from (which may lie in the
    bundle that is replaced). `manifest` may be a draft: its `files` are filled in anew.

    The bundle is written and synced beside `target`, opened there with all checks, and then replaces what stood
    at `target`: a kill at any moment leaves the old or the new bundle, and whatever fails leaves the old one.
    Equal content gives an equal zip file, byte by byte (entries sorted, stored, without times).

    Raises :class:`InputError` for files that can't be packed, :class:`ManifestError` where the manifest uses a
    file that is not among them, :class:`IntegrityError` where readers would refuse the bundle, and
    :class:`BundleError` where `target` is something else than a bundle, or the disk is full or read-only.
    """
    target = _real_path(Path(target))
    _check_names(files)
    with _writable(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with sibling(target, folder=not as_zip) as new:
            packer = _ZipPacker(new) if as_zip else _FolderPacker(new)
            try:
                entries = {name: _pack(packer, name, files[name]) for name in sorted(files)}
                sealed = manifest.with_files(entries)
                _pack(packer, MANIFEST_FILE, sealed.to_json().encode())
            finally:
                packer.finish()
            Bundle._open_path(new, shown_as=target).close()
            put_in_place(new, target)
    return Bundle.open(target)


class _Packer(Protocol):
    def create(self, name: str, size: int) -> BinaryIO:
        """Opens the file `name` for writing `size` bytes."""

    def finish(self) -> None:
        """Waits until all is on the disk."""


class _FolderPacker:
    def __init__(self, root: Path) -> None:
        self._root = root

    def create(self, name: str, size: int) -> BinaryIO:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("xb")

    def finish(self) -> None:
        for path in (*self._root.rglob("*"), self._root):
            sync(path)


class _ZipPacker:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)

    def create(self, name: str, size: int) -> BinaryIO:
        """Stored, not deflated: weights hardly shrink, and deflate differs between versions of zlib."""
        info = zipfile.ZipInfo(name, _EPOCH)
        info.create_system = 3  # as on Unix, wherever it is written
        info.external_attr = (stat.S_IFREG | 0o644) << 16
        info.file_size = size
        return self._zip.open(info, "w")  # type: ignore[return-value]  # it is a writable binary stream

    def finish(self) -> None:
        self._zip.close()
        sync(self._path)


def _pack(packer: _Packer, name: str, source: bytes | Path) -> FileEntry:
    """Copies one file into the bundle."""
    digest, size = hashlib.sha256(), 0
    expected = len(source) if isinstance(source, bytes) else source.stat().st_size
    if expected == 0:
        raise InputError(f"file {name!r} is empty; a bundle holds no empty files")
    with (
        io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as reader,
        packer.create(name, expected) as writer,
    ):
        while chunk := reader.read(CHUNK):
            writer.write(chunk)
            digest.update(chunk)
            size += len(chunk)
    if size != expected:
        raise InputError(f"file {name!r} changed while it was packed ({expected} bytes became {size}); try again")
    return FileEntry(sha256=digest.hexdigest(), size=size)


def _check_names(files: Mapping[str, bytes | Path]) -> None:
    try:
        check_case(files)
        for name in files:
            check_path(name)
    except ValueError as failure:
        raise InputError(str(failure)) from None
    for name, source in files.items():
        if name == MANIFEST_FILE or any(str(folder) in files for folder in PurePosixPath(name).parents):
            raise InputError(f"file {name!r} stands in the way of another file of the bundle")
        if isinstance(source, Path) and not source.is_file():
            raise InputError(f"file {name!r} is to be copied from {str(source)!r}, which is no file")


def _real_path(target: Path) -> Path:
    """`target` behind any links, if what stands there may be replaced."""
    problem = None
    try:
        check_no_dangling_link(target)
        target = target.resolve()
        if target.is_dir():
            foreign = not (target / MANIFEST_FILE).is_file() and any(target.iterdir())
            problem = f"a folder that is no bundle (it has no {MANIFEST_FILE})" if foreign else None
        elif target.exists():
            problem = None if _is_zip_bundle(target) else "a file that is no bundle"
    except (OSError, RuntimeError, ValueError) as failure:  # RuntimeError: links in a circle
        reason = getattr(failure, "strerror", None) or failure
        raise BundleError(f"{target}: no bundle can be written there ({reason})") from None
    if problem is not None:
        raise BundleError(f"{target}: won't replace {problem}; choose another path or remove it")
    return target


def _is_zip_bundle(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return MANIFEST_FILE in archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError):
        return False


@contextmanager
def _writable(target: Path) -> Iterator[None]:
    """Turns a full disk, a missing permission and the like into a one-line error; the old bundle stands."""
    try:
        yield
    except OSError as failure:
        reason = failure.strerror or str(failure)
        where = f" at {os.fspath(failure.filename)!r}" if failure.filename else ""
        in_use = isinstance(failure, PermissionError) and not OPENS_FOLDERS
        remedy = "; on Windows close what has the old bundle open" if in_use else ""
        raise BundleError(
            f"{target}: can't write the bundle ({reason}{where}); nothing was changed{remedy}"
        ) from None
