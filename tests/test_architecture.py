"""The house rules that a machine can hold: import directions, light imports, file sizes, one story a file."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gensdk

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "gensdk_runtime": ROOT / "runtime" / "gensdk_runtime",
    "gensdk_training": ROOT / "training" / "gensdk_training",
    "gensdk_export": ROOT / "export" / "gensdk_export",
    "gensdk": ROOT / "gensdk",
}
ALLOWED = {
    "gensdk_runtime": {"gensdk_runtime"},
    "gensdk_training": {"gensdk_runtime", "gensdk_training"},
    "gensdk_export": {"gensdk_runtime", "gensdk_training", "gensdk_export"},
    "gensdk": set(PACKAGES),
}
FORBIDDEN_AT_RUNTIME = {"torch", "onnx", "onnxscript", "sklearn", "accelerate", "safetensors"}
FILES = [path for folder in PACKAGES.values() for path in sorted(folder.rglob("*.py"))]
NO_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}


def package_of(path: Path) -> str:
    return next(name for name, folder in PACKAGES.items() if path.is_relative_to(folder))


def imported_roots(path: Path) -> set[str]:
    roots = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            roots.add(node.module.split(".")[0])
    return roots


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_file_keeps_the_rules(path: Path) -> None:
    package, roots = package_of(path), imported_roots(path)
    wrong = (roots & set(PACKAGES)) - ALLOWED[package]
    assert not wrong, f"imports run runtime <- training <- export <- gensdk; this imports {wrong}"
    if package == "gensdk_runtime":
        assert not roots & FORBIDDEN_AT_RUNTIME
    assert path.stem not in NO_NAMES, "a thing is named after what it is"
    assert len(path.read_text().splitlines()) <= 500, "a file over 500 lines is two files"


SHARED = ("__init__", "base", "bound")
"""What all backends may use."""


def test_backends_do_not_import_each_other() -> None:
    backends = [p for p in (PACKAGES["gensdk_runtime"] / "backends").glob("*.py") if p.stem not in SHARED]
    assert backends
    for path in backends:
        source = path.read_text()
        others = {other.stem for other in path.parent.glob("*.py")} - {path.stem, *SHARED}
        assert not [other for other in others if f"gensdk_runtime.backends.{other}" in source]


def test_importing_the_face_is_light() -> None:
    """No torch, onnx, backend, cv2 nor PIL: an application that imports gensdk pays for what it uses."""
    program = "import sys, gensdk; gensdk.Generator; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"torch", "onnx", "onnxruntime", "cv2", "PIL", "av", "onnxscript", "matplotlib", "rich", "sklearn"}
    assert not heavy & set(loaded)


def test_the_face_shows_what_type_checkers_see() -> None:
    source = ast.parse((PACKAGES["gensdk"] / "__init__.py").read_text())
    checked = next(node for node in source.body if isinstance(node, ast.If))
    seen = {node.names[0].name for node in checked.body if isinstance(node, ast.ImportFrom)}
    assert seen | {"__version__"} == set(gensdk.__all__)
    assert all(getattr(gensdk, name) is not None for name in gensdk.__all__)
