"""Backends by name. Each is one module, imported only when it is asked for; none imports another."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TypeVar

from gensdk_runtime.arguments import check_whole, shown
from gensdk_runtime.backends.base import Availability, Backend
from gensdk_runtime.backends.chain import Chain
from gensdk_runtime.errors import InputError, did_you_mean
from gensdk_runtime.host.installed import load_entry_point, load_entry_points
from gensdk_runtime.spec.kinds import same_class

BackendT = TypeVar("BackendT", bound=type[Backend])

_MODULES = {
    "onnxruntime": "gensdk_runtime.backends.onnxruntime.backend",
    "openvino": "gensdk_runtime.backends.openvino.backend",
    "tensorrt": "gensdk_runtime.backends.tensorrt.backend",
    "fake": "gensdk_runtime.backends.fake",
}
_BACKENDS: dict[str, type[Backend]] = {}

BACKGROUND = ":background"
ENTRY_POINTS = "gensdk.backends"
"""The group by which backends of other packages are found; an entry point's name is the backend's."""


def register_backend(name: str) -> Callable[[BackendT], BackendT]:
    """Class decorator: makes a backend known as `name`. Raises ValueError where the name is taken."""

    def decorate(backend: BackendT) -> BackendT:
        known = _BACKENDS.get(name)
        if known is not None and not same_class(known, backend):
            raise ValueError(f"backend {name!r} is registered twice: {known.__module__} and {backend.__module__}")
        backend.name = name
        _BACKENDS[name] = backend
        return backend

    return decorate


def backend_names() -> tuple[str, ...]:
    """All backends that can be named, whether or not they can run here; of other packages the loaded ones."""
    return tuple(sorted(_MODULES.keys() | _BACKENDS.keys()))


def get_backend(name: str) -> type[Backend]:
    """The backend class called `name`; :class:`InputError` names the nearest one where there is none."""
    if name not in backend_names() and not load_entry_point(ENTRY_POINTS, name):
        load_entry_points(ENTRY_POINTS)
        raise InputError(f"no backend {shown(name)!r}{did_you_mean(name[:80], (*backend_names(), 'auto'))}")
    if name not in _BACKENDS and name in _MODULES:
        importlib.import_module(_MODULES[name])
    if name not in _BACKENDS:
        raise InputError(f"the package that should bring backend {name!r} registers none of this name")
    return _BACKENDS[name]


def create_backend(spec: str, *, threads: int | None = None, spinning: bool = False) -> Backend:
    """The backend that `spec` names, such as ``"onnxruntime"``, ``"onnxruntime:cuda"`` or ``"openvino"``.

    What stands behind the colon is the execution provider; ``:tf32`` behind one of an NVIDIA GPU, as in
    ``"onnxruntime:cuda:tf32"``, lets it round what goes into fp32 products, which it does not by default, and
    ``:graphs`` behind ``onnxruntime:cuda`` launches runs as CUDA graphs
    (:mod:`gensdk_runtime.backends.onnxruntime.captures`).
    `threads` bounds the CPU threads inside one graph; with `spinning` they wait busily between runs, which is
    faster for small graphs and takes the processor from others. With ``:background`` at its end, as in
    ``"tensorrt:background"``, ONNX Runtime serves until the backend is ready; one that can't come is refused
    (:mod:`gensdk_runtime.backends.background`).
    """
    if not isinstance(spec, str):
        raise InputError(f"expected backend as a name, such as 'auto' or 'onnxruntime', got {type(spec).__name__}")
    if spec.endswith(BACKGROUND):
        from gensdk_runtime.backends.background import BackgroundBackend

        final = spec.removesuffix(BACKGROUND)
        name, provider = _parts(final)
        get_backend(name).check_here(provider)  # what can't come is said at once
        now = create_backend("onnxruntime", threads=threads, spinning=spinning)
        return BackgroundBackend(now, lambda: create_backend(final, threads=threads), label=spec)
    name, provider = _parts(spec)
    return get_backend(name).create(provider=provider, threads=check_threads(threads), spinning=spinning)


def _parts(spec: str) -> tuple[str, str | None]:
    """The name of a backend, and what stands behind its first colon."""
    name, colon, provider = spec.partition(":")
    if name == "auto":
        raise InputError(
            f"'auto' chooses among the backends by measurement and stands alone, got {shown(spec)!r}; name one of "
            f"them, such as 'onnxruntime:cuda', or use 'auto'"
        )
    if colon and not provider:
        raise InputError(
            f"expected a provider behind the colon of {shown(spec)!r}; leave the colon out without one"
        )
    return name, provider or None


def check_threads(threads: int | None) -> int | None:
    """A number of threads that backends take, or None; :class:`InputError` for another one."""
    return None if threads is None else check_whole(threads, "threads", least=1, most=1024)


def availabilities() -> dict[str, Availability]:
    """For each backend, also of other packages, whether it can run here, and if not, why, and what mends it."""
    load_entry_points(ENTRY_POINTS)
    return {name: get_backend(name).availability() for name in backend_names()}


def chains() -> dict[str, Chain]:
    """For each backend, and each of its providers, all that it needs here, from the driver to the package."""
    found = {name: get_backend(name).chains() for name in backend_names()}
    return {
        f"{name}:{provider}".removesuffix(":"): chain
        for name, of_backend in found.items()
        for provider, chain in of_backend.items()
    }
