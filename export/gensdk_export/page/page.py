"""Writes a static page that draws samples of a bundle in the browser: the model as one call, and a runtime for it.

``index.html``, scripts, ``model.onnx``, ``page.json`` (what the scripts must know of the model) and
``onnxruntime-web/``. Any web server of files will do; nothing is fetched from elsewhere.
"""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from gensdk_export.one_call.one_call_proof import prove_one_call
from gensdk_export.one_call.sampler import OneCall
from gensdk_export.page.onnxruntime_web import NOTICE, onnxruntime_web
from gensdk_export.page.prompts import prompt_facts
from gensdk_export.proof import GraphSet
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import ExportError, InputError
from gensdk_runtime.host.atomic import check_no_dangling_link, put_in_place, sibling
from gensdk_runtime.host.system import sync
from gensdk_runtime.noise import LATENT_STREAM
from gensdk_runtime.outputs.image import image_of
from gensdk_runtime.plan.batches import largest_batch
from gensdk_runtime.programs import one_run, program_type
from gensdk_runtime.proof.verify import load_golden
from gensdk_runtime.spec.model import DiffusionSpec, ModelSpec
from gensdk_runtime.spec.settings import DiffusionSettings
from gensdk_runtime.spec.signature import GraphSpec

PAGE_FILE = "page.json"
STATIC = ("page.css", "page.js", "sampler.js", "worker.js", "noise.js", "prompts.js", "vocabulary.js")
RUNTIME_FOLDER = "onnxruntime-web"
MAX_BATCH = 64
"""Samples in one run in the browser, whose memory is small."""
FIRST_COUNT = 16
TEXTS = ("prompt", "negative_prompt")
"""Inputs that are texts."""


@dataclass(frozen=True)
class PageReport:
    """The page that was written: its folder, the model, all bytes, and those of the model alone."""

    page: Path
    model: str
    page_bytes: int
    model_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """The report for JSON."""
        return {**asdict(self), "page": str(self.page)}

    def text(self) -> str:
        """The report in a line."""
        size, own = self.page_bytes / 1e6, self.model_bytes / 1e6
        return f"{self.model}: a page of {size:.1f} MB, {own:.2f} MB of them the model: {self.page / 'index.html'}"


@dataclass(frozen=True)
class _Sampler:
    """The graph that makes samples in one call."""

    graph: GraphSpec
    file: bytes
    settings: DiffusionSettings | None


def write_page(
    bundle: str | Path | Bundle,
    out: str | Path,
    *,
    settings: Mapping[str, Any] | None = None,
    onnxruntime_web_folder: Path | None = None,
) -> PageReport:
    """Writes the page of `bundle` (a path, the name of an embedded one, or open) into the folder `out`.

    `settings`: for a diffusion model those of :meth:`Generator.sample` that differ from its defaults; they become
    part of the page. `onnxruntime_web_folder`: where onnxruntime-web lies; None gets it from npm. A page that
    stood at `out` is replaced when the new one is complete; anything else stays.

    Raises :class:`BundleError` for a bundle that can't be read, :class:`InputError` for a model of points or of
    latents, for one that takes what a page can't give (an image, or texts whose vocabulary is of another kind than
    words and characters), for settings that don't fit and for an `out` that holds something else,
    :class:`ExportError` where the one-call graph does not make the same samples as the steps, and
    :class:`UnavailableError` where onnxruntime-web can't be had.
    """
    out = _target(Path(out))
    if not isinstance(bundle, Bundle):
        with Bundle.open(bundle) as opened:
            return write_page(opened, out, settings=settings, onnxruntime_web_folder=onnxruntime_web_folder)
    model = bundle.manifest.model
    _check(model)
    prompts = prompt_facts(bundle)
    sampler = _sampler(bundle, settings or {})
    facts = _facts(model, sampler, prompts)
    files = {f"{RUNTIME_FOLDER}/{name}": data for name, data in onnxruntime_web(onnxruntime_web_folder).items()}
    files[f"{RUNTIME_FOLDER}/NOTICE.txt"] = NOTICE.encode()
    files["model.onnx"] = sampler.file
    files[PAGE_FILE] = (json.dumps(facts, indent=2) + "\n").encode()
    files |= {name: _static(name) for name in STATIC}
    files["index.html"] = _index(model, sampler, facts["prompt"]).encode()
    _write(out, files)
    return PageReport(out, model.name, sum(map(len, files.values())), len(sampler.file))


def _check(model: ModelSpec) -> None:
    """Raises :class:`InputError` unless `model` makes pictures of what a page gives: noise, classes and texts."""
    image_of(model)
    alone = one_run(model)
    for spec in () if alone is None else model.graph(alone).inputs:
        if spec.role != "noise" and spec.name not in {"label", *TEXTS}:
            raise InputError(
                f"model {model.name!r} takes {spec.name!r}, which a page can't give; choose a model that draws "
                "from noise, classes and prompts"
            )
    if isinstance(model.program, DiffusionSpec) and model.program.latent is not None:
        raise InputError(f"model {model.name!r} samples latents, whose decoder no page runs; use gensdk sample")


