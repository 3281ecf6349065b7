"""The first day on a machine with a GPU: what works, how exactly, how fast; at most ten minutes, and offline.

Each part can be left out and has a limit of seconds; each runs in child processes, so that a crash or a hang is a
row of the report and the rest goes on. It needs gensdk with the extras for the GPU at hand; "gensdk[training]"
beside them adds the comparison with PyTorch. Writes gpu_day.json (all of it) and gpu_day.md (tables). Ends with 1
where a check failed, a piece was stopped or nothing was found; figures fail nothing. What is built (engines,
bundles) stays in OUTPUT/work: another run has more time.

\b
    python benchmarks/gpu_day.py --output first-day
    python benchmarks/gpu_day.py --output first-day --only proof --backends tensorrt:classic --limit 500
    python benchmarks/gpu_day.py --output trial --double        # without a GPU: on one that the CPU plays
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from day_one.backends import asked_for
from day_one.conduct import UNDONE, Day
from day_one.double import check_double
from day_one.parts import PARTS, TOTAL_SECONDS
from day_one.report import Outcome, as_markdown, summary, write
from day_one.result import Order, Row

from gensdk_runtime.bench.machine import this_machine
from gensdk_runtime.bundles.embedded import embedded_names
from gensdk_runtime.errors import InputError, UnavailableError

IMAGES = tuple(name for name in embedded_names() if name.startswith("digits-"))
"""The embedded bundles of images, which the parts are about."""
FRAMES = "240x320,720x1280,1080x1920"
DEFAULT_ROOT = Path("runs/gpu_day")


def among(known: Sequence[str]) -> Callable[[Any, Any, str | None], tuple[str, ...]]:
    """Reads names with commas between; nothing where nothing was given."""

    def read(context: Any, parameter: Any, text: str | None) -> tuple[str, ...]:
        chosen = tuple(text.split(",")) if text is not None else ()
        for name in chosen:
            if name not in known:
                raise click.BadParameter(f"{name!r} is none of {', '.join(known)}")
        return tuple(dict.fromkeys(chosen))

    return read


def backends(context: Any, parameter: Any, text: str | None) -> tuple[str, ...]:
    """Reads backends with commas between; nothing where nothing was given."""
    try:
        return () if text is None else asked_for(text)
    except InputError as failure:
        raise click.BadParameter(str(failure)) from None


def folder(context: Any, parameter: Any, text: str) -> Path:
    """A folder that was named."""
    if not text.strip():
        raise click.BadParameter("expected a folder, got nothing; give one, or leave the option out")
    return Path(text)


def sizes(context: Any, parameter: Any, text: str) -> tuple[int, ...]:
    """Reads whole numbers from 1 to 1024 with commas between."""
    if not all(part.isascii() and part.isdigit() and 1 <= int(part[:6]) <= 1024 for part in text.split(",")):
        raise click.BadParameter(f"expected whole numbers from 1 to 1024 with commas between, got {text!r}")
    return tuple(int(part) for part in text.split(","))


def frames(context: Any, parameter: Any, text: str) -> tuple[tuple[int, int], ...]:
    """Reads HEIGHTxWIDTH with commas between, up to 4320x7680."""
    found = []
    for part in text.split(","):
        height, x, width = part.partition("x")
        if not (
            x and all(side.isascii() and side.isdigit() and 8 <= int(side[:6]) <= 7680 for side in (height, width))
        ):
            raise click.BadParameter(f"expected HEIGHTxWIDTH from 8 to 7680, as 720x1280, got {part!r}")
        found.append((int(height), int(width)))
    return tuple(found)


def seconds(context: Any, parameter: Any, value: float | None) -> float | None:
    """A time that can be waited for."""
    if value is not None and not (math.isfinite(value) and value > 0):
        raise click.BadParameter(f"expected seconds above 0, got {value:g}")
    return value


@click.command(help=__doc__, context_settings={"max_content_width": 110})
@click.option(
    "--output", callback=folder, default=str(DEFAULT_ROOT), show_default=True, metavar="PATH", help="A folder."
)
@click.option("--only", callback=among(list(PARTS)), help=f"Parts, with commas between: {', '.join(PARTS)}.")
@click.option("--skip", callback=among(list(PARTS)), help="Parts to leave out, with commas between.")
@click.option("--limit", type=float, callback=seconds, help="Seconds for each part. [default: each has its own]")
@click.option(
    "--total", type=float, callback=seconds, default=TOTAL_SECONDS, show_default=True, help="Seconds in all."
)
@click.option(
    "--backends",
    "wanted",
    callback=backends,
    help="With commas between; tensorrt: all its kinds. [default: all that open, without :tf32 and :graphs]",
)
@click.option("--bundles", callback=among(IMAGES), help="[default: all embedded ones of images]")
@click.option("--batch", callback=sizes, default="1,8,64", show_default=True, help="For latencies.")
@click.option("--frames", callback=frames, default=FRAMES, show_default=True, help="HEIGHTxWIDTH.")
@click.option("--double", is_flag=True, help="TensorRT on the tests' double of a GPU; needs a checkout.")
def main(
    *,
    output: Path,
    only: tuple[str, ...],
    skip: tuple[str, ...],
    limit: float | None,
    total: float,
    wanted: tuple[str, ...],
    bundles: tuple[str, ...],
    batch: tuple[int, ...],
    frames: tuple[tuple[int, int], ...],
    double: bool,
) -> None:
    started, created = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    if double:
        try:
            check_double()
        except UnavailableError as failure:
            raise click.UsageError(str(failure)) from None
    parts = tuple(name for name in (only or tuple(PARTS)) if name not in skip)
    if not parts:
        raise click.UsageError("--only and --skip leave no part")
    root = made(output)
    order = Order("", "", str(root), 0.0, double=double, bundles=bundles or IMAGES, batches=batch)
    order = replace(order, frames=frames)
    limits = dict.fromkeys(PARTS, limit) if limit is not None else {}
    day = Day(order, parts, click.echo, limits, wanted, total)
    machine, rows = this_machine(), []
    try:
        for row in day.rows():
            rows.append(row)
    except KeyboardInterrupt:
        rows.append(Row("all", "", "", "all", "stopped", detail="by Ctrl-C; what was found is kept"))
    conditions = {
        "double": double,
        "parts": parts,
        "limits": {name: limits.get(name, PARTS[name].seconds) for name in parts},
        "total": total,
        "backends": day.order.backends,
        "closed": day.closed,
        "bundles": order.bundles,
        "batches": batch,
        "frames": frames,
    }
    outcome = Outcome(created, time.monotonic() - started, machine, conditions, tuple(rows))
    told(outcome, output)
    sys.exit(0 if outcome.ok else 1)


def made(output: Path) -> Path:
    """The folder for what is built, under `output`; that it can be written is found out now, not in ten
    minutes."""
    work = output.absolute() / "work"
    try:
        work.mkdir(parents=True, exist_ok=True)
        trial = output / ".trial"
        trial.touch()
        trial.unlink()
    except OSError as failure:
        raise click.ClickException(
            f"{output} can't be written ({failure.strerror}); give another --output"
        ) from None
    return work


def told(outcome: Outcome, output: Path) -> None:
    """Writes the report and says what is in it; a report that can't be written is printed."""
    for row in outcome.rows:
        if row.state in UNDONE:
            click.echo(
                f"{row.state.upper()}: {row.part} {row.where} {row.subject} {row.what}: {row.figure} {row.detail}"
            )
    click.echo(" ".join(filter(None, (summary(outcome), outcome.busy))))
    try:
        written = write(outcome, output.absolute())
    except OSError as failure:
        click.echo(as_markdown(outcome))
        raise click.ClickException(f"the report can't be written to {output} ({failure.strerror})") from None
    click.echo(f"written to {' and '.join(str(path) for path in written)}")


if __name__ == "__main__":
    main()
