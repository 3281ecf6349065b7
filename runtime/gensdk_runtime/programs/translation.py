"""One run of one graph that turns an image into another: translation between styles, super-resolution."""

from __future__ import annotations

from gensdk_runtime.backends.bound import Array, Bound
from gensdk_runtime.conditions.audio import talks
from gensdk_runtime.conditions.image import source_axes, source_size
from gensdk_runtime.errors import ManifestError
from gensdk_runtime.programs.base import Wanted, conditions_wanted, require_signature, write_conditions
from gensdk_runtime.programs.feedforward import FeedforwardProgram
from gensdk_runtime.programs.run import OneRun, Run
from gensdk_runtime.spec.conditions import SourceSpec
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.settings import FeedforwardSettings
from gensdk_runtime.spec.signature import HEIGHT, RESULT_HEIGHT, RESULT_WIDTH, WIDTH


class TranslationProgram(FeedforwardProgram):
    """A source image, and a label where the model has classes, go in; the result comes out.

    Sources of a size that the graph does not take are padded below and to the right with their own mirror image,
    and the result is cut.
    """

    @classmethod
    def abilities(cls, model: ModelSpec) -> frozenset[str]:
        """It translates, where it is made from an image alone, and a class."""
        return frozenset() if talks(model) else frozenset(("translate",))

    def check(self) -> None:
        """The input ``source``, the output ``image``, and no inputs but a label beside."""
        graph, source = self._session.graph, self.source
        spec = graph.require_input("source")
        height, width = source_axes(spec)
        sizes = (height, width, source.channels) if spec.dtype == "uint8" else (source.channels, height, width)
        inputs = conditions_wanted(self.conditions, graph, "batch")
        inputs["source"] = Wanted(("batch", *sizes), spec.dtype)
        if spec.dtype not in ("float32", "uint8"):
            raise ManifestError(f"graph {graph.name!r}: a source is float32 or uint8, not {spec.dtype}")
        for axis, name, size in ((height, HEIGHT, source.height), (width, WIDTH, source.width)):
            if axis not in (name, size):
                raise ManifestError(f"graph {graph.name!r}: expected axis {name!r} or {size}, got {axis!r}")
        out = (result_axis(height, source.scale), result_axis(width, source.scale))
        channels = self.model.output.shape[0]
        outputs = {"image": Wanted(("batch", channels, *out))}
        if self.makes_uint8:
            outputs["pixels"] = Wanted(("batch", *out, channels), "uint8")
            outputs["image_sum"] = Wanted(("batch",))
        require_signature(graph, inputs, outputs)

    @property
    def source(self) -> SourceSpec:
        """What goes in; :class:`ManifestError` for a model that takes no images."""
        if self.model.source is None:
            raise ManifestError(f"expected a model that takes images, got {self.model.name!r}")
        return self.model.source

    def begin(self, run: Run, settings: FeedforwardSettings) -> OneRun:
        """Bytes stay bytes where the graph takes and makes them."""
        spec = self._session.graph.require_input("source")
        height, width = source_size(run.conditions["image"])
        rows, columns = height * self.source.scale, width * self.source.scale
        padded = tuple(
            axis if isinstance(axis, int) else self.source.padded(size)
            for axis, size in zip(source_axes(spec), (height, width), strict=True)
        )

        def read(bound: Bound, in_bytes: bool) -> Array:
            found = self._read(len(run.data), bound, in_bytes)
            return found[:, :rows, :columns] if in_bytes else found[:, :, :rows, :columns]

        state = OneRun(run, self._session, self._sizes(len(run), *padded), read)
        write_conditions(self.conditions, state.bound, run)
        return state

    def _sizes(self, batch: int, height: int, width: int) -> dict[str, int]:
        scale = self.source.scale
        named = {HEIGHT: height, WIDTH: width, RESULT_HEIGHT: scale * height, RESULT_WIDTH: scale * width}
        used = {axis for spec in self._session.graph.inputs + self._session.graph.outputs for axis in spec.shape}
        return {"batch": batch, **{name: size for name, size in named.items() if name in used}}


def result_axis(axis: int | str, scale: int) -> int | str:
    """The axis of the result that belongs to an axis of the source."""
    if isinstance(axis, int):
        return axis * scale
    return axis if scale == 1 else {HEIGHT: RESULT_HEIGHT, WIDTH: RESULT_WIDTH}.get(axis, axis)
