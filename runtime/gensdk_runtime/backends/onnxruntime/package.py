"""The ONNX Runtime package of this machine, the libraries that its GPU build needs loaded, and its plugins."""

from __future__ import annotations

import contextlib
import ctypes
import io
import re
import sys
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gensdk_runtime.errors import UnavailableError
from gensdk_runtime.host.elf import missing_libraries, needed_libraries
from gensdk_runtime.host.forking import new_lock
from gensdk_runtime.host.telemetry import quieten_onnxruntime

INSTALL = 'pip install "gensdk[cpu]" (or "gensdk[gpu]" for an NVIDIA GPU; never both)'
TENSORRT_LIBRARIES = "tensorrt_libs"
"""The module in which TensorRT's wheels keep their libraries, where no loader looks."""

_OF_THE_DRIVER = ("libcuda.so.1", "libnvidia-ml.so.1")
_TENSORRT = re.compile(r"lib(nvinfer|nvonnxparser)\.so\.(\d+)")
_CAUSES = (re.compile(r"with error: (.*)"), re.compile(r"(\b[A-Za-z]+ failure \d+: [^;]*)"))
"""Where what matters begins in messages that are mostly names of functions."""
_registering = new_lock()


def import_onnxruntime() -> Any:
    """The module; :class:`UnavailableError` where it is missing, or was overwritten by another build of it."""
    try:
        import onnxruntime
    except ImportError as failure:
        raise UnavailableError(f"ONNX Runtime is missing ({failure}); {INSTALL}") from None
    if not hasattr(onnxruntime, "InferenceSession"):
        raise UnavailableError(
            "ONNX Runtime is broken here, as when onnxruntime and onnxruntime-gpu were both installed; "
            f"pip uninstall both, then {INSTALL}"
        )
    quieten_onnxruntime(onnxruntime)
    return onnxruntime


def cuda_major(ort: Any) -> int:
    """The CUDA that this build of ONNX Runtime was made with: 13, or 0 for a build without, or an old one."""
    text = str(getattr(ort, "cuda_version", "") or "")
    return int(text.partition(".")[0]) if text[:1].isdigit() else 0


def provider_library(ort: Any, name: str) -> Path | None:
    """The library of a provider that is part of the package; `name`: ``cuda``, ``tensorrt``."""
    folder = Path(ort.__file__).parent / "capi"
    before, after = ("", "dll") if sys.platform == "win32" else ("lib", "so")
    file = f"{before}onnxruntime_providers_{name}.{after}"
    return folder / file if (folder / file).is_file() else None


@lru_cache(maxsize=1)
def load_gpu_libraries(ort: Any) -> None:
    """Loads CUDA, cuDNN and TensorRT from their wheels, once: no loader looks there by itself.

    What is found nowhere is left out, as the provider that needs it will notice.
    """
    preload = getattr(ort, "preload_dlls", None)
    if preload is not None and cuda_major(ort):
        quiet = contextlib.redirect_stdout(io.StringIO())  # it prints what is missing
        with contextlib.suppress(Exception), quiet:
            preload()
    for path in tensorrt_libraries(ort):
        with contextlib.suppress(OSError):
            ctypes.CDLL(str(path))


def tensorrt_libraries(ort: Any) -> tuple[Path, ...]:
    """The files of TensorRT's wheels that ONNX Runtime's provider needs, as far as they are of its version."""
    spec, library = find_spec(TENSORRT_LIBRARIES), provider_library(ort, "tensorrt")
    if spec is None or library is None:
        return ()
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    names = [name for name in needed_libraries(library) if _TENSORRT.fullmatch(name)]
    if sys.platform == "win32":  # its provider of 1.20 and later is linked with these
        names = ["nvinfer_10.dll", "nvonnxparser_10.dll"]
    return tuple(folder / name for folder in folders for name in names if (folder / name).is_file())


def missing_for(ort: Any, provider: str) -> tuple[str, ...]:
    """Libraries that a provider of the package needs and that are not there, those of the driver left out.

    Loads all that are there. Empty where that can't be told: on Windows its session says what is missing.
    """
    load_gpu_libraries(ort)
    library = provider_library(ort, provider)
    if library is None:
        return ()
    names = tuple(name for name in missing_libraries(library) if name not in _OF_THE_DRIVER)
    # A build of another maker may know where they are.
    return names if names and "cannot open shared object" in why_not_loaded(ort, provider) else ()


def why_not_loaded(ort: Any, provider: str) -> str:
    """What the system's loader says against a provider's library; empty where it loads, or there is none."""
    library = provider_library(ort, provider)
    if library is None:
        return ""
    load_gpu_libraries(ort)
    try:
        shared = library.with_name(library.name.replace(f"_{provider}.", "_shared."))
        ctypes.CDLL(str(shared), mode=ctypes.RTLD_GLOBAL)  # what they all are linked with, without saying so
        ctypes.CDLL(str(library))
    except OSError as failure:
        return one_line(failure)
    return ""


def wanted_tensorrt(names: tuple[str, ...]) -> str:
    """The major version of TensorRT that is among missing libraries; empty where none is."""
    found = [match[2] for name in names if (match := _TENSORRT.fullmatch(name))]
    return found[0] if found else ""


def plugin_devices(ort: Any, name: str, plugin: str | None) -> list[Any]:
    """The devices of a provider that is a package of its own, which is registered when it is first asked for.

    Empty where it finds no device. Raises :class:`UnavailableError` where its libraries can't be loaded.
    """
    if plugin is None or find_spec(plugin) is None or not hasattr(ort, "register_execution_provider_library"):
        return []
    try:
        module = import_module(plugin)
        own = module.get_ep_name() if hasattr(module, "get_ep_name") else name  # releases differ in it
        with _registering:
            found = _devices(ort, (own, name))
            if not found:
                ort.register_execution_provider_library(own, module.get_library_path())
                found = _devices(ort, (own, name))
        return found
    except Exception as failure:  # ONNX Runtime's, and the package's, share no base
        if "already registered" in str(failure).lower():  # and found no device
            return []
        raise UnavailableError(f"{plugin} can't be loaded ({one_line(failure)})") from None


def _devices(ort: Any, names: tuple[str, ...]) -> list[Any]:
    return [device for device in ort.get_ep_devices() if device.ep_name in names]


def one_line(failure: Exception) -> str:
    """What ONNX Runtime raised, in one line; of a library or of CUDA, the cause alone."""
    text = " ".join(str(failure).split())
    cause = next((match[1] for pattern in _CAUSES if (match := pattern.search(text))), text)
    return cause.strip()[:300]
