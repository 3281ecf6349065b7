"""Entry points of installed packages; what lies in the working directory is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

from gensdk_runtime.host.child_process import trusted_paths


def load_entry_point(group: str, name: str) -> bool:
    """Loads the first entry point of this name; False where no package has one."""
    entry = next((each for each in _entry_points(group) if each.name == name), None)
    if entry is not None:
        entry.load()
    return entry is not None


def load_entry_points(group: str) -> None:
    """Loads the first entry point of every name."""
    for entry in {each.name: each for each in reversed([*_entry_points(group)])}.values():
        entry.load()


def _entry_points(group: str) -> Iterator[metadata.EntryPoint]:
    for package in metadata.distributions(path=trusted_paths()):
        yield from (entry for entry in package.entry_points if entry.group == group)
