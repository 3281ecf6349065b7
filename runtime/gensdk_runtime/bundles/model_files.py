"""The files that a model needs beside its graphs, such as a vocabulary: of an open bundle, or in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from gensdk_runtime.errors import InputError

Files = Mapping[str, bytes]
"""Content by name."""


class ModelFiles(Protocol):
    """What an output or a condition reads its files from: an open bundle, or :class:`HeldFiles`."""

    @property
    def path(self) -> object:
        """Where they lie, as errors say it."""

    def read(self, file: str, *, limit: int) -> bytes:
        """The content of one of them, of at most `limit` bytes; BundleError or :class:`InputError` otherwise."""


@dataclass(frozen=True)
class HeldFiles:
    """Files in memory, by name."""

    files: Files
    path: str = "the files given"

    def read(self, file: str, *, limit: int) -> bytes:
        """See :class:`ModelFiles`."""
        data = self.files.get(file)
        if data is None or len(data) > limit:
            known = ", ".join(self.files) or "none"
            raise InputError(f"{self.path}: expected {file!r}, of at most {limit} bytes, among them; got {known}")
        return data
