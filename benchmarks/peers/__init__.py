"""Every way to sample a workload that is compared: one small interface, one file each.

A peer is opened for one case and then turns noise into images, again and again. `noise` is float32: [n, C, H, W]
for diffusion and image-to-image models, [n, Z] for generators, and for autoregressive models the uniform numbers
of all pixels, [n, H, W, C]. Images are float32 [n, C, H, W] in the model's range. All peers run in float32, with
the number of threads that they choose themselves.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from workloads import Case
    from workloads.prepare import Prepared

Float32 = NDArray[np.float32]
DIFFUSION, FEEDFORWARD, AUTOREGRESSIVE = "diffusion", "feedforward", "autoregressive"
_NO_PIXELS = (DIFFUSION, FEEDFORWARD)
SEED = 7
"""Of the noise that all peers get."""


class Peer(ABC):
    """One open model. `scale`: a whole sampling takes so many times what one :meth:`run` takes."""

    scale: float = 1.0
    whole: ClassVar[bool] = True
    """Whether :meth:`run` gives finished images."""

    @abstractmethod
    def run(self, noise: Float32) -> Float32:
        """One batch of images. The array may be overwritten by the next call."""

    def differing(self, noise: Float32, images: Float32) -> Mapping[str, int]:
        """For a peer that is too slow to make whole images: how many pixels of `images` it would have drawn
        otherwise, and of how many it looked at."""
        raise NotImplementedError

    def detail(self) -> str:
        """What it really runs, in a few words."""
        return ""


@dataclass(frozen=True)
class PeerSpec:
    """Where a peer's ``open_peer(prepared, case, **options)`` is, and which programs it can run."""

    name: str
    module: str
    title: str
    programs: tuple[str, ...] = (DIFFUSION, FEEDFORWARD, AUTOREGRESSIVE)
    options: dict[str, Any] = field(default_factory=dict)
    exact: bool = True
    """Whether it must give the same pictures; gensdk's own trades of quality for time need not."""
    anchor: bool = False
    """Whether figures name it, so that it takes part in every round however slow it is."""

    @property
    def ours(self) -> bool:
        """Whether it is gensdk."""
        return self.name.startswith("gensdk")

    def open(self, prepared: Prepared, case: Case) -> Peer:
        """Loads the workload for one case."""
        peer: Peer = importlib.import_module(self.module).open_peer(prepared, case, **self.options)
        return peer


_ALL = (
    PeerSpec("gensdk", "peers.gensdk", 'Generator.load(bundle, backend="auto") after gensdk tune', anchor=True),
    PeerSpec(
        "gensdk-shared",
        "peers.gensdk",
        "gensdk with deep features shared between steps (cache_interval)",
        (DIFFUSION,),
        {"cache_interval": 3},
        exact=False,
        anchor=True,
    ),
    PeerSpec("diffusers", "peers.diffusers", "diffusers' DDIMPipeline, eager", (DIFFUSION,), anchor=True),
    PeerSpec(
        "diffusers-compile",
        "peers.diffusers",
        "diffusers' DDIMPipeline, its U-Net under torch.compile",
        (DIFFUSION,),
        {"compiled": True},
    ),
    PeerSpec("torch", "peers.torch", "PyTorch, eager, a plain loop in inference_mode"),
    PeerSpec(
        "torch-compile",
        "peers.torch",
        "the same under torch.compile with frozen weights",
        options={"compiled": True},
    ),
    PeerSpec("onnxruntime", "peers.onnxruntime", "a bare ONNX Runtime loop, default options"),
    PeerSpec("openvino", "peers.openvino", "OpenVINO alone: a bare loop of its LATENCY mode"),
    PeerSpec(
        "openvino-static",
        "peers.openvino",
        "the same, compiled for the one batch size",
        options={"static": True},
    ),
    PeerSpec(
        "torch-naive", "peers.torch_naive", "PyTorch, one full pass for each pixel", (AUTOREGRESSIVE,), anchor=True
    ),
)

PEERS = {spec.name: spec for spec in _ALL}

_ON_GPU = {"device": "cuda"}
_GPU = (
    PeerSpec("torch-cuda", "peers.torch", "PyTorch, eager, on the GPU", _NO_PIXELS, _ON_GPU),
    PeerSpec(
        "torch-cuda-compile",
        "peers.torch",
        "the same under torch.compile",
        _NO_PIXELS,
        {**_ON_GPU, "compiled": True},
    ),
    PeerSpec(
        "torch-cuda-graph",
        "peers.torch",
        "PyTorch, the whole sampling as one CUDA graph",
        _NO_PIXELS,
        {**_ON_GPU, "graphed": True},
    ),
    PeerSpec(
        "onnxruntime-cuda",
        "peers.onnxruntime",
        "a bare ONNX Runtime loop on its CUDA provider",
        _NO_PIXELS,
        {"provider": "CUDAExecutionProvider"},
    ),
)

GPU_PEERS = {spec.name: spec for spec in _GPU}
"""Those that need a GPU, and so are no part of the comparison on processors; all without TF32, as gensdk is."""
ON, DRAW_ON = "gensdk@", "gensdk-draw@"
"""``gensdk@BACKEND``: gensdk on that backend, as in ``gensdk@onnxruntime:cuda``; ``gensdk-draw@BACKEND``: by calls
that were prepared."""


def peer_spec(name: str) -> PeerSpec:
    """The peer of this name, of all that there are. KeyError for an unknown one."""
    if name.startswith(DRAW_ON):
        backend = name.removeprefix(DRAW_ON)
        title = f"the same on {backend} by prepare().draw()"
        return PeerSpec(name, "peers.gensdk", title, options={"backend": backend, "draws": True}, anchor=True)
    if name.startswith(ON):
        backend = name.removeprefix(ON)
        title = f"Generator.load(bundle, backend={backend!r})"
        return PeerSpec(name, "peers.gensdk", title, options={"backend": backend}, anchor=True)
    return {**PEERS, **GPU_PEERS}[name]
