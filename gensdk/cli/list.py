"""``gensdk list``."""

from __future__ import annotations

import shutil
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from gensdk.cli.output import needs_extra, print_json, print_table, say
from gensdk_runtime.errors import UnavailableError

if TYPE_CHECKING:
    from gensdk_training.settings import Setting

EXAMPLES = """
\b
Examples:
  gensdk list
  gensdk list ddpm          (its settings)
  gensdk list ddpm --json
"""

WIDEST = 110
NARROWEST = 24


@click.command(epilog=EXAMPLES)
@click.argument("family", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def list_command(family: str | None, as_json: bool) -> None:
    """List the embedded bundles and the families that can be trained; or the settings of FAMILY."""
    if family is not None:
        _list_settings(family, as_json=as_json)
        return
    from gensdk_runtime.bundles.bundle import Bundle
    from gensdk_runtime.bundles.embedded import embedded_names

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
        say("gensdk list FAMILY shows the settings of one")


def _families() -> tuple[list[dict[str, Any]], str | None]:
    """The families, and why there are none where the extra is missing."""
    try:
        with needs_extra("training"):
            from gensdk_training.registry import families

            known = families()
    except UnavailableError as failure:
        return [], str(failure)
    return [{"name": name, "title": each.title, "paper": each.paper} for name, each in known.items()], None


def _list_settings(name: str, *, as_json: bool) -> None:
    """What `name` is, and each of its settings. InputError where there is no such family."""
    with needs_extra("the families"):
        from gensdk_training.family import FamilyConfig
        from gensdk_training.registry import get_family
        from gensdk_training.settings import settings_of

        family = get_family(name)
    settings = settings_of(family.Config)
    if as_json:
        about = {"name": name, "title": family.title, "paper": family.paper, "makes": sorted(family.makes)}
        print_json({**about, "starts_from": family.starts_from, "settings": [asdict(each) for each in settings]})
        return
    width = max(NARROWEST, min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns))
    shared = FamilyConfig.model_fields
    _say(f"{name}: {family.title}", width)
    _say(family.paper, width)
    for title, chosen in (
        (f"Settings of {name}:", [each for each in settings if each.name not in shared]),
        ("Settings of every family:", [each for each in settings if each.name in shared]),
    ):
        say("")
        _say(title, width)
        for each in chosen:
            _say_setting(each, width)
    say("")
    _say(f"Set with gensdk train {name} --set NAME=VALUE; lists as JSON: --set NAME=[1,2]", width)


def _say_setting(setting: Setting, width: int) -> None:
    import json

    _say(f"{setting.name} = {json.dumps(setting.default)}", width, indent=2)
    _say(setting.values, width, indent=6)
    _say(setting.meaning, width, indent=6)


def _say(text: str, width: int, *, indent: int = 0) -> None:
    """`text` in lines of at most `width`, words whole."""
    space = " " * indent
    lines = textwrap.wrap(
        text,
        width,
        initial_indent=space,
        subsequent_indent=space,
        break_long_words=False,
        break_on_hyphens=False,
    )
    for line in lines:
        say(line)
