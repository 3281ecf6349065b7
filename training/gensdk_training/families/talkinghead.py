"""talkinghead: a still face that says what is heard, frame by frame.

Papers: Prajwal, Mukhopadhyay, Namboodiri & Jawahar 2020, "A Lip Sync Expert Is All You Need for Speech to Lip
Generation In the Wild" (Wav2Lip, arXiv 2008.10010); its expert after Chung & Zisserman 2016, "Out of Time:
Automated Lip Sync in the Wild" (SyncNet).

Idea: a frame is the still face with another mouth, and which one is heard in the third of a second around it.
Pixels alone teach the mouth little, being few; so a judge of sound and mouth, the expert, is trained first, on
real pairs alone, and then left as it is while the generator learns from it. Two parts, one after the other:

- sync: the expert tells which sound of a batch goes with which mouth, by a cross entropy over all pairs of it.
- generator: ``frame + sync_weight * sync + identity_weight * identity``, in the lower half of the face, the upper
  one staying as it came. With its own sound a face has a true frame, and `frame` is the difference from it, L1
  where it is large and squares below 0.2. With another's it has none, and is drawn all the same: `sync`, ``-log
  p`` of the expert for what was heard, and `identity`, the mean difference from the still face left and right of
  the mouth, judge both.

What goes wrong: public code takes the cosine itself for a probability, its loss begins at ln 2 and stays there for
thousands of steps, and a generator learns nothing from an expert that guesses, which nobody notices since L1 goes
down all the same. Here the cosine has a scale and a bias, the expert's loss is the first that a run logs, as
``sync/loss``, and the diagnosis of a run warns where it sticks at ln 2. An expert that is trained on what was
generated learns its artefacts; this one never sees any. With a large `sync_weight` the generator learns what
deceives the expert in place of mouths: ``generator/sync`` below ``sync/loss`` tells. And L1 alone, of frames or of
what should stay, never leaves the still face, most of whose pixels are right already and pull as hard as those of
the mouth; squares below 0.2 let them go.

Networks: `expert` (:class:`SyncExpert`), which training alone needs, and `generator` (:class:`TalkingFace`): the
log-mel spectrogram of the window, convolutions over it, and a U-Net over the face that is told by it what to
change.
Exports: one graph, ``translator``, (source, audio) to the frame, the spectrogram inside. Samples take `image`, one
for all frames, and `audio`, a window for each; :func:`gensdk_runtime.media.sound_windows.sound_windows` cuts them.

It does not: move the head or the eyes, turn a face to another side, keep frames alike over time beyond what their
windows share, know other sizes of faces than it was trained at, or separate a voice from sounds around it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from gensdk_runtime.errors import InputError
from gensdk_training.family import (
    Batch,
    Family,
    FamilyConfig,
    LogMeaning,
    Loss,
    Phase,
    network_of,
    require_sources,
)
from gensdk_training.graphs.talker import talker_plan
from gensdk_training.losses.pairs import pair_loss
from gensdk_training.networks.image_pairs import ImageEncoder
from gensdk_training.networks.sound_encoder import tilted
from gensdk_training.networks.strided import widths
from gensdk_training.networks.talking import (
    FacePainter,
    SyncExpert,
    TalkingFace,
    WindowEncoder,
    beside_mouth,
    lower_half,
)
from gensdk_training.optim import Schedule
from gensdk_training.plan import ExportPlan
from gensdk_training.registry import register
from gensdk_training.running_statistics import evaluated

SYNC, GENERATOR = "sync", "generator"
EXPERT = "expert"
MOST_HALVINGS = 4
LARGE = 0.2
"""Differences of pixels, of 2 from black to white, from which on they count as they are, and not as squares."""
Width = Annotated[int, Field(ge=1, le=4096)]
Rate = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]


class TalkingHeadConfig(FamilyConfig):
    """Settings of :class:`TalkingHead`.

    bands: Of the log-mel spectrogram.
    listener_channels: Features after the first convolution of each encoder of sounds, doubling with its last two.
    viewer_channels: Features after the first convolution of the expert's encoder of mouths, doubling with each.
    features: Values that are heard of a window, and that the expert compares.
    channels: Features of the generator's first level, up to four times as many within.
    sync_steps: Steps of the first part, in which the expert learns; those that are left are the second.
    sync_rate: Step size of the optimizer of the expert.
    sync_weight: Of the expert's judgement in what the generator minimizes.
    identity_weight: Of the difference from the still face left and right of the mouth.
    gain: Decibels by which training makes windows louder or quieter at most.
    tilt: Nats by which training makes the ends of the spectrum louder or quieter at most.
    hiss: Loudest noise that training adds to a window, as a share of full scale.
    """

    batch_size: Annotated[int, Field(ge=2, le=65536)] = 32
    steps: Annotated[int, Field(ge=1)] = 3500
    lr_schedule: Schedule = "linear"
    bands: Annotated[int, Field(ge=4, le=512)] = 40
    listener_channels: Width = 12
    viewer_channels: Width = 12
    features: Width = 64
    channels: Width = 12
    sync_steps: Annotated[int, Field(ge=0)] = 1000
    sync_rate: Rate = 2e-3
    learning_rate: Rate = 2e-3
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    sync_weight: Weight = 0.001
    identity_weight: Weight = 1.0
    gain: Annotated[float, Field(ge=0, le=60)] = 6.0
    tilt: Annotated[float, Field(ge=0)] = 0.5
    hiss: Annotated[float, Field(ge=0, le=1)] = 0.003
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.995


@register("talkinghead")
class TalkingHead(Family[TalkingHeadConfig]):
    """A U-Net over a still face, told by a window of sound, and a sync expert that was there before it."""

    title = "talking head: the next frame of a still face from a window of sound; a sync expert first"
    paper = "Prajwal, Mukhopadhyay, Namboodiri & Jawahar (2020), A Lip Sync Expert Is All You Need"
    Config: ClassVar[type[FamilyConfig]] = TalkingHeadConfig
    ema_networks = (GENERATOR,)
    starts_from = "faces"
    log_meanings: ClassVar[Mapping[str, LogMeaning]] = {"pair_loss": "pair_loss"}

    def check(self) -> None:
        """Raises :class:`InputError` for data without still faces of the same size, or of an odd one."""
        data, source = self.data, self.data.source
        if source is None or not source.paired:
            raise InputError(f"{self.name} needs a still face for each image: give them with --inputs, paired")
        if (source.channels, source.height, source.width) != (data.channels, data.height, data.width):
            raise InputError(f"{self.name} needs still faces as the images are, in size and channels")
        if data.height % 4 or data.width % 4:
            raise InputError(
                f"{self.name} needs sides that can be halved twice, got {data.height} x {data.width}; set --size"
            )

    @property
    def _depth(self) -> int:
        """How often the lower half of a face is halved: to sides of 4 pixels at least, but once."""
        sides, times = (self.data.height // 2, self.data.width), 1
        while times < MOST_HALVINGS and all(not side % 2 ** (times + 1) and side >> times >= 8 for side in sides):
            times += 1
        return times

    def build_networks(self) -> dict[str, nn.Module]:
        """`expert` and `generator`."""
        config, data = self.config, self.data
        half = (data.channels, data.height // 2, data.width)
        times = self._depth
        painter = FacePainter(data.channels, config.channels, self._depth, config.features)
        viewer = ImageEncoder(half, widths(config.viewer_channels, times), config.features)
        return {EXPERT: SyncExpert(self._listener(), viewer), GENERATOR: TalkingFace(self._listener(), painter)}

    def _listener(self) -> WindowEncoder:
        config, heard = self.config, self.data.require_window()
        return WindowEncoder(
            heard.sample_rate,
            heard.samples,
            bands=config.bands,
            channels=config.listener_channels,
            features=config.features,
        )

    def phases(self) -> tuple[Phase, ...]:
        """`sync`, then `generator`; :meth:`rests` says when each has its turn."""
        config = self.config
        betas = (config.beta1, config.beta2)
        return (
            Phase(SYNC, (EXPERT,), config.sync_rate),
            Phase(GENERATOR, (GENERATOR,), config.learning_rate, betas),
        )

    def rests(self, phase: str, step: int) -> bool:
        """The first part ends where the second begins."""
        return (phase == SYNC) != (step < self.config.sync_steps)

    @property
    def averages_from(self) -> int:
        """Where the second part begins."""
        return self.config.sync_steps

    def notes(self) -> tuple[str, ...]:
        """What a run has no steps for."""
        config, told = self.config, []
        if config.steps <= config.sync_steps:
            told.append(
                f"steps {config.steps} end before the generator learns, from {config.sync_steps} on: it stays as "
                "it began; give more steps, or fewer sync_steps"
            )
        if not config.sync_steps and config.sync_weight:
            told.append("sync_steps 0 leave the expert as it began, and its judgement is noise: set sync_weight=0")
        return tuple(told)

    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """The expert's cross entropy over all pairs; or what the generator's frames lack, with their own sound and
        with another's."""
        expert = network_of(networks, EXPERT, SyncExpert)
        spectrogram = self._varied(expert.listener.log_mel(self._louder(_heard(batch))))
        if phase == SYNC:
            loss, right = pair_loss(expert(spectrogram, batch.images))
            return Loss(loss, {"pair_loss": loss.detach(), "right_pairs": right})
        generator, still, config = (
            network_of(networks, GENERATOR, TalkingFace),
            require_sources(batch),
            self.config,
        )
        some = max(1, len(still) // 4)  # with the sound of others
        heard = torch.cat((spectrogram, spectrogram.roll(1, dims=0)[:some]))
        faces = torch.cat((still, still[:some]))
        frames = generator.painter(faces, generator.listener.heard(heard))
        own = frames[: len(still)]
        frame = functional.smooth_l1_loss(lower_half(own), lower_half(batch.images), beta=LARGE)
        identity = functional.smooth_l1_loss(beside_mouth(frames), beside_mouth(faces), beta=LARGE)
        total = frame + config.identity_weight * identity
        logs = {"frame": frame.detach(), "identity": identity.detach()}
        if config.sync_weight:
            with evaluated(expert):
                sync = functional.softplus(-expert.judged(heard, frames)).mean()
            total, logs["sync"] = total + config.sync_weight * sync, sync.detach()
        return Loss(total, logs)

    def _louder(self, sounds: Tensor) -> Tensor:
        """As another microphone might have brought it: louder or quieter, with noise beside."""
        config, shape = self.config, (len(sounds), 1)
        gains = 10 ** ((2 * torch.rand(shape, device=sounds.device) - 1) * config.gain / 20)
        hiss = config.hiss * torch.rand(shape, device=sounds.device) * torch.randn_like(sounds)
        return (sounds * gains + hiss).clamp(-1, 1)

    def _varied(self, spectrogram: Tensor) -> Tensor:
        return tilted(spectrogram, self.config.tilt)

    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        """One graph, ``translator``; half precision covers convolutions and linear maps, not the spectrogram."""
        half = ("painter", "listener.body", "listener.head")
        return talker_plan(self.name, self.data, networks[GENERATOR], self.data.require_window(), half=half)


def _heard(batch: Batch) -> Tensor:
    """The sound around each image of a batch, float32 [B, samples]."""
    if batch.sounds is None:
        raise ValueError("a family that listens got a batch without sounds")
    return batch.sounds
