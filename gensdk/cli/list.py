"""``gensdk list``."""

from __future__ import annotations

from typing import Any

import click

from gensdk.cli.output import needs_training_extra, print_json, print_table, say
from gensdk_runtime.errors import UnavailableError

EXAMPLES = """
\b
Examples:
  gensdk list
  gensdk list --json
"""


@click.command(epilog=EXAMPLES)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def list_command(as_json: bool) -> None:
    """List the embedded bundles, and the families that can be trained."""
    from gensdk_runtime.bundle import Bundle
    from gensdk_runtime.embedded import embedded_names

    bundles = []
    for name in embedded_names():
        with Bundle.open(name) as opened:
            model = opened.manifest.model
            bundles.append({"name": name, "family": model.family, "program": model.program.kind})
    families, missing = _families()
    if as_json:
        print_json({"bundles": bundles, "families": families, "missing": missing})
        return
    print_table(("embedded bundle", "family", "program"), [tuple(entry.values()) for entry in bundles])
    if missing:
        say(f"families: {missing}")
    else:
        print_table(("family", "what it is", "paper"), [tuple(entry.values()) for entry in families])


def _families() -> tuple[list[dict[str, Any]], str | None]:
    """The families, and why there are none where the extra is missing."""
    try:
        with needs_training_extra("training"):
            from gensdk_training.registry import families

            known = families()
    except UnavailableError as failure:
        return [], str(failure)
    return [{"name": name, "title": each.title, "paper": each.paper} for name, each in known.items()], None
