"""Entry points of installed packages; what lies in the working directory is not installed."""

from __future__ import annotations

from importlib import metadata

from gensdk_runtime.host.child_process import trusted_paths


def load_entry_point(group: str, name: str) -> bool:
    """Loads the first entry point of this name; False where no package has one."""
    for package in metadata.distributions(path=trusted_paths()):
        for entry in package.entry_points:
            if entry.group == group and entry.name == name:
                entry.load()
                return True
    return False
