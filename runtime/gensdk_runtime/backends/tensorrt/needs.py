"""What engines need of this machine, from the driver to the package."""

from __future__ import annotations

from gensdk_runtime.backends.chain import PACKAGE, Capability, Chain, Link, gpu_links
from gensdk_runtime.backends.tensorrt.device import cuda
from gensdk_runtime.backends.tensorrt.package import EngineRuntime, load_package
from gensdk_runtime.errors import UnavailableError

DATA_CENTER = (9, 10, 11)
"""Major compute capabilities (Hopper, Blackwell in data centers, Thor) that TensorRT-RTX leaves to TensorRT."""


def chain_of(runtime: EngineRuntime) -> Chain:
    """All that engines of `runtime` need."""
    is_rtx = runtime == "tensorrt-rtx"
    wanted = "7.5 or more, and none of 9.x to 11.x" if is_rtx else "7.5 or more"

    def wants(capability: Capability) -> bool:
        return capability >= (7, 5) and not (is_rtx and capability[0] in DATA_CENTER)

    return Chain((*gpu_links(wants, wanted, 0), _bindings_link(), _package_link(runtime)))


def _bindings_link() -> Link:
    try:
        cuda()
    except UnavailableError as failure:
        text, _, remedy = str(failure).rpartition("; ")
        return Link("cuda-bindings", False, text, remedy)
    return Link("cuda-bindings", True, "found")


def _package_link(runtime: EngineRuntime) -> Link:
    try:
        return Link(PACKAGE, True, f"{runtime} {load_package(runtime).version}")
    except UnavailableError as failure:
        text, _, remedy = str(failure).rpartition("; ")
        return Link(PACKAGE, False, text, remedy)
