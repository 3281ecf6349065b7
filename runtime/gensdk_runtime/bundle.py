"""A bundle: a model ready to sample from, as a folder or one zip file, opened as untrusted input.

Opening refuses, in one line that names the file: a missing, invalid or newer manifest, a missing graph, a wrong
size, a checksum that does not match, a path or an external tensor that reaches outside, a link, a suspicious
zip entry (see :mod:`gensdk_runtime.zip_files`), a graph without the inputs and outputs that the manifest
gives it, and files that the manifest does not list: anywhere in a zip file; in a folder those in ``graphs`` and
next to other listed files. What lies at the top of a folder, and what operating systems leave behind
(``.DS_Store``, ``Thumbs.db``, ``desktop.ini``, ``._*``, ``__MACOSX``), is ignored, and never read.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from gensdk_runtime.atomic import previous_of
from gensdk_runtime.bundle_files import AGAIN, BundleFiles, FolderFiles, readable
from gensdk_runtime.closable import Closable
from gensdk_runtime.embedded import SUFFIX, embedded_names, embedded_path
from gensdk_runtime.errors import BundleError, InputError, IntegrityError, ManifestError, did_you_mean
from gensdk_runtime.manifest import MANIFEST_FILE, MAX_MANIFEST_BYTES, EngineSpec, Manifest
from gensdk_runtime.onnx_scan import scan
from gensdk_runtime.signature import Precision, SourceSpec, check_path
from gensdk_runtime.zip_files import ZipFiles

VERIFY_AT_OPEN = 64 * 2**20
"""A bundle of at most so many bytes is verified as a whole when it is opened (about 0.1 s)."""

_ATTEMPTS = 50  # of opening a folder that writers keep replacing


@dataclass(frozen=True, eq=False)
class Bundle(Closable):
    """An open bundle; close it, or open it in ``with``. Safe to use from several threads.

    It stays readable as it was opened when another process replaces it. Every byte that :meth:`read` returns
    has been checked against the manifest after it was read.
    """

    path: Path
    manifest: Manifest
    _files: BundleFiles
    _externals: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict, repr=False)
    """For each graph and file that was scanned, the bundle's files in which external tensors lie."""

    @classmethod
    def open(cls, path_or_name: str | Path) -> Bundle:
        """Opens a folder, a zip file, or an embedded bundle by its name; a path wins over a name.

        Raises :class:`BundleError` where there is no such bundle or it can't be read, :class:`ManifestError`
        and :class:`IntegrityError` (both are BundleErrors) where it is refused. Bundles of up to 64 MiB are
        verified as a whole, larger ones file by file as they are read (or by :meth:`verify_files`).
        """
        path = _find(path_or_name)
        return cls._open_path(path, shown_as=path)

    @classmethod
    def _open_path(cls, path: Path, *, shown_as: Path) -> Bundle:
        """Opens what stands at `path`; errors speak of `shown_as`, where a writer is going to put it."""
        for _ in range(_ATTEMPTS):
            candidate = _standing(path)
            with readable(shown_as):
                try:
                    files = _open_files(candidate, shown_as)
                except (FileNotFoundError, NotADirectoryError):  # replaced in this very moment
                    continue
                try:
                    return cls._checked(shown_as, files)
                except BaseException as failure:
                    # A predecessor is removed file by file once its successor stands, so look for that first.
                    replaced = isinstance(failure, BundleError | OSError) and (
                        (candidate != path and os.path.lexists(path)) or files.replaced()
                    )
                    files.close()
                    if not replaced:
                        raise
        raise BundleError(f"{path}: it is being replaced all the time; try again")

    @classmethod
    def _checked(cls, path: Path, files: BundleFiles) -> Bundle:
        bundle = cls(path, _read_manifest(path, files), files)
        listed = bundle.manifest.files
        for name, entry in listed.items():
            size = files.hold(name)
            if size != entry.size:
                raise IntegrityError(f"{path}: {name!r} has {size} bytes, {entry.size} are listed; {AGAIN}")
        stranger = files.unlisted({MANIFEST_FILE, *listed})
        if stranger is not None:
            raise IntegrityError(f"{path}: {stranger[:80]!r} is not listed in {MANIFEST_FILE}; remove the file")
        if sum(entry.size for entry in listed.values()) <= VERIFY_AT_OPEN:
            bundle.verify_files()
        return bundle

    def read(self, file: str) -> bytes:
        """The content of a listed `file`, whose size and SHA-256 are those of the manifest.

        Raises :class:`InputError` for a file that the manifest does not list, :class:`IntegrityError` where
        the content is not what was packed.
        """
        if file not in self.manifest.files:
            raise InputError(f"{self.path}: no file {file!r}{did_you_mean(file, self.manifest.files)}")
        return b"".join(self._checked_chunks(file))

    def graph_source(self, graph: str, precision: Precision) -> BundleGraph:
        """The file of one graph in one precision, for a backend to load."""
        known = self.manifest.all_graph_files
        files = known.get(graph)
        if files is None:
            raise InputError(f"{self.path}: no graph {graph!r}{did_you_mean(graph, known)}")
        if precision not in files:
            remedy = "; export the model with `gensdk export --fp16`" if precision == "fp16" else ""
            raise InputError(
                f"{self.path}: graph {graph!r} has no {precision} file, only {', '.join(files)}{remedy}"
            )
        return BundleGraph(self, graph, files[precision])

    def verify_files(self) -> None:
        """Checks the content of all files; :class:`IntegrityError` names the first that is not right."""
        checked = set()
        for graph, files in self.manifest.all_graph_files.items():
            for file in files.values():
                BundleGraph(self, graph, file)._check(self.read(file))
                checked.add(file)
        for file in self.manifest.files:
            if file not in checked:
                self._check_content(file)

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._files.closed()

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process, or a copy, opens the path again."""
        return Bundle.open, (self.path.absolute(),)

    def close(self) -> None:
        """Closes the files; what was read from them stays valid. May be called twice."""
        self._files.close()

    def _check_content(self, file: str) -> None:
        for _ in self._checked_chunks(file):
            pass

    def _checked_chunks(self, file: str) -> Iterator[bytes]:
        """The content piece by piece; the checksum is right only if the iteration ends without an error."""
        if self._files.closed():
            raise BundleError(f"{self.path}: the bundle is closed; open it again")
        entry = self.manifest.files[file]
        digest, size = hashlib.sha256(), 0
        with readable(f"{self.path}: {file!r}"):
            for chunk in self._files.chunks(file):
                size += len(chunk)
                if size > entry.size:
                    raise IntegrityError(
                        f"{self.path}: {file!r} has more than the {entry.size} bytes listed; {AGAIN}"
                    )
                digest.update(chunk)
                yield chunk
        if size != entry.size or digest.hexdigest() != entry.sha256:
            raise IntegrityError(
                f"{self.path}: {file!r} was altered or damaged (SHA-256 {digest.hexdigest()[:12]}.., listed is"
                f" {entry.sha256[:12]}..); {AGAIN}"
            )


@dataclass(frozen=True)
class BundleGraph:
    """A :class:`gensdk_runtime.backends.base.GraphSource`: one graph's file, checked whenever it is asked for."""

    bundle: Bundle
    graph: str
    file: str

    @property
    def path(self) -> Path | None:
        """The file on disk where the graph has tensors in other files, which are then checked too; else None.

        A backend finds such tensors relative to the path. All other graphs are to be loaded from :meth:`read`:
        a file could be replaced between the check and the loading, bytes can't.
        """
        externals = self._check(self.bundle.read(self.file))
        for external in externals:
            self.bundle._check_content(external)
        return self.bundle._files.on_disk(self.file) if externals else None

    def read(self) -> bytes:
        """The bytes of the ONNX file; :class:`IntegrityError` where it is not what the manifest says.

        Refused with :class:`BundleError` for a graph with tensors in other files: from bytes alone, a backend
        would look for them in the working directory.
        """
        data = self.bundle.read(self.file)
        if self._check(data):
            raise BundleError(
                f"{self.bundle.path}: {self.file!r} has tensors in other files; load it from its path"
            )
        return data

    def largest_batch(self) -> int:
        """The largest batch that the model is run with."""
        return self.bundle.manifest.model.max_batch

    def translated(self) -> SourceSpec | None:
        """The images that the model translates; None for other models."""
        return self.bundle.manifest.model.source

    def engine_specs(self, precision: Precision) -> tuple[EngineSpec, ...]:
        """The engines that the bundle has of this graph in one precision."""
        engines = self.bundle.manifest.engines
        return tuple(spec for spec in engines if (spec.graph, spec.precision) == (self.graph, precision))

    def read_engine(self, spec: EngineSpec) -> bytes:
        """The checked bytes of one of them; :class:`IntegrityError` where they are not what was packed."""
        return self.bundle.read(spec.file)

    def _check(self, data: bytes) -> tuple[str, ...]:
        """Compares the names with the manifest's; the bundle's files in which external tensors lie.

        `data` has the listed SHA-256, so once is enough for each file.
        """
        key = self.graph, self.file
        if key not in self.bundle._externals:
            self.bundle._externals[key] = self._scan(data)
        return self.bundle._externals[key]

    def _scan(self, data: bytes) -> tuple[str, ...]:
        name = f"{self.bundle.path}: {self.file!r}"
        try:
            facts = scan(data)
        except IntegrityError as failure:
            raise IntegrityError(f"{name}: {failure}") from None
        spec = self.bundle.manifest.graph(self.graph)
        pairs = (("inputs", facts.inputs, spec.inputs), ("outputs", facts.outputs, spec.outputs))
        for kind, have, tensors in pairs:
            want = [tensor.name for tensor in tensors]
            if sorted(have) != sorted(want):
                got = ", ".join(have)[:200] or "none"
                raise IntegrityError(f"{name}: the manifest says {kind} {', '.join(want)}, the graph has {got!r}")
        if facts.external_locations and self.bundle._files.on_disk(self.file) is None:
            raise IntegrityError(f"{name}: its tensors lie in other files, which only a folder can hold; unzip it")
        return tuple(self._external(name, location) for location in facts.external_locations)

    def _external(self, name: str, location: str) -> str:
        try:
            file = str(PurePosixPath(self.file).parent / check_path(location))
        except ValueError:
            raise IntegrityError(f"{name}: external data at {location[:80]!r}, outside the bundle") from None
        if file not in self.bundle.manifest.files:
            raise IntegrityError(
                f"{name}: external data at {location[:80]!r}, which {MANIFEST_FILE} does not list"
            )
        return file


