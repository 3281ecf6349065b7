"""CUDA's runtime API with a counter before it: what of ours passes to the device, real or played."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gensdk_runtime.backends.cuda import device

UPLOADS, DOWNLOADS, COPIES = "uploads", "downloads", "copies within the device"
WAITS, ALLOCATIONS, CAPTURES, LAUNCHES = "synchronizations", "allocations", "captured graphs", "graph launches"
KINDS = {
    "cudaMemcpyHostToDevice": UPLOADS,
    "cudaMemcpyDeviceToHost": DOWNLOADS,
    "cudaMemcpyDeviceToDevice": COPIES,
}
CALLS = {
    **dict.fromkeys(("cudaStreamSynchronize", "cudaEventSynchronize", "cudaDeviceSynchronize"), WAITS),
    **dict.fromkeys(("cudaMalloc", "cudaMallocAsync", "cudaHostAlloc", "cudaMallocHost"), ALLOCATIONS),
    "cudaGraphInstantiate": CAPTURES,
    "cudaGraphLaunch": LAUNCHES,
}
COUNTED = (UPLOADS, DOWNLOADS, COPIES, WAITS, ALLOCATIONS, CAPTURES, LAUNCHES)


class Counting:
    """``cuda.bindings.runtime``, or its double: calls go through, and are counted in `counts`."""

    def __init__(self, api: Any) -> None:
        self._api = api
        self.counts: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._api, name)
        if not name.startswith("cuda") or isinstance(found, type) or not callable(found):
            return found

        def call(*arguments: Any) -> Any:
            self._count(name, arguments)
            return found(*arguments)

        self.__dict__[name] = call  # looked up once
        return call

    def _count(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name.startswith("cudaMemcpy"):
            for each in arguments:
                if isinstance(each, self._api.cudaMemcpyKind) and each.name in KINDS:
                    self.counts[KINDS[each.name]] += 1
        elif name in CALLS:
            self.counts[CALLS[name]] += 1


@contextmanager
def counting() -> Iterator[Counting]:
    """Counts inside every call that goes through our API of CUDA: all of the TensorRT backend's, and of ONNX
    Runtime's what its buffers on the GPU ask for. What was made inside may be freed later, and still works."""
    original: Callable[[], Any] = device.cuda
    counter = Counting(original())
    device.cuda = lambda: counter
    try:
        yield counter
    finally:
        device.cuda = original
