"""The files of onnxruntime-web that a page needs: from npm in one pinned version, or from a folder."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from gensdk_runtime.errors import ExportError, InputError, UnavailableError
from gensdk_runtime.host.atomic import write_file
from gensdk_runtime.host.child_process import run_program
from gensdk_runtime.host.scratch import scratch_folder
from gensdk_runtime.host.user_cache import cache_folder

VERSION = "1.30.0"
INTEGRITY = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""SHA-512 of npm's archive, as npm's lock files have it."""
FILES: Mapping[str, str] = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
"""SHA-256 of the files that a page needs."""
NOTICE = f"onnxruntime-web {VERSION}. Copyright (c) Microsoft Corporation. MIT License.\n"

MAX_BYTES = 256 * 2**20
TIMEOUT_SECONDS = 600
REMEDY = f"or unpack onnxruntime-web {VERSION} and give its folder with --onnxruntime-web"


def onnxruntime_web(folder: Path | None = None) -> dict[str, bytes]:
    """The files by their names: from `folder` (the package as npm unpacks it, or its ``dist``), else from npm.

    What came from npm is kept in the user's cache, and checked whenever it is read. Raises :class:`InputError`
    where `folder` does not hold just this version, :class:`UnavailableError` where npm is missing or fails, and
    :class:`ExportError` where what it brings is not what was pinned.
    """
    if folder is not None:
        found = _read(folder) or _read(folder / "dist")
        if found is None:
            names = " and ".join(FILES)
            raise InputError(f"{folder}: expected {names} of onnxruntime-web {VERSION}, or its package folder")
        return found
    try:
        kept: Path | None = cache_folder("onnxruntime-web", VERSION)
    except UnavailableError:
        kept = None  # then it is downloaded each time
    found = None if kept is None else _read(kept)
    if found is None:
        found = _unpack(_download())
        if kept is not None:
            _keep(kept, found)
    return found


def _read(folder: Path) -> dict[str, bytes] | None:
    """The files in `folder`, if all are there and are the right ones."""
    found = {}
    for name, digest in FILES.items():
        try:
            data = (folder / name).read_bytes()
        except OSError:
            return None
        if hashlib.sha256(data).hexdigest() != digest:
            return None
        found[name] = data
    return found


def _download() -> bytes:
    """npm's archive, with the user's npm and its settings."""
    with scratch_folder() as folder:
        command = ("pack", f"onnxruntime-web@{VERSION}", "--ignore-scripts", "--silent")
        try:
            done = run_program("npm", *command, timeout=TIMEOUT_SECONDS, cwd=folder)
        except OSError as failure:
            raise UnavailableError(f"npm can't get onnxruntime-web {VERSION} ({failure}); {REMEDY}") from None
        if done is None:
            raise UnavailableError(f"a page needs npm once, to get onnxruntime-web; install Node.js, {REMEDY}")
        archives = sorted(folder.glob("*.tgz"))
        if done.code or len(archives) != 1:
            lines = done.errors.strip().splitlines() or ["no archive came"]
            reason = next((line for line in lines if "error" in line.lower()), lines[-1])
            raise UnavailableError(
                f"npm can't get onnxruntime-web {VERSION} ({reason[:200]}); try again, {REMEDY}"
            )
        if archives[0].stat().st_size > MAX_BYTES:
            raise ExportError(f"npm's onnxruntime-web {VERSION} is larger than {MAX_BYTES} bytes; don't trust it")
        return archives[0].read_bytes()


def _unpack(archive: bytes) -> dict[str, bytes]:
    """The files, out of an archive that is the pinned one."""
    digest = base64.b64encode(hashlib.sha512(archive).digest()).decode()
    if digest != INTEGRITY:
        raise ExportError(
            f"npm's onnxruntime-web {VERSION} is not the pinned one: expected sha512-{INTEGRITY[:12]}.., got "
            f"sha512-{digest[:12]}..; check the registry that npm uses"
        )
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as package:
        for name in FILES:
            member = package.extractfile(f"package/dist/{name}")
            if member is None:
                raise ExportError(f"npm's onnxruntime-web {VERSION} has no file {name!r}")
            found[name] = member.read()
    return found


def _keep(folder: Path, files: Mapping[str, bytes]) -> None:
    """Keeps the files in the user's cache if possible: otherwise the next page downloads them again."""
    for name, data in files.items():
        try:
            write_file(folder / name, data, durable=True)
        except OSError:
            return
