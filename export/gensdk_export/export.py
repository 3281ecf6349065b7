"""From a trained run to a bundle, with proof; nothing is written unless everything held."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gensdk_export.card import CardNotes
from gensdk_export.engines import AxisRange, EngineRuntime, build_engines, load_package
from gensdk_export.export_report import ExportReport
from gensdk_export.golden_record import keep_within, record_examples, record_golden
from gensdk_export.gradient_rounding import JUMPS, gradient_bounds
from gensdk_export.graphs import export_fp16, export_fp32, prepare_modules
from gensdk_export.half.stored import store_half
from gensdk_export.one_call.one_call_proof import prove_one_call
from gensdk_export.one_call.sampler import OneCall, takes_many_calls
from gensdk_export.packing import write_proved
from gensdk_export.proof import FLIPPED_FP32, OTHER_MACHINES, GraphSet, prove
from gensdk_export.receptive_proof import with_proved_field
from gensdk_export.rewrites.uint8 import translates_at_once, with_uint8
from gensdk_runtime.backends.fake import FakeSession
from gensdk_runtime.backends.tensorrt.build import GraphFile
from gensdk_runtime.errors import ExportError, InputError
from gensdk_runtime.host.scratch import scratch_folder
from gensdk_runtime.programs import make_program
from gensdk_runtime.programs.proving import samples_bound
from gensdk_runtime.proof.golden import Golden, GoldenBounds
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.provenance import Provenance
from gensdk_runtime.spec.signature import GraphSpec
from gensdk_training.plan import ExportPlan
from gensdk_training.run import load_run

PROVED_EXAMPLES = 4
"""Real images that a translation model is proved on."""
ONE_CALL_ALREADY = "the model takes one call as it is; its own graph is the one-call graph"

FLIPPED_FP16 = 0.02
"""Share of discrete pixels that may flip in half against PyTorch in float32, each fed with the true past."""

MOST_NOTICE = 10_000
"""Characters that a model card says of the data."""
JUMPED = (
    "graph {graph!r}: gradients jump where rounding decides on which side of an edge a feature lies; so they may "
    "differ by {allowed:.1e} from PyTorch's, {times:g} times what float32 differs from float64"
)


@dataclass(frozen=True)
class ExportOptions:
    """What to export and how strictly to judge it.

    `fp16` adds half-precision graphs; `half_weights` stores the weights of the others in half precision too, in
    half the bytes, and proves them within `fp16_atol`. `uint8` lets a feedforward graph make bytes too, and take
    them where it translates images (None: where it does); `share_features` > 0 adds a graph for steps that share
    deep features, which computes so many blocks anew; `one_call` adds the graph that runs the whole sampler, with
    `one_call_settings` where they differ from the model's defaults. `engines` lists the precisions to build
    engines for, of the one-call graph too. `batch` is (min, opt, max) for engines, max also the bundle's largest
    batch; None: 1 to the model's own. `axes` gives engines the sizes of other named axes. `atol`: largest
    difference from PyTorch in float32, and `fp16_atol` in half, for images in [-1, 1]
    (:mod:`gensdk_runtime.proof.drift` for other outputs). The golden file records `golden_samples` samples over
    `golden_steps` steps (None: the default, at most 20) in about `golden_bytes`. A translation model is proved on
    real images of its data too; `keep_examples` puts them into the bundle; leave it off for private images.
    `defaults`: options of ``sample()`` as the bundle has them from then on. `notice`: what the model card says of
    the data, such as its licence.
    """

    fp16: bool = False
    half_weights: bool = False
    uint8: bool | None = None
    share_features: int = 0
    one_call: bool = False
    one_call_settings: Mapping[str, Any] = field(default_factory=dict)
    engines: tuple[Precision, ...] = ()
    engine_runtime: EngineRuntime = "tensorrt-rtx"
    batch: AxisRange | None = None
    axes: Mapping[str, AxisRange] = field(default_factory=dict)
    atol: float = 1e-4
    fp16_atol: float = 0.02
    as_zip: bool = False
    golden_samples: int = 2
    golden_steps: int | None = None
    golden_bytes: int = 256 * 1024
    keep_examples: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)
    notice: str = ""


def export_run(
    run: Path | str,
    out: Path | str,
    options: ExportOptions | None = None,
    *,
    ema: bool = True,
    step: int | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> ExportReport:
    """Exports the newest checkpoint of `run` (or that of `step`) into the bundle `out`.

    `ema` False exports the raw weights. For the rest see :func:`export_plan`.
    """
    trained = load_run(run, ema=ema, step=step)
    share = options.share_features if options else 0
    family, networks = trained.family, trained.networks
    plan = family.sharing_plan(networks, share) if share else family.export_plan(networks)
    if trained.examples is not None:
        plan = replace(plan, examples=trained.examples.arguments)
    return export_plan(plan, trained.provenance, out, options, on_stage=on_stage)


def export_plan(
    plan: ExportPlan,
    provenance: Provenance,
    out: Path | str,
    options: ExportOptions | None = None,
    *,
    on_stage: Callable[[str], None] | None = None,
) -> ExportReport:
    """Exports `plan` into the bundle `out`, after every graph was proved equal to PyTorch.

    `on_stage` is called with a few words as each stage begins. Raises :class:`ExportError` on NaN, constant
    output, or drift beyond the bounds, :class:`UnavailableError` where a package is missing, :class:`BundleError`
    where `out` can't be written. Then nothing is written, and a bundle that stood at `out` stays.
    """
    started, options = time.monotonic(), options or ExportOptions()
    say = on_stage or (lambda _: None)
    if options.engines:
        load_package(options.engine_runtime)  # before the long part
    in_bytes = translates_at_once(plan.model) if options.uint8 is None else options.uint8
    plan = _with_batch(with_uint8(plan) if in_bytes else plan, options.batch)
    plan = _with_defaults(plan, options.defaults)
    if len(options.notice) > MOST_NOTICE:
        raise InputError(f"expected a notice of up to {MOST_NOTICE} characters, got {len(options.notice)}")
    one_call = _one_call(plan.model, options)
    with scratch_folder() as folder:
        return _exported(plan, provenance, Path(out), options, one_call, _Work(folder, say, started))


@dataclass(frozen=True)
class _Work:
    """The `folder` for what is too large for memory, who hears of stages, and when it began."""

    folder: Path
    say: Callable[[str], None]
    started: float


def _exported(  # noqa: PLR0917 - all that one export is about
    plan: ExportPlan,
    provenance: Provenance,
    out: Path,
    options: ExportOptions,
    one_call: OneCall | None,
    work: _Work,
) -> ExportReport:
    """The long part of :func:`export_plan`."""
    say, started = work.say, work.started
    say("sampling golden trajectories in PyTorch")
    modules = prepare_modules(plan)
    runs = record_golden(plan, samples=options.golden_samples, steps=options.golden_steps)
    real = record_examples(plan, samples=PROVED_EXAMPLES)
    allowed = gradient_bounds(plan, (*runs, *real), options.atol)
    bounds = _bounds(plan.model, options, allowed)
    full = Golden((*runs, *real), bounds)
    runs = (*runs, *real) if options.keep_examples else runs

    say("exporting and replaying fp32 graphs")
    whole = options.one_call or options.half_weights  # which are made of graphs with all that they need
    folder = None if whole else work.folder
    fp32 = export_fp32(plan, modules, full, folder)
    if options.half_weights:
        fp32 = GraphSet({graph.name: store_half(fp32.files[graph.name], graph) for graph in plan.model.graphs})
    sets: dict[Precision, GraphSet] = {"fp32": fp32}
    rows = prove(plan, full, fp32, "fp32")
    if options.fp16 or "fp16" in options.engines:
        say("finding, exporting and replaying fp16 graphs")
        judged = GoldenBounds(graph=options.fp16_atol, flipped=FLIPPED_FP16)
        sets["fp16"] = export_fp16(plan, modules, full, fp32, judged, folder=folder)
        rows += [*sets["fp16"].rows, *prove(plan, full, sets["fp16"], "fp16")]

    proved = None
    if one_call is not None:
        say("building and replaying the one-call graph")
        proved = prove_one_call(one_call, sets, full)
        rows += proved.rows

    graphs: list[tuple[GraphSpec, bytes | GraphFile, Precision]] = [
        (graph, GraphFile.of(sets[each].source(graph.name)), each)
        for each in options.engines
        for graph in plan.model.graphs
    ]
    graphs += [] if proved is None else [proved.built(each) for each in options.engines]
    engines = build_engines(
        with_proved_field(plan.model, fp32.files) if graphs else plan.model,
        graphs,
        batch=options.batch,
        axes=options.axes,
        runtime=options.engine_runtime,
        say=say,
    )
    say("writing the bundle")
    return write_proved(
        plan.model,
        provenance,
        out,
        golden=keep_within(runs, options.golden_bytes, bounds),
        sets=sets,
        rows=tuple(rows),
        engines=engines,
        one_call=proved,
        files=plan.files,
        warnings=(
            *((f"the training is not finished: {provenance.unfinished}",) if provenance.unfinished else ()),
            *((ONE_CALL_ALREADY,) if options.one_call and one_call is None else ()),
            *(JUMPED.format(graph=graph, allowed=bound, times=JUMPS) for graph, bound in allowed.items()),
        ),
        as_zip=options.as_zip,
        started=started,
        told=CardNotes(half_weights=options.half_weights, notice=options.notice.strip()),
    )


def _one_call(model: ModelSpec, options: ExportOptions) -> OneCall | None:
    """The one-call graph that is asked for, if there is one to make; InputError for settings that don't fit."""
    if not options.one_call or (not takes_many_calls(model) and not options.one_call_settings):
        return None
    return OneCall(model, options.one_call_settings)


