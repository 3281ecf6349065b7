"""Bounds what ONNX Runtime takes on the CPU: all graphs of this process together stay below :func:`memory_limit`.

A graph says nothing of what it will ask for: a few bytes of it may mean terabytes. So its sessions allocate from
one arena that ends somewhere, and a graph that wants more fails with an error, like any other. An arena of the
process keeps what it once had; :func:`give_back` returns what is free to the system.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from typing import Any

from gensdk_runtime.host.forking import new_lock
from gensdk_runtime.host.memory_limit import ENVIRONMENT, memory_limit

_SHRINK = "memory.enable_memory_arena_shrinkage"
IDENTITY = (  # the smallest ONNX file: y = Identity(x), float32 [1]; a run of it gives memory back
    b'\x08\n:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x15"
)
_WANTED = re.compile(r"(?:smaller than requested bytes of|requested buffer of size|would require more than) (\d+)")
_lock = new_lock()
_bounded: bool | None = None  # None: not tried yet
_shrinker: Any = None
_alone = True  # whether the parent had no other thread as this process was forked


def bound_memory(ort: Any, options: Any) -> None:
    """Lets a session with `options` allocate from the bounded arena, where this ONNX Runtime can do that."""
    global _bounded  # noqa: PLW0603 - the arena is the process's
    limit = memory_limit()
    if limit is None:
        return
    with _lock:
        if _bounded is None:
            _bounded = _register(ort, limit)
    if _bounded:
        options.add_session_config_entry("session.use_env_allocators", "1")


def give_back() -> None:
    """Returns the arena's free memory to the system; about a tenth of a millisecond where there is little."""
    if _bounded and _shrinker is not None:
        import numpy as np

        session, run_options = _shrinker
        with contextlib.suppress(Exception):  # best effort, and ONNX Runtime's exceptions share no base
            session.run(None, {"x": np.zeros(1, np.float32)}, run_options)


def wanted_too_much(text: str) -> str | None:
    """What to say of an error of ONNX Runtime's if it is one of memory; else None."""
    found = _WANTED.search(text)
    if found is None:
        return None
    limit = memory_limit()
    most = "" if limit is None else f", and {_size(limit)} are allowed for all together"
    return (
        f"it asks for {_size(int(found[1]))} at once{most}; run fewer samples at once, or smaller ones, or set "
        f"{ENVIRONMENT} if you trust the model"
    )


def _register(ort: Any, limit: int) -> bool:
    """True if the arena is there; not where the application has registered one of its own."""
    global _shrinker  # noqa: PLW0603 - the arena is the process's
    try:
        memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
        ort.create_and_register_allocator(memory, ort.OrtArenaCfg({"max_mem": limit}))
        options, run_options = ort.SessionOptions(), ort.RunOptions()
        options.log_severity_level = run_options.log_severity_level = 4
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.use_env_allocators", "1")
        run_options.add_run_config_entry(_SHRINK, "cpu:0")
        _shrinker = ort.InferenceSession(IDENTITY, options, providers=["CPUExecutionProvider"]), run_options
    except Exception:  # an old version, or an allocator that is there already; they share no base
        return False
    return True


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**29 else f"{count / 2**20:.0f} MiB"


def _before_fork() -> None:
    global _alone  # noqa: PLW0603 - the arena is the process's
    _alone = threading.active_count() == 1


def _after_fork() -> None:
    """Another thread of the parent may have held the arena's lock, which would stay locked in this process: graphs
    that are opened here then have arenas of their own, without a bound."""
    global _bounded  # noqa: PLW0603 - the arena is the process's
    if _bounded and not _alone:
        _bounded = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
