"""A diffusers folder as a bundle of the diffusion program: with a UNet2DModel, with classes or without, here; with
texts by :mod:`gensdk_export.importers.diffusers.stable_diffusion` or
:mod:`gensdk_export.importers.diffusers.sana`.

Read are ``unet/config.json`` with its safetensors, ``scheduler/scheduler_config.json`` and, where there is one,
``model_index.json`` of a DDPMPipeline or DDIMPipeline; also the older layout with all of them in one folder. The
bundle samples as the pipeline does: its solver, steps, spacing and clipping are the defaults. A variance that the
denoiser tells is dropped, where the solver needs none.

It does not: take the steps of other schedulers than those of
:data:`gensdk_export.importers.diffusers.known_schedulers.SCHEDULERS`, or weights in pickle files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from gensdk_export.export import ExportOptions, export_plan
from gensdk_export.importers.diffusers.classes import read_label
from gensdk_export.importers.diffusers.folder_files import (
    image_sides,
    load_network,
    plain_config,
    read_json,
)
from gensdk_export.importers.diffusers.lora_files import LoraFile
from gensdk_export.importers.diffusers.sana import PIPELINES as OF_SANA
from gensdk_export.importers.diffusers.sana import sana_plan
from gensdk_export.importers.diffusers.scheduler import read_sampling
from gensdk_export.importers.diffusers.stable_diffusion import PIPELINES as OF_STABLE_DIFFUSION
from gensdk_export.importers.diffusers.stable_diffusion import stable_diffusion_plan
from gensdk_export.importers.import_report import Guess, ImportReport, bundle_name
from gensdk_runtime.errors import ExportError, InputError
from gensdk_runtime.spec.conditions import LabelSpec
from gensdk_runtime.spec.outputs import ImageSpec
from gensdk_runtime.spec.provenance import Provenance
from gensdk_runtime.spec.settings import SolverName
from gensdk_training.graphs.diffusion_plan import diffusion_plan
from gensdk_training.plan import ExportPlan

PIPELINES = ("DDPMPipeline", "DDIMPipeline")
OF_TEXTS = {**dict.fromkeys(OF_STABLE_DIFFUSION, stable_diffusion_plan), **dict.fromkeys(OF_SANA, sana_plan)}
"""What makes a plan of a pipeline with texts."""
KNOWN = ", ".join((*PIPELINES, *OF_TEXTS))


class Denoiser(nn.Module):
    """(x [N, C, H, W], timestep [N], label [N] or none) to what the scheduler expects, of x's shape.

    `learned`: it looks time steps up in a table, where fractions take the row next to them. What it tells in
    channels behind those of x, its variance, is dropped.
    """

    def __init__(self, unet: nn.Module, *, learned: bool) -> None:
        super().__init__()
        self.unet, self.learned = unet, learned

    def forward(self, x: Tensor, timestep: Tensor, label: Tensor | None = None) -> Tensor:
        """The prediction as a plain tensor."""
        timestep = timestep.round().long() if self.learned else timestep
        told = cast(Tensor, self.unet(x, timestep, class_labels=label, return_dict=False)[0])
        return told[:, : x.shape[1]]


@dataclass(frozen=True)
class _Folder:
    """Where things lie, and what ``model_index.json`` and the two configurations say."""

    unet: Path
    unet_config: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    pipeline: str


def import_diffusers(
    folder: Path | str,
    out: Path | str,
    options: ExportOptions | None = None,
    *,
    solver: SolverName | None = None,
    size: tuple[int, int] | None = None,
    classes: int | None = None,
    null_class: bool = False,
    lora: Sequence[LoraFile] = (),
    on_stage: Callable[[str], None] | None = None,
) -> ImportReport:
    """Writes the bundle `out` from the diffusers `folder`.

    `solver`: another default than the pipeline's; `size`: (height, width) of the images, and `classes`: how many
    there are, where the configuration doesn't say so; `null_class`: the last class means none, which guidance
    needs; `lora`: files to merge into the networks of a pipeline with texts. For the rest see
    :func:`gensdk_export.export.export_plan`. Raises :class:`InputError` for a folder that is none of diffusers' or
    a LoRA that fits no layer, :class:`ExportError` for a model that can't be sampled as in diffusers,
    and :class:`UnavailableError` where diffusers is missing.
    """
    plan, provenance, guesses = diffusers_plan(
        folder, solver=solver, size=size, classes=classes, null_class=null_class, lora=lora
    )
    return ImportReport(export_plan(plan, provenance, out, options, on_stage=on_stage), guesses)


def diffusers_plan(
    folder: Path | str,
    *,
    solver: SolverName | None = None,
    size: tuple[int, int] | None = None,
    classes: int | None = None,
    null_class: bool = False,
    lora: Sequence[LoraFile] = (),
) -> tuple[ExportPlan, Provenance, tuple[Guess, ...]]:
    """What :func:`import_diffusers` exports: the plan, where it came from, and what was taken for granted."""
    planned = OF_TEXTS.get(_pipeline(Path(folder)))
    if planned is not None:
        if classes is not None or null_class:
            raise InputError("classes are for models without texts; leave them out")
        return planned(Path(folder), solver=solver, size=size, lora=lora)
    if lora:
        raise InputError("a LoRA is merged into pipelines with texts alone; leave --lora out")
    found = _open(Path(folder))
    sampling = read_sampling(found.scheduler, found.pipeline, solver)
    image = _image(found.unet_config, size, learned_variance=sampling.learned_variance)
    label = read_label(found.unet_config, classes, null_class=null_class)
    learned = _looks_times_up(found.unet_config, sampling.schedule.num_train_timesteps)
    plan = diffusion_plan(
        Denoiser(load_network(found.unet, "diffusers", "UNet2DModel"), learned=learned),
        image,
        sampling.schedule,
        name=bundle_name(Path(folder).resolve().name),
        family=sampling.family,
        num_classes=None if label is None else label.num_classes,
        null_class=null_class,
        prediction_type=sampling.prediction,
        defaults=sampling.defaults,
    )
    configs = {"unet": plain_config(found.unet_config), "scheduler": plain_config(found.scheduler)}
    guesses = (*sampling.guesses, *_told(found.unet_config, label))
    return plan, Provenance(config={"imported_from": "diffusers", **configs}), guesses


def _pipeline(folder: Path) -> str:
    """The class that a folder says it was saved from; empty where it does not."""
    if not folder.is_dir():
        raise InputError(f"expected a diffusers folder, got {str(folder)!r}, which is none")
    index = folder / "model_index.json"
    return str(read_json(index).get("_class_name", "")) if index.is_file() else ""


def _open(folder: Path) -> _Folder:
    pipeline = _pipeline(folder)
    if pipeline and pipeline not in PIPELINES:
        raise ExportError(f"{folder}: no {pipeline[:60]} can be imported, which samples otherwise than {KNOWN}")
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    configs = [folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json"]
    config = next((path for path in configs if path.is_file()), configs[0])
    found = _Folder(unet, read_json(unet / "config.json"), read_json(config), pipeline)
    kind = found.unet_config.get("_class_name")
    if kind != "UNet2DModel":
        raise ExportError(
            f"{folder}: expected a UNet2DModel, got {str(kind)[:60]!r}; only models of pixels and classes fit"
        )
    return found


def _image(config: Mapping[str, Any], size: tuple[int, int] | None, *, learned_variance: bool) -> ImageSpec:
    channels, outputs = config.get("in_channels", 3), config.get("out_channels", 3)
    if channels != outputs and not (learned_variance and type(channels) is int and outputs == 2 * channels):
        raise ExportError(f"expected as many channels out as in, got {channels} in and {outputs} out")
    sides = size or image_sides(config.get("sample_size"))
    if sides is None:
        raise InputError("the model's configuration has no sample_size; give the images' size with --size HxW")
    data = {"channels": channels, "height": sides[0], "width": sides[1]}
    return ImageSpec.from_dict(data, what="unet/config.json", error=ExportError)


def _told(config: Mapping[str, Any], label: LabelSpec | None) -> tuple[Guess, ...]:
    """What the network's configuration left open, and what of its answers is dropped."""
    told = []
    if label is not None:
        none = "and one that means none" if label.null_class else "none of which means none"
        reason = "guidance needs one that does, as the last" if not label.null_class else "--null-class"
        told.append(Guess("classes", f"{label.num_classes}, {none}", reason, "--null-class"))
    channels, outputs = config.get("in_channels", 3), config.get("out_channels", 3)
    if channels != outputs:
        told.append(Guess("variance", "dropped", f"{outputs - channels} channels of it; the solver needs none"))
    return tuple(told)


def _looks_times_up(config: Mapping[str, Any], total: int) -> bool:
    """True for a network with a table of time steps, of which the scheduler counts `total`."""
    kind, rows = config.get("time_embedding_type", "positional"), config.get("num_train_timesteps")
    if kind not in ("positional", "learned"):
        raise ExportError(
            f"expected time_embedding_type positional or learned, got {str(kind)[:40]!r}: such a UNet2DModel "
            "divides by its times, which are not those of these schedulers"
        )
    if kind == "learned" and (type(rows) is not int or rows < total):
        raise ExportError(
            f"expected num_train_timesteps of {total} or more in unet/config.json, as its scheduler has, got "
            f"{str(rows)[:40]}"
        )
    return bool(kind == "learned")
