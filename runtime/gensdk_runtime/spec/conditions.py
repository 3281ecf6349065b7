"""What samples of gensdk's models can be asked to be: of a class, or made from an image or a text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from gensdk_runtime.spec.fields import BundlePath
from gensdk_runtime.spec.kinds import CONDITIONS, ConditionSpec
from gensdk_runtime.spec.outputs import MAX_TOKENS, ImageFormat, ImageSpec
from gensdk_runtime.spec.strict import StrictModel

if TYPE_CHECKING:
    from gensdk_runtime.spec.model import ModelSpec

MAX_MARGIN = 4096
"""Pixels around a place beyond which a model counts as seeing all of an image."""


@CONDITIONS.register
class LabelSpec(ConditionSpec):
    """One of `num_classes` classes, by its number from 0 or by its name.

    `null_class`: to a diffusion model the number after the last one means "no class", which guidance needs; where
    False it was trained without, and a class that is left open is drawn from the seed, as it is to other programs.
    """

    kind: Literal["label"] = "label"
    num_classes: Annotated[int, Field(ge=1, le=1_000_000)]
    class_names: tuple[str, ...] | None = None
    null_class: bool = True

    @model_serializer(mode="wrap")
    def _dump(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out what older versions don't know, where it is as they have it."""
        return {name: value for name, value in whole(self).items() if name != "null_class" or not value}

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise ValueError(f"{len(self.class_names)} class_names for num_classes {self.num_classes}")
        for name in self.class_names or ():
            if not name.isprintable():  # they reach terminals
                raise ValueError(f"class name {name[:60]!r} has characters that can't be printed")
        return self


def label_conditions(
    num_classes: int | None, class_names: tuple[str, ...] | None = None, *, null_class: bool = True
) -> tuple[LabelSpec, ...]:
    """The label condition of a model with classes; empty for a model without."""
    if num_classes is None:
        return ()
    return (LabelSpec(num_classes=num_classes, class_names=class_names, null_class=null_class),)


