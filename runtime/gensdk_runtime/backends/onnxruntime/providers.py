"""The execution providers of ONNX Runtime: what each needs, is told and keeps. The one place for their options."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from gensdk_runtime.backends.base import GraphSource
from gensdk_runtime.backends.chain import PACKAGE, Capability, Chain, Link, gpu_links, newer_driver
from gensdk_runtime.backends.onnxruntime.device_memory import NVIDIA, Memory
from gensdk_runtime.backends.onnxruntime.package import (
    INSTALL,
    TENSORRT_LIBRARIES,
    cuda_major,
    missing_for,
    plugin_devices,
    wanted_tensorrt,
)
from gensdk_runtime.backends.onnxruntime.tf32 import check_tf32_wanted, settle_for_process
from gensdk_runtime.errors import BackendError, UnavailableError
from gensdk_runtime.host.nvidia import nvidia_driver
from gensdk_runtime.host.user_cache import cache_folder

MAX_KEPT = 32
"""Graphs whose engines are kept; those that were not used for longest are removed."""

Options = dict[str, str]


@dataclass(frozen=True)
class Provider:
    """An execution provider: its name in ONNX Runtime, what installs it, and what it leaves operations to.

    `memory` None: each run copies. `library`: the file of the package that has it; `plugin`: the module that has
    it, where it is no part of the package. `wants`: whether it runs on a GPU of this compute capability, `wanted`
    in words; None: it needs no NVIDIA GPU. `cuda`: the major version that what `install` brings is made with, 0
    where that is not known. `tf32`: how TF32 is forbidden to it. `takes_stream`: it works in a
    stream of ours, over memory of ours. `makes_graphs`: it captures runs as CUDA graphs, several of one session.
    """

    name: str
    install: str
    chain: tuple[str, ...] = ()
    memory: Memory | None = None
    library: str = ""
    plugin: str | None = None
    wants: Callable[[Capability], bool] | None = None
    wanted: str = ""
    cuda: int = 0
    tf32: Literal["option", "process"] | None = None
    takes_stream: bool = False
    makes_graphs: bool = False


def _is_turing_or_later(capability: Capability) -> bool:
    return capability >= (7, 5)


def _is_rtx(capability: Capability) -> bool:
    """Ampere, Ada and Blackwell for graphics: TensorRT-RTX runs on no Hopper, nor on data centers' Blackwell."""
    return capability[0] == 8 or capability >= (12, 0)


_NONE_OTHER = "pip uninstall -y onnxruntime onnxruntime-gpu"  # all builds are one module
_GPU_BUILD = f'{_NONE_OTHER} && pip install "gensdk[gpu]"'
_NEWEST_CUDA = 13
_OLDER_GPU_BUILD = f'{_NONE_OTHER} && pip install "onnxruntime-gpu[cuda,cudnn]<1.27" "cuda-bindings==12.*"'
"""The last releases that are made with CUDA 12; those since are with :data:`_NEWEST_CUDA`."""
_GPU_LIBRARIES = 'pip install "gensdk[gpu]"'
_CUDA = Provider(
    "CUDAExecutionProvider",
    _GPU_BUILD,
    ("cpu",),
    Memory("cuda"),
    library="cuda",
    wants=_is_turing_or_later,
    wanted="7.5 or more",
    cuda=_NEWEST_CUDA,
    tf32="option",
    takes_stream=True,
    makes_graphs=True,
)
PROVIDERS: Mapping[str, Provider] = {
    "cpu": Provider("CPUExecutionProvider", INSTALL, memory=Memory("cpu")),
    "cuda": _CUDA,
    "tensorrt": replace(
        _CUDA,
        name="TensorrtExecutionProvider",
        chain=("cuda", "cpu"),
        library="tensorrt",
        tf32="process",
        makes_graphs=False,
    ),
    "nvtensorrtrtx": Provider(
        "NvTensorRTRTXExecutionProvider",
        "pip install onnxruntime-ep-nv-tensorrt-rtx",
        ("cpu",),
        Memory("gpu", NVIDIA),
        plugin="onnxruntime_ep_nv_tensorrt_rtx",
        wants=_is_rtx,
        wanted="8.x or 12.x",
        tf32="process",
    ),
    "openvino": Provider(
        "OpenVINOExecutionProvider",
        f"{_NONE_OTHER} && pip install onnxruntime-openvino",
        ("cpu",),
    ),
}