def _with_batch(plan: ExportPlan, batch: AxisRange | None) -> ExportPlan:
    """The plan with the largest batch of engines; :class:`ExportError` for one too large."""
    if batch is None:
        return plan
    data = {**plan.model.model_dump(mode="json"), "max_batch": batch.maximum}
    model = ModelSpec.from_dict(data, what="--batch", error=ExportError)  # before the long part
    return replace(plan, model=model)


def _with_defaults(plan: ExportPlan, defaults: Mapping[str, Any]) -> ExportPlan:
    """The plan with other defaults of its program; InputError for options that it does not have, or values that it
    refuses."""
    if not defaults:
        return plan
    program = plan.model.program
    own = getattr(program, "defaults", None)
    if own is None:
        raise InputError(f"a {program.kind} model has no options; leave defaults out")
    sessions = {graph.name: FakeSession(graph, backend="fake", precision="fp32") for graph in plan.model.graphs}
    made = make_program(plan.model, sessions)
    settings = made.starting(made.resolve(defaults), given=False)
    changed = program.model_copy(update={"defaults": settings})
    return replace(plan, model=ModelSpec.model_validate({**dict(plan.model), "program": changed}))


def _bounds(model: ModelSpec, options: ExportOptions, jumps: Mapping[str, float]) -> dict[Precision, GoldenBounds]:
    samples = samples_bound(model, options.atol)
    full = GoldenBounds(graph=options.atol, flipped=FLIPPED_FP32, samples=samples, jumps=dict(jumps))
    half = GoldenBounds(graph=OTHER_MACHINES * options.fp16_atol, flipped=OTHER_MACHINES * FLIPPED_FP16)
    bounds: dict[Precision, GoldenBounds] = {"fp32": half if options.half_weights else full}
    if options.fp16 or "fp16" in options.engines:
        bounds["fp16"] = half
    return bounds
