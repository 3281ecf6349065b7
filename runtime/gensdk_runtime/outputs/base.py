"""What samples of one kind are: what they are drawn into, their files, their picture, and what is said of them.

One class a kind, in a file of its own; nothing else branches on the kind of an output. :func:`output_of` finds the
class that belongs to a spec.
"""

from __future__ import annotations

import io
import json
import os
from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, Self, TypeVar, cast, get_args

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime.arguments import check_path, check_whole, check_word
from gensdk_runtime.bundles.model_files import ModelFiles
from gensdk_runtime.errors import InputError
from gensdk_runtime.media.images import write_atomically
from gensdk_runtime.noise import Float32, SampleKey
from gensdk_runtime.spec.kinds import OUTPUTS, OutputSpec

SpecT = TypeVar("SpecT", bound=OutputSpec)
OutputT = TypeVar("OutputT", bound="type[Output[Any]]")

Array = NDArray[Any]
Uint8 = NDArray[np.uint8]
OutputType = Literal["float32", "uint8"]
OUTPUT_TYPES: tuple[str, ...] = get_args(OutputType)
Layout = Literal["auto", "image", "grid", "folder"]
LAYOUTS: tuple[str, ...] = get_args(Layout)
MAX_COLUMNS, MAX_SCALE = 10_000, 64


@dataclass(frozen=True)
class Arrangement:
    """How images lie in files; checked. See :meth:`gensdk_runtime.samples.Samples.save`."""

    layout: Layout = "auto"
    columns: int | None = None
    scale: int | None = None

    def __post_init__(self) -> None:
        check_word(self.layout, "layout", LAYOUTS)
        for name, count, most in (("columns", self.columns, MAX_COLUMNS), ("scale", self.scale, MAX_SCALE)):
            if count is not None:
                check_whole(count, name, least=1, most=most)


AS_IT_IS = Arrangement()


class Drawn(Protocol):
    """What a kind needs of :class:`gensdk_runtime.samples.Samples` to write and to show them."""

    @property
    def data(self) -> Array:
        """What was drawn, [n, ...]."""

    @property
    def seeds(self) -> tuple[SampleKey, ...]:
        """A key for each."""

    @property
    def conditions(self) -> Mapping[str, Array]:
        """What each was asked to be, as far as it is kept."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What draws them again."""

    @property
    def lengths(self) -> NDArray[np.int64] | None:
        """Where each ends, int64 [n]; None: all are as long as the data are."""

    def settings_of(self, *chosen: int) -> dict[str, Any]:
        """What draws some of them again."""

    def __len__(self) -> int: ...