@CONDITIONS.register
class PromptSpec(ConditionSpec):
    """A text of at most `length` tokens, each one of `size`.

    Graphs take it as ``prompt`` int64 [B, `length`]: a text's own tokens between `begin` and `end`, where the
    model wants such (they count for `length`), and behind them `rest`. Without `end` that is a token that no text
    has. `empty`: a text may have no tokens of its own, which is what a sample is made from that was asked for
    nothing; `over_long`: one that is too long is refused, or loses what is too much, which is said. `vocabulary`:
    the file of the bundle that says what each token is; by default that of texts that are made.
    """

    kind: Literal["prompt"] = "prompt"
    length: Annotated[int, Field(ge=1, le=2**20)]
    size: Annotated[int, Field(ge=2, le=MAX_TOKENS)]
    rest: Annotated[int, Field(ge=0)]
    begin: Annotated[int, Field(ge=0)] | None = None
    end: Annotated[int, Field(ge=0)] | None = None
    empty: bool = False
    over_long: Literal["refuse", "cut"] = "refuse"
    vocabulary: BundlePath = "vocabulary.json"

    @model_serializer(mode="wrap")
    def _dump(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out fields that older versions don't know, where they have no meaning."""
        data: dict[str, Any] = whole(self)
        newer = {"begin": None, "end": None, "empty": False, "over_long": "refuse"}
        return {name: value for name, value in data.items() if name not in newer or value != newer[name]}

    @model_validator(mode="after")
    def _check_tokens(self) -> Self:
        around = {"rest": self.rest, "begin": self.begin, "end": self.end}
        for name, token in around.items():
            if token is not None and token >= self.size:
                raise ValueError(f"tokens go from 0 to {self.size - 1}; got {name} {token}")
        if self.own_length < 1:
            raise ValueError(f"a length of {self.length} leaves no token between begin and end")
        if self.begin is not None and self.begin in (self.rest, self.end):
            raise ValueError(f"begin is a token of its own; got {self.begin}, which is rest or end")
        if self.empty and self.begin is None:
            raise ValueError("a text may be empty where it has a begin: of nothing a graph would see rest alone")
        return self

    @property
    def own_length(self) -> int:
        """The most tokens of a text's own."""
        return self.length - (self.begin is not None) - (self.end is not None)

    @property
    def sample_elements(self) -> int:
        """The tokens of one text."""
        return self.length

    @property
    def files(self) -> tuple[str, ...]:
        """The vocabulary."""
        return (self.vocabulary,)

    def check_model(self, model: ModelSpec) -> None:
        """A graph takes it: a model that never looks at its text is not what its manifest says."""
        if not any(graph.input("prompt") for graph in model.graphs):
            raise ValueError(f"a model that is made from a {self.kind} has a graph with an input 'prompt'")


@CONDITIONS.register
class NegativePromptSpec(PromptSpec):
    """What guidance leads away from: a text as :class:`PromptSpec` has it, the empty one where nothing is
    asked."""

    kind: Literal["negative_prompt"] = "negative_prompt"  # type: ignore[assignment]

    @model_validator(mode="after")
    def _check_empty(self) -> Self:
        if not self.empty:
            raise ValueError("a negative_prompt may be empty: it is where nothing was asked for")
        return self

    def check_model(self, model: ModelSpec) -> None:
        """Of a diffusion model, whose prompts it goes beside, encoded as they are."""
        super().check_model(model)
        prompt = model.condition("prompt")
        if model.program.kind != "diffusion" or prompt is None:
            raise ValueError("a negative_prompt belongs to a diffusion model with a prompt")
        if prompt.model_dump(exclude={"kind"}) != self.model_dump(exclude={"kind"}):
            raise ValueError("prompt and negative_prompt are texts of one kind; their fields differ")


def prompt_conditions(prompt: PromptSpec | None) -> tuple[PromptSpec, ...]:
    """`prompt` and, for the same texts, what guidance leads away from; empty for a model without."""
    if prompt is None:
        return ()
    return prompt, NegativePromptSpec(**prompt.model_dump(exclude={"kind"}))


class ReceptiveField(StrictModel):
    """What a place of a translation model's result depends on; see :mod:`gensdk_runtime.receptive_field.field`.

    `whole`: on all of the source, for the `reason`; its images are never cut into tiles unless the caller says so.
    Otherwise on `margin` pixels around it, where tiles begin at multiples of `grid`. A run of one image keeps in
    memory ``bytes_per_pixel * p + bytes_per_square * p^2`` for p pixels of the source; both 0: not known.
    """

    whole: bool
    reason: Annotated[str, Field(max_length=200, pattern=r"^[ -~]*$")] = ""
    margin: Annotated[int, Field(ge=0, le=MAX_MARGIN)] = 0
    grid: Annotated[int, Field(ge=1, le=MAX_MARGIN)] = 1
    bytes_per_pixel: Annotated[float, Field(ge=0, le=2.0**40)] = 0.0
    bytes_per_square: Annotated[float, Field(ge=0, le=2.0**40)] = 0.0

    def in_words(self) -> str:
        """In a line: do tiles give the same as the whole image, and if not, why."""
        if self.whole:
            return f"not unless asked for: it looks at all of an image ({self.reason})"
        return f"they give what the whole image gives; a place depends on {self.margin} pixels around it"

    def memory(self, pixels: int) -> int:
        """Bytes that a run of one image of so many pixels keeps at once, about; 0 where it is not known."""
        return int(self.bytes_per_pixel * pixels + self.bytes_per_square * pixels**2)


@CONDITIONS.register
class SourceSpec(ImageFormat, ConditionSpec):
    """The images that a translation model takes; `height` and `width` are those that it was trained at.

    Where its graph has named axes, it takes others too: multiples of `multiple` from `smallest` on as they are,
    and the runtime pads the rest and cuts the result. The result is `scale` times as high and wide. `margin`:
    pixels around a place that its result depends on, as far as they matter; tiles of a large image overlap by at
    least twice as much. `receptive_field`: what the graph says of it, which goes before `margin`; None in bundles
    of older versions, whose graph is looked at when they are loaded.
    """

    kind: Literal["image"] = "image"
    multiple: Annotated[int, Field(ge=1, le=1024)] = 1
    smallest: Annotated[int, Field(ge=1, le=1024)] = 1
    scale: Annotated[int, Field(ge=1, le=16)] = 1
    margin: Annotated[int, Field(ge=0, le=1024)] = 32
    receptive_field: ReceptiveField | None = None

    @model_validator(mode="after")
    def _check_multiple(self) -> Self:
        if self.height % self.multiple or self.width % self.multiple:
            raise ValueError(f"{self.height} x {self.width} is no multiple of {self.multiple}")
        if min(self.height, self.width) < self.smallest:
            raise ValueError(f"{self.height} x {self.width} is smaller than {self.smallest}")
        return self

    def padded(self, size: int) -> int:
        """The height or width that an image of `size` pixels is padded to, where the axis is named."""
        return -(-max(size, self.smallest) // self.multiple) * self.multiple

    @property
    def sample_elements(self) -> int:
        """Those of one image."""
        return math.prod(self.shape)

    def check_model(self, model: ModelSpec) -> None:
        """Images become images, `scale` times as large, by one graph or by gradient steps."""
        program, output = model.program, model.output
        if program.kind not in ("feedforward", "ascent"):
            raise ValueError(f"a model with a source is feedforward or ascent, not {program.kind}")
        if not isinstance(output, ImageSpec):
            raise ValueError(f"a model with a source makes images, not {output.kind}")
        if program.kind == "feedforward" and len(program.graphs) > 1:
            raise ValueError("a model with a source has no encoder and no classifier")
        expected = (self.scale * self.height, self.scale * self.width)
        if (output.height, output.width) != expected:
            raise ValueError(f"expected images of {expected} from the source at its scale, got {output.shape}")
