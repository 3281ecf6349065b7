"""``gensdk export``."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from gensdk.cli.output import aside, needs_extra, print_json, print_table, say
from gensdk.cli.program_options import program_options
from gensdk.cli.train import parse_settings

if TYPE_CHECKING:
    from gensdk_export.export_report import ExportReport

RUN_FILE = "run.json"
"""What makes a folder a run."""

EXAMPLES = """
\b
Examples:
  gensdk export runs/ddpm -o digits.gsdk
  gensdk export runs/ddpm -o digits.gsdk --fp16 --zip
  gensdk export runs/ddpm -o digits.gsdk --fp16 --format engine --batch 1 8 64
  gensdk export runs/ddpm -o digits.gsdk --one-call --solver dpmsolver++ --num-inference-steps 10
  gensdk export runs/words -o captions.gsdk --half-weights --default top_p=0.9 --zip
  gensdk export digits-ddpm --page site && python -m http.server -d site

\b
Exit code: 7 when the export is not equal to PyTorch within its bounds; then nothing is written, and a bundle that
stood there stays.
"""


@click.command(epilog=EXAMPLES)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The bundle to write.")
@click.option("--fp16", is_flag=True, help="Add a second set of graphs in half precision.")
@click.option(
    "--half-weights", is_flag=True, help="Store weights in half precision, in half the bytes; compute in float32."
)
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
@click.option(
    "--uint8/--no-uint8",
    default=None,
    help="Let a feedforward graph make bytes, and take them where it translates images. [default: where it does]",
)
@click.option(
    "--keep-examples", is_flag=True, help="Translation: keep real images of the data in the bundle, as proof."
)
@click.option("--one-call", is_flag=True, help="Add one graph that runs the whole sampler in a single call.")
@click.option(
    "--page",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write a web page that draws samples in the browser; RUN may be a bundle too.",
)
@click.option(
    "--onnxruntime-web",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where onnxruntime-web lies, for --page. [default: npm gets it]",
)
@program_options("diffusion", purpose="For --one-call and --page.", short=False)
@click.option(
    "--default",
    "defaults",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of sample() as the bundle has it from then on, as in temperature=0.9; may repeat.",
)
@click.option("--notice", default="", help="What the model card says of the data, such as their licence.")
@click.option("--raw", is_flag=True, help="Export the raw weights instead of their moving average.")
@click.option("--step", type=int, help="The checkpoint of this step. [default: the newest]")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def export(
    *,
    run: Path,
    output: Path | None,
    fp16: bool,
    half_weights: bool,
    form: str,
    engine_runtime: Any,
    batch: tuple[int, int, int] | None,
    atol: float,
    fp16_atol: float,
    as_zip: bool,
    share_features: int | None,
    uint8: bool | None,
    keep_examples: bool,
    one_call: bool,
    page: Path | None,
    onnxruntime_web: Path | None,
    defaults: tuple[str, ...],
    notice: str,
    raw: bool,
    step: int | None,
    as_json: bool,
    options: dict[str, Any],
) -> None:
    """Turn the training run RUN into a bundle: ONNX graphs, engines, and the proof that they equal PyTorch.

    With --page also, or only, into a static web page.
    """
    with needs_extra("export"):
        from gensdk_export.engines import AxisRange
        from gensdk_export.export import ExportOptions, export_run
        from gensdk_export.page.page import write_page

    if output is None and page is None:
        raise click.UsageError("Missing option: -o BUNDLE, --page DIR, or both.")
    if options and page is None and not one_call:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in options)
        raise click.UsageError(f"{flags}: needs --one-call or --page, whose graph it becomes part of.")
    if page is not None and not (run / RUN_FILE).is_file():
        if output is not None or one_call:
            raise click.UsageError(f"{str(run)!r} is no run; of a bundle only --page can be made.")
        made = write_page(run, page, settings=options, onnxruntime_web_folder=onnxruntime_web)
        print_json(made.to_dict()) if as_json else say(made.text())
        return
    how = ExportOptions(
        fp16=fp16,
        half_weights=half_weights,
        uint8=uint8,
        keep_examples=keep_examples,
        engines=() if form == "onnx" else ("fp32", "fp16") if fp16 else ("fp32",),
        engine_runtime=engine_runtime,
        batch=None if batch is None else AxisRange(*batch),
        atol=atol,
        fp16_atol=fp16_atol,
        as_zip=as_zip,
        share_features=share_features or 0,
        one_call=one_call,
        one_call_settings=options if one_call else {},
        defaults=parse_settings(defaults, option="--default"),
        notice=notice,
    )

    def tell(stage: str) -> None:
        aside(f"  {stage} ...")

    with TemporaryDirectory(prefix="gensdk-") as scratch:
        bundle = output or Path(scratch) / "model.gsdk"
        report = export_run(run, bundle, how, ema=not raw, step=step, on_stage=None if as_json else tell)
        site = None
        if page is not None:
            own = {} if one_call else options
            site = write_page(bundle, page, settings=own, onnxruntime_web_folder=onnxruntime_web)
    if as_json:
        print_json({**report.to_dict(), **({} if site is None else {"page": site.to_dict()})})
        return
    print_export(report, kept=output is not None)
    if site is not None:
        say(site.text())


def print_export(report: ExportReport, *, kept: bool) -> None:
    """The table and its unit, islands and warnings; the bundle too, if it was `kept`."""
    from gensdk_export.export_report import MEASURED

    heading, *rows = report.table()
    print_table(heading, rows)
    say(MEASURED)
    for graph, islands in (report.fp16.islands if report.fp16 else {}).items():
        if islands:
            say(f"fp32 islands in {graph}: {', '.join(islands)}")
    for warning in report.warnings:
        say(f"warning: {warning}")
    if kept:
        say(f"{report.model}: {report.bundle_bytes / 1000:.0f} kB in {report.seconds:.0f} s: {report.bundle}")