def _sampler(bundle: Bundle, settings: Mapping[str, Any]) -> _Sampler:
    """The bundle's own one-call graph, or one made and proved now."""
    manifest, given = bundle.manifest, {name: value for name, value in settings.items() if value is not None}
    model = manifest.model
    alone = one_run(model)
    if alone is not None and not given:
        graph = model.graph(alone)
        return _Sampler(graph, bundle.graph_source(graph.name, "fp32").read(), None)
    if manifest.one_call is not None and not given:
        known = manifest.one_call
        return _Sampler(known.graph, bundle.graph_source(known.graph.name, "fp32").read(), known.settings)
    one_call = OneCall(model, given)
    files = {graph.name: bundle.graph_source(graph.name, "fp32").read() for graph in model.graphs}
    proved = prove_one_call(one_call, {"fp32": GraphSet(files)}, load_golden(bundle))
    return _Sampler(one_call.graph, proved.files[proved.spec.files["fp32"]], one_call.settings)


def _facts(model: ModelSpec, sampler: _Sampler, prompts: dict[str, Any] | None) -> dict[str, Any]:
    """``page.json``: what the scripts must know of the model."""
    graph, classes = sampler.graph, None
    told = [name for name in TEXTS if prompts is not None and graph.input(name) is not None]
    if model.num_classes is not None:
        names = model.class_names or tuple(map(str, range(model.num_classes)))
        none = program_type(model).null(model, "label")
        classes = {"count": model.num_classes, "names": list(names), "none": none}
    output = model.output.tensor if one_run(model) is not None else graph.outputs[0].name
    return {
        "name": model.name,
        "image": image_of(model).model_dump(mode="json", exclude={"kind"}),
        "classes": classes,
        "inputs": _noise_inputs(graph),
        "label": "label" if graph.input("label") is not None else None,
        "prompt": {"inputs": told, **prompts} if prompts is not None and told else None,
        "output": output,
        "max_batch": min(MAX_BATCH, largest_batch(model)),
        "settings": None if sampler.settings is None else sampler.settings.model_dump(mode="json"),
        "model_sha256": hashlib.sha256(sampler.file).hexdigest(),
    }


def _noise_inputs(graph: GraphSpec) -> list[dict[str, Any]]:
    """How each noise input is drawn: its first stream, and its steps, one stream each (null: there are none)."""
    inputs, stream = [], LATENT_STREAM
    for spec in graph.inputs:
        if spec.role != "noise":
            continue
        before = spec.shape.index("batch")
        steps = None if before == 0 else spec.shape[0]
        shape = list(spec.shape[before + 1 :])
        if before > 1 or not all(isinstance(size, int) for size in (*shape, steps or 1)):
            raise ExportError(f"input {spec.name!r}: a page can't draw noise of shape {list(spec.shape)}")
        drawn = spec.distribution or "normal"
        inputs.append({"name": spec.name, "distribution": drawn, "stream": stream, "steps": steps, "shape": shape})
        stream += 1
    return inputs


def _index(model: ModelSpec, sampler: _Sampler, prompts: Mapping[str, Any] | None) -> str:
    """``index.html``; names from the bundle become text, never markup."""
    image, settings = image_of(model), sampler.settings
    about = f"Samples of {image.width} x {image.height} pixels from a model of the family {model.family}"
    if settings is not None:
        about += f", {settings.num_inference_steps} steps of {settings.solver}"
    low, high = image.value_range
    values = {
        "TITLE": model.name,
        "ABOUT": f"{about}.",
        "COUNT": str(FIRST_COUNT),
        "LABEL_EXAMPLE": "" if model.num_classes is None else ", label: 0",
        "PROMPT_EXAMPLE": "" if prompts is None else f", prompt: {json.dumps(prompts['example'])}",
        "LOW": f"{low:g}",
        "HIGH": f"{high:g}",
    }
    text = _static("index.html").decode()
    for name, value in values.items():
        text = text.replace(f"@{name}@", html.escape(value))
    return text


def _static(name: str) -> bytes:
    return resources.files(__package__).joinpath("static", name).read_bytes()


def _target(out: Path) -> Path:
    """`out` behind any links, if what stands there may be replaced."""
    try:
        check_no_dangling_link(out)
        out = out.resolve()
        page = out.is_dir() and ((out / PAGE_FILE).is_file() or not any(out.iterdir()))
        taken = out.exists() and not page
    except (OSError, RuntimeError, ValueError) as failure:
        reason = getattr(failure, "strerror", None) or failure
        raise InputError(f"{out}: no page can be written there ({reason})") from None
    if taken:
        raise InputError(f"{out}: won't replace what is no page (it has no {PAGE_FILE}); choose another folder")
    return out


def _write(out: Path, files: Mapping[str, bytes]) -> None:
    """All or nothing."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with sibling(out, folder=True) as new:
            for name, data in files.items():
                path = new / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(data)
                sync(path)
            put_in_place(new, out)
    except OSError as failure:
        raise ExportError(f"{out}: can't write the page ({failure.strerror}); nothing was changed") from None
