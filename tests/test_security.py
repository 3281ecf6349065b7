"""SECURITY.md: each claim names the tests that hold it, and they are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "SECURITY.md").read_text()
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", TEXT)))
VARIABLES = set(re.findall(r"`(GENSDK_\w+?)(?:=\d)?`", TEXT))


def test_it_names_tests() -> None:
    assert len(TESTS) > 25
    assert TEXT.count("::test_") == len(re.findall(r"`tests/[\w/]+\.py::test_\w+`", TEXT))


@pytest.mark.parametrize(("file", "name"), TESTS, ids=[name for _, name in TESTS])
def test_a_test_that_holds_a_claim_is_there(file: str, name: str) -> None:
    assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", sorted(VARIABLES))
def test_a_variable_that_it_names_is_read(name: str) -> None:
    sources = (path.read_text() for path in (ROOT / "runtime").rglob("*.py"))
    assert any(f'"{name}"' in source for source in sources)


def calls(tree: ast.AST) -> list[tuple[str, dict[str, str]]]:
    """Each call by its text, with its named arguments as text."""
    return [
        (ast.unparse(node.func), {each.arg or "": ast.unparse(each.value) for each in node.keywords})
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    ]


def test_nothing_unpickles() -> None:
    """Nor evaluates, nor runs a shell."""
    folders = [ROOT / name for name in ("gensdk", "runtime", "training", "export")]
    assert all(list(folder.rglob("*.py")) for folder in folders)
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        tree = ast.parse(path.read_text())
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert not imported & {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}, path
        for name, named in calls(tree):
            assert name not in ("eval", "exec", "os.system", "os.popen", "pickle.loads", "joblib.load"), path
            assert named.get("shell", "False") == "False", path
            if name == "torch.load":
                assert named.get("weights_only") == "True", path
            if name in ("np.load", "numpy.load"):
                assert named.get("allow_pickle") == "False", path
