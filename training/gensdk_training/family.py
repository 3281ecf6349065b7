"""The contract of a family of generative models: one class, one file, one story.

A family names its networks, says how each is trained, and hands over graphs and a program for export. The
trainer, the command line, the export and the tests work with every family through this contract alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Annotated, ClassVar, Generic, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from gensdk_runtime.errors import InputError
from gensdk_runtime.outputs.base import output_of
from gensdk_runtime.spec.audio import AudioConditionSpec, AudioSpec
from gensdk_runtime.spec.fields import Finite, Range
from gensdk_runtime.spec.kinds import AnyOutput, OutputSpec
from gensdk_runtime.spec.outputs import ImageSpec, PointsSpec, TextSpec
from gensdk_runtime.spec.strict import StrictModel
from gensdk_runtime.text.vocabulary import AnyVocabulary
from gensdk_training.captions import CaptionInfo
from gensdk_training.examples import Examples
from gensdk_training.heard import WindowInfo
from gensdk_training.plan import ExportPlan
from gensdk_training.running_statistics import let_statistics_move

CLASS_JOIN = "-"
"""Between the parts of a class's name."""


class LabelPart(StrictModel):
    """What one part of a class's name says, such as the speaker of a digit: `values`, those that occur, in
    order."""

    name: str
    values: Annotated[tuple[str, ...], Field(min_length=1)]


class AudioInfo(StrictModel):
    """What sounds are besides their samples: `sample_rate` in Hz.

    `parts`: of which the classes are made, where their names say so, as "7-theo" is a digit and a speaker; empty
    otherwise.
    """

    sample_rate: Annotated[int, Field(ge=1)]
    parts: tuple[LabelPart, ...] = ()

    def numbers_of(self, class_names: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """For each class the numbers of its parts' values, so that a network can embed each part by itself.

        Raises :class:`InputError` for a name that is none of the parts', and for sounds whose classes have none.
        """
        if not self.parts:
            raise InputError("the classes of these sounds have no parts; take their labels as they are")
        named = {
            CLASS_JOIN.join(value for _, value in each): tuple(number for number, _ in each)
            for each in product(*(enumerate(part.values) for part in self.parts))
        }
        strange = [name for name in class_names if name not in named]
        if strange:
            raise InputError(f"class {strange[0][:80]!r} is not made of {', '.join(p.name for p in self.parts)}")
        return tuple(named[name] for name in class_names)


class SourceInfo(StrictModel):
    """The images that a translation starts from; `paired`: each belongs to the image of the same index.

    Where `audio` is set they are sounds instead, of `height` samples and one channel, `count` of them, of which
    each image is paired with any of its class.
    """

    channels: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]
    count: Annotated[int, Field(ge=1)]
    paired: bool
    audio: AudioInfo | None = None

    @property
    def kind(self) -> str:
        """What they are called: "images" or "sounds"."""
        return "images" if self.audio is None else "sounds"


class PointsInfo(StrictModel):
    """Statistics of points [N, D], kept with the model: training sees ``(point - center) / scale``, in [-1, 1].

    `center` [D]: the middle of each dimension; `scale`: half of the widest one, so that distances keep their
    proportions. `value_range`: (lowest, highest) of all dimensions, with a little room.
    """

    center: Annotated[tuple[Finite, ...], Field(min_length=1, max_length=4096)]
    scale: Annotated[float, Field(gt=0)]
    value_range: Range


class TextInfo(StrictModel):
    """Texts as tokens of `vocabulary`: at most `length` each, the end token among them."""

    length: Annotated[int, Field(ge=1, le=2**20)]
    vocabulary: AnyVocabulary


