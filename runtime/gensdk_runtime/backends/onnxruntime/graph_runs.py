"""Ends runs of graphs from another thread: native code does not react to signals by itself.

Runs can be ended only in a program that asked for it, as the command line does.
"""

from __future__ import annotations

from typing import Any

_GRAPH_ID = "gpu_graph_id"
_NO_GRAPH = -1
"""What no entry means too where CUDA graphs are off, but ONNX Runtime's Python wrapper takes 20 microseconds to
find that there is none."""

_NO_WAIT = ("disable_synchronize_execution_providers", "1")

_wanted = False
_shared: dict[bool, Any] = {}  # by whether they only begin runs
_stoppable: list[Any] = []


def let_runs_be_stopped() -> None:
    """Lets the runs of sessions that are opened from now on be stopped."""
    global _wanted  # noqa: PLW0603 - it is about the process
    _wanted = True


def stoppable(ort: Any) -> Any:
    """ONNX Runtime's options for a run that :func:`stop_runs` can end; None unless the program asked for that."""
    return whole(ort) if _wanted else None


def beginning(ort: Any) -> Any:
    """Options for a run that is over once its work is in the stream of a device, stoppable like others."""
    return _of_all(ort, begins=True)


def whole(ort: Any) -> Any:
    """Options for a run that no CUDA graph is made of."""
    return _of_all(ort, begins=False)


def captured(ort: Any, number: int) -> Any:
    """Options for runs that only begin, of which the first is captured as CUDA graph `number` of its session."""
    return _options(ort, number, begins=True)


def _of_all(ort: Any, *, begins: bool) -> Any:
    if not _wanted:
        return _options(ort, _NO_GRAPH, begins=begins)
    if begins not in _shared:
        _shared[begins] = _options(ort, _NO_GRAPH, begins=begins)
    return _shared[begins]


def _options(ort: Any, number: int, *, begins: bool) -> Any:
    options = ort.RunOptions()
    options.add_run_config_entry(_GRAPH_ID, str(number))
    if begins:
        options.add_run_config_entry(*_NO_WAIT)
    if _wanted:
        _stoppable.append(options)
    return options


def stop_runs() -> None:
    """Ends all runs of this process that are under way, each with an error, and lets none begin."""
    for options in _stoppable:
        options.terminate = True
