"""The backend of engines over a GPU that the CPU plays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorrt_rtx_bindings as trt

from gensdk_runtime.backends.tensorrt import backend as tensorrt
from gensdk_runtime.backends.tensorrt.cache import EngineCache
from gensdk_runtime.backends.tensorrt.package import Log, Toolkit
from support.host_driver import HostDriver, Patches, play_on
from support.host_gpu import HostCuda, HostTrt


@dataclass
class Host:
    cuda: HostCuda
    driver: HostDriver
    trt: HostTrt
    backend: Any
    folder: Path
    """Of engines and kernels that are kept."""


def engines_here(kind: Any, monkeypatch: Patches, folder: Path) -> Host:
    """The backend of this `kind`, as long as the patches last."""
    cuda = HostCuda()
    package = HostTrt(trt, cuda)
    toolkit = Toolkit(tensorrt.KINDS[kind], package, Log(trt))
    driver = play_on(cuda, monkeypatch)
    monkeypatch.setattr(tensorrt, "load_package", lambda runtime: toolkit)
    return Host(cuda, driver, package, tensorrt.TensorRtBackend(kind, cache=EngineCache(folder)), folder)
