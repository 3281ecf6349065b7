"""Entry points of installed packages; what lies in the working directory is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

from gensdk_runtime.errors import UnavailableError, tell
from gensdk_runtime.host.child_process import trusted_paths


def load_entry_point(group: str, name: str) -> bool:
    """Loads the first entry point of this name; False where no package has one, :class:`UnavailableError` where
    it fails."""
    entry = next((each for each in _entry_points(group) if each.name == name), None)
    if entry is not None:
        _load(entry)
    return entry is not None


def load_entry_points(group: str) -> None:
    """Loads the first entry point of every name, and says which ones fail."""
    for entry in {each.name: each for each in reversed([*_entry_points(group)])}.values():
        try:
            _load(entry)
        except UnavailableError as failure:
            tell(str(failure))


def _load(entry: metadata.EntryPoint) -> None:
    try:
        entry.load()
    except Exception as failure:  # whatever the module of a stranger raises
        package = entry.dist.name if entry.dist is not None else entry.module
        raise UnavailableError(
            f"package {package!r}, which brings {entry.name!r}, can't be loaded ({type(failure).__name__}: "
            f"{failure}); mend or uninstall it"
        ) from failure


def _entry_points(group: str) -> Iterator[metadata.EntryPoint]:
    for package in metadata.distributions(path=trusted_paths()):
        yield from (entry for entry in package.entry_points if entry.group == group)