def is_built_in(ort: Any, provider: Provider) -> bool:
    """True if this build of ONNX Runtime lists it, which says nothing of its libraries or of a GPU."""
    return provider.name in ort.get_available_providers()


def devices_of(ort: Any, provider: Provider) -> list[Any]:
    """The devices of a plugin; empty for all others. Raises :class:`UnavailableError` where it can't be loaded."""
    return plugin_devices(ort, provider.name, provider.plugin)


def missing(ort: Any, key: str) -> str:
    """Why a provider can't run here, and what mends it, in one line; empty where nothing is known against it.

    Libraries are looked at only where there is a GPU to use them: they are large.
    """
    provider = PROVIDERS[key]
    package = package_link(ort, provider)
    if provider.wants is None:
        return Chain((package,)).problem
    links = _gpu_links(ort, provider.wants, provider)
    if problem := Chain((*links, package)).problem:
        return problem if problem.startswith(package.found) else f"{provider.name}: {problem}"
    problem = Chain((library_link(ort, provider),)).problem
    return f"{provider.name}: {problem}" if problem else ""


def chain_of(ort: Any, key: str) -> Chain:
    """All that a provider needs, from the GPU to the package."""
    provider, package = PROVIDERS[key], package_link(ort, PROVIDERS[key])
    if provider.wants is None:
        return Chain((package,))
    links = list(_gpu_links(ort, provider.wants, provider))
    if package.ok is False:
        return Chain((*links, Link("libraries", None, "not known without the package"), package))
    if provider.plugin is not None and nvidia_driver().problem:
        return Chain((*links, Link("libraries", None, "not known without the driver"), package))
    links += [library_link(ort, provider), package]
    return Chain((*links, *((residency_link(),) if provider.takes_stream else ())))


def _gpu_links(ort: Any, wants: Callable[[Capability], bool], provider: Provider) -> Iterator[Link]:
    older = _OLDER_GPU_BUILD if provider.cuda else ""
    return gpu_links(wants, provider.wanted, _built_with(ort, provider), older=older)


def package_link(ort: Any, provider: Provider) -> Link:
    """Whether the package has the provider at all."""
    if is_built_in(ort, provider):
        return Link(PACKAGE, True, f"ONNX Runtime {ort.__version__}")
    if provider.plugin is not None and find_spec(provider.plugin) is not None:
        return Link(PACKAGE, True, f"{_package(provider.plugin)} over ONNX Runtime {ort.__version__}")
    text = f"this build of ONNX Runtime ({ort.__version__}) has no {provider.name}"
    return Link(PACKAGE, False, text, _install(provider))


def _install(provider: Provider) -> str:
    """The command that brings the provider; under an older driver, what has to come first, or does without."""
    known = 0 if provider.wants is None else nvidia_driver().cuda // 1000
    if not known or known >= provider.cuda:
        return provider.install
    newer = f"{newer_driver(provider.cuda)} first, then {provider.install}"
    return f"{newer}, or {_OLDER_GPU_BUILD}" if known == 12 else newer


def library_link(ort: Any, provider: Provider) -> Link:
    """Whether all libraries are there that the provider is linked with."""
    if provider.plugin is not None and not is_built_in(ort, provider):
        try:
            found = devices_of(ort, provider)
        except UnavailableError as failure:
            return Link(
                "libraries", False, str(failure), f"pip install --force-reinstall {_package(provider.plugin)}"
            )
        if not found:
            text = f"{_package(provider.plugin)} finds no GPU that it runs on"
            return Link("libraries", False, text, "use backend='auto', or another GPU (CUDA_VISIBLE_DEVICES)")
        return Link("libraries", True, "its own")
    names = missing_for(ort, provider.library)
    if not names:
        return Link("libraries", True, "all are found")
    if version := wanted_tensorrt(names):
        there = f", {_versions()} is installed" if _versions() else ""
        remedy = f'pip install "tensorrt<{int(version) + 1}"'
        return Link("libraries", False, f"it is made for TensorRT {version} ({names[0]}){there}", remedy)
    return Link("libraries", False, f"{', '.join(names)} not found", _GPU_LIBRARIES)


