"""What a module of the standard library has on a platform, read off typeshed's stubs as mypy reads them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path


@lru_cache(maxsize=1)
def _stubs() -> Path:
    spec = find_spec("mypy")
    if spec is None or spec.origin is None:
        raise RuntimeError("another system's modules are known from mypy's typeshed; pip install mypy")
    return Path(spec.origin).parent / "typeshed" / "stdlib"


@cache
def names(module: str, platform: str) -> frozenset[str]:
    """What a `module` has with this ``sys.platform`` and this version of Python; nothing without a stub."""
    path = _stubs().joinpath(*module.split("."))
    for file in (path / "__init__.pyi", path.with_suffix(".pyi")):
        if file.is_file():
            return frozenset(_names(ast.parse(file.read_text(encoding="utf-8")).body, platform))
    return frozenset()


def _names(body: Iterable[ast.stmt], platform: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.If):
            holds = _holds(node.test, platform)
            yield from _names(node.body if holds is not False else (), platform)
            yield from _names(node.orelse if holds is not True else (), platform)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if alias.name == "*" and node.module is not None and not node.level:
                    yield from names(node.module, platform)
                elif alias.asname is not None:
                    yield alias.asname


def _holds(test: ast.expr, platform: str) -> bool | None:
    """What a condition of a stub says; None: it is about something else."""
    if isinstance(test, ast.BoolOp):
        parts = [_holds(value, platform) for value in test.values]
        if None in parts:
            return None
        return all(parts) if isinstance(test.op, ast.And) else any(parts)
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        found = _holds(test.operand, platform)
        return None if found is None else not found
    if isinstance(test, ast.Compare):
        left = ast.unparse(test.left)
        right = ast.literal_eval(test.comparators[0])
        if left == "sys.platform":
            return (platform == right) if isinstance(test.ops[0], ast.Eq) else (platform != right)
        if left == "sys.version_info":
            newer = sys.version_info[: len(right)] >= right
            return newer if isinstance(test.ops[0], ast.GtE) else not newer
    return None