def _find(path_or_name: str | Path) -> Path:
    """The path of a bundle, given by path or by the name of an embedded one."""
    given: object = path_or_name  # callers without a type checker pass anything
    if not isinstance(given, str | os.PathLike):
        kind = type(given).__name__
        raise InputError(f"expected a bundle as a path, or the name of an embedded one, got {kind}")
    path = Path(path_or_name)
    try:
        if path.exists() or previous_of(path).exists() or path.exists():  # twice: it may be on its way
            return path
    except (OSError, ValueError) as failure:  # a name too long, a NUL in it
        reason = getattr(failure, "strerror", None) or failure
        raise BundleError(f"no bundle {str(path_or_name)[:80]!r} ({reason})") from None
    embedded = embedded_path(str(path_or_name))
    if embedded is not None:
        return embedded
    beside = [file.name for file in path.parent.glob(f"*{SUFFIX}")]
    known = did_you_mean(path.name, {*embedded_names(), *beside})
    raise BundleError(
        f"no bundle {str(path_or_name)!r}{known} (expected: a folder with {MANIFEST_FILE}, a {SUFFIX} file,"
        f" or the name of an embedded bundle)"
    )


def _standing(path: Path) -> Path:
    """`path`, or its predecessor where a writer was killed before it put the new bundle in place."""
    previous = previous_of(path)
    return previous if not os.path.lexists(path) and previous.exists() else path


def _open_files(path: Path, shown_as: Path) -> BundleFiles:
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        return FolderFiles(path, shown_as)
    if stat.S_ISREG(mode):
        return ZipFiles(path, shown_as)
    raise BundleError(f"{shown_as}: it is neither a file nor a folder")  # a pipe, which would block


def _read_manifest(path: Path, files: BundleFiles) -> Manifest:
    what = f"{path}: {MANIFEST_FILE!r}"
    size = files.hold(MANIFEST_FILE)
    if size > MAX_MANIFEST_BYTES:
        raise ManifestError(f"{what} has {size} bytes, at most {MAX_MANIFEST_BYTES} are read")
    data = bytearray()
    for chunk in files.chunks(MANIFEST_FILE):
        data += chunk
        if len(data) > MAX_MANIFEST_BYTES:
            raise ManifestError(f"{what} grows beyond {MAX_MANIFEST_BYTES} bytes")
    return Manifest.parse(bytes(data), what=what)