def residency_link() -> Link:
    """Whether states stay on the GPU from step to step; where not, samples are the same and take longer."""
    from gensdk_runtime.backends.cuda.device import find_gpu  # here: who has no GPU loads none of it

    try:
        find_gpu()
    except (UnavailableError, BackendError) as failure:
        return Link("buffers", None, f"all inputs pass the host at each step: {failure}")
    return Link("buffers", True, "stay on the GPU")


def options_of(
    key: str, *, tf32: bool, kept: Path | None, stream: int | None = None, graphs: bool = False
) -> Options:
    """What a provider is told. `tf32`: fp32 products may be rounded; `kept`: the folder for what it builds;
    `stream`: CUDA's, in which it works; `graphs`: it may capture runs in there."""
    works_in = {"has_user_compute_stream": "1", "user_compute_stream": str(stream)} if stream else {}
    if key == "cuda":
        return {"use_tf32": "1" if tf32 else "0", **works_in, **({"enable_cuda_graph": "1"} if graphs else {})}
    if key == "tensorrt":
        options = {"trt_context_memory_sharing_enable": "1", **works_in}
        if kept is not None:
            options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(kept)}
            options |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": str(kept.parent)}
        return options
    if key == "nvtensorrtrtx" and kept is not None:
        return {"nv_runtime_cache_path": str(kept)}
    return {}


def prepare_precision(key: str, label: str, *, tf32: bool) -> None:
    """Sees to it that what has no option for TF32 computes as asked; see :mod:`.tf32` for what is raised."""
    if tf32:
        check_tf32_wanted(label)
    if PROVIDERS[key].tf32 == "process":
        settle_for_process(tf32, label)


def kept_folder(ort: Any, key: str, source: GraphSource, *, tf32: bool) -> Path | None:
    """The folder in the user's cache for what the provider builds of this graph; None where there is none.

    ONNX Runtime names engines after the names in a graph alone, so that two models of one architecture would take
    each other's: each graph has a folder, named after all that an engine depends on.
    """
    if PROVIDERS[key].tf32 != "process":
        return None
    digest = hashlib.sha256()
    for part in (ort.__version__, _versions(), str(nvidia_driver()), str(nvidia_driver().gpus), f"tf32 {tf32}"):
        digest.update(part.encode() + b"\0")
    for part in _content(source):
        digest.update(part)
    try:
        folder = cache_folder("onnxruntime", key, digest.hexdigest()[:32])
    except UnavailableError:
        return None
    with contextlib.suppress(OSError):
        folder.touch()  # used now
        _make_room(folder.parent)
    return folder


def _content(source: GraphSource) -> Iterator[bytes]:
    """What tells one graph from another; of tensors in other files, which are large, their sizes and times."""
    if source.path is None:
        yield source.read()
        return
    yield source.path.read_bytes()
    for path in sorted(source.path.parent.iterdir()):
        found = path.stat()
        yield f"{path.name}\0{found.st_size}\0{found.st_mtime_ns}\0".encode()


def _make_room(parent: Path) -> None:
    folders = [path for path in parent.iterdir() if path.is_dir() and not path.is_symlink()]
    for old in sorted(folders, key=lambda path: path.stat().st_mtime)[:-MAX_KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def _package(module: str) -> str:
    return module.replace("_", "-")


def _built_with(ort: Any, provider: Provider) -> int:
    """The major version of CUDA that a provider is made with, 0 where that is not known; of one that is not there,
    what would be installed."""
    if is_built_in(ort, provider):
        return cuda_major(ort)
    if provider.plugin is None:
        return provider.cuda
    for major in (13, 12):
        with contextlib.suppress(metadata.PackageNotFoundError):
            metadata.version(f"{_package(provider.plugin)}-cu{major}")
            return major
    return 0


def _versions() -> str:
    """The TensorRT that is installed, from its wheels' metadata."""
    if find_spec(TENSORRT_LIBRARIES) is None:
        return ""
    for name in ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return f"{name} {metadata.version(name)}"
    return ""
