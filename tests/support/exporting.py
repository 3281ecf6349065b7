"""A process that exports, warm and ready to be forked, so that each kill -9 costs a moment and not a start-up."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from gensdk_export.export import export_plan
from gensdk_runtime.spec.provenance import Provenance
from support.plans import linear_plan


def serve_exports(connection: Connection, out: Path, scratch: Path) -> None:
    """Forks an exporter over `out` for each message received, and sends what happens.

    First (seconds of one export, seconds of its last stage, the writing); then for each exporter its process
    id, ``writing`` whenever it comes to that, and ``gone`` when it is killed.
    """
    torch.set_num_threads(1)
    tempfile.tempdir = str(scratch)
    own_progress_bars()
    export(out, 1)
    started, writing = time.monotonic(), [0.0]
    export(out, 2, on_writing=lambda: writing.append(time.monotonic()))
    ended = time.monotonic()
    connection.send((ended - started, ended - writing[-1]))
    while connection.recv():
        child = os.fork()
        if child == 0:
            export_for_ever(connection, out)
        os.waitpid(child, 0)
        connection.send("gone")


def own_progress_bars() -> None:
    """Gives tqdm, which PyTorch's exporter draws with, a lock that forked processes don't share: one that is
    killed while it holds the usual one stops all others for ever. And no thread, which a fork would leave
    behind."""
    try:
        from tqdm import tqdm
    except ImportError:
        return
    tqdm.monitor_interval = 0
    tqdm.set_lock(threading.RLock())


def export_for_ever(connection: Connection, out: Path) -> None:
    """Two models in turn, told apart by the steps in their provenance: 1 and 2."""
    turn = 0
    try:
        connection.send(os.getpid())
        while True:
            export(out, 1 + turn % 2, on_writing=lambda: connection.send("writing"))
            turn += 1
    finally:
        os._exit(1)


def export(out: Path, model: int, on_writing: Callable[[], None] = lambda: None) -> None:
    def on_stage(stage: str) -> None:
        if stage == "writing the bundle":
            on_writing()

    export_plan(linear_plan(model), Provenance(steps=model), out, on_stage=on_stage)