class DataInfo(StrictModel):
    """What a family must know about the data before its networks are built.

    Images are `channels` x `height` x `width`; `count` of them; `num_classes` is None without labels, `source`
    without images to translate. Where `points` is set the data are points instead: `channels` is their number of
    dimensions, height and width are 1. Where `audio` is set they are sounds: `height` samples, in batches, of
    `channels`. Where `text` is set they are texts: channels and height are 1, the width is the length. Where
    `form` is set they are what it says, such as piano rolls [channels, height, width]; `ends`: True where they may
    be shorter than that, and batches have lengths. `captions`: of images with texts; `window`: with sound around.
    """

    name: str
    channels: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]
    count: Annotated[int, Field(ge=1)]
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = None
    source: SourceInfo | None = None
    points: PointsInfo | None = None
    audio: AudioInfo | None = None
    text: TextInfo | None = None
    form: AnyOutput | None = None
    ends: bool | None = None
    captions: CaptionInfo | None = None
    window: WindowInfo | None = None

    @property
    def output(self) -> OutputSpec:
        """What a model of the data makes, as the runtime describes it."""
        if self.audio is not None:
            return AudioSpec(samples=self.height, channels=self.channels, sample_rate=self.audio.sample_rate)
        if self.text is not None:
            return TextSpec.of(self.text.length, self.text.vocabulary.size)
        if self.form is not None:
            return self.form
        if self.points is None:
            return self.image
        return PointsSpec(dimensions=self.channels, value_range=self.points.value_range)

    @property
    def kind(self) -> str:
        """What several of them are called: "images", "points", "sounds", "texts", "piano rolls"."""
        return output_of(self.output).plural

    @property
    def of_shape(self) -> str:
        """What one of them is, in a few words."""
        if self.on_a_grid:
            return f"{self.height}x{self.width}x{self.channels} (height x width x channels)"
        if self.points is not None:
            return f"{self.channels} dimensions"
        return output_of(self.output).facts if self.form is None else output_of(self.form).of_shape

    @property
    def on_a_grid(self) -> bool:
        """True for data that convolutions and changes of pixels are for: images."""
        return isinstance(self.output, ImageSpec)

    def require_points(self) -> PointsInfo:
        """The statistics of the points. InputError for other data."""
        if self.points is None:
            raise InputError(f"expected points, but {self.name!r} are {self.kind}; use other data")
        return self.points

    def require_audio(self) -> AudioInfo:
        """What sounds are besides their samples. InputError for other data."""
        if self.audio is None:
            raise InputError(f"expected sounds, but {self.name!r} are {self.kind}; use other data")
        return self.audio

    def require_sounds(self) -> AudioConditionSpec:
        """The sounds that images are made from, as the runtime describes them. InputError where there are none."""
        source = self.source
        if source is None or source.audio is None:
            raise InputError(f"{self.name!r} has no sounds to make images from; give them with --inputs")
        return AudioConditionSpec(samples=source.height, sample_rate=source.audio.sample_rate)

    def require_window(self) -> AudioConditionSpec:
        """The sound around each image, as the runtime describes it. InputError where there is none."""
        if self.window is not None:
            return self.window.condition
        raise InputError(f"{self.name!r} has no sound around its images; give the key of it with --sounds")

    def require_text(self) -> TextInfo:
        """Length and vocabulary of the texts. InputError for images."""
        if self.text is None:
            raise InputError(f"expected texts, but {self.name!r} are {self.kind}; use other data")
        return self.text

    @property
    def image(self) -> ImageSpec:
        """The images as the runtime describes them: float32 NCHW in [-1, 1]. InputError for other data."""
        if any(each is not None for each in (self.points, self.audio, self.text, self.form)):
            raise InputError(f"expected images, but {self.name!r} are {self.kind}; use other data")
        return ImageSpec(channels=self.channels, height=self.height, width=self.width)


