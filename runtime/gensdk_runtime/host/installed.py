"""Entry points of installed packages; what lies in the working directory is not installed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import metadata

from gensdk_runtime.errors import UnavailableError, tell
from gensdk_runtime.host.child_process import trusted_paths


def load_entry_point(group: str, name: str) -> bool:
    """Loads the entry point of this name; False where no package has one.

    Raises :class:`UnavailableError` where its package can't be loaded, and where two packages have one.
    """
    entries = [each for each in _entry_points(group) if each.name == name]
    if entries:
        _load(name, entries)
    return bool(entries)


def load_entry_points(group: str) -> None:
    """Loads the entry point of every name; of one that can't be loaded a warning tells."""
    found = [*_entry_points(group)]
    for name in dict.fromkeys(each.name for each in found):
        try:
            _load(name, [each for each in found if each.name == name])
        except UnavailableError as failure:
            tell(str(failure))


def _load(name: str, entries: Iterable[metadata.EntryPoint]) -> None:
    """What the entries of one name lead to, which is one and the same."""
    entry, *others = {each.value: each for each in entries}.values()
    if others:
        packages = " and ".join(sorted(_package(each) for each in (entry, *others)))
        raise UnavailableError(f"{packages} both bring {name[:60]!r} ({entry.group}); uninstall one of them")
    try:
        entry.load()
    except (Exception, SystemExit) as failure:  # whatever the code of a stranger raises
        reason = " ".join(f"{type(failure).__name__}: {failure}".split())[:200]
        raise UnavailableError(
            f"the package {_package(entry)}, which brings {name[:60]!r} ({entry.group}), can't be loaded "
            f"({reason}); mend it, or uninstall it"
        ) from failure


def _package(entry: metadata.EntryPoint) -> str:
    return entry.value if entry.dist is None else entry.dist.name


def _entry_points(group: str) -> Iterator[metadata.EntryPoint]:
    """Those of a package that is installed twice are as Python would import it: of the first."""
    seen: set[str] = set()
    for package in metadata.distributions(path=trusted_paths()):
        if package.name not in seen:
            seen.add(package.name)
            yield from (entry for entry in package.entry_points if entry.group == group)
