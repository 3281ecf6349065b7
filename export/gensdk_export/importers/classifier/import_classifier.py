"""A third-party classifier of images as a bundle that dreams: a gradient graph for each layer.

The ONNX graph is run by PyTorch (:mod:`gensdk_export.importers.classifier.network`), proved equal to ONNX Runtime,
and differentiated. Its preprocessing (range, mean and deviation, order of colours, layout) goes into the graphs: a
bundle takes RGB images in [-1, 1]. Layers whose features are maps, or means of maps, take images of any size,
whatever the file says.

It does not: read classifiers of anything but one float32 image, keep layers that take one size alone (those behind
a Flatten of a map), or train.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from gensdk_export.golden_record import keep_within, record_golden
from gensdk_export.gradient_rounding import gradient_bounds
from gensdk_export.graphs import export_fp32, prepare_modules
from gensdk_export.importers.classifier.dream_plan import DreamOptions, classifier_plan
from gensdk_export.importers.classifier.feature_proof import prove_gradients
from gensdk_export.importers.import_report import Guess, ImportReport
from gensdk_export.importers.onnx.meaning import OnnxOptions
from gensdk_export.packing import write_proved
from gensdk_export.proof import FLIPPED_FP32, prove
from gensdk_runtime.proof.golden import Golden, GoldenBounds
from gensdk_runtime.spec.fields import Precision

SAMPLES = 2
GOLDEN_BYTES = 256 * 1024


def import_classifier(
    path: Path | str,
    out: Path | str,
    options: OnnxOptions | None = None,
    dream: DreamOptions | None = None,
    *,
    atol: float = 1e-4,
    as_zip: bool = False,
    on_stage: Callable[[str], None] | None = None,
) -> ImportReport:
    """Writes the bundle `out`, which dreams, from the classifier in the ONNX file `path`.

    `atol`: the largest scaled difference of features from ONNX Runtime's, and of gradients from autograd's; where
    float32 itself is less exact, gradients get more, by measurement. `on_stage` is called with a few words as each
    stage begins.

    Raises :class:`InputError` for a file or options that make no sense, :class:`ExportError` for a model that is
    no classifier, has an operator that is not known, or does not come out equal, and :class:`BundleError` where
    `out` can't be written. Then nothing is written, and a bundle that stood at `out` stays.
    """
    started, say = time.monotonic(), on_stage or (lambda _: None)
    plan, provenance, told = classifier_plan(path, options, dream, atol=atol, on_stage=on_stage)
    guesses = list(told)
    say("sampling golden trajectories in PyTorch")
    runs = record_golden(plan, samples=SAMPLES, steps=None)
    allowed = gradient_bounds(plan, runs, atol)
    if allowed:
        reason = "where a feature is nearly zero, float32 itself may move them so far"
        guesses.append(Guess("allowed drift of gradients", f"{max(allowed.values()):.2g}", reason))
    bounds: dict[Precision, GoldenBounds] = {"fp32": GoldenBounds(graph=atol, flipped=FLIPPED_FP32, jumps=allowed)}
    full = Golden(runs, bounds)
    say("exporting and replaying the gradient graphs")
    files = export_fp32(plan, prepare_modules(plan), full)
    prove_gradients(plan, files, atol=atol)
    rows = prove(plan, full, files, "fp32")
    say("writing the bundle")
    report = write_proved(
        plan.model,
        provenance,
        Path(out),
        golden=keep_within(runs, GOLDEN_BYTES, bounds),
        sets={"fp32": files},
        rows=tuple(rows),
        as_zip=as_zip,
        started=started,
    )
    return ImportReport(report, tuple(guesses))
