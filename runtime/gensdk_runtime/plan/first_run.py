"""Runs a graph that may never end for the first time in a process of its own, which can be ended.

A graph with graphs inside its nodes (Loop, Scan, If) may run for ever, which the file does not show. Such a graph
of a bundle is run once by ``python -m gensdk_runtime.plan.first_run BUNDLE GRAPH PRECISION SHA256``, at batch 1
and with zeros; whether it came to an end is remembered for this machine. Any other error is left to the real run.
What it can't do: a graph that waits for a certain input, or for the second run, gets through.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from gensdk_runtime.backends.bound import Array, empty_tensor
from gensdk_runtime.bundles.bundle import Bundle, BundleGraph
from gensdk_runtime.errors import BackendError, InputError, UnavailableError
from gensdk_runtime.host.child_process import Limits, death, run_module
from gensdk_runtime.host.known_files import once
from gensdk_runtime.spec.fields import Precision
from gensdk_runtime.spec.signature import GraphSpec

ENVIRONMENT = "GENSDK_FIRST_RUN"
SECONDS = 120.0
MODULE = "gensdk_runtime.plan.first_run"
CHILD = "GENSDK_CHILD"
"""Set in processes that may be ended; they need no others."""


def try_first(graph: BundleGraph, precision: Precision) -> None:
    """Returns at once for a graph without loops, and for one that was seen to end here.

    Raises :class:`BackendError` where it does not end within GENSDK_FIRST_RUN seconds (120; ``off`` lets all
    graphs through), crashes, or wants more memory than it may have.
    """
    seconds = _seconds()
    if seconds is None or CHILD in os.environ or not graph.loops:
        return
    once(graph.bundle.manifest.files[graph.file].sha256, "ran", lambda: _run(graph, precision, seconds))


def _run(graph: BundleGraph, precision: Precision, seconds: float) -> None:
    bundle = graph.bundle
    digest = bundle.manifest.files[graph.file].sha256
    where = f"{bundle.path}: graph {graph.graph!r}"
    trust = f"set {ENVIRONMENT} to more seconds, or to 'off' if you trust the bundle"
    limits = Limits(processor_seconds=int(seconds) * (os.cpu_count() or 1) + 1)
    try:
        done = run_module(
            MODULE, str(Path(bundle.path).absolute()), graph.graph, precision, digest,
            timeout=seconds, limits=limits, environment={CHILD: "1", "GENSDK_TUNE": "off"},
        )  # fmt: skip
    except UnavailableError:  # a program that can start no other: it runs what it was given
        return
    except TimeoutError:
        raise BackendError(f"{where} did not come to an end within {seconds:.0f} s; {trust}") from None
    if done.code < 0:
        raise BackendError(f"{where} was tried in a process of its own, and {death(done.code)}; {trust}")


def _seconds() -> float | None:
    given = os.environ.get(ENVIRONMENT, "").strip().lower()
    if not given:
        return SECONDS
    if given == "off":
        return None
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 86400:
        raise InputError(f"expected {ENVIRONMENT} as 1 to 86400 seconds or 'off', got {given[:40]!r}")
    return seconds


def main(path: str, name: str, precision: Precision, digest: str) -> None:
    """The child: loads the graph and runs it once."""
    from gensdk_runtime.backends import create_backend

    with Bundle.open(path) as bundle:
        source = bundle.graph_source(name, precision)
        if bundle.manifest.files[source.file].sha256 != digest:
            sys.exit("the bundle was replaced")
        spec = bundle.manifest.graph(name)
        with create_backend("onnxruntime").open(spec, source, precision=precision) as session:
            session.run(_zeros(spec))


def _zeros(spec: GraphSpec) -> dict[str, Array]:
    axes = {axis for tensor in spec.inputs for axis in tensor.shape if isinstance(axis, str)}
    sizes = dict.fromkeys(axes, 1)
    return {tensor.name: empty_tensor(spec, tensor, sizes) for tensor in spec.inputs}


if __name__ == "__main__":
    main(*sys.argv[1:])  # type: ignore[arg-type]  # the parent's own arguments
