"""``gensdk bench``: latency with percentiles, and the regression gate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gensdk.cli.output import aside, terminal_width, write
from gensdk.cli.program_options import program_options

if TYPE_CHECKING:
    from gensdk_runtime.bench.latency_report import BenchSettings, Report

EXAMPLES = """
\b
Examples:
  gensdk bench digits-ddpm --batch 1,16,64 --threads 1
  gensdk bench digits-ddpm --precision fp32,fp16 --json > report.json
  gensdk bench shared.gsdk --num-inference-steps 20 --set cache_interval=3
  gensdk bench new.gsdk --against released.gsdk --fail-on p95:+5%
  gensdk bench released.gsdk --save baseline.json
  gensdk bench new.gsdk --baseline baseline.json --fail-on p50:+3% --fail-on throughput:-5%

\b
Exit code: 1 when a limit of --fail-on is broken ("slower"), or when that can't be told and the estimate is
beyond it, or there is none; 0 for faster, same, and can't tell with an estimate within the limit.
"""


def _many(kind: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str], tuple[Any, ...]]:
    """A callback that splits an option at commas; a part that does not convert is a usage error."""

    def split(context: click.Context, option: click.Parameter, value: str) -> tuple[Any, ...]:
        try:
            return tuple(kind(part.strip()) for part in value.split(","))
        except ValueError:
            raise click.BadParameter(f"expected values with commas between, got {value[:60]!r}") from None

    return split


def _label(context: click.Context, option: click.Parameter, value: str | None) -> int | str | None:
    """A number where it is one, so that 7 and "7" are the same setting; a name otherwise."""
    return int(value) if value is not None and value.isascii() and value.isdigit() else value


@click.command(epilog=EXAMPLES)
@click.argument("bundle")
@click.option("--batch", callback=_many(int), default="1", show_default=True, help="Samples in one call.")
@click.option("--precision", callback=_many(str), default="fp32", show_default=True, help="fp32, fp16.")
@click.option("--backend", callback=_many(str), default="auto", show_default=True, help="As in Generator.load().")
@click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads in one graph. [default: the backend's]")
@click.option("--warmup", type=float, default=200, show_default=True, help="Warm-up before each run, ms.")
@click.option(
    "--duration", type=float, default=3, show_default=True, help="Measure each case at least so long, s."
)
@click.option("--iterations", type=int, default=10, show_default=True, help="... and at least so many calls.")
@click.option(
    "--percentile", callback=_many(float), default="90,95,99", show_default=True, help="Besides the median."
)
@click.option(
    "--runs", type=int, help="How often to load the model anew. [default: 1; 10 with a comparison or --save]"
)
@click.option(
    "--patience", type=int, default=3, show_default=True, help="--against: measure so often until it tells."
)
@program_options(without=("patience",))
@click.option("--label", callback=_label, help="Class to sample, by number or name.")
@click.option("--against", metavar="BUNDLE", help="Another bundle, measured in turn with the first.")
@click.option("--baseline", type=click.Path(path_type=Path), help="A file of --save to compare with.")
@click.option(
    "--fail-on", multiple=True, metavar="LIMIT", help="p95:+5%, mean:+3%, throughput:-5%. [default: p50:+5%]"
)
@click.option(
    "--allow-other-machine", is_flag=True, help="Compare with a baseline of another machine all the same."
)
@click.option(
    "--save", type=click.Path(path_type=Path), help="Write the report with all latencies, as a baseline."
)
@click.option("--plot", type=click.Path(path_type=Path), help="Write a PNG of latencies and throughput.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON, and nothing else, on stdout.")
def bench(
    *,
    bundle: str,
    batch: tuple[int, ...],
    precision: tuple[str, ...],
    backend: tuple[str, ...],
    threads: int | None,
    against: str | None,
    baseline: Path | None,
    fail_on: tuple[str, ...],
    allow_other_machine: bool,
    save: Path | None,
    plot: Path | None,
    as_json: bool,
    **how: Any,
) -> None:
    """Measure the latency of sampling from BUNDLE.

    A folder, a .gsdk file, or the name of an embedded bundle. Reports min, mean, percentiles and max of one
    call, samples per second, the share of time inside the graphs, load time and the first call after it.

    With --against or --baseline it is a regression gate: each --fail-on gets a ratio with its interval and a
    verdict (faster, same, slower, can't tell). --against measures both bundles in turn, which a noisy machine
    can't fool; prefer it.
    """
    from gensdk_runtime.bench import suite
    from gensdk_runtime.bench.gate import DEFAULT_LIMIT, MIN_RUNS
    from gensdk_runtime.bench.latency_report import Report
    from gensdk_runtime.errors import InputError

    if fail_on and against is None and baseline is None:
        raise InputError("--fail-on needs something to compare with: --against BUNDLE or --baseline FILE")
    if plot is not None:
        from gensdk_runtime.bench.plot import check_plot, plot_report

        check_plot(plot)
    compared = save is not None or against is not None or baseline is not None
    settings = _settings(how, default_runs=suite.COMPARISON_RUNS if compared else 1)
    if settings.runs < MIN_RUNS and baseline is not None:  # said before it is measured for long
        raise InputError(f"--baseline needs --runs of at least {MIN_RUNS}, got {settings.runs}; leave --runs out")
    report = suite.bench(
        bundle,
        against=against,
        baseline=Report.load(baseline) if baseline is not None else None,
        fail_on=fail_on or (DEFAULT_LIMIT,),
        batches=batch,
        precisions=[_precision(name) for name in precision],
        backends=backend,
        threads=threads,
        settings=settings,
        allow_other_machine=allow_other_machine,
        on_case=lambda case: aside(f"measuring {case}"),
    )
    _print(report, as_json=as_json)  # first: a file that can't be written loses no measurement
    if save is not None:
        report.save(save)
    if plot is not None:
        plot_report(report, plot)
    _fail_where_slower(report)


def _settings(how: dict[str, Any], *, default_runs: int) -> BenchSettings:
    from gensdk_runtime.bench.latency_report import BenchSettings

    given = {
        "warmup_ms": how["warmup"],
        "duration_s": how["duration"],
        "iterations": how["iterations"],
        "percentiles": how["percentile"],
        "runs": how["runs"] if how["runs"] is not None else default_runs,
        "patience": how["patience"],
        "options": {"label": how["label"], **how["options"]},
    }
    return BenchSettings.from_dict(given, what="gensdk bench")


def _precision(name: str) -> Any:
    from gensdk_runtime.errors import InputError, did_you_mean

    if name not in ("fp32", "fp16"):
        raise InputError(f"no precision {name!r}{did_you_mean(name, ('fp32', 'fp16'))}")
    return name


def _print(report: Report, *, as_json: bool) -> None:
    if as_json:
        write(report.without_latencies().to_json())
        return
    from gensdk_runtime.bench.table import report_text

    write(report_text(report, width=terminal_width()))


def _fail_where_slower(report: Report) -> None:
    from gensdk_runtime.bench.gate import failed
    from gensdk_runtime.errors import CheckFailedError

    broken = failed(report)
    if broken and not report.slower:
        first = next((each for each in broken if each.ratio is None), broken[0])
        shown = "nothing was measured" if first.ratio is None else f"x{first.ratio:.3f} measured"
        raise CheckFailedError(
            f"can't tell whether {first.subject} keeps {first.limit} against {first.against} ({shown}): "
            f"{first.reason}"
        )
    if report.slower:
        worst = max(report.slower, key=lambda comparison: abs((comparison.ratio or 1.0) - 1.0))
        raise CheckFailedError(
            f"slower than {worst.against}: {worst.limit} allowed, measured x{worst.ratio:.3f} "
            f"({worst.low:.3f} .. {worst.high:.3f}) for {worst.subject}"
        )
