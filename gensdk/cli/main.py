"""``gensdk``: the group of all verbs, and how errors become exit codes.

Exit codes: 0 done; 1 a check failed (verify, bench --fail-on); 2 wrong usage; 3 a bundle can't be opened or
written; 4 a backend or an extra is missing or failed; 5 bad input data or arguments; 6 training can't go on;
7 an export is not right; 70 a bug in gensdk; 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from gensdk.cli import ctrl_c
from gensdk.cli.output import keep_output_writable
from gensdk_runtime.bundles.engine_trust import TRUST_VARIABLE
from gensdk_runtime.errors import BackendError, GensdkError, GensdkWarning, did_you_mean
from gensdk_runtime.printable import printable
from gensdk_runtime.version import __version__

VERBS = {
    "train": "Train a family of models on data.",
    "export": "Turn a training run into a bundle, with proof.",
    "import": "Make a bundle of a third-party model.",
    "sample": "Draw samples from a bundle.",
    "interpolate": "Walk through a bundle's latent space, from seed to seed.",
    "translate": "Translate a camera, a video or images with a bundle.",
    "dream": "Let a classifier change an image until it sees more.",
    "detect": "Tell which images are unlike those a model knows.",
    "verify": "Replay a bundle's golden trajectories on this machine.",
    "evaluate": "Measure how good a bundle's samples are, against data.",
    "bench": "Measure latency, compare it, and gate on regressions.",
    "tune": "Find out what runs a bundle fastest on this machine.",
    "inspect": "Show what is in a bundle.",
    "list": "List families and embedded bundles.",
    "env": "Show what this machine can run.",
}

EXIT_CODES = """
\b
Examples:
  gensdk sample digits-ddpm -n 64 --seed 0 -o grid.png
  gensdk train ddpm --data digits --out runs/ddpm
  gensdk export runs/ddpm -o digits.gsdk --fp16

\b
Exit codes:
  0 done                      4 backend or extra missing or failed
  1 a check failed            5 bad input data or arguments
  2 wrong usage               6 training can't go on
  3 bundle can't be opened    7 an export is not right
  70 a bug in gensdk          130 stopped with Ctrl-C (train: 0, after a checkpoint)
"""


OUT_OF_MEMORY = "out of memory; ask for fewer samples or a smaller batch (--batch-size), or give more memory"

UNMAPPED = "failed to map segment from shared object"
"""What the loader of libraries says where there is no room for one."""
ANYWHERE = ("--debug", "--trust-engines")
"""Options of ``gensdk`` itself that may also stand behind a verb."""


class Verbs(click.Group):
    """Loads a verb's module when the verb is used, and answers a wrong name with the nearest one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs in the order in which they are used."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb's command, from the module of its name."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"gensdk.cli.{'import_' if cmd_name == 'import' else cmd_name}")
        pythons_own = cmd_name in ("list", "import")
        command: click.Command = getattr(module, f"{cmd_name}_command" if pythons_own else cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with our words for a wrong name."""
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            raise click.UsageError(f"no command {args[0][:80]!r}{did_you_mean(args[0][:80], VERBS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of verbs, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=Verbs, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gensdk")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option(
    "--trust-engines",
    is_flag=True,
    help="Load TensorRT engines that a bundle brings along, which are code, wherever they were made.",
)
def cli(debug: bool, trust_engines: bool) -> None:
    """Train, export, prove, sample and measure generative models."""


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and exits with the code that the module's docstring gives."""
    ctrl_c.listen()
    keep_output_writable()
    _keep_warnings_printable()
    given = sys.argv[1:] if arguments is None else arguments
    sys.exit(run(given))


def run(arguments: list[str]) -> int:
    """Runs the command line; returns the exit code. An error is one line on stderr, unless ``--debug``."""
    with said_once():
        return _run(arguments)


@contextmanager
def said_once() -> Iterator[None]:
    """Inside, what gensdk warns of is one line on stderr, each text once; other warnings go Python's way."""
    said = set[str]()
    with warnings.catch_warnings():
        warnings.simplefilter("always", GensdkWarning)
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if not issubclass(category, GensdkWarning):
                others(message, category, *place, **more)
            elif str(message) not in said:
                said.add(str(message))
                click.echo(printable(f"warning: {message}"), err=True)

        warnings.showwarning = show
        yield


def _run(arguments: list[str]) -> int:
    anywhere = [option for option in ANYWHERE if option in arguments]
    ordered = [*anywhere, *(each for each in arguments if each not in anywhere)]
    debug = "--debug" in anywhere
    try:
        with _trusting("--trust-engines" in anywhere):
            result: Any = cli.main(args=ordered, prog_name="gensdk", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as failure:
        shown = io.StringIO()
        failure.show(file=shown)  # it quotes what was typed, which may be a name in a folder
        click.echo(printable(shown.getvalue(), lines=True), nl=False, err=True)
        return failure.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        return 130
    except GensdkError as failure:
        if ctrl_c.was_pressed():  # the run that it ended said so first
            click.echo("stopped", err=True)
            return 130
        if debug:
            traceback.print_exc()
        click.echo(f"error: {failure}", err=True)
        return failure.exit_code
    except Exception as failure:
        if debug:
            traceback.print_exc()
        if isinstance(failure, MemoryError) or UNMAPPED in str(failure):
            click.echo(f"error: {OUT_OF_MEMORY}", err=True)
            return BackendError.exit_code
        name = type(failure).__name__
        said = f"error: a bug in gensdk ({name}: {failure}); please report it with --debug"
        click.echo(printable(said), err=True)
        return 70


def _keep_warnings_printable() -> None:
    """What libraries warn of quotes names of files too."""
    as_usual = warnings.formatwarning

    def format_warning(*given: Any, **more: Any) -> str:
        return printable(as_usual(*given, **more), lines=True)

    warnings.formatwarning = format_warning


@contextmanager
def _trusting(engines: bool) -> Iterator[None]:
    """Tells everything that loads a bundle, in this process and its children, that the bundle's engines are
    trusted."""
    before = os.environ.get(TRUST_VARIABLE)
    if engines:
        os.environ[TRUST_VARIABLE] = "1"
    try:
        yield
    finally:
        if engines:
            os.environ.pop(TRUST_VARIABLE)
            os.environ.update({} if before is None else {TRUST_VARIABLE: before})


if __name__ == "__main__":
    main()
