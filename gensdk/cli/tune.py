"""``gensdk tune``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gensdk.cli.output import aside, print_json, print_table, say
from gensdk_runtime.errors import InputError

if TYPE_CHECKING:
    from gensdk_runtime.plan.costs import CostTable, Round
    from gensdk_runtime.spec.signature import Precision
    from gensdk_runtime.tuning.tune import PrecisionReport, TuneReport

EXAMPLES = """
\b
Examples:
  gensdk tune digits-ddpm
  gensdk tune model.gsdk --precision fp32,fp16 --budget 60
  gensdk tune model.gsdk --batch 1,8,64 --json > costs.json
  gensdk tune model.gsdk --threads 4      (for Generator.load(..., threads=4))
  gensdk tune model.gsdk --clear

\b
Generator.load(backend="auto") does a short version by itself when it first meets a bundle on a machine.
"""


@click.command(epilog=EXAMPLES)
@click.argument("bundle")
@click.option("--precision", metavar="fp32,fp16", help="[default: all that the bundle has]")
@click.option("--batch", metavar="1,8,64", help="Samples to measure at. [default: 1,4,8,16,64,256]")
@click.option("--threads", type=click.IntRange(1, 1024), help="At most so many CPU threads, and no GPU.")
@click.option(
    "--budget", type=float, default=20, show_default=True, help="Seconds of measuring; loading comes on top."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--clear", is_flag=True, help="Forget what was measured for BUNDLE, and measure nothing.")
def tune(
    *,
    bundle: str,
    precision: str | None,
    batch: str | None,
    threads: int | None,
    budget: float,
    as_json: bool,
    clear: bool,
) -> None:
    """Measure what runs BUNDLE fastest on this machine, and remember it for backend="auto".

    Backends, CPU threads, batches side by side and batch sizes are measured in turn, each backend in a process of
    its own. The result lies in the per-user cache, for this bundle, machine and these versions.
    """
    from gensdk_runtime.tuning import tune as tuning

    if clear:
        gone = tuning.clear(bundle, threads)
        say(f"{gone} file{'' if gone == 1 else 's'} removed")
        return
    report = tuning.tune(
        bundle,
        precisions=None if precision is None else [_precision(part.strip()) for part in precision.split(",")],
        batches=None if batch is None else _numbers(batch),
        threads=threads,
        budget_s=budget,
        on_stage=aside,
    )
    if as_json:
        print_json(report.to_dict())
    else:
        print_report(report)


def print_report(report: TuneReport) -> None:
    """For each precision the costs of all choices, the plan, and where it is kept."""
    for name, each in report.precisions.items():
        print_costs(f"{report.model}, {name}: ms for so many samples (samples/s); * is used", each)
        for n in report.planned:
            seconds = each.kept.cost(n)
            say(f"  {n:>5} samples: {seconds * 1e3:.3g} ms, {n / seconds:.0f}/s: {plan_line(each.kept.plan(n))}")
        say(f"  kept in {each.path}" if each.path else "  not kept: the cache can't be written")
        say("")
    for what, why in report.failures.items():
        say(f"left out: {what}: {why}")
    say(f"took {report.seconds:.1f} s")


def print_costs(title: str, each: PrecisionReport) -> None:
    """One row for each choice, one column for each number of samples."""
    table: CostTable = each.measured
    sizes = sorted({cost.samples for cost in table.costs})
    rows = []
    for choice in table.choices:
        known = {cost.samples: cost.seconds for cost in table.costs if cost.choice == choice}
        used = "* " if choice in each.kept.choices else "  "
        cells = [f"{known[n] * 1e3:.3g} ({n / known[n]:.0f})" if n in known else "" for n in sizes]
        rows.append((used + choice.label, *cells))
    print_table(("choice", *(str(size) for size in sizes)), rows, title=title)


def plan_line(rounds: tuple[Round, ...]) -> str:
    """Like rounds together, as in ``4 x [8 + 8] on onnxruntime, 1 thread x 2 workers``."""
    parts: dict[str, int] = {}
    for each in rounds:
        counts = " + ".join(str(count) for count in each.counts)
        padded = "" if each.batch is None or each.batch == each.counts[-1] else f" padded to {each.batch}"
        text = f"[{counts}]{padded} on {each.choice.label}"
        parts[text] = parts.get(text, 0) + 1
    return "; ".join(text if times == 1 else f"{times} x {text}" for text, times in parts.items())


def _precision(name: str) -> Precision:
    from gensdk_runtime.errors import did_you_mean

    if name == "fp32":
        return "fp32"
    if name == "fp16":
        return "fp16"
    raise InputError(f"no precision {name[:40]!r}{did_you_mean(name, ('fp32', 'fp16'))}")


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"expected batch sizes with commas between, got {text[:60]!r}") from None
