"""Loads fresh graphs for the first time in a process of its own, where a crash in native code does no harm.

ONNX Runtime checks a graph while it loads, but now and then a graph crashes it instead.
``python -m gensdk_export.isolated_load FILE...`` loads one file after the other and prints each before it starts.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from gensdk_runtime.errors import ExportError
from gensdk_runtime.host.child_process import Limits, death, run_module
from gensdk_runtime.host.scratch import scratch_folder

MODULE = "gensdk_export.isolated_load"
TIMEOUT_SECONDS = 600


def load_isolated(graphs: Mapping[str, bytes | Path]) -> None:
    """Loads each ONNX file of `graphs`, given by its bytes or where it lies, with ONNX Runtime in a subprocess.

    Raises :class:`ExportError` that names the graph where one does not load, crashes, or takes ten minutes.
    """
    with scratch_folder() as folder:
        paths = [
            given if isinstance(given, Path) else folder / f"{index}.onnx"
            for index, given in enumerate(graphs.values())
        ]
        for path, given in zip(paths, graphs.values(), strict=True):
            if isinstance(given, bytes):
                path.write_bytes(given)
        limits = Limits(processor_seconds=TIMEOUT_SECONDS)  # a graph is loaded on one thread
        try:
            done = run_module(MODULE, *map(str, paths), timeout=TIMEOUT_SECONDS, limits=limits)
        except TimeoutError:
            raise ExportError(f"ONNX Runtime did not load the graphs in {TIMEOUT_SECONDS} s") from None
    if done.code:
        announced = {path.name for path in paths}  # ONNX Runtime may print there too
        started = [word for word in done.output.split() if word in announced]
        reached = f"graph {list(graphs)[len(started) - 1]!r}" if started else "the graphs"
        raise ExportError(f"ONNX Runtime can't load {reached}: {_reason(done.code, done.errors)}")


def _reason(code: int, errors: str) -> str:
    lines = errors.strip().splitlines()
    return death(code) if code < 0 or not lines else lines[-1][:300]


def main(paths: list[str]) -> None:
    """Loads the files, each announced on standard output by one line."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    for path in paths:
        print(Path(path).name, flush=True)
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    main(sys.argv[1:])
