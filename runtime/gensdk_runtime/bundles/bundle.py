"""A bundle: a model ready to sample from, as a folder or one zip file, opened as untrusted input.

Opening refuses, in one line that names the file: a missing, invalid or newer manifest, a missing graph, a wrong
size, a checksum that does not match, a path or an external tensor that reaches outside, a link, a suspicious
zip entry (see :mod:`gensdk_runtime.bundles.zip_files`), a graph without the inputs and outputs that the manifest
gives it, and files that the manifest does not list: anywhere in a zip file; in a folder those in ``graphs`` and
next to other listed files. What lies at the top of a folder, and what operating systems leave behind
(``.DS_Store``, ``Thumbs.db``, ``desktop.ini``, ``._*``, ``__MACOSX``), is ignored, and never read.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from gensdk_runtime.arguments import check_flag
from gensdk_runtime.bundles.embedded import SUFFIX, embedded_names, embedded_path
from gensdk_runtime.bundles.engine_trust import trusted_by_environment
from gensdk_runtime.bundles.files import AGAIN, BundleFiles, FolderFiles, readable
from gensdk_runtime.bundles.zip_files import ZipFiles
from gensdk_runtime.errors import BundleError, InputError, IntegrityError, ManifestError, did_you_mean
from gensdk_runtime.host.atomic import previous_of
from gensdk_runtime.host.closable import Closable
from gensdk_runtime.host.known_files import is_known
from gensdk_runtime.host.memory_limit import parse_bytes
from gensdk_runtime.host.scratch import scratch_folder
from gensdk_runtime.onnx_files.inline import MAX_BYTES as MAX_ONNX_BYTES
from gensdk_runtime.onnx_files.inline import check_places, inlined
from gensdk_runtime.onnx_files.scan import scan
from gensdk_runtime.spec.conditions import SourceSpec
from gensdk_runtime.spec.fields import Precision, check_path
from gensdk_runtime.spec.manifest import MANIFEST_FILE, MAX_MANIFEST_BYTES, EngineSpec, Manifest

VERIFY_AT_OPEN = 64 * 2**20
"""A bundle of at most so many bytes is verified as a whole when it is opened (about 0.1 s)."""

LIMIT_VARIABLE = "GENSDK_BUNDLE_LIMIT"
DEFAULT_LIMIT = 32 * 2**30
"""Bytes of all files of a bundle together."""

LARGEST_INLINED = 2**28
"""Bytes of a graph with its tensors in other files, up to which they are put into it in memory. More are copied to
the disk, checked, and loaded from there: that takes about as much memory as they are, and not three times."""

_ATTEMPTS = 50  # of opening a folder that writers keep replacing


@dataclass(frozen=True)
class _Scanned:
    """What was found in a graph's file: the bundle's files in which tensors lie, by location, and `loops`."""

    externals: Mapping[str, str]
    loops: bool


class CheckedCopies:
    """Copies on disk of files too large for memory, each made from checked bytes."""

    def __init__(self) -> None:
        self._folders: dict[str, Path] = {}
        self._undo = ExitStack()
        self._lock = threading.Lock()

    def of(self, bundle: Bundle, file: str, externals: Mapping[str, str]) -> Path:
        """Where the copy of `file` lies, with the files of its tensors beside it."""
        bundle._refuse_closed()
        with self._lock:
            if file not in self._folders:
                with ExitStack() as undo:  # a copy that is not whole is not kept
                    folder = undo.enter_context(scratch_folder())
                    for name in {file, *externals.values()}:
                        _copy(bundle, name, folder / name)
                    self._undo.push(undo.pop_all())
                self._folders[file] = folder
            return self._folders[file] / file

    def close(self) -> None:
        """Removes them. May be called twice."""
        self._undo.close()


def _copy(bundle: Bundle, name: str, target: Path) -> None:
    """Writes the checked bytes of a file to `target`; :class:`BundleError` where they have no room."""
    chunks = bundle._checked_chunks(name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as copy:
            copy.writelines(chunks)
    except OSError as failure:
        size = bundle.manifest.files[name].size
        raise BundleError(
            f"{bundle.path}: {name!r} takes {size} bytes in {target.parent}, which failed "
            f"({failure.strerror or failure}); free them, or name another folder with TMPDIR"
        ) from None


@dataclass(frozen=True, eq=False)
class Bundle(Closable):
    """An open bundle; close it, or open it in ``with``. Safe to use from several threads.

    It stays readable as it was opened when another process replaces it. Every byte that :meth:`read` returns
    has been checked against the manifest after it was read.
    """

    path: Path
    manifest: Manifest
    _files: BundleFiles
    trust_engines: bool = False
    """Whether engines are loaded that this machine did not make; see :meth:`open`."""
    _scanned: dict[tuple[str, str], _Scanned] = field(default_factory=dict, repr=False)
    """What is known of each graph and file that was looked into."""
    _copies: CheckedCopies = field(default_factory=CheckedCopies, repr=False)

    @classmethod
    def open(cls, path_or_name: str | Path, *, trust_engines: bool = False) -> Bundle:
        """Opens a folder, a zip file, or an embedded bundle by its name; a path wins over a name.

        `trust_engines`: engines in it are loaded wherever they were made. They are code that runs with your
        rights, and no checksum tells who wrote it; without your word (or GENSDK_TRUST_ENGINES=1) only those are
        loaded that this machine made, and others are built anew from the graphs.

        Raises :class:`BundleError` where there is no such bundle or it can't be read, :class:`ManifestError`
        and :class:`IntegrityError` (both are BundleErrors) where it is refused. Bundles of up to 64 MiB are
        verified as a whole, larger ones file by file as they are read (or by :meth:`verify_files`).
        """
        check_flag(trust_engines, "trust_engines")
        path = _find(path_or_name)
        opened = cls._open_path(path, shown_as=path)
        return replace(opened, trust_engines=True) if trust_engines else opened

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
        _check_sizes(path, bundle.manifest)
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

    def read(self, file: str, *, limit: int | None = None) -> bytes:
        """The content of a listed `file`, whose size and SHA-256 are those of the manifest.

        Raises :class:`InputError` for a file that the manifest does not list, :class:`IntegrityError` where
        the content is not what was packed, or has more than `limit` bytes.
        """
        if file not in self.manifest.files:
            raise InputError(f"{self.path}: no file {file!r}{did_you_mean(file, self.manifest.files)}")
        size = self.manifest.files[file].size
        if limit is not None and size > limit:
            raise IntegrityError(f"{self.path}: {file!r} has {size} bytes, at most {limit} are read; {AGAIN}")
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
        """True if :meth:`close` was called."""
        return self._files.closed()

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process, or a copy, opens the path again."""
        return partial(Bundle.open, trust_engines=self.trust_engines), (self.path.absolute(),)

    def close(self) -> None:
        """Closes the files; what was read from them stays valid. May be called twice."""
        self._files.close()
        self._copies.close()

    def _refuse_closed(self) -> None:
        if self.closed:
            raise BundleError(f"{self.path}: the bundle is closed; open it again")

    def _check_content(self, file: str) -> None:
        for _ in self._checked_chunks(file):
            pass

    def _checked_chunks(self, file: str) -> Iterator[bytes]:
        """The content piece by piece; the checksum is right only if the iteration ends without an error."""
        self._refuse_closed()
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
        """None, but for a graph with over LARGEST_INLINED bytes of tensors in other files.

        Then it is a copy in a folder of this user's alone, made of the bytes that were checked: a file of the
        bundle could be replaced between the check and the loading. :class:`BundleError` where it has no room.
        """
        externals = self._facts().externals
        if not externals or self._bytes(externals) <= LARGEST_INLINED:
            return None
        return self.bundle._copies.of(self.bundle, self.file, externals)

    def read(self) -> bytes:
        """The bytes of the ONNX file, with the tensors that lie in other files put in.

        :class:`IntegrityError` where a file is not what the manifest says; :class:`BundleError` if that is more
        than one ONNX file can hold; load it from :attr:`path` then.
        """
        data = self.bundle.read(self.file)
        externals = self._check(data).externals
        if not externals:
            return data
        if self._bytes(externals) > MAX_ONNX_BYTES:
            raise BundleError(f"{self.bundle.path}: {self.file!r} is over 2 GiB with its tensors; load its path")
        try:
            return inlined(data, {location: self.bundle.read(file) for location, file in externals.items()})
        except IntegrityError as failure:
            raise IntegrityError(f"{self.bundle.path}: {self.file!r}: {failure}") from None

    @property
    def loops(self) -> bool:
        """True if nodes contain graphs, so that the run time can't be told from the file."""
        return self._facts().loops

    def largest_batch(self) -> int:
        """The largest batch that the model is run with."""
        return self.bundle.manifest.model.max_batch

    def translated(self) -> SourceSpec | None:
        """The images that the model translates; None for other models."""
        return self.bundle.manifest.model.source

    def elements(self) -> int | None:
        """The elements of the sequences that the model makes; None for other models."""
        return self.bundle.manifest.model.program.elements

    def engine_specs(self, precision: Precision) -> tuple[EngineSpec, ...]:
        """The engines that the bundle has of this graph in one precision."""
        engines = self.bundle.manifest.engines
        return tuple(spec for spec in engines if (spec.graph, spec.precision) == (self.graph, precision))

    def trusts(self, spec: EngineSpec) -> bool:
        """True if the user trusts the bundle's engines, or this machine made this one."""
        if self.bundle.trust_engines or trusted_by_environment():
            return True
        return is_known(self.bundle.manifest.files[spec.file].sha256, "made")

    def read_engine(self, spec: EngineSpec) -> bytes:
        """The checked bytes of one of them; :class:`IntegrityError` where they are not what was packed."""
        return self.bundle.read(spec.file)

    def _facts(self) -> _Scanned:
        """The facts about the file, which is scanned at the first call."""
        return self.bundle._scanned.get((self.graph, self.file)) or self._check(self.bundle.read(self.file))

    def _bytes(self, externals: Mapping[str, str]) -> int:
        listed = self.bundle.manifest.files
        return sum(listed[file].size for file in {self.file, *externals.values()})

    def _check(self, data: bytes) -> _Scanned:
        """Compares the names with the manifest's. `data` has the listed SHA-256, so once is enough."""
        key = self.graph, self.file
        if key not in self.bundle._scanned:
            self.bundle._scanned[key] = self._scan(data)
        return self.bundle._scanned[key]

    def _scan(self, data: bytes) -> _Scanned:
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
        externals = {location: self._external(name, location) for location in facts.external_locations}
        if externals:
            listed = self.bundle.manifest.files
            try:
                check_places(data, {location: listed[file].size for location, file in externals.items()})
            except IntegrityError as failure:
                raise IntegrityError(f"{name}: {failure}") from None
        return _Scanned(externals, facts.loops)

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


def _check_sizes(path: Path, manifest: Manifest) -> None:
    """Refuses files over the size limits before any of them is read."""
    total = sum(entry.size for entry in manifest.files.values())
    given = os.environ.get(LIMIT_VARIABLE, "").strip()
    limit = parse_bytes(given, LIMIT_VARIABLE) if given else DEFAULT_LIMIT
    if total > limit:
        raise IntegrityError(
            f"{path}: its files take {total} bytes, at most {limit} are read; set {LIMIT_VARIABLE} if you trust it"
        )
    for files in manifest.all_graph_files.values():
        for file in files.values():
            if manifest.files[file].size > MAX_ONNX_BYTES:
                raise IntegrityError(f"{path}: {file!r} has over 2 GiB, more than an ONNX file can")


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
