"""The other end of :mod:`peers.process`: starts peers, asks them, and never waits without a limit."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from workloads.prepare import Prepared

from gensdk_runtime.host.child_process import start_python
from gensdk_runtime.host.closable import Closable

BENCHMARKS = Path(__file__).parent.parent


class PeerFailed(Exception):  # noqa: N818 - it is what happened to a peer, and part of the result
    """A peer could not do what it was asked; the message says why, in one line."""


def child_environment(root: Path) -> dict[str, str]:
    """Caches inside `root` for every process of a comparison, so that a user's own are left alone."""
    return {
        "GENSDK_CACHE": str((root / "cache").absolute()),
        "TORCHINDUCTOR_CACHE_DIR": str((root / "inductor").absolute()),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",  # else idle workers stay behind
        "HF_HUB_OFFLINE": "1",
    }


class Child(Closable):
    """A process that answers JSON lines. Use it in ``with``: it is killed at the end.

    It imports from `paths` first, and then as this process does; with `python`, the interpreter of another
    environment, as that one does.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        first: Mapping[str, Any],
        *,
        root: Path,
        paths: Sequence[Path] = (),
        environment: Mapping[str, str] | None = None,
        python: Path | None = None,
    ) -> None:
        self.name = name
        logs = root / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        self._log = logs / f"{name.replace(':', '-')}.log"
        with self._log.open("wb") as log:
            self._process = start_python(
                command,
                stdin=subprocess.PIPE,
                stderr=log,
                paths=[*paths, BENCHMARKS],
                environment={**child_environment(root), **(environment or {})},
                text=True,
                python=python,
            )
        self._answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._send(first)

    def ask(self, do: str, *, timeout: float, **arguments: Any) -> dict[str, Any]:
        """One command and its answer.

        Raises :class:`PeerFailed` where it fails, dies, or takes over `timeout` seconds.
        """
        self._send({"do": do, **arguments})
        try:
            line = self._answers.get(timeout=timeout)
        except queue.Empty:
            self.close()
            raise PeerFailed(f"took over {timeout:.0f} s to {do}") from None
        if line is None:
            raise PeerFailed(self._how_it_died())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerFailed(str(answer["error"]))
        return answer

    def close(self) -> None:
        """Kills the process. May be called twice."""
        self._process.kill()
        self._process.wait()
        self._reader.join(timeout=5)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.stdout.close()

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError):  # it died, or was closed
            raise PeerFailed(self._how_it_died()) from None

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put(None)

    def _how_it_died(self) -> str:
        code = self._process.wait()
        words = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"died with exit code {code}" + (f": {words[-1][:200]}" if words else "")


def start_peer(name: str, prepared: Prepared, *, root: Path) -> Child:
    """A process for one peer of one workload; it loads nothing before its first ``open``."""
    first = {"peer": name, "prepared": asdict(prepared)}
    return Child(f"{prepared.name}.{name}", ["-m", "peers.process"], first, root=root)