@dataclass(frozen=True)
class Batch:
    """`images`: float32 [B, C, H, W] in [-1, 1], or points [B, D], scaled into it, sounds [B, samples,
    channels], tokens int64 [B, 1 + length], or piano rolls [B, tracks, steps, pitches] of ones and zeros;
    `labels`: int64 [B], or None for data without labels. `lengths`: int64 [B], of data that may end early: how
    much of each is data, the rest is padding; None where all of it is.

    `sources`, of data for translation: float32 [B, C', H', W'] in [-1, 1], what the images are made from, or,
    where the data is not paired, any that could be; or sounds [B, samples, 1], each of the image's class.
    `indices`: int64 [B], each image's place in the data.

    Of texts `images` are tokens, int64 [B, 1 + length]: begin, the text's own, end, pad. `lengths`: int64 [B], how
    many of them come before the pads; None for data that all have one size.

    `prompts`: of images with captions, int64 [B, row_length]; see :class:`CaptionInfo`. `sounds`: of images with
    sound around them, float32 [B, samples] in [-1, 1].
    """

    images: Tensor
    labels: Tensor | None = None
    sources: Tensor | None = None
    indices: Tensor | None = None
    lengths: Tensor | None = None
    prompts: Tensor | None = None
    sounds: Tensor | None = None

    @property
    def mask(self) -> Tensor:
        """What is data and no padding: bool [B, length], the length being the second axis of `images`."""
        count, size = self.images.shape[:2]
        if self.lengths is None:
            return torch.ones(count, size, dtype=torch.bool, device=self.images.device)
        return torch.arange(size, device=self.images.device) < self.lengths[:, None]


@dataclass(frozen=True)
class Phase:
    """One optimizer and what it trains; a GAN has two. `repeat` times in a step, each on a fresh batch.

    `optimizer`: "adam" (with decoupled weight decay); "rmsprop" or "sgd", plain gradient descent, which have no
    use for `betas`.
    """

    name: str
    trains: tuple[str, ...]
    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    repeat: int = 1
    optimizer: Literal["adam", "rmsprop", "sgd"] = "adam"


@dataclass(frozen=True)
class Loss:
    """The scalar that a phase minimizes, and detached scalars to log."""

    total: Tensor
    logs: Mapping[str, Tensor] = field(default_factory=dict)


LogMeaning = Literal[
    "accuracy", "real_probability", "fake_probability", "critic_distance", "matching_accuracy", "pair_loss"
]
"""What a logged value says about the game: the share in [0, 1] that D tells right; the mean probability of "real"
that D gives to real and to fake samples; a critic's mean on real samples minus that on fakes; the share in [0, 1]
of real samples that D gives more with what goes with them than with something else; the cross entropy in nats of
telling right pairs from false ones, ln 2 by guessing."""

LOG_MEANINGS: Mapping[str, LogMeaning] = {
    "right": "accuracy",
    "d_real": "real_probability",
    "d_fake": "fake_probability",
    "distance": "critic_distance",
    "right_conditions": "matching_accuracy",
}
"""The names that families log these under in :attr:`Loss.logs`; others mean nothing to the diagnosis."""


class FamilyConfig(StrictModel):
    """Settings that every family has; each adds its own. Set with ``gensdk train --set key=value``.

    Every setting of a family stands in the docstring of its config, or of one that it is made from, as ``name:
    what it means``; :func:`gensdk_training.settings.settings_of` and so ``gensdk list FAMILY`` read it there.

    batch_size: Images (or points) in each batch, of all processes together.
    steps: Training steps in all; each runs every phase.
    lr_schedule: How the learning rates go on after the warm-up: they stay, fall in a line or along half a cosine
        to 0 at the last step, or stay for the first half and then fall in a line.
    warmup_steps: Steps in which the learning rates rise in a line from 0; fewer than steps.
    grad_clip: Largest norm of each phase's gradient, which is scaled down to it; 0 leaves it as it is.
    ema_decay: How much of the moving average of the weights each step keeps; 0 leaves the weights themselves.
    learning_rate: Step size of the optimizer.
    generator_learning_rate: Step size of the generator's optimizer.
    discriminator_learning_rate: Step size of the discriminator's optimizer.
    beta1: Share of the gradient's running mean that Adam keeps in a step.
    beta2: Share of the squared gradient's running mean that Adam keeps in a step.
    conditional: Whether the labels of the data are learnt, so that classes can be asked for.
    """

    batch_size: Annotated[int, Field(ge=1, le=65536)] = 64
    steps: Annotated[int, Field(ge=1)] = 2000
    lr_schedule: Literal["constant", "linear", "cosine", "late_linear"] = "constant"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    grad_clip: Annotated[float, Field(ge=0)] = 0.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999


