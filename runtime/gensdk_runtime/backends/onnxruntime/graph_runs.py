"""Ends runs of graphs from another thread: native code does not react to signals by itself.

Runs can be ended only in a program that asked for it, as the command line does.
"""

from __future__ import annotations

from typing import Any

_GRAPH_ID = ("gpu_graph_id", "-1")
"""What no entry means too, but ONNX Runtime's Python wrapper takes 20 microseconds to find that there is none."""

_wanted = False
_run_options: list[Any] = []


def let_runs_be_stopped() -> None:
    """Lets the runs of sessions that are opened from now on be stopped."""
    global _wanted  # noqa: PLW0603 - it is about the process
    _wanted = True


def stoppable(ort: Any) -> Any:
    """ONNX Runtime's options for a run that :func:`stop_runs` can end; None unless the program asked for that."""
    if not _wanted:
        return None
    if not _run_options:
        options = ort.RunOptions()
        options.add_run_config_entry(*_GRAPH_ID)
        _run_options.append(options)
    return _run_options[0]


def stop_runs() -> None:
    """Ends all runs of this process that are under way, each with an error, and lets none begin."""
    for options in _run_options:
        options.terminate = True
