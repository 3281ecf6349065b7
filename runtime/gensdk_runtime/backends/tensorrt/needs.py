"""What engines need of this machine, from the driver to the package: what is told of it, and what is refused."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from importlib import metadata

from gensdk_runtime.backends.chain import PACKAGE, Chain, Link, cuda_link, driver_link, gpu_links, newer_driver
from gensdk_runtime.backends.cuda.device import Gpu, cuda, find_gpu
from gensdk_runtime.backends.tensorrt.package import EngineRuntime, is_installed, load_package
from gensdk_runtime.backends.tensorrt.supply import check_supported, runs_on
from gensdk_runtime.errors import BackendError, UnavailableError
from gensdk_runtime.host.nvidia import nvidia_driver

RTX_CUDA = 13
"""What the wheels of ``gensdk[rtx]`` are made with."""


def chain_of(runtime: EngineRuntime) -> Chain:
    """All that engines of `runtime` need."""
    return Chain((*_gpu_links(runtime), _bindings_link(runtime), _package_link(runtime)))


def _gpu_links(runtime: EngineRuntime) -> Iterator[Link]:
    wanted = "7.5 or more, and none of 9.x to 11.x" if runtime == "tensorrt-rtx" else "7.5 or more"
    return gpu_links(partial(runs_on, runtime), wanted, built_with(runtime))


def gpu_for(runtime: EngineRuntime) -> Gpu:
    """The GPU that engines of `runtime` run on.

    Raises :class:`UnavailableError`, which says what is missing and what mends it.
    """
    try:
        return find_gpu()
    except UnavailableError as failure:
        if known := _older_driver():
            text = str(failure).partition("; ")[0]
            raise UnavailableError(f"{text}; {_older_driver_remedy(runtime, known)}") from None
        if nvidia_driver().fault:  # of which CUDA's API says less
            raise UnavailableError(Chain((driver_link(nvidia_driver()),)).problem) from None
        raise


def check_fits(runtime: EngineRuntime, gpu: Gpu) -> None:
    """Raises :class:`UnavailableError` where `runtime` runs nothing on this GPU, or wants a newer driver."""
    check_supported(runtime, gpu)
    if is_installed(runtime):
        link = cuda_link(gpu.driver, built_with(runtime))
        if link.ok is False:
            raise UnavailableError(f"{link.found}; {link.remedy}")


def check_here(*runtimes: EngineRuntime) -> None:
    """Raises :class:`UnavailableError` where none of `runtimes` will do, as far as that shows without loading
    them."""
    failures: list[UnavailableError] = []
    for runtime in runtimes:
        try:
            return _check_here(runtime)
        except UnavailableError as failure:
            failures.append(failure)
    raise failures[0]


def _check_here(runtime: EngineRuntime) -> None:
    if not is_installed(runtime):
        link = _package_link(runtime)
        raise UnavailableError(f"{link.found}; {link.remedy}")
    if problem := Chain(tuple(_gpu_links(runtime))).problem:
        raise UnavailableError(problem)


def built_with(runtime: EngineRuntime) -> int:
    """The major version of CUDA that the package is made with, by the names of its wheels; 0: not known."""
    for major in (12, 13):
        for part in ("", "-bindings", "-libs"):
            with contextlib.suppress(metadata.PackageNotFoundError):
                metadata.version(f"{runtime}-cu{major}{part}")
                return major
    return RTX_CUDA if runtime == "tensorrt-rtx" else 0


def _older_driver() -> int:
    """The CUDA that the driver knows, 12020 for 12.2, where cuda-bindings wants a newer one; else 0."""
    try:
        api = cuda()
        _, known = api.cudaDriverGetVersion()
    except (UnavailableError, RuntimeError):  # no package, or no driver
        return 0
    error, _ = api.cudaGetDeviceCount()
    return int(known) if error == api.cudaError_t.cudaErrorInsufficientDriver else 0


def _older_driver_remedy(runtime: EngineRuntime, known: int) -> str:
    """Older bindings help only where the package is made for their CUDA too."""
    newer = newer_driver(int(metadata.version("cuda-bindings").partition(".")[0]))
    wheels = built_with(runtime)
    if runtime == "tensorrt-rtx" or known // 1000 != 12 or wheels not in (0, 12):
        return newer
    package = "" if wheels else '"tensorrt-cu12>=10.1" '
    return f'{newer}, or pip install {package}"cuda-bindings==12.*"'


def _bindings_link(runtime: EngineRuntime) -> Link:
    """Whether CUDA's API is there; and where the driver reaches a GPU, whether it does so too."""
    try:
        cuda()
        if not nvidia_driver().problem:
            gpu_for(runtime)
    except BackendError as failure:
        text, colon, remedy = str(failure).rpartition("; ")
        return Link("cuda-bindings", False, text if colon else remedy, remedy if colon else "try nvidia-smi")
    return Link("cuda-bindings", True, "found")


def _package_link(runtime: EngineRuntime) -> Link:
    try:
        return Link(PACKAGE, True, f"{runtime} {load_package(runtime).version}")
    except UnavailableError as failure:
        text, _, remedy = str(failure).rpartition("; ")
        return Link(PACKAGE, False, text, remedy)
