"""What help and messages tell users to look at is installed with the package."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from gensdk.cli.main import VERBS, Verbs, cli

ROOT = Path(__file__).parents[1]
PACKAGES = ("gensdk", "runtime/gensdk_runtime", "training/gensdk_training", "export/gensdk_export")
NOT_INSTALLED = re.compile(
    r"\b(docs|benchmarks|examples|tests)/[A-Za-z_]|\b(CONTRIBUTING|CHANGELOG|SECURITY|README)\.md"
)
CARD = "README.md"
"""A bundle's card, which is written with it."""


@pytest.mark.parametrize("verb", VERBS)
def test_help_names_installed_files_alone(verb: str) -> None:
    assert isinstance(cli, Verbs)
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None
    text = command.get_help(click.Context(command))
    assert not NOT_INSTALLED.search(text), NOT_INSTALLED.search(text)


def spoken(tree: ast.Module) -> Iterator[str]:
    """String constants that are no docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    silent = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    # A string by itself describes the name before it.
    silent |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in silent:
            yield node.value


def test_messages_name_installed_files_alone() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {text[:80]}"
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for text in spoken(ast.parse(path.read_text()))
        if text != CARD and NOT_INSTALLED.search(text)
    }
    assert not found
