"""What engines need of this machine, from the driver to the package."""

from __future__ import annotations

from functools import partial

from gensdk_runtime.backends.chain import PACKAGE, Chain, Link, gpu_links
from gensdk_runtime.backends.cuda.device import cuda
from gensdk_runtime.backends.tensorrt.package import EngineRuntime, load_package
from gensdk_runtime.backends.tensorrt.supply import runs_on
from gensdk_runtime.errors import UnavailableError


def chain_of(runtime: EngineRuntime) -> Chain:
    """All that engines of `runtime` need."""
    wanted = "7.5 or more, and none of 9.x to 11.x" if runtime == "tensorrt-rtx" else "7.5 or more"
    links = gpu_links(partial(runs_on, runtime), wanted, 0)
    return Chain((*links, _bindings_link(), _package_link(runtime)))


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
