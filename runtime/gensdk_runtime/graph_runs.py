"""Ends runs of graphs from another thread: a run in native code hears of no signal by itself."""

from __future__ import annotations

from typing import Any

_run_options: list[Any] = []


def stoppable(ort: Any) -> Any:
    """ONNX Runtime's options for a run that :func:`stop_runs` ends."""
    if not _run_options:
        _run_options.append(ort.RunOptions())
    return _run_options[0]


def stop_runs() -> None:
    """Ends all runs of this process that are under way, each with an error, and lets none begin."""
    for options in _run_options:
        options.terminate = True


def allow_runs() -> None:
    """Undoes :func:`stop_runs`."""
    for options in _run_options:
        options.terminate = False
