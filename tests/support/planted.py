"""A folder that somebody sent, with files named after what gensdk imports; each tells when it runs."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SOURCES = ("gensdk", "runtime", "training", "export")
NEVER = {"gensdk", "gensdk_runtime", "gensdk_training", "gensdk_export", "__future__"}
PYTHONS_OWN = {"sitecustomize", "usercustomize", "runpy", "pickle"}
LOADED_BY_OTHERS = {
    "yaml",
    "sympy",
    "packaging",
    "cuda",
    "google",
    "flatbuffers",
    "ml_dtypes",
    "typing_extensions",
}
HEARD = "heard.txt"


def imported_names() -> list[str]:
    """The first part of each module that the packages import, and some that their imports import."""
    names: set[str] = set()
    for path in (path for folder in SOURCES for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    names |= PYTHONS_OWN | LOADED_BY_OTHERS
    return sorted(names - NEVER - set(sys.builtin_module_names))


def plant(folder: Path) -> Path:
    """The files; returns the one in which they write when they run."""
    heard = folder.parent / HEARD
    for name in imported_names():
        (folder / f"{name}.py").write_text(
            f"open({str(heard)!r}, 'a').write({name + chr(10)!r})\nraise ImportError('planted')\n"
        )
    return heard
