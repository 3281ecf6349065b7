"""The child process that measures: ``python -m gensdk_runtime.tuning.worker``, questions in, answers out.

It has a process of its own because a backend may crash or hang, and because the thread pools of two backends in
one process disturb each other. It ends when its input does, whatever it is doing then.
"""

from __future__ import annotations

import os
import queue
import time
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

from gensdk_runtime.backends import get_backend
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.errors import BackendError, BundleError, GensdkError
from gensdk_runtime.host.child_main import allow_processor_time, on_end_of_input
from gensdk_runtime.plan.costs import Choice
from gensdk_runtime.plan.fingerprint import bundle_identity
from gensdk_runtime.plan.opening import open_choice
from gensdk_runtime.plan.runner import Runner
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.tuning.child import Answer, Question
from gensdk_runtime.tuning.stopwatch import time_batches

SETTLE = 0.003
"""Seconds until threads that spin after a run have gone to sleep."""
MAX_WORKERS = 256
PROCESSOR_SECONDS = 1200
"""Of each processor, for one question: longer than the tuner waits for an answer."""


class Worker:
    """Answers questions about one bundle; what it opened for one question stays open for the next."""

    def __init__(self) -> None:
        self._bundle: Bundle | None = None
        self._runners: dict[tuple[Choice, Precision], Runner] = {}
        self._threads = ThreadPoolExecutor(MAX_WORKERS)  # it starts them only as they are needed

    def answer(self, question: Question) -> Answer:
        """What `question` asks for, or the error that came in its place."""
        try:
            if question.kind == "open":
                return self._open(question)
            if question.kind == "availability":
                return _availability(question.backend)
            return self._run(question)
        except GensdkError as failure:
            return Answer(error=str(failure)[:1000] or type(failure).__name__)
        except Exception as failure:  # a backend's own: it loses this candidate, no more
            return Answer(error=f"{type(failure).__name__}: {failure}"[:1000])

    def _open(self, question: Question) -> Answer:
        self._bundle = Bundle.open(question.path, trust_engines=question.trust_engines)
        if bundle_identity(self._bundle.manifest) != question.identity:
            raise BundleError(f"{question.path}: it was replaced while it was measured; load it again")
        return Answer()

    def _run(self, question: Question) -> Answer:
        if self._bundle is None:
            raise BackendError("no bundle was opened")
        choice, model = question.choice, self._bundle.manifest.model
        key = (choice.alone, question.precision)
        if key not in self._runners:
            self._runners[key] = open_choice(self._bundle, choice.alone, question.precision)
        for seconds in (0.0, question.seconds) if question.warm else (question.seconds,):
            found = time_batches(
                model,
                self._runners[key],
                self._threads,
                batch=question.batch,
                workers=choice.workers,
                seconds=seconds,
            )
        if choice.spinning:
            time.sleep(SETTLE)
        return Answer(seconds=found.seconds, step=found.step)


def _availability(name: str) -> Answer:
    backend = get_backend(name)
    found = backend.availability()
    return Answer(available=found.available, devices=found.devices, padded=backend.padded)


def _own_output() -> BinaryIO:
    """The pipe to the tuner; what libraries print to stdout goes to stderr instead."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    return answers


def main() -> None:
    """Answers line by line until the input ends."""
    answers, worker = _own_output(), Worker()
    questions: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    on_end_of_input(questions.put)
    while True:
        line = questions.get()
        allow_processor_time(PROCESSOR_SECONDS * (os.cpu_count() or 1))
        answer = worker.answer(Question.from_json(line, what="question"))
        answers.write(answer.model_dump_json().encode() + b"\n")


if __name__ == "__main__":
    main()
