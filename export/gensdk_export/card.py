"""The model card: a bundle's README.md, for readers who know nothing of its history."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from gensdk_export.export_report import HEADING, MEASURED, GraphRow, engine_rows, row_text
from gensdk_runtime.errors import InputError
from gensdk_runtime.printable import markdown
from gensdk_runtime.spec.manifest import (
    AscentSpec,
    DiffusionSpec,
    EngineSpec,
    ModelSpec,
    Precision16Report,
)
from gensdk_runtime.spec.options import option_row, options_of
from gensdk_runtime.spec.provenance import Provenance

IMPORTED = "imported"
"""The family of plain ONNX files, of which nothing is registered."""


def model_card(
    model: ModelSpec,
    provenance: Provenance,
    *,
    rows: tuple[GraphRow, ...],
    engines: tuple[tuple[EngineSpec, int], ...],
    fp16: Precision16Report | None,
    name: str,
) -> str:
    """README.md of the bundle called `name` (its file name): what it is, how to sample, what was measured."""
    title, paper, story = _family(model.family)
    sections = [
        f"# {model.name}",
        f"{title}\n\nPaper: {paper}" if paper else title,
        f"## Sample\n\n{_how_to_sample(model, name)}",
        f"## Model\n\n{_table(('', ''), list(_facts(model, provenance).items()))}",
        *_options(model),
        f"## Proof\n\n{_proof(rows, engines)}{_islands(fp16)}",
    ]
    if story:
        sections.append(f"## What it does not do\n\n{story}")
    if provenance.config:
        settings = json.dumps(provenance.config, indent=2, sort_keys=True)
        sections.append(f"## Training settings\n\n```json\n{settings}\n```")
    return "\n\n".join(sections) + "\n"


def _family(name: str) -> tuple[str, str, str]:
    """Title, paper, and the paragraph of limits from the family's own file; the name alone if it is unknown."""
    unknown = f"A model of the family {name}.", "", ""
    if name == IMPORTED:
        return unknown
    from gensdk_training.registry import get_family  # PyTorch, which plain ONNX files don't need

    try:
        family = get_family(name)
    except InputError:
        return unknown
    story = inspect.getdoc(inspect.getmodule(family)) or ""
    found = re.search(r"^(?:It does|Does) not:? (.*?)(?=\n\n|\Z)", story, re.MULTILINE | re.DOTALL)
    limits = f"It does not: {' '.join(found[1].split())}" if found else ""
    return f"{family.title[0].upper()}{family.title[1:]}.", family.paper, limits


def _how_to_sample(model: ModelSpec, name: str) -> str:
    if model.source is not None:
        return _how_to_translate(model, name)
    options = ", label=0" if model.num_classes else ""
    if isinstance(model.program, DiffusionSpec):
        options = f", num_inference_steps={model.program.defaults.num_inference_steps}{options}"
    flags = " --label 0" if model.num_classes else ""
    return (
        f"```sh\ngensdk sample {name} -n 64 --seed 0{flags} -o grid.png\ngensdk verify {name}\n```\n\n"
        "```python\nfrom gensdk import Generator\n\n"
        f'with Generator.load("{name}") as generator:\n'
        f"    samples = generator.sample(64, seed=0{options})\n"
        'samples.save("grid.png")\n```'
    )


def _how_to_translate(model: ModelSpec, name: str) -> str:
    label = ", label=0" if model.num_classes else ""
    channels = model.source.channels if model.source is not None else 3
    if isinstance(model.program, AscentSpec):
        return (
            f"```sh\ngensdk dream photo.jpg --bundle {name} -o dream.png\ngensdk verify {name}\n```\n\n"
            "```python\nfrom gensdk import Generator\n\n"
            f'with Generator.load("{name}") as generator:\n'
            f"    result = generator.dream(image)  # uint8 [H, W, {channels}]\n```\n\n"
            f"Layers: {', '.join(model.program.objectives)}."
        )
    return (
        f"```sh\ngensdk verify {name}\n```\n\n"
        "```python\nfrom gensdk import Generator\n\n"
        f'with Generator.load("{name}") as generator:\n'
        f"    result = generator.translate(image{label})  # uint8 [H, W, {channels}]\n```"
    )


def _facts(model: ModelSpec, provenance: Provenance) -> dict[str, str]:
    program = model.program
    facts = {
        "family": model.family,
        **_output(model),
        "program": program.kind,
        "graphs": ", ".join(graph.name for graph in model.graphs),
        "classes": "none" if model.num_classes is None else str(model.num_classes),
        "largest batch": str(model.max_batch),
        "data": f"{markdown(provenance.data)} ({provenance.data_count} {_kind(model)})"
        if provenance.data
        else "not recorded",
        "training": _training(provenance),
        "created": markdown(provenance.created) or "not recorded",
    }
    metrics: Mapping[str, Any] = provenance.metrics
    if metrics:
        facts["last losses"] = ", ".join(f"{markdown(key)} {value:.4g}" for key, value in metrics.items())
    return facts


def _options(model: ModelSpec) -> Iterator[str]:
    """A section for the options of sample(), and one for those of invert(), where the model has such."""
    for verb, program in (("sample", model.program), ("invert", model.inversion)):
        defaults = getattr(program, "defaults", None)
        if defaults is not None:
            rows: list[tuple[str, ...]] = [option_row(option) for option in options_of(defaults)]
            yield f"## Options of {verb}()\n\n{_table(('option', 'default', 'values', ''), rows)}"


def _kind(model: ModelSpec) -> str:
    return "images" if model.output.kind == "image" else "points"


def _output(model: ModelSpec) -> dict[str, str]:
    low_high = list(model.output.value_range)
    if model.output.kind == "points":
        return {"points": f"{model.output.shape[0]} dimensions, expected in {low_high}"}
    return {"images": f"{' x '.join(map(str, model.output.shape))}, values in {low_high}"}


def _training(provenance: Provenance) -> str:
    imported = provenance.config.get("imported_from")
    if imported is not None:
        return f"by others; imported from {markdown(str(imported))}"
    weights = "moving average of the weights (EMA)" if provenance.ema else "raw weights"
    unfinished = f"; not finished: {provenance.unfinished}" if provenance.unfinished else ""
    return f"{provenance.steps} steps, seed {provenance.seed}, {weights}{unfinished}"


def _proof(rows: tuple[GraphRow, ...], engines: tuple[tuple[EngineSpec, int], ...]) -> str:
    table = _table(HEADING, [*(row_text(row) for row in rows), *engine_rows(engines)])
    return (
        "Measured at export against the original in float32 (PyTorch, or the imported file in ONNX Runtime): each "
        "graph call by call on the same inputs, then whole "
        f"samples. `gensdk verify` measures it again on your machine.\n\n{table}\n\n{MEASURED}."
    )


def _islands(fp16: Precision16Report | None) -> str:
    if fp16 is None:
        return ""
    kept = [f"{graph}: {', '.join(map(markdown, names))}" for graph, names in fp16.islands.items() if names]
    more = f" Kept in float32 by measurement: {'; '.join(kept)}." if kept else ""
    return f"\n\nLargest value that passes through half precision: {fp16.max_abs_activation:.4g} of 65504.{more}"


def _table(heading: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heading, ("---",) * len(heading), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
