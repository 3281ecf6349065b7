"""PyTorch by hand: the model, ``inference_mode``, and a loop; by choice under ``torch.compile``."""

from __future__ import annotations

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


def open_peer(prepared: Prepared, case: Case, *, compiled: bool = False) -> Peer:
    """The workload's modules. Frozen weights are what PyTorch's inductor is fastest with on a CPU."""
    model = prepared.load()
    wrap: Callable[[Any], Any] = (
        (lambda module: torch.compile(module, dynamic=False, options={"freezing": True}))
        if compiled
        else (lambda module: module)
    )
    program = model.plan.model.program
    if isinstance(program, DiffusionSpec):
        return TorchDiffusion(wrap(model.network), solver_rows(model.plan.model, case))
    if isinstance(program, AutoregressiveSpec):
        row, pixel = (wrap(model.plan.modules[name]) for name in (program.row_graph, program.pixel_graph))
        return TorchPixels(model, row, pixel)
    return TorchRun(wrap(model.network))


class TorchDiffusion(Peer):
    """DDIM over the denoiser."""

    def __init__(self, denoiser: Callable[[Tensor, Tensor], Tensor], table: SolverTable) -> None:
        self._denoiser = denoiser
        self._timesteps = [torch.tensor([int(t)]) for t in table.timesteps]
        self._rows = table.coefficients.tolist()

    @torch.inference_mode()
    def run(self, noise: Float32) -> Float32:
        """From x_T to x_0; the formula is in programs/solvers.py, the terms that are zero left out."""
        sample = torch.from_numpy(noise)
        for timestep, (x, e, clip, a, b, c, _, _) in zip(self._timesteps, self._rows, strict=True):
            eps = self._denoiser(sample, timestep)
            x0 = (x * sample + e * eps).clamp_(-clip, clip)
            sample = a * sample + b * x0
            if c:
                sample += c * eps
        return sample.numpy()


class TorchRun(Peer):
    """One call."""

    def __init__(self, network: Callable[[Tensor], Tensor]) -> None:
        self._network = network

    @torch.inference_mode()
    def run(self, noise: Float32) -> Float32:
        """Noise to images."""
        return self._network(torch.from_numpy(noise)).numpy()


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