ConfigT = TypeVar("ConfigT", bound=FamilyConfig)


class Family(ABC, Generic[ConfigT]):
    """A family bound to a config and to data. Stateless: the networks are passed in.

    Class attributes: `name` as users write it, `title` in one line for ``gensdk list``, `paper` with authors, year
    and title, `Config`, the type of its settings, `needs_labels` and `needs_captions` where it makes nothing
    without them, and `starts_from`: "noise", or for a family that translates images the data's "pairs", its two
    "collections", or the "images" themselves; "sounds", for one that makes images from sounds; or "faces", for one
    that makes them from still faces and the sound around each image. `makes`: the kinds of data that it learns.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    log_meanings: ClassVar[Mapping[str, LogMeaning]] = LOG_MEANINGS
    """Of what it logs, where it uses other names than these or means something else by them."""
    Config: ClassVar[type[FamilyConfig]]
    ema_networks: ClassVar[tuple[str, ...]]
    """The networks that sampling needs: their moving average is kept, previewed and exported."""
    needs_labels: ClassVar[bool] = False
    needs_captions: ClassVar[bool] = False
    starts_from: ClassVar[Literal["noise", "pairs", "collections", "images", "sounds", "faces"]] = "noise"
    makes: ClassVar[frozenset[str]] = frozenset(("images",))

    def __init__(self, config: ConfigT, data: DataInfo) -> None:
        self.config = config
        self.data = data
        if data.kind not in self.makes:
            raise InputError(
                f"{self.name} makes {', '.join(self.makes)}, but {data.name!r} are {data.kind}; use other data"
            )
        if self.needs_captions and data.captions is None:
            raise InputError(
                f"{self.name} makes images from texts, but {data.name!r} has no captions; give --captions"
            )
        found = "none" if data.source is None else data.source.kind
        if (found == "sounds") != (self.starts_from == "sounds"):
            wanted = "sounds" if self.starts_from == "sounds" else "none that are sounds"
            raise InputError(f"{self.name} takes inputs, {wanted}, got {found}; change --inputs")
        if (data.window is not None) != (self.starts_from == "faces"):
            wanted = "needs the sound around each image: give" if data.window is None else "hears no sound: leave"
            raise InputError(f"{self.name} {wanted} --sounds{'' if data.window is None else ' out'}")
        self.check()

    def check(self) -> None:
        """Raises :class:`InputError` where config and data don't go together, before anything is built."""

    @abstractmethod
    def build_networks(self) -> dict[str, nn.Module]:
        """Fresh networks by name, initialized from torch's global generator."""

    def start(self, networks: Mapping[str, nn.Module]) -> None:
        """Weights from elsewhere, before the first step of a fresh run; a resumed one has its own.

        Raises :class:`InputError` where they are missing or don't fit.
        """

    def look(self, networks: Mapping[str, nn.Module], spread: Callable[[int], Batch]) -> None:
        """Takes from the data what a fresh run starts from, before its first step: first means, a labelled few.

        ``spread(n)``: `n` images (or all, where there are fewer) from all over the data. What is taken must be in
        parameters or buffers, since a resumed run looks at nothing. Raises :class:`InputError` where the data
        does not have it.
        """

    def begin_step(self, networks: Mapping[str, nn.Module], step: int) -> None:
        """Sets those parts of `networks` that follow from the number of the step, from 0, such as how far they
        have grown."""

    def rests(self, phase: str, step: int) -> bool:
        """True where `phase` has no turn in the step of this number, from 0: the others run, and its batches are
        passed over. Of families that learn in several parts, one after the other."""
        return False

    @property
    def averages_from(self) -> int:
        """The number of the step in which the networks of :attr:`ema_networks` begin to learn: their averages
        forget what they began with from there on."""
        return 0

    @property
    def depends_on_steps(self) -> bool:
        """True if what a step does depends on how many there are: then a run can't be continued beyond its end."""
        return bool(self.config.lr_schedule != "constant")

    def notes(self) -> tuple[str, ...]:
        """Consequences of the settings that a user may not expect, a line each; reported before the first step."""
        return ()

    def unfinished(self, networks: Mapping[str, nn.Module]) -> str | None:
        """What `networks` still lack that a whole run brings, in words; None if nothing. Bundles keep it."""
        return None

    @abstractmethod
    def phases(self) -> tuple[Phase, ...]:
        """The phases of one training step, in order."""

    @abstractmethod
    def loss(self, phase: str, networks: Mapping[str, nn.Module], batch: Batch) -> Loss:
        """The loss of one phase. Draws from torch's global generator (the trainer seeds it at each step).

        All `networks` are in training mode; those that the phase does not train keep their buffers (their batch
        norms use the batch's statistics). What is only looked at, for a log, goes through
        :func:`gensdk_training.running_statistics.evaluated`.
        """

    def after_update(self, phase: str, networks: Mapping[str, nn.Module]) -> None:
        """Called without gradients after each update of `phase`: for constraints on weights."""

    @abstractmethod
    def export_plan(self, networks: Mapping[str, nn.Module]) -> ExportPlan:
        """Graphs, program and modules over `networks`, which this switches to eval mode."""

    def examples(self, batch: Batch) -> Examples | None:
        """What of `batch` the previews and proofs of a family start from that makes images from images or sounds;
        None for other families."""
        if batch.sources is None:
            return None
        source = self.data.source
        if source is not None and source.audio is not None:
            return Examples.of_sounds(batch.sources, batch.images)
        paired = source is not None and source.paired
        return Examples.of(batch.sources, batch.images if paired else None, batch.sounds)

    def sharing_plan(self, networks: Mapping[str, nn.Module], depth: int) -> ExportPlan:
        """As :meth:`export_plan`, with graphs that share deep features between sampling steps.

        `depth`: how much is computed anew in every step. :class:`InputError` where the family has no such graphs.
        """
        raise InputError(f"family {self.name!r} has no features to share between steps; leave share_features out")