class Output(ABC, Generic[SpecT]):
    """Samples of one kind, as one model makes them. A kind of its own overrides what is different of it.

    `Spec`: what manifests say of the kind; `plural`: what several samples are called; `attribute`: of
    :class:`gensdk_runtime.samples.Samples`, what gives them, where it is called otherwise; `suffixes`: of the
    files that hold them, the best one first.
    """

    Spec: ClassVar[type[OutputSpec]]
    plural: ClassVar[str]
    attribute: ClassVar[str] = ""
    suffixes: ClassVar[tuple[str, ...]] = (".npz",)
    default_file: ClassVar[str | None] = "samples.png"
    """Where a command line writes samples to that was told nothing; None: it prints their :meth:`lines`."""

    def __init__(self, spec: SpecT) -> None:
        self.spec = spec

    def with_files(self, files: ModelFiles) -> Self:
        """This, with what it needs of the :attr:`OutputSpec.files`. BundleError where they don't fit."""
        return self

    def lines(self, samples: Drawn) -> list[str]:
        """The samples for a terminal, a line each; :class:`InputError` where the kind has no such form."""
        raise InputError(f"{self.plural} can't be printed; save them as {' or '.join(self.suffixes)}")

    def empty(self, n: int, output_type: str, shape: tuple[int, ...], *, makes_bytes: bool) -> Array:
        """What `n` samples of `shape` are drawn into; `makes_bytes`: bytes are wanted, and the
        program makes them.

        Raises :class:`InputError` for an `output_type`, one of :data:`OUTPUT_TYPES`, that this kind does not have.
        """
        if output_type == "uint8":
            raise InputError(f"this model makes {self.plural}, which have no bytes; leave output_type out")
        return np.empty((n, *shape), self.spec.dtype)

    def of_type(self, data: Array, output_type: str) -> Array:
        """What was drawn, as the caller asked for it."""
        return data

    def array(self, data: Array) -> Array:
        """What was drawn in the model's own unit."""
        return data

    def form(self, samples: Drawn, name: str) -> Any:
        """The samples as those of the kind are taken whose attribute is `name`, such as "images";
        :class:`InputError` where they are of another kind."""
        own = self.attribute or self.plural
        if name != own:
            raise InputError(f"these samples are {self.plural}, not {name}; take {own}, or array")
        return self.own_form(samples)

    def own_form(self, samples: Drawn) -> Any:
        """The samples as an application takes them: an array, or what the kind has of its own."""
        return self.array(samples.data)

    @property
    def sample_rate(self) -> int:
        """Samples in a second, Hz; :class:`InputError` where the kind is no sound."""
        raise InputError(f"these samples are {self.plural}, which have no sample rate; sounds have one")

    def given(self, values: Any, *, levels: int | None = None) -> Array:
        """Samples that a caller hands back, to be encoded or judged: [n, ...] as graphs take them, checked, and
        images rounded to `levels` values of the range unless that is None. :class:`InputError` where the kind
        knows none of that."""
        raise InputError(f"this is for models of images, and this one makes {self.of_shape}; use sample()")

    def check_like(self, other: Output[Any]) -> None:
        """Raises :class:`InputError` unless samples of the `other` output can be handed to this one's model."""
        if type(other) is not type(self) or other.spec != self.spec:
            raise InputError(f"expected {self.of_shape}, got samples of another model of {other.of_shape}")

    def prefix_of(self, path: str | Path, length: int | None = None) -> Array | list[str]:
        """The beginnings of samples in a file, for ``sample(prefix=...)``; `length`: how much of each, None: as
        the kind has it. :class:`InputError` where the kind knows none of that, or the file does not fit."""
        raise InputError(f"this model makes {self.of_shape}, which have no beginning; leave prefix out")

    def beginning(self, values: Any) -> tuple[Array, NDArray[np.int64]]:
        """The first parts of samples of a kind that is drawn element after element, checked: [m, longest, ...],
        and how much of each counts, int64 [m], less than a whole sample. :class:`InputError` where the kind knows
        none of that."""
        raise InputError(f"this model makes {self.of_shape}, which have no beginning; leave prefix out")

    def mask(self, mask: Any, n: int) -> Float32:
        """Which parts of `n` samples are known: weights [n, ...] from 0 to 1. :class:`InputError` where the kind
        knows none of that."""
        raise InputError(f"a mask is for images, and this model makes {self.of_shape}; leave it out")

    def starts(self, image: Any, mask: Any | None) -> dict[str, Array]:
        """What samples start from, checked: the "image", [m, ...] as samples are, and of a `mask` the
        "mask_image", bool [m, ...], True where it is painted anew. :class:`InputError` where the kind knows none
        of that."""
        raise InputError(f"this model makes {self.of_shape}, which start from no image; leave image out")

    def start_of(self, path: str | Path, *, mask: bool = False) -> Array:
        """What samples start from in a file, for ``sample(image=...)``, or where `mask` says so masks;
        :class:`InputError` where the kind knows none of that, or the file does not fit."""
        raise InputError(f"this model makes {self.of_shape}, which start from no image; leave image out")

    def in_words(self, data: Array) -> str:
        """What the samples of `data` are, in a few words."""
        return f"{self.plural} of {' x '.join(map(str, data.shape[1:]))}"

    @property
    def of_shape(self) -> str:
        """What the model makes, in a few words."""
        return f"{self.plural} {' x '.join(map(str, self.spec.shape))}"

    @property
    def facts(self) -> str:
        """What a model card says of the model's samples."""
        return f"{' x '.join(map(str, self.spec.shape))}, values in {list(self.spec.value_range)}"

    def picture(self, samples: Drawn, arrangement: Arrangement = AS_IT_IS) -> Uint8:
        """All samples as one picture, uint8 [H, W, C]; :class:`InputError` where the kind has none."""
        raise InputError(f"{self.plural} have no picture; save them as {' or '.join(self.suffixes)}")

    def shown(self, samples: Drawn) -> Uint8 | None:
        """What a notebook shows; None where there is no picture."""
        return None

    def page(self, samples: Drawn) -> str | None:
        """What a notebook shows in place of a picture, as HTML; None where that is nothing else."""
        return None

    def check_target(
        self, path: str | Path, arrangement: Arrangement = AS_IT_IS, *, others: Sequence[str] = ()
    ) -> None:
        """Raises :class:`InputError` where samples could not be written; ask before drawing for long.

        `others`: suffixes that the caller writes itself, which the message names too.
        """
        target = check_path(path, "a path")
        self._refuse(arrangement)
        if target.suffix.lower() not in self.suffixes or target.is_dir():
            known = ", ".join((*self.suffixes, *others))
            raise InputError(f"can't write {self.plural} to {target}; use a file with one of {known}")
        check_folder(target)

    def check_printed(self, arrangement: Arrangement) -> None:
        """Raises :class:`InputError` where :meth:`lines` can't lie as `arrangement` says."""
        self._refuse(arrangement)

    def _refuse(self, arrangement: Arrangement) -> None:
        if arrangement != AS_IT_IS:
            raise InputError(
                f"layout, columns and scale are for images, and these are {self.plural}; leave them out"
            )

    def save(self, samples: Drawn, target: Path, arrangement: Arrangement = AS_IT_IS) -> None:
        """Writes samples, of which there is at least one; see :meth:`gensdk_runtime.samples.Samples.save`."""
        self.check_target(target, arrangement)
        write_atomically(target, self.encoded(samples, target.suffix.lower()))

    def encoded(self, samples: Drawn, suffix: str) -> bytes:
        """The bytes of a file of one of the :attr:`suffixes`."""
        return self.npz(samples)

    def arrays(self, samples: Drawn) -> dict[str, Array]:
        """The samples as arrays of an ``.npz`` file."""
        return {"array": self.array(samples.data)}

    def npz(self, samples: Drawn) -> bytes:
        """An ``.npz`` file: the samples, their seeds, what they were asked to be, and the settings."""
        arrays: dict[str, Any] = {
            **self.arrays(samples),
            "seeds": np.array(samples.seeds, np.uint64).reshape(-1, 2),
            "settings": np.array(json.dumps(dict(samples.settings))),
            **({} if samples.lengths is None else {"lengths": samples.lengths}),
            **{f"{name}s": values for name, values in samples.conditions.items()},
        }
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()


def register_output(output: OutputT) -> OutputT:
    """Class decorator: makes a kind of output known, and its spec; ValueError where the kind is taken."""
    OUTPUTS.register(output.Spec)
    OUTPUTS.register_class(output.Spec, output)
    return output


def output_of(spec: OutputSpec) -> Output[Any]:
    """What works with samples of this spec."""
    return cast("Output[Any]", OUTPUTS.class_of(spec)(spec))


def check_output_type(output_type: object) -> None:
    """Raises :class:`InputError` for what is no :data:`OutputType`."""
    if type(output_type) is not str or output_type not in OUTPUT_TYPES:
        check_word(output_type, "output_type", OUTPUT_TYPES)


def check_folder(target: Path) -> None:
    """Raises :class:`InputError` unless the nearest folder of `target` that exists can be written to."""
    standing = next(folder for folder in (target, *target.absolute().parents) if folder.exists())
    if standing != target and not standing.is_dir():
        raise InputError(f"can't write {target}: {standing} is a file, not a folder")
    if not os.access(standing, os.W_OK):
        raise InputError(f"can't write {target}: no permission to write to {standing}")
