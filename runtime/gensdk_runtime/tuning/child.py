"""A child process that measures, asked in one JSON object a line; it is started anew when it crashed or hung."""

from __future__ import annotations

import contextlib
import queue
import subprocess
from threading import Thread
from typing import IO, Annotated, Literal

from pydantic import Field

from gensdk_runtime.errors import BackendError, UnavailableError
from gensdk_runtime.host.child_process import Limits, death, end, piped, start_module
from gensdk_runtime.host.closable import Closable
from gensdk_runtime.plan.costs import Choice
from gensdk_runtime.plan.fingerprint import has_nvidia_gpu
from gensdk_runtime.plan.first_run import CHILD
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.strict import StrictModel

MODULE = "gensdk_runtime.tuning.worker"
PATIENCE = 0.2
"""Seconds that a child has to end by itself."""
MAX_LINE = 2**16


class Question(StrictModel):
    """What a child is asked.

    ``open``: read the bundle at `path`, which must have this `identity`, with its engines if the user trusts them.
    ``availability``: whether `backend` runs here. ``run``: time a batch of `batch` samples on each worker of
    `choice` for about `seconds`; `warm`: after a first step that does not count.
    """

    kind: Literal["open", "availability", "run"]
    path: str = ""
    identity: str = ""
    trust_engines: bool = False
    backend: str = ""
    choice: Choice = Choice()
    precision: Precision = "fp32"
    batch: Annotated[int, Field(ge=1)] = 1
    seconds: Annotated[float, Field(ge=0)] = 0.0
    warm: bool = False


class Answer(StrictModel):
    """What it says: `error`, or what was asked for.

    `seconds` that a whole sampling run takes, and its first `step` alone; `available`, `devices` and `padded` of a
    backend.
    """

    error: Annotated[str, Field(max_length=1000)] = ""
    seconds: Annotated[float, Field(ge=0)] = 0.0
    step: Annotated[float, Field(ge=0)] = 0.0
    available: bool = False
    devices: Annotated[tuple[Annotated[str, Field(max_length=50)], ...], Field(max_length=32)] = ()
    padded: bool = False


class ChildLostError(BackendError):
    """The child crashed, hung, or said something that is no answer."""


class ChildSlowError(ChildLostError):
    """The child gave no answer in time: it may have been at work, as on an engine, or hung."""


class Child(Closable):
    """A :mod:`gensdk_runtime.tuning.worker`, started when it is first asked; `opening` is its first question."""

    def __init__(self, opening: Question) -> None:
        self._opening = opening
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def ask(self, question: Question, patience: float) -> Answer:
        """The answer to `question`, which may be that it failed.

        Raises :class:`ChildLostError` where none comes within `patience` seconds; the child is gone then, and the
        next question starts another. Raises :class:`UnavailableError` where no child can be started.
        """
        process = self._process
        if process is None:
            process = self._start()
            first = self._ask(process, self._opening, patience)
            if first.error:
                self.close()
                raise UnavailableError(first.error)
        return self._ask(process, question, patience)

    def _ask(self, process: subprocess.Popen[bytes], question: Question, patience: float) -> Answer:
        pipe = piped(process.stdin)
        with contextlib.suppress(OSError):  # it is gone: the empty answer tells
            pipe.write(question.model_dump_json().encode() + b"\n")
            pipe.flush()
        try:
            line = self._answers.get(timeout=patience)
        except queue.Empty:
            self.close()
            raise ChildSlowError(f"no answer in {patience:.0f} s") from None
        if not line:
            ended = self.close()
            raise ChildLostError(death(ended))
        try:
            return Answer.from_json(line, what="answer", error=ChildLostError)
        except ChildLostError:
            self.close()
            raise

    def _start(self) -> subprocess.Popen[bytes]:
        # lifeline: the worker reads its input itself. GENSDK_TUNE: no measuring within measuring.
        # Memory: a GPU's driver takes address space as it likes, so there only ONNX Runtime's own bound holds.
        limits = Limits(memory=None) if has_nvidia_gpu() else Limits()
        process = start_module(
            MODULE, limits=limits, lifeline=False, environment={"GENSDK_TUNE": "off", CHILD: "1"}
        )
        self._process, self._answers = process, queue.SimpleQueue()
        Thread(target=_listen, args=(piped(process.stdout), self._answers), daemon=True).start()
        return process

    def close(self) -> int | None:
        """Ends the child, whatever it does; its exit code. May be called twice."""
        process, self._process = self._process, None
        return None if process is None else end(process, PATIENCE)


def _listen(pipe: IO[bytes], answers: queue.SimpleQueue[bytes]) -> None:
    """Passes lines on, then an empty one: a pipe can't be waited for with a time limit on every system."""
    with pipe, contextlib.suppress(OSError, ValueError):
        while line := pipe.readline(MAX_LINE):
            answers.put(line)
    answers.put(b"")
