"""The TensorRT package of this machine. TensorRT-RTX and classic TensorRT have one API; this tells them apart."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from gensdk_runtime.errors import BackendError, OutOfMemoryError, UnavailableError
from gensdk_runtime.host.forking import new_lock

EngineRuntime = Literal["tensorrt-rtx", "tensorrt"]

_NOISE = "Thread context has not been set"  # TensorRT-RTX 1.7 logs it as an internal error on every build


@dataclass(frozen=True)
class _Package:
    modules: tuple[str, ...]
    remedy: str


RUNTIMES: Mapping[EngineRuntime, _Package] = {
    "tensorrt-rtx": _Package(("tensorrt_rtx", "tensorrt_rtx_bindings"), 'pip install "gensdk[rtx]"'),
    "tensorrt": _Package(("tensorrt", "tensorrt_bindings"), 'pip install "gensdk[tensorrt]"'),
}
"""In the order in which they are preferred."""


@dataclass(frozen=True)
class Toolkit:
    """A loaded package: `trt` is the module, `log` receives its messages."""

    runtime: EngineRuntime
    trt: Any
    log: Log

    @property
    def version(self) -> str:
        """The package's own, as in ``1.7.1.116``; engines are bound to it."""
        return str(self.trt.__version__)

    @property
    def is_rtx(self) -> bool:
        """TensorRT-RTX builds without a GPU and for all GPUs; classic TensorRT on and for the one at hand."""
        return self.runtime == "tensorrt-rtx"


class Log:
    """The one logger of a package in this process: the library keeps only the first that it is given.

    Errors go to listeners, for our own messages; all other messages are dropped.
    """

    def __init__(self, trt: Any) -> None:
        listeners: list[list[str]] = []
        serious = (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR)

        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in serious and _NOISE not in message:
                    for heard in tuple(listeners):
                        heard.append(" ".join(message.split())[:200])

        self.logger = Logger()
        self._listeners = listeners
        self._lock = new_lock()

    @contextmanager
    def listening(self) -> Iterator[list[str]]:
        """The errors that the library logs meanwhile, those of other threads too."""
        heard: list[str] = []
        with self._lock:
            self._listeners.append(heard)
        try:
            yield heard
        finally:
            with self._lock:
                self._listeners[:] = [each for each in self._listeners if each is not heard]


def reason(heard: list[str]) -> str:
    """The first errors in one line."""
    return "; ".join(heard[:3]) or "no reason given"


_NO_MEMORY = re.compile(r"out ?of ?memory|insufficient (device )?memory|cudaErrorMemoryAllocation", re.IGNORECASE)


def failed(what: str, heard: list[str]) -> BackendError:
    """The error for `what`; :class:`OutOfMemoryError` where the library says that the GPU has no room for it."""
    text = f"{what}: {reason(heard)}"
    if any(_NO_MEMORY.search(each) for each in heard):
        return OutOfMemoryError(f"{text}; run fewer samples at once, or free the GPU's memory")
    return BackendError(text)


@cache
def load_package(runtime: EngineRuntime) -> Toolkit:
    """The package of `runtime`; :class:`UnavailableError` names the remedy where it is missing."""
    package = RUNTIMES[runtime]
    first: Exception | None = None
    for name in package.modules:
        try:
            module = importlib.import_module(name)
            return Toolkit(runtime, module, Log(module))
        except (ImportError, OSError) as failure:  # OSError: its shared libraries are not found
            first = first or failure
    raise UnavailableError(f"{runtime} is missing ({str(first)[:120]}); {package.remedy}")


def installed() -> tuple[EngineRuntime, ...]:
    """The runtimes whose package is there, found without importing it, the preferred one first."""
    return tuple(runtime for runtime in RUNTIMES if is_installed(runtime))


def is_installed(runtime: EngineRuntime) -> bool:
    """Whether the package of `runtime` is there, found without importing it."""
    return any(importlib.util.find_spec(name) is not None for name in RUNTIMES[runtime].modules)
