"""TensorRT on a GPU that the CPU plays: the suite's double, in a checkout with its tests. No figure is a GPU's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from peers.child import BENCHMARKS

from day_one.result import Order
from gensdk_runtime.backends.base import Backend
from gensdk_runtime.errors import UnavailableError

TESTS = BENCHMARKS.parent / "tests"
WARNING = "on a double of a GPU that the CPU plays: no figure of it is a GPU's"


def check_double() -> None:
    """Raises :class:`UnavailableError` where this is no checkout with its tests."""
    if not (TESTS / "support" / "engines_here.py").is_file():
        raise UnavailableError(
            f"the double of a GPU is part of the tests, and there is no {TESTS}; use a checkout"
        )


def engines_here() -> Callable[..., Any]:
    """The suite's function of this name; :class:`UnavailableError` says in one line what is missing."""
    check_double()
    try:
        from support.engines_here import engines_here as found
    except ImportError as failure:
        raise UnavailableError(f'the double of a GPU needs "gensdk[cpu,rtx]" installed ({failure})') from None
    made: Callable[..., Any] = found
    return made


class Settled:
    """What is set stays set: the process ends with its piece."""

    def setattr(self, target: object, name: str, value: object) -> None:
        """As pytest's patches have it."""
        setattr(target, name, value)


def backend_on_double(order: Order) -> Backend:
    """The kind of TensorRT that `order` names, over a double that stays in place of CUDA for the whole process."""
    folder: Path = order.folder / "engines" / order.piece.replace(":", "-")
    folder.mkdir(parents=True, exist_ok=True)
    host = engines_here()(order.piece.partition(":")[2], Settled(), folder)
    backend: Backend = host.backend
    return backend
