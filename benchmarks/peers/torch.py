"""PyTorch by hand: the model, ``inference_mode``, and a loop; by choice under ``torch.compile``, on a GPU, and
there as one CUDA graph. Noise comes from the host and images go back to it, on each device."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from workloads import Case, Model
from workloads.prepare import Prepared

from gensdk_runtime.programs.solvers import SolverTable
from gensdk_runtime.spec.model import AutoregressiveSpec, DiffusionSpec
from peers import Float32, Peer
from peers.loops import solver_rows, state_shapes


def open_peer(
    prepared: Prepared, case: Case, *, compiled: bool = False, device: str = "cpu", graphed: bool = False
) -> Peer:
    """The workload's modules. Frozen weights are what PyTorch's inductor is fastest with on a CPU.

    On a GPU fp32 is fp32, as gensdk has it: TF32 is off. ValueError for pixels anywhere but on the CPU.
    """
    torch.backends.cudnn.allow_tf32 = False
    model = prepared.load()
    options: dict[str, Any] | None = {"freezing": True} if device == "cpu" else None
    wrap: Callable[[Any], Any] = (
        (lambda module: torch.compile(module, dynamic=False, options=options))
        if compiled
        else (lambda module: module)
    )
    program = model.plan.model.program
    if isinstance(program, AutoregressiveSpec):
        if device != "cpu":
            raise ValueError("pixel by pixel, PyTorch is compared on the CPU alone")
        row, pixel = (wrap(model.plan.modules[name]) for name in (program.row_graph, program.pixel_graph))
        return TorchPixels(model, row, pixel)
    network = wrap(model.network.to(device))
    peer: OnDevice = (
        TorchDiffusion(network, solver_rows(model.plan.model, case), device)
        if isinstance(program, DiffusionSpec)
        else TorchRun(network, device)
    )
    return Graphed(peer) if graphed else peer


class OnDevice(Peer):
    """Noise goes to the device, all work is done there, images come back."""

    def __init__(self, device: str) -> None:
        self.device = device

    @abstractmethod
    def compute(self, noise: Tensor) -> Tensor:
        """Noise to images, both on the device."""

    @torch.inference_mode()
    def run(self, noise: Float32) -> Float32:
        """Noise to images, both on the host."""
        return self.compute(torch.from_numpy(noise).to(self.device)).cpu().numpy()


class TorchDiffusion(OnDevice):
    """DDIM over the denoiser."""

    def __init__(
        self, denoiser: Callable[[Tensor, Tensor], Tensor], table: SolverTable, device: str = "cpu"
    ) -> None:
        super().__init__(device)
        self._denoiser = denoiser
        self._timesteps = [torch.tensor([int(t)], device=device) for t in table.timesteps]
        self._rows = table.coefficients.tolist()

    def compute(self, noise: Tensor) -> Tensor:
        """From x_T to x_0; the formula is in programs/solvers.py, the terms that are zero left out."""
        sample = noise
        for timestep, (x, e, clip, a, b, c, _, _) in zip(self._timesteps, self._rows, strict=True):
            eps = self._denoiser(sample, timestep)
            x0 = (x * sample + e * eps).clamp_(-clip, clip)
            sample = a * sample + b * x0
            if c:
                sample += c * eps
        return sample


class TorchRun(OnDevice):
    """One call."""

    def __init__(self, network: Callable[[Tensor], Tensor], device: str = "cpu") -> None:
        super().__init__(device)
        self._network = network

    def compute(self, noise: Tensor) -> Tensor:
        """Noise to images."""
        return self._network(noise)


class Graphed(Peer):
    """All that `peer` does on a GPU for one batch size, captured once as a CUDA graph, then replayed."""

    WARM_UPS = 3
    """Calls before the capture, in which libraries choose their kernels and take their memory."""

    def __init__(self, peer: OnDevice) -> None:
        self._peer = peer
        self._graph: torch.cuda.CUDAGraph | None = None

    @torch.inference_mode()
    def run(self, noise: Float32) -> Float32:
        """Noise to images, both on the host."""
        given = torch.from_numpy(noise)
        if self._graph is None:
            self._capture(given)
        assert self._graph is not None
        self._noise.copy_(given)
        self._graph.replay()
        return self._images.cpu().numpy()

    def _capture(self, given: Tensor) -> None:
        self._noise = given.to(self._peer.device)
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(self.WARM_UPS):
                self._peer.compute(self._noise)
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._images = self._peer.compute(self._noise)
        self._graph = graph


class TorchPixels(Peer):
    """Incremental sampling: gensdk's row and pixel modules, in PyTorch."""

    def __init__(self, model: Model, row: Callable[..., Any], pixel: Callable[..., Any]) -> None:
        spec = model.plan.model
        self._row, self._pixel, self._image = row, pixel, spec.output
        self._states = state_shapes(spec)

    @torch.inference_mode()
    def run(self, noise: Float32) -> Float32:
        """Uniform numbers [n, H, W, C] to images."""
        n, (channels, height, width) = len(noise), self._image.shape
        uniforms = torch.from_numpy(np.ascontiguousarray(noise.transpose(1, 2, 0, 3)))
        images = torch.empty(n, channels, height, width)
        rows, above = torch.zeros(n, *self._states[0]), torch.zeros(n, channels, width)
        for i in range(height):
            context, rows = self._row(above, rows)
            context = context.contiguous()
            pixel, pixels = torch.zeros(n, channels), torch.zeros(n, *self._states[1])
            for j in range(width):
                pixel, pixels = self._pixel(pixel, context[j], uniforms[i, j], pixels)
                images[:, :, i, j] = pixel
            above = images[:, :, i].contiguous()
        return images.numpy()
