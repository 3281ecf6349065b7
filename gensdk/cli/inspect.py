"""``gensdk inspect``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from gensdk.cli.output import print_json, print_table, say

if TYPE_CHECKING:
    from gensdk_runtime.spec.model import ModelSpec

EXAMPLES = """
\b
Examples:
  gensdk inspect digits-ddpm
  gensdk inspect model.gsdk --json | jq .model.program
"""


@click.command(epilog=EXAMPLES)
@click.argument("bundle")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def inspect(bundle: str, as_json: bool) -> None:
    """Show what is in BUNDLE: program, graphs, precisions, engines, provenance, options. Checks every checksum."""
    from gensdk_runtime.bundles.bundle import Bundle
    from gensdk_runtime.conditions.base import conditions_of
    from gensdk_runtime.outputs.base import output_of
    from gensdk_runtime.programs import abilities, layers
    from gensdk_runtime.spec.options import in_words

    with Bundle.open(bundle) as opened:
        opened.verify_files()
        manifest, path = opened.manifest, opened.path
    if as_json:
        print_json(json.loads(manifest.model_dump_json()))
        return
    model, origin = manifest.model, manifest.provenance
    size = sum(entry.size for entry in manifest.files.values())
    conditions = conditions_of(model)
    asked = "".join(f", {condition.in_words}" for condition in conditions)
    say(f"{model.name}: {model.family}, program {model.program.kind}, {output_of(model.output).of_shape}{asked}")
    say(f"{path} ({size / 1000:.0f} kB, schema {manifest.schema_version}, all checksums hold)")
    say(f"precisions: {', '.join(manifest.precisions)}; max_batch {model.max_batch}")
    say(f"methods: {', '.join(('sample', *abilities(model)))}")
    if origin.steps:
        ema = ", moving average" if origin.ema else ""
        say(f"trained {origin.steps:,} steps on {origin.data}, seed {origin.seed}{ema}, {origin.created}")
    if origin.unfinished:
        say(f"not finished: {origin.unfinished}")
    if layers(model):
        say(f"layers: {', '.join(layers(model))}")
    for note in (note for condition in conditions for note in condition.notes):
        say(note)
    if manifest.one_call is not None:
        settings = manifest.one_call.settings
        words = "" if settings is None else f" of {in_words(settings.model_dump())}"
        say(f"one call: graph {manifest.one_call.graph.name}{words}")
    rows = []
    for name, files in manifest.all_graph_files.items():
        for precision, file in files.items():
            rows.append((name, precision, f"{manifest.files[file].size / 1000:.1f}", file))
    for engine in manifest.engines:
        sizes = {"batch": (engine.min_batch, engine.opt_batch, engine.max_batch), **engine.axes}
        spans = ", ".join(f"{axis} {least}..{most}" for axis, (least, _, most) in sizes.items())
        made = f"{engine.file} ({engine.runtime} {engine.version}, {spans})"
        rows.append((engine.graph, engine.precision, f"{manifest.files[engine.file].size / 1000:.1f}", made))
    print_table(("graph", "precision", "kB", "file"), rows)
    signature = []
    for graph in (manifest.graph(name) for name in manifest.all_graph_files):
        for way, specs in (("in", graph.inputs), ("out", graph.outputs)):
            for spec in specs:
                axes = ", ".join(str(axis) for axis in spec.shape)
                signature.append((graph.name, way, spec.name, spec.dtype, f"[{axes}]", spec.role))
    print_table(("graph", "", "tensor", "dtype", "shape", "role"), signature)
    _print_options(model)


def _print_options(model: ModelSpec) -> None:
    """The options of sample(), and of invert() where the model has that, with the bundle's defaults."""
    from gensdk_runtime.spec.options import option_tables

    for method, rows in option_tables(model):
        print_table((f"option of {method}()", "default", "values", ""), rows)
