"""Graphs that several files of tests export are traced once in a run of the suite, by whichever process is first.
PyTorch's exporter takes seconds for each, and gives the same file for the same module.

The same is the same to the last attribute: what Python pickles of the module, and the graph's signature. What it
can't pickle, and what puts its weights beside the graph, is exported as always.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from gensdk_export import graphs, onnx_weights
from gensdk_runtime.spec.signature import GraphSpec

SEPARATE_BYTES = onnx_weights.SEPARATE_BYTES


def share(folder: Path) -> None:
    """From now on :mod:`gensdk_export.graphs` looks into `folder` first."""
    plain = graphs.export_onnx

    def shared(
        graph: GraphSpec, module: nn.Module, feeds: Any, multiples: Mapping[str, int] | None = None, **how: Any
    ) -> bytes:
        key = None if onnx_weights.SEPARATE_BYTES != SEPARATE_BYTES else _key(graph, module, feeds, multiples)
        if key is None:
            return plain(graph, module, feeds, multiples, **how)
        kept = folder / f"{key}.onnx"
        if not kept.exists():
            being_written = folder / f"{key}.{os.getpid()}"
            being_written.write_bytes(plain(graph, module, feeds, multiples, **how))
            being_written.replace(kept)
        return kept.read_bytes()

    graphs.export_onnx = shared


def _key(graph: GraphSpec, module: nn.Module, feeds: Any, multiples: Mapping[str, int] | None) -> str | None:
    inputs = sorted((name, values.dtype.str) for name, values in feeds.items())  # their sizes are the graph's own
    whole = io.BytesIO()
    try:
        _Pickler(whole).dump((graph.model_dump_json(), module, inputs, sorted((multiples or {}).items())))
    except Exception:  # a class made in a function, or whatever else pickle refuses in its own way
        return None
    return hashlib.sha256(whole.getvalue()).hexdigest()


class _Pickler(pickle.Pickler):
    """Takes tensors by their values: PyTorch writes where they lie in memory, too."""

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return NotImplemented
        told = f"{type(value)} {value.dtype} {value.requires_grad}"
        return str, (told, tuple(value.shape), value.stride(), value.detach().numpy().tobytes())
