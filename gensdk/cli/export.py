"""``gensdk export``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gensdk.cli.output import needs_training_extra, print_json, print_table, say

EXAMPLES = """
\b
Examples:
  gensdk export runs/ddpm -o digits.gsdk
  gensdk export runs/ddpm -o digits.gsdk --fp16 --zip
  gensdk export runs/ddpm -o digits.gsdk --fp16 --format engine --batch 1 8 64

\b
Exit code: 7 when the export is not equal to PyTorch within its bounds; then nothing is written, and a bundle that
stood there stays.
"""


@click.command(epilog=EXAMPLES)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The bundle to write.")
@click.option("--fp16", is_flag=True, help="Add a second set of graphs in half precision.")
@click.option("--format", "form", type=click.Choice(["onnx", "engine"]), default="onnx", show_default=True)
@click.option(
    "--engine-runtime", type=click.Choice(["tensorrt-rtx", "tensorrt"]), default="tensorrt-rtx", show_default=True
)
@click.option("--batch", type=(int, int, int), metavar="MIN OPT MAX", help="Batch sizes of engines.")
@click.option("--atol", type=float, default=1e-4, show_default=True, help="Largest drift in fp32, for [-1, 1].")
@click.option(
    "--fp16-atol", type=float, default=0.02, show_default=True, help="Largest drift in fp16, for [-1, 1]."
)
@click.option("--zip", "as_zip", is_flag=True, help="Write one .gsdk file instead of a folder.")
@click.option(
    "--share-features",
    type=click.IntRange(min=1),
    is_flag=False,
    flag_value=1,
    metavar="[BLOCKS]",
    help="Diffusion: add a shallow step of BLOCKS top-level blocks, for --cache-interval. [BLOCKS: 1]",
)
@click.option("--raw", is_flag=True, help="Export the raw weights instead of their moving average.")
@click.option("--step", type=int, help="The checkpoint of this step. [default: the newest]")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def export(
    *,
    run: Path,
    output: Path,
    fp16: bool,
    form: str,
    engine_runtime: Any,
    batch: tuple[int, int, int] | None,
    atol: float,
    fp16_atol: float,
    as_zip: bool,
    share_features: int | None,
    raw: bool,
    step: int | None,
    as_json: bool,
) -> None:
    """Turn the training run RUN into a bundle: ONNX graphs, engines, and the proof that they equal PyTorch."""
    with needs_training_extra("export"):
        from gensdk_export.engines import AxisRange
        from gensdk_export.export import ExportOptions, export_run

    options = ExportOptions(
        fp16=fp16,
        engines=() if form == "onnx" else ("fp32", "fp16") if fp16 else ("fp32",),
        engine_runtime=engine_runtime,
        batch=None if batch is None else AxisRange(*batch),
        atol=atol,
        fp16_atol=fp16_atol,
        as_zip=as_zip,
        share_features=share_features or 0,
    )

    def tell(stage: str) -> None:
        click.echo(f"  {stage} ...", err=True)

    report = export_run(run, output, options, ema=not raw, step=step, on_stage=None if as_json else tell)
    if as_json:
        print_json(report.to_dict())
        return
    heading, *rows = report.table()
    print_table(heading, rows)
    for graph, islands in (report.fp16.islands if report.fp16 else {}).items():
        if islands:
            say(f"fp32 islands in {graph}: {', '.join(islands)}")
    for warning in report.warnings:
        say(f"warning: {warning}")
    say(f"{report.model}: {report.bundle_bytes / 1000:.0f} kB in {report.seconds:.0f} s: {report.bundle}")
