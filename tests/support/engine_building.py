"""Engines built in processes of their own: to race them, and to kill them."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

from gensdk_runtime.backends.tensorrt.build import GraphFile
from gensdk_runtime.backends.tensorrt.cache import EngineCache
from gensdk_runtime.backends.tensorrt.package import load_package
from gensdk_runtime.backends.tensorrt.recipe import AxisRange, Recipe
from gensdk_runtime.backends.tensorrt.supply import Supplier
from gensdk_runtime.bundles.bundle import Bundle


def build_slowly(folder: Path, identity: dict[str, Any], data: bytes, log: Path, seconds: float) -> None:
    """Fetches an entry that takes so long to build, and writes down if it did."""

    def build() -> bytes:
        with log.open("a") as file:
            file.write("built\n")
        time.sleep(seconds)
        return data

    assert EngineCache(folder).fetch(identity, build).data == data


def build_for_real(folder: Path, barrier: Any, told: Any) -> None:
    """Fetches a real TensorRT-RTX engine at the same moment as others; tells if it was built, and its SHA-256."""
    supplier = Supplier(load_package("tensorrt-rtx"), None, EngineCache(folder))
    with Bundle.open("digits-vae") as bundle:
        graph = bundle.manifest.model.graphs[0]
        onnx = GraphFile.of(bundle.graph_source(graph.name, "fp32"))
    barrier.wait(60)
    fetched = supplier.fetched(Recipe(graph, "fp32", {"batch": AxisRange(1, 8, 64)}), onnx)
    told.put((fetched.fresh, hashlib.sha256(fetched.data).hexdigest()))
