"""WaveNet: a sound as a product of conditionals, one sample after the other.

Paper: van den Oord et al. 2016, "WaveNet: A Generative Model for Raw Audio" (arXiv 1609.03499).

Idea: ``p(x) = prod_t p(x_t | x_<t, h)``. Each sample is one of 256 mu-law codes, so each conditional is a
categorical distribution and the likelihood is exact. Gated layers of causal convolutions with dilations 1, 2, 4,
..., so that few layers see far back. One code more ends a sound: sounds have the lengths that were learnt.

``h`` is the class and the time since the beginning. A class made of parts, such as a digit and a speaker, has a
vector for each part. Without a condition speech is babble (section 3.1 of the paper); with the class alone the
layers, which see back a tenth of a second, don't know whether a word begins or ends: the time tells them.

Silence is data as everything else: no sample is filtered away, and the loss counts each sound up to its end.

Exports a step with the past of each layer in rings (:class:`CausalLayers`), which costs the same at the end of a
sound as at its beginning, the likelihood in one parallel pass, and mu-law codes as amplitudes.

It does not: mix logistics, quantize to 16 bits, upsample local conditions such as phonemes, or distil a parallel
WaveNet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.mu_law import LEVELS
from gensdk_runtime.spec.conditions import label_conditions
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.sequence import SequenceSpec
from gensdk_training.family import Batch, Family, FamilyConfig, Loss, Phase, network_of, require_labels
from gensdk_training.graphs.sequence_steps import (
    DECODE,
    LIKELIHOOD,
    STEP,
    decode_graph,
    likelihood_graph,
    step_graph,
    tensor,
)
from gensdk_training.graphs.wavenet_steps import Codes, Decode, SoundLikelihood, WaveNetStep
from gensdk_training.networks.wavenet import CausalLayers, Teller, WaveNet
from gensdk_training.plan import ExportPlan
from gensdk_training.registry import register

END = LEVELS
"""The code that ends a sound."""
SIZES = 800
"""Samples of whose multiples batches are long."""


class WaveNetConfig(FamilyConfig):
    """Settings of WaveNet.

    layers: Layers of a stack; the dilation of layer i is 2 ** i.
    stacks: Stacks, one after the other.
    channels: Features of each layer.
    skip_channels: Features that the head gets from all layers together.
    condition_channels: Features of the vectors of classes and of time.
    frame: Samples in which the time that layers are told is the same.
    """

    layers: Annotated[int, Field(ge=1, le=16)] = 10
    stacks: Annotated[int, Field(ge=1, le=16)] = 1
    channels: Annotated[int, Field(ge=1, le=4096)] = 48
    skip_channels: Annotated[int, Field(ge=1, le=4096)] = 96
    condition_channels: Annotated[int, Field(ge=1, le=4096)] = 32
    frame: Annotated[int, Field(ge=1, le=100_000)] = 80
    conditional: bool = True
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 8
    steps: Annotated[int, Field(ge=1)] = 3000
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    lr_schedule: Literal["constant", "linear", "cosine", "late_linear"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    grad_clip: Annotated[float, Field(ge=0)] = 1.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.995


@register("wavenet")
class WaveNetFamily(Family[WaveNetConfig]):
    """WaveNet over mu-law codes, told the class and the time."""

    title: ClassVar[str] = "WaveNet: sounds, one sample after the other, with exact likelihoods"
    paper: ClassVar[str] = "van den Oord et al. 2016, WaveNet: A Generative Model for Raw Audio, arXiv 1609.03499"
    Config: ClassVar[type[FamilyConfig]] = WaveNetConfig
    ema_networks = ("wavenet",)
    makes: ClassVar[frozenset[str]] = frozenset(("sounds",))

    def check(self) -> None:
        """Refuses sounds of several channels, and `conditional` for data without labels."""
        if self.data.channels != 1:
            raise InputError(f"wavenet makes sounds of one channel, {self.data.name!r} has {self.data.channels}")
        if self.config.conditional and self.data.num_classes is None:
            raise InputError(f"conditional=true needs labels, data {self.data.name!r} has none; set it to false")

    @property
    def _num_classes(self) -> int | None:
        return self.data.num_classes if self.config.conditional else None

    def _parts(self) -> Tensor | None:
        """int64 [K, P]: of each class the number of each of its parts."""
        if self._num_classes is None:
            return None
        audio, names = self.data.require_audio(), self.data.class_names
        if audio.parts and names is not None:
            return torch.tensor(audio.numbers_of(names))
        return torch.arange(self._num_classes).unsqueeze(1)

    def build_networks(self) -> dict[str, nn.Module]:
        """One network, called ``wavenet``."""
        config = self.config
        dilations = [2**layer for layer in range(config.layers)] * config.stacks
        frames = -(-self.data.height // config.frame)
        teller = Teller(
            len(dilations),
            config.channels,
            parts=self._parts(),
            frames=frames,
            hidden=config.condition_channels,
        )
        layers = CausalLayers(config.channels, config.skip_channels, dilations)
        network = WaveNet(END + 1, layers, teller, skip_channels=config.skip_channels, frame=config.frame)
        return {"wavenet": network}

    def phases(self) -> tuple[Phase, ...]:
        """Maximum likelihood by Adam."""
        return (Phase("likelihood", ("wavenet",), self.config.learning_rate, betas=(0.9, 0.99)),)

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """The mean negative log-likelihood in nats of each sample up to the end; ``bits_per_sample`` is logged."""
        sounds, length = batch.images, self.data.height
        lengths = batch.mask.sum(dim=1)
        # Few sizes: the allocator keeps memory for each that it has met.
        most = min(length, -(-(int(lengths.max()) + 1) // SIZES) * SIZES)
        codes = Codes(LEVELS).to(sounds.device).encode(sounds[:, :most, 0])
        place = torch.arange(most, device=sounds.device).unsqueeze(0)
        ends = lengths.unsqueeze(1)
        tokens = torch.where(place >= ends, torch.full_like(codes, END), codes)
        label = require_labels(batch) if self.config.conditional else None
        logits = networks["wavenet"](tokens, label)
        targets = torch.where(place > ends, torch.full_like(tokens, -1), tokens)
        total = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)
        return Loss(total, {"bits_per_sample": total.detach() / math.log(2)})

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        """Step, likelihood, decoding. Half precision covers the network, not the draw."""
        network = network_of(networks, "wavenet", WaveNet).eval()
        output = self.data.output
        spec = SequenceSpec(
            step_graph=STEP,
            likelihood_graph=LIKELIHOOD,
            decode_graph=DECODE,
            length=self.data.height,
            levels=END + 1,
            begin=END + 1,
            stop=END,
            rest=LEVELS // 2,
        )
        label = [] if self._num_classes is None else [tensor("label", "batch", role="condition", dtype="int64")]
        kept = tensor("kept", network.layers.kept, "batch", network.layers.channels, role="state")
        graphs = (
            step_graph(spec, [kept], conditions=label, cuts=False),
            likelihood_graph(spec, output, conditions=label),
            decode_graph(spec, output),
        )
        model = ModelSpec(
            name=f"{self.data.name}-{self.name}",
            family=self.name,
            program=spec,
            graphs=graphs,
            output=output,
            conditions=label_conditions(self._num_classes, self.data.class_names),
        )
        codes = Codes(LEVELS)
        modules = (WaveNetStep(network), SoundLikelihood(network, codes, stop=END), Decode(codes))
        return ExportPlan(
            model=model,
            modules={graph.name: module.eval() for graph, module in zip(graphs, modules, strict=True)},
            half={STEP: ("embed", "teller", "stack"), LIKELIHOOD: ("network",)},
        )
