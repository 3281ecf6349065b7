"""The typed result of sampling."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.arguments import check_path
from gensdk_runtime.errors import InputError
from gensdk_runtime.media.images import encode_image
from gensdk_runtime.noise import SampleKey
from gensdk_runtime.outputs.base import Arrangement, Array, Layout, Output

if TYPE_CHECKING:
    from gensdk_runtime.media.music.notes import Music


@dataclass(frozen=True)
class Timings:
    """Seconds: the whole call, the part of it spent inside graphs, and each batch."""

    total: float
    graphs: float
    batches: tuple[float, ...]


@dataclass(frozen=True, repr=False, eq=False)
class Samples:
    """Samples in order, all of one kind.

    `data`: what was drawn. Of images float32 [n, C, H, W] in the model's own `value_range`, or with
    ``output_type="uint8"`` uint8 [n, H, W, C]; :attr:`array` and :attr:`images` give either form. Of a model of
    points float32 [n, D], which :attr:`array` and :attr:`points` give; of sounds float32 [n, samples, channels],
    as :attr:`audio`; of text tokens int64 [n, length], whose words :attr:`texts` gives; of music float32 [n,
    tracks, steps, pitches], 1 where a note sounds, whose notes :attr:`music` gives. `seeds`: a (seed, position)
    pair for each sample, which ``sample(seed=[...])`` takes back. `output`: what works with their kind.
    `conditions`: what each was asked to be, by kind, [n, ...]; those that are large, such as images, are not kept.
    `settings`: everything needed to draw them again, as plain JSON. `stopped`: a callback ended the run early; the
    array then holds the samples that had begun, as far as they had come. `lengths`: int64 [n], where each ended,
    for models whose samples may end early: what follows in `data` is no part of them; None: all are as long as the
    data are.
    """

    data: Array
    seeds: tuple[SampleKey, ...]
    output: Output[Any]
    conditions: Mapping[str, Array]
    settings: Mapping[str, Any]
    timings: Timings
    stopped: bool = field(default=False)
    lengths: NDArray[np.int64] | None = field(default=None)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, which: int | slice) -> Samples:
        """Sample `which` alone, or those of a slice, with the settings that draw them again."""
        if isinstance(which, slice):
            places = range(len(self))[which]
        else:
            at = operator.index(which)
            if not -len(self) <= at < len(self):
                raise IndexError(f"expected a sample from 0 to {len(self) - 1}, got {at}")
            places = range(at % len(self), at % len(self) + 1)
        chosen = list(places)
        conditions = {kind: values[chosen] for kind, values in self.conditions.items()}
        seeds = tuple(self.seeds[place] for place in chosen)
        settings = self.settings_of(*chosen)
        lengths = None if self.lengths is None else self.lengths[chosen]
        return replace(
            self, data=self.data[chosen], seeds=seeds, conditions=conditions, settings=settings, lengths=lengths
        )

    def __iter__(self) -> Iterator[Samples]:
        return (self[place] for place in range(len(self)))

    def __repr__(self) -> str:
        first = f", from seed {self.seeds[0].seed}" if self.seeds else ""
        model = self.settings.get("model", "a model")
        made = self.output.in_words(self.data)
        if self.lengths is not None and (shorter := int((self.lengths < self.data.shape[1]).sum())):
            made += f", {shorter} of them shorter"
        return f"<Samples: {len(self)} {made}, of {model}{first}, in {self.timings.total:.3g} s>"

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows: a grid of the first images, or the points; None where there is no picture."""
        shown = self.output.shown(self)
        return None if shown is None else encode_image(shown, ".png", {})

    def _repr_html_(self) -> str | None:
        """What a notebook shows in place of the picture: players of the first sounds; None for other kinds."""
        return self.output.page(self)

    @property
    def value_range(self) -> tuple[float, float]:
        """(lowest, highest) of :attr:`array`, as the model says; points may lie outside."""
        found: tuple[float, float] = self.output.spec.value_range
        return found

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """int64 [n], where the number of classes itself stands for "no class"; None of a model without classes."""
        return self.conditions.get("label")

    @property
    def prompts(self) -> list[Any] | None:
        """The text that each was made from, as str, or as a list of tokens where no text stands for just these;
        None of a model that is made from no text. Their tokens: ``conditions["prompt"]``."""
        return None if "prompt" not in self.conditions else list(self.settings["prompts"])

    @cached_property
    def array(self) -> Array:
        """Images as float32 [n, C, H, W] in `value_range`, drawn as bytes on 256 levels. Points: [n, D]. Text: its
        tokens, int64 [n, length]."""
        return self.output.array(self.data)

    @property
    def points(self) -> NDArray[np.float32]:
        """float32 [n, D], in the units of the model's data; :class:`InputError` for what is no points."""
        return cast("NDArray[np.float32]", self.output.form(self, "points"))

    @cached_property
    def texts(self) -> list[str]:
        """The samples of a model of text, each as a str; :class:`InputError` for what is no text."""
        return cast("list[str]", self.output.form(self, "texts"))

    @property
    def audio(self) -> NDArray[np.float32]:
        """float32 [n, samples, channels], full scale is [-1, 1]; :class:`InputError` for what is no sound."""
        return cast("NDArray[np.float32]", self.output.form(self, "audio"))

    @property
    def sample_rate(self) -> int:
        """Of sounds, in Hz; :class:`InputError` for what is no sound."""
        return self.output.sample_rate

    @cached_property
    def images(self) -> NDArray[np.uint8]:
        """uint8 [n, H, W, C], the value range mapped to 0 .. 255; :class:`InputError` for what is no images."""
        return cast("NDArray[np.uint8]", self.output.form(self, "images"))

    @cached_property
    def music(self) -> tuple[Music, ...]:
        """A :class:`gensdk_runtime.media.music.notes.Music` for each piano roll: its notes, in steps and in
        seconds, its roll, MIDI and sound; :class:`InputError` for what is no music."""
        return cast("tuple[Music, ...]", self.output.form(self, "music"))

    def picture(self, *, columns: int | None = None, scale: int | None = None) -> NDArray[np.uint8]:
        """All samples as one picture, uint8 [H, W, C]: a grid of images, or points where they lie.

        `columns` and `scale` as in :meth:`save`, for images only.
        """
        return self.output.picture(self, Arrangement(columns=columns, scale=scale))

    def save(
        self, path: str | Path, *, layout: Layout = "auto", columns: int | None = None, scale: int | None = None
    ) -> Path:
        """Writes the samples and returns the path.

        ``x.png`` (or .jpg, .webp, .bmp, .tif): one image, or a grid of several, enlarged for the eye unless
        `scale` says otherwise. ``x.npz``: arrays ``array``, ``images``, ``seeds``, ``labels`` and ``settings``
        (JSON). A path without a suffix: a folder of single PNGs, which may hold none of an earlier run. PNGs
        carry the settings as metadata.

        Points: a picture of where they lie; an ``.npz`` without ``images``; or ``x.csv``, columns ``x0``, ``x1``,
        ..., and ``label``. Sounds: ``x.wav`` or ``x.flac`` of 16 bits, several of them joined with pauses; a
        folder of single WAVs; an ``.npz``; or a picture of waveforms and spectrograms. Texts: ``x.txt``, a line
        each, in which a line break is written ``\\n``; ``x.jsonl``, with text, tokens, seed and label; an ``.npz``
        with ``texts``; a picture of them; or a folder of text files. Music: ``x.mid`` and ``x.wav``, several
        pieces one after the other with a bar of silence between; a picture of the piano rolls; an ``.npz``; a
        folder of single MIDI files. `layout`, `columns` and `scale` are for images. Files are written beside the
        target and renamed. Raises :class:`InputError` for an unknown suffix or layout, for `columns` or `scale`
        below 1, for no samples and where the disk refuses.
        """
        arrangement = Arrangement(layout, columns, scale)
        target = check_path(path, "path")
        if not len(self):
            raise InputError("there are no samples to save; draw at least one")
        self.output.save(self, target, arrangement)
        return target

    def settings_of(self, *chosen: int) -> dict[str, Any]:
        """What draws these samples again, by their numbers, as plain JSON: seeds, and what was asked for, stand
        there for each."""
        told = {f"{kind}s": self.settings.get(f"{kind}s") for kind in self.conditions}
        rows = {name: None if values is None else [values[at] for at in chosen] for name, values in told.items()}
        seeds = [list(self.seeds[at]) for at in chosen]
        return {**self.settings, "n": len(chosen), "seeds": seeds, **rows}
