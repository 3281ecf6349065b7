"""``gensdk verify``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gensdk.cli.output import print_json, print_table, say
from gensdk_runtime.errors import CheckFailedError

if TYPE_CHECKING:
    from gensdk_runtime.proof.verify import Check, VerifyReport

EXAMPLES = """
\b
Examples:
  gensdk verify digits-ddpm
  gensdk verify from-a-stranger.gsdk --atol 1e-4 --precision fp32
  gensdk verify model.gsdk --precision fp16 --backend onnxruntime:cuda

\b
Exit code: 1 when a graph or a whole sample drifts beyond the bundle's bounds.
"""


@click.command(epilog=EXAMPLES)
@click.argument("bundle")
@click.option("--precision", type=click.Choice(["fp32", "fp16"]), help="[default: all that the bundle has]")
@click.option("--backend", default="auto", show_default=True, help="auto, onnxruntime, onnxruntime:cuda, ...")
@click.option("--atol", type=float, help="Largest scaled difference of a graph. [default: the bundle's own]")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def verify(bundle: str, precision: Any, backend: str, atol: float | None, as_json: bool) -> None:
    """Replay BUNDLE's golden trajectories from PyTorch on this machine, without PyTorch, and judge the drift."""
    from gensdk_runtime.proof.verify import verify_bundle

    report = verify_bundle(bundle, backend=backend, precision=precision, atol=atol)
    if as_json:
        print_json(report.to_dict())
    else:
        print_report(report)
    if not report.ok:
        raise CheckFailedError(f"{report.model}: {report.problems[0]}")


def _excess(check: Check) -> tuple[bool, float]:
    """Orders checks by how far they are from what is allowed; those without a bound come last."""
    return not check.ok, check.drift.scaled / (check.allowed or 1.0)


def print_report(report: VerifyReport) -> None:
    """One row for each graph and each sampling run, in each precision, with what is compared and its bound."""
    flips = any(check.drift.discrete for check in report.checks)
    rows = [
        (
            check.what,
            check.precision,
            check.backend,
            f"{check.drift.scaled:.2e}",
            "-" if check.allowed is None else f"{check.allowed:.0e}",
            *(
                (f"{check.drift.flipped}/{check.drift.discrete}" if check.drift.discrete else "-",)
                if flips
                else ()
            ),
            f"{check.drift.psnr:.1f}",
            "ok" if check.ok else check.problem,
        )
        for check in report.checks
    ]
    columns = ["graph or samples", "precision", "backend", "differs by", "allowed", "PSNR dB", "verdict"]
    if flips:
        columns.insert(5, "flips")
    print_table(columns, rows)
    for backend in dict.fromkeys(check.backend for check in report.rounded):
        worst = max((check for check in report.rounded if check.backend == backend), key=_excess)
        allowed = "no bound" if worst.allowed is None else f"{worst.allowed:.0e} allowed"
        verdict = "within the bounds" if worst.ok else "beyond the bounds, so it is off unless you name it"
        say(f"{backend} would differ by {worst.drift.scaled:.2e} ({worst.what}, {allowed}): {verdict}")
    say("differs by: in units of half the output's value range, or of its largest value (--json: as it is)")
