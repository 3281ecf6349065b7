"""The model card: a bundle's README.md, for readers who know nothing of its history."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gensdk_export.export_report import HEADING, MEASURED, GraphRow, engine_rows, row_text
from gensdk_runtime.conditions.audio import face_and_window, talks
from gensdk_runtime.conditions.base import Condition
from gensdk_runtime.conditions.image import source_of
from gensdk_runtime.errors import InputError
from gensdk_runtime.outputs.base import output_of
from gensdk_runtime.printable import markdown
from gensdk_runtime.programs import abilities, layers
from gensdk_runtime.spec.manifest import EngineSpec, Precision16Report
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.options import option_tables
from gensdk_runtime.spec.provenance import Provenance

IMPORTED = "imported"
"""The family of plain ONNX files, of which nothing is registered."""


@dataclass(frozen=True)
class CardNotes:
    """What a card says that neither the model nor its training tells. `half_weights`: that they are stored so;
    `notice`: of the data, such as their licence."""

    half_weights: bool = False
    notice: str = ""


def model_card(
    model: ModelSpec,
    provenance: Provenance,
    conditions: Sequence[Condition[Any]],
    *,
    rows: tuple[GraphRow, ...],
    engines: tuple[tuple[EngineSpec, int], ...],
    fp16: Precision16Report | None,
    name: str,
    told: CardNotes | None = None,
) -> str:
    """README.md of the bundle called `name` (its file name): what it is, how to sample, what was measured.

    `conditions`: what works with those of the model.
    """
    title, paper, story = _family(model.family)
    told, facts = told or CardNotes(), _facts(model, conditions, provenance)
    if told.half_weights:
        facts["weights"] = "stored in half precision, computed with in float32"
    sections = [
        f"# {model.name}",
        f"{title}\n\nPaper: {paper}" if paper else title,
        f"## Sample\n\n{_how_to_sample(model, conditions, name)}",
        f"## Model\n\n{_table(('', ''), list(facts.items()))}",
        *([f"## Data\n\n{markdown(told.notice)}"] if told.notice else []),
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


def _how_to_sample(model: ModelSpec, conditions: Sequence[Condition[Any]], name: str) -> str:
    options, flags = _asked(conditions)
    if "dream" in abilities(model):
        return _how_to_dream(model, name)
    if "translate" in abilities(model):
        return _how_to_translate(model, options, name)
    if talks(model):
        return _how_to_talk(model, name)
    steps = getattr(getattr(model.program, "defaults", None), "num_inference_steps", None)
    options = options if steps is None else f", num_inference_steps={steps}{options}"
    suffix = output_of(model.output).suffixes[0]
    return (
        f"```sh\ngensdk sample {name} -n 64 --seed 0{flags} -o samples{suffix}\ngensdk verify {name}\n```\n\n"
        "```python\nfrom gensdk import Generator\n\n"
        f'with Generator.load("{name}") as generator:\n'
        f"    samples = generator.sample(64, seed=0{options})\n"
        f'samples.save("samples{suffix}")\n```'
    )


def _asked(conditions: Sequence[Condition[Any]]) -> tuple[str, str]:
    """An example of each condition that has one: as arguments of a method, and of a command."""
    shown = {each.kind: each.example for each in conditions if each.example is not None}
    return "".join(f", {kind}={value}" for kind, value in shown.items()), "".join(
        f" --{kind} {value}" for kind, value in shown.items()
    )


def _how_to_translate(model: ModelSpec, options: str, name: str) -> str:
    channels = source_of(model).channels
    return (
        f"```sh\ngensdk verify {name}\n```\n\n"
        "```python\nfrom gensdk import Generator\n\n"
        f'with Generator.load("{name}") as generator:\n'
        f"    result = generator.translate(image{options})  # uint8 [H, W, {channels}]\n```"
    )


def _how_to_talk(model: ModelSpec, name: str) -> str:
    _, window = face_and_window(model)
    return (
        f"```sh\ngensdk translate {name} --audio speech.wav --source face.png --sink talk.mp4\n"
        f"gensdk verify {name}\n```\n\n"
        "```python\nfrom gensdk import Generator\n"
        "from gensdk_runtime.media.sound_windows import sound_windows\n\n"
        f"windows = sound_windows(speech, rate={window.sample_rate}, fps=25, size={window.samples})\n"
        f'with Generator.load("{name}") as generator:\n'
        "    frames = generator.sample(image=face[None], audio=windows).images\n```"
    )


def _how_to_dream(model: ModelSpec, name: str) -> str:
    return (
        f"```sh\ngensdk dream photo.jpg --bundle {name} -o dream.png\ngensdk verify {name}\n```\n\n"
        "```python\nfrom gensdk import Generator\n\n"
        f'with Generator.load("{name}") as generator:\n'
        f"    result = generator.dream(image)  # uint8 [H, W, {source_of(model).channels}]\n```\n\n"
        f"Layers: {', '.join(layers(model))}."
    )


def _facts(model: ModelSpec, conditions: Sequence[Condition[Any]], provenance: Provenance) -> dict[str, str]:
    output = output_of(model.output)
    facts = {
        "family": model.family,
        output.plural: output.facts,
        "program": model.program.kind,
        "graphs": ", ".join(graph.name for graph in model.graphs),
        "conditions": ", ".join(condition.in_words for condition in conditions) or "none",
        "largest batch": str(model.max_batch),
        "data": f"{markdown(provenance.data)} ({provenance.data_count} {output.plural})"
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
    for method, rows in option_tables(model):
        yield f"## Options of {method}()\n\n{_table(('option', 'default', 'values', ''), rows)}"


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
