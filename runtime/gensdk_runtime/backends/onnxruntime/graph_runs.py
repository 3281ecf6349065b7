"""Ends runs of graphs from another thread: native code does not react to signals by itself.

Runs can be ended only in a program that asked for it, as the command line does.
"""

from __future__ import annotations

from typing import Any

_GRAPH_ID = ("gpu_graph_id", "-1")
"""What no entry means too, but ONNX Runtime's Python wrapper takes 20 microseconds to find that there is none."""

_NO_WAIT = ("disable_synchronize_execution_providers", "1")

_wanted = False
_stoppable: dict[bool, Any] = {}  # by whether they only begin runs


def let_runs_be_stopped() -> None:
    """Lets the runs of sessions that are opened from now on be stopped."""
    global _wanted  # noqa: PLW0603 - it is about the process
    _wanted = True


def stoppable(ort: Any) -> Any:
    """ONNX Runtime's options for a run that :func:`stop_runs` can end; None unless the program asked for that."""
    return _shared(ort, begins=False) if _wanted else None


def beginning(ort: Any) -> Any:
    """Options for a run that is over once its work is in the stream of a device, stoppable like others."""
    return _shared(ort, begins=True) if _wanted else _options(ort, begins=True)


def _shared(ort: Any, *, begins: bool) -> Any:
    if begins not in _stoppable:
        _stoppable[begins] = _options(ort, begins=begins)
    return _stoppable[begins]


def _options(ort: Any, *, begins: bool) -> Any:
    options = ort.RunOptions()
    options.add_run_config_entry(*_GRAPH_ID)
    if begins:
        options.add_run_config_entry(*_NO_WAIT)
    return options


def stop_runs() -> None:
    """Ends all runs of this process that are under way, each with an error, and lets none begin."""
    for options in _stoppable.values():
        options.terminate = True