def freeze(networks: Mapping[str, nn.Module], trained: tuple[str, ...]) -> None:
    """Lets gradients flow into the parameters of the `trained` networks only, and moves no others' statistics."""
    for name, network in networks.items():
        network.requires_grad_(name in trained)
        let_statistics_move(network, move=name in trained)


NetworkT = TypeVar("NetworkT", bound=nn.Module)


def network_of(networks: Mapping[str, nn.Module], name: str, kind: type[NetworkT]) -> NetworkT:
    """The network `name`, of the `kind` that ``build_networks`` made."""
    network = networks[name]
    if not isinstance(network, kind):
        raise TypeError(f"expected network {name!r} as {kind.__name__}, got {type(network).__name__}")
    return network


def require_labels(batch: Batch) -> Tensor:
    """The labels of a batch for a family that was built with classes."""
    if batch.labels is None:
        raise ValueError("a conditional family got a batch without labels")
    return batch.labels


def require_prompts(batch: Batch) -> Tensor:
    """The captions of a batch for a family that was built with them."""
    if batch.prompts is None:
        raise ValueError("a family that learns captions got a batch without them")
    return batch.prompts


def require_lengths(batch: Batch) -> Tensor:
    """The lengths of a batch for a family that learns sequences."""
    if batch.lengths is None:
        raise ValueError("a family of sequences got a batch without lengths")
    return batch.lengths


def require_sources(batch: Batch) -> Tensor:
    """The sources of a batch for a family that translates images."""
    if batch.sources is None:
        raise ValueError("a translation family got a batch without sources")
    return batch.sources


def require_indices(batch: Batch) -> Tensor:
    """The places in the data of a batch for a family that learns something for each image."""
    if batch.indices is None:
        raise ValueError("a family that learns a latent for each image got a batch without indices")
    return batch.indices
