"""Training in processes of its own: to kill them, and to run two that average their gradients."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import sys
import time
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from gensdk_runtime.errors import GensdkError
from gensdk_training.checkpoint import checkpoint_paths

PRELOAD = ["gensdk_training.run", "gensdk_training.data", "sklearn.datasets", "torch._dynamo", "support.tiny"]


def fork_server() -> ForkServerContext:
    """Processes that start with everything imported, on one thread each."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


def start_training(run_json: str, out: Path, **options: Any) -> ForkServerProcess:
    """A process that trains, to be killed or joined."""
    process = fork_server().Process(target=train_here, args=(run_json, out), kwargs=options)
    process.start()
    return process


def train_to_end(run_json: str, out: Path, **options: Any) -> None:
    """Trains in a process of its own, and waits."""
    process = start_training(run_json, out, **options)
    process.join(120)
    assert process.exitcode == 0


def wait_for_checkpoint(run: Path, *, after: int) -> None:
    """Waits until another process has written a checkpoint of a later step than `after`."""
    for _ in range(12_000):
        paths = checkpoint_paths(run / "checkpoints")
        if paths and int(paths[0].name.removeprefix("step-")) > after:
            return
        time.sleep(0.005)
    raise AssertionError(f"no checkpoint after step {after} came")


def train_here(run_json: str, out: Path, **options: Any) -> None:
    from gensdk_training.run import RunConfig, train

    config = RunConfig.from_json(run_json, what="test")
    train(config, out, progress=False, tensorboard=False, device="cpu", **options)


def run_two(work: Any, *args: Any) -> None:
    """Runs ``work(*args)`` in two processes joined by gloo, and waits for both."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = fork_server()
    both = [context.Process(target=_joined, args=(rank, port, work, args)) for rank in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]


def _joined(rank: int, port: int, work: Any, args: tuple[Any, ...]) -> None:
    import torch.distributed

    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE="2",
        LOCAL_WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        ACCELERATE_USE_CPU="true",
    )
    work(*args)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def train_or_tell(run_json: str, out: Path, report: Path, options: dict[str, Any]) -> None:
    """Trains; each process writes how it ended into ``report/RANK.json``."""
    rank = os.environ["RANK"]
    try:
        train_here(run_json, out, **options)
        told = {"error": None}
    except GensdkError as failure:
        told = {"error": f"{type(failure).__name__}: {failure}"}
    (report / f"{rank}.json").write_text(json.dumps(told))


def advance_and_tell(run_json: str, steps: int, report: Path) -> None:
    """Makes some steps; each process writes its data, losses and a digest of all its tensors."""
    import hashlib

    from accelerate import Accelerator

    from gensdk_training.run import RunConfig
    from gensdk_training.trainer import Trainer

    config = RunConfig.from_json(run_json, what="test").resolved()
    data = config.data.load()
    trainer = Trainer(config.build_family(data.info), data, seed=config.seed, accelerator=Accelerator(cpu=True))
    seen: list[list[int]] = []
    with _recorded(data, seen):
        losses = []
        for _ in range(steps):
            trainer.advance()
            losses.append(trainer.take_logs())
    digests = {}
    for group, tensors in trainer.tensors().items():
        digest = hashlib.sha256()
        for name in sorted(tensors):
            digest.update(name.encode() + tensors[name].numpy().tobytes())
        digests[group] = digest.hexdigest()
    rank = trainer.accelerator.process_index
    told = {"seen": seen, "losses": losses, "digests": digests}
    (report / f"{rank}.json").write_text(json.dumps(told))


@contextmanager
def _recorded(data: Any, seen: list[list[int]]) -> Any:
    names = [name for name in ("batch", "training_batch") if hasattr(data, name)]
    originals = {name: getattr(data, name) for name in names}
    inside: list[bool] = []

    def recording(original: Any) -> Any:
        def record(indices: Any, **named: Any) -> Any:
            if not inside:  # one of them may call the other
                seen.append([int(index) for index in indices])
            inside.append(True)
            try:
                return original(indices, **named)
            finally:
                inside.pop()

        return record

    for name, original in originals.items():
        setattr(data, name, recording(original))
    yield
    for name, original in originals.items():
        setattr(data, name, original)


def alive(pid: int) -> bool:
    """Whether the process runs; one that nobody has waited for does not."""
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False if sys.platform.startswith("linux") else _signalled(pid)


def _signalled(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until_gone(pid: int) -> None:
    for _ in range(400):
        if not alive(pid):
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} still runs")
