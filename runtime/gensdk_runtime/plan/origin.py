"""Where a generator was loaded from: to load it again, in a forked child, in another process, or as a copy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import InputError, IntegrityError
from gensdk_runtime.plan.fingerprint import bundle_identity


@dataclass(frozen=True)
class Origin:
    """The arguments of :meth:`Generator.load`, with the bundle by its path, and a hash of what lay there."""

    path: str
    identity: str
    backend: str
    precision: Any
    threads: int | None
    trust_engines: bool = False

    @classmethod
    def of(cls, bundle: Bundle, backend: object, precision: Any, threads: int | None) -> Origin:
        """Raises :class:`InputError` for a Backend of the caller's own, which has no name to find it by again."""
        if not isinstance(backend, str):
            raise InputError(
                "a Generator over a Backend object can't be copied or sent to another process; load it there"
            )
        path, identity = str(bundle.path.absolute()), bundle_identity(bundle.manifest)
        return cls(path, identity, backend, precision, threads, bundle.trust_engines)

    @property
    def arguments(self) -> dict[str, Any]:
        """Those of :meth:`Generator.load`, but for the path."""
        return {
            "backend": self.backend,
            "precision": self.precision,
            "threads": self.threads,
            "trust_engines": self.trust_engines,
        }

    @contextmanager
    def opened(self) -> Iterator[Bundle]:
        """The bundle again; :class:`IntegrityError` where another one lies there by now."""
        with Bundle.open(self.path) as bundle:
            check_same(bundle, self.identity)
            yield bundle


@contextmanager
def still_open(bundle: Bundle) -> Iterator[Bundle]:
    """`bundle`, or where it was closed the same one again; :class:`IntegrityError` where it was replaced."""
    if not bundle.closed:
        yield bundle
        return
    with Bundle.open(bundle.path, trust_engines=bundle.trust_engines) as again:
        check_same(again, bundle_identity(bundle.manifest))
        yield again


def check_same(bundle: Bundle, identity: str) -> None:
    """Raises :class:`IntegrityError` unless `bundle` is the one with this hash."""
    if bundle_identity(bundle.manifest) != identity:
        raise IntegrityError(f"{bundle.path}: another bundle lies there than was loaded; load it anew")
