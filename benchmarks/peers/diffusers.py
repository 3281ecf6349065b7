"""diffusers' own DDIMPipeline, eager or with its U-Net compiled, at gensdk's settings."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel
from diffusers.pipelines.ddim import pipeline_ddim
from torch import Tensor, nn
from workloads import Case
from workloads.prepare import Prepared

from gensdk_runtime.spec.model import DiffusionSpec, ModelSpec
from gensdk_runtime.spec.outputs import ImageSpec
from peers import Float32, Peer

_make_pipeline: Callable[..., Any] = DDIMPipeline  # diffusers' constructors have no types
_make_scheduler: Callable[..., Any] = DDIMScheduler


def open_peer(prepared: Prepared, case: Case, *, compiled: bool = False) -> Peer:
    """A pipeline over the workload's U-Net: diffusers' own where it is one, otherwise ours in its clothes."""
    model = prepared.load()
    spec = model.plan.model
    unet = model.network
    if isinstance(getattr(unet, "unet", None), UNet2DModel):
        unet = cast(nn.Module, unet.unet)
    else:
        unet = Clothed(unet, spec.output)
    if compiled:
        unet.compile(dynamic=False, options={"freezing": True})
    pipeline: Any = _make_pipeline(unet, scheduler(spec))
    pipeline.set_progress_bar_config(disable=True)
    assert isinstance(spec.program, DiffusionSpec)
    if case.steps is None or spec.program.schedule.num_train_timesteps % case.steps:
        # it takes t - T // S for the time step before t, whatever its list says
        raise ValueError(f"diffusers' DDIM needs steps that divide the schedule, got {case.steps}")
    return Pipeline(pipeline, spec.program, case)


def scheduler(spec: ModelSpec) -> Any:
    """The same schedule, spacing and clipping as in the bundle."""
    assert isinstance(spec.program, DiffusionSpec)
    schedule, defaults = spec.program.schedule, spec.program.defaults
    if schedule.kind != "linear":
        raise ValueError(f"expected a linear schedule, got {schedule.kind}")
    return _make_scheduler(
        num_train_timesteps=schedule.num_train_timesteps,
        beta_start=schedule.beta_start,
        beta_end=schedule.beta_end,
        beta_schedule="linear",
        timestep_spacing=defaults.timestep_spacing,
        clip_sample=defaults.clip_sample,
        clip_sample_range=spec.output.value_range[1],
        set_alpha_to_one=True,
    )


class Clothed(nn.Module):
    """A denoiser as the pipeline calls it."""

    def __init__(self, network: nn.Module, image: ImageSpec) -> None:
        super().__init__()
        self.network = network
        self.config = SimpleNamespace(sample_size=(image.height, image.width), in_channels=image.channels)
        self.dtype, self.device = torch.float32, torch.device("cpu")

    def forward(self, sample: Tensor, timestep: Tensor) -> Any:
        """Eps, as ``.sample``."""
        return SimpleNamespace(sample=self.network(sample, timestep.reshape(1)))


class Pipeline(Peer):
    """The pipeline's call, with noise of ours in place of the noise that it would draw."""

    def __init__(self, pipeline: Any, program: DiffusionSpec, case: Case) -> None:
        self._pipeline = pipeline
        self._settings = {
            "batch_size": case.batch,
            "eta": 0.0,
            "num_inference_steps": case.steps,
            "use_clipped_model_output": program.defaults.use_clipped_model_output,
            "output_type": "pt",
        }

    def run(self, noise: Float32) -> Float32:
        """Images, brought back from the pipeline's [0, 1] to [-1, 1]."""
        given = torch.from_numpy(noise)
        setattr(pipeline_ddim, "randn_tensor", lambda *_, **__: given)  # noqa: B010 - it exports no such name
        images: Tensor = self._pipeline(**self._settings).images
        return (images * 2 - 1).numpy()
