"""Limits the memory of networks: their settings come from files of unknown origin, and from typing errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from gensdk_runtime.errors import GensdkError

COPIES = 4
"""Of a weight while it is trained: itself, its gradient, and Adam's two moments."""
MAX_TENSORS = 200_000
"""Tensors that the networks of a run are made of; more are a loop without an end."""
_SIZED = frozenset((torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full))


def gib(size: int) -> str:
    """Bytes in words."""
    return f"{size / 2**30:.3g} GiB"


@contextmanager
def memory_budget(limit: int, refusal: Callable[[], GensdkError]) -> Iterator[None]:
    """Raises `refusal()` before the tensors that are made meanwhile take more than `limit` bytes.

    Counts what torch's constructors are asked for, which is what modules make their weights and buffers with.
    """
    with _Counted(limit, refusal):
        yield


class _Counted(TorchFunctionMode):
    def __init__(self, limit: int, refusal: Callable[[], GensdkError]) -> None:
        super().__init__()
        self.left, self.tensors, self.refusal = limit, MAX_TENSORS, refusal

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _SIZED:
            self.left -= _bytes(args, kwargs)
            self.tensors -= 1
            if min(self.left, self.tensors) < 0:
                raise self.refusal()
        return func(*args, **kwargs)


def _bytes(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    size = kwargs.get("size", args[0] if args and isinstance(args[0], Sequence) else args)
    dtype = kwargs.get("dtype") or torch.get_default_dtype()
    return prod(int(axis) for axis in size if isinstance(axis, int)) * int(dtype.itemsize)
