"""A plain ONNX file as a bundle: its graph inside one of ours, proved equal to the file as it came.

Models that turn an image into an image become translation bundles, models that make one of noise feedforward
bundles. What the file does not say (which input is what, layout, ranges, scale, sizes) is given by options, or
guessed and told.

It does not: make half precision (that is made from PyTorch modules), take graphs with operators of one runtime
alone, images of different sizes at once, or states. Several images of one size go in as one, channel by channel.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gensdk_export.card import IMPORTED
from gensdk_export.golden_record import keep_within
from gensdk_export.importers.import_report import Guess, ImportReport, bundle_name
from gensdk_export.importers.onnx.meaning import Meaning, OnnxOptions, understand
from gensdk_export.importers.onnx.original import OriginalFile, noise_name
from gensdk_export.importers.onnx.reading import OnnxFile, read_onnx
from gensdk_export.importers.onnx.trial_runs import Tried, rightly_converted, try_out
from gensdk_export.importers.onnx.wrapping import wrap_onnx
from gensdk_export.importers.onnx.wrapping_proof import prove_wrapped
from gensdk_export.packing import write_proved
from gensdk_export.proof import GraphSet
from gensdk_runtime.errors import ExportError
from gensdk_runtime.programs.translation import result_axis
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.provenance import Provenance
from gensdk_runtime.spec.signature import HEIGHT, WIDTH

if TYPE_CHECKING:
    from gensdk_export.importers.onnx.style_vector import Style

GRAPH = "imported"
MAX_BATCH = 64
GOLDEN_BYTES = 256 * 1024


def import_onnx(
    path: Path | str,
    out: Path | str,
    options: OnnxOptions | None = None,
    *,
    style: Style | None = None,
    atol: float = 1e-4,
    as_zip: bool = False,
    on_stage: Callable[[str], None] | None = None,
) -> ImportReport:
    """Writes the bundle `out` from the ONNX file `path`.

    `style`: pictures whose style becomes a constant, or classes where there are several. `atol`: the largest
    difference from the original for images in [-1, 1]; on other machines a quantized model gets more, by
    measurement (:mod:`gensdk_export.importers.onnx.wrapping_proof`). `on_stage` is called with a few words as each
    stage begins.

    Raises :class:`InputError` for a file or options that make no sense, :class:`ExportError` for a model that no
    bundle can hold, or that does not come out equal, and :class:`BundleError` where `out` can't be written. Then
    nothing is written, and a bundle that stood at `out` stays.
    """
    started, options = time.monotonic(), options or OnnxOptions()
    say = on_stage or (lambda _: None)
    say("reading the file")
    file = read_onnx(Path(path))
    styled: tuple[Guess, ...] = ()
    if style is not None:
        from gensdk_export.importers.onnx.style_vector import with_style

        options, styled = with_style(file, options, style)
    meaning = understand(file, options)
    original = OriginalFile(file, meaning)
    say("trying it out in ONNX Runtime")
    tried = try_out(original, options)
    meaning, file = original.meaning, rightly_converted(original, tried)
    model = _model(file, meaning, tried, options)
    say("wrapping the graph, and replaying what the original does")
    data = wrap_onnx(file, meaning, model.graphs[0], batch=tried.batch)
    proof = prove_wrapped(model, original, data, atol=atol)
    say("writing the bundle")
    report = write_proved(
        model,
        Provenance(config={"imported_from": file.path.name, "opset": file.opset}),
        Path(out),
        golden=keep_within(proof.runs, GOLDEN_BYTES, {"fp32": proof.bounds}),
        sets={"fp32": GraphSet({GRAPH: data})},
        rows=proof.rows,
        as_zip=as_zip,
        started=started,
    )
    return ImportReport(report, (*file.guesses, *styled, *meaning.guesses, *tried.guesses, *proof.guesses))


def _model(file: OnnxFile, meaning: Meaning, tried: Tried, options: OnnxOptions) -> ModelSpec:
    """The description; :class:`ExportError` where it does not fit what a manifest may say."""
    height, width = tried.size
    axes = tuple(
        name if free else size for name, free, size in zip((HEIGHT, WIDTH), tried.free, tried.size, strict=True)
    )
    out = tuple(result_axis(axis, tried.scale) for axis in axes)
    result_range = list(meaning.result.value_range)
    image = {
        "channels": tried.channels,
        "height": height * tried.scale,
        "width": width * tried.scale,
        "value_range": result_range,
    }
    outputs = [_tensor("image", ["batch", tried.channels, *out], "image", value_range=result_range)]
    if options.uint8:
        outputs.append(
            _tensor("pixels", ["batch", *out, tried.channels], "image", dtype="uint8", value_range=[0.0, 255.0])
        )
        outputs.append(_tensor("image_sum", ["batch"], "coefficient"))
    data: dict[str, Any] = {
        "name": bundle_name(file.path.stem),
        "family": IMPORTED,
        "program": {"kind": "feedforward", "graph": GRAPH},
        "graphs": [{"name": GRAPH, "inputs": _inputs(meaning, axes, options), "outputs": outputs}],
        "output": {"kind": "image", **image},
        "conditions": _conditions(meaning, tried, options, height, width),
        "max_batch": MAX_BATCH if tried.batch else 1,
    }
    return ModelSpec.from_dict(data, what=str(file.path), error=ExportError)


def _conditions(
    meaning: Meaning, tried: Tried, options: OnnxOptions, height: int, width: int
) -> list[dict[str, Any]]:
    """What the file takes beside noise: a class, and an image."""
    conditions: list[dict[str, Any]] = []
    if meaning.label is not None:
        names = options.class_names
        conditions.append({"kind": "label", "num_classes": meaning.label.classes, "class_names": names})
    if meaning.source is not None:
        conditions.append(
            {
                "kind": "image",
                "channels": meaning.channels,
                "height": height,
                "width": width,
                "value_range": list(meaning.source.value_range),
                "multiple": tried.multiple,
                "smallest": tried.smallest,
                "scale": tried.scale,
                "margin": options.margin,
            }
        )
    return conditions


def _inputs(meaning: Meaning, axes: tuple[int | str, ...], options: OnnxOptions) -> list[Mapping[str, Any]]:
    inputs = []
    source = meaning.source
    if source is not None and options.uint8:
        taken = ["batch", *axes, meaning.channels]
        inputs.append(_tensor("source", taken, "image", dtype="uint8", value_range=[0.0, 255.0]))
    elif source is not None:
        low_high = list(source.value_range)
        inputs.append(_tensor("source", ["batch", meaning.channels, *axes], "image", value_range=low_high))
    for noise in meaning.noises:
        shape = ["batch", *(noise.port.shape or ())[1:]]
        if not all(isinstance(axis, int) for axis in shape[1:]):
            raise ExportError(f"noise {noise.port.text()} has axes of any size; give it --constant, or fix them")
        name = noise_name(noise.port.name)
        inputs.append(_tensor(name, shape, "noise", distribution=noise.distribution))
    if meaning.label is not None:
        inputs.append(_tensor("label", ["batch"], "condition", dtype="int64"))
    return inputs


def _tensor(name: str, shape: list[Any], role: str, *, dtype: str = "float32", **more: Any) -> Mapping[str, Any]:
    return {"name": name, "dtype": dtype, "shape": shape, "role": role, **more}
