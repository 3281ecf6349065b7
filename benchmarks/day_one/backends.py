"""The backends of this machine by name: which open, and one of them, on the double where that was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from day_one.result import Order
from gensdk_runtime.backends import chains, create_backend
from gensdk_runtime.backends.base import Backend
from gensdk_runtime.backends.chain import Chain
from gensdk_runtime.backends.onnxruntime.providers import PROVIDERS

OWN_GPU = ("tensorrt",)
"""Backends that need an NVIDIA GPU, whatever stands behind the colon."""
REFERENCE = "onnxruntime"
"""What all others are compared with: the same graphs on the processor."""


def known() -> Mapping[str, Chain]:
    """What each backend and provider needs here, by the name that ``create_backend`` takes."""
    return {name.removesuffix(":cpu"): chain for name, chain in chains().items() if name != "fake"}


def on_gpu(name: str) -> bool:
    """Whether the backend of this name works on an NVIDIA GPU."""
    backend, _, provider = name.partition(":")
    if backend in OWN_GPU:
        return True
    return backend == "onnxruntime" and bool(provider) and PROVIDERS[provider].wants is not None


def processors_first(names: Iterable[str]) -> list[str]:
    """What needs little time comes first and leaves the rest to GPUs; TensorRT, which builds engines, is last."""
    return sorted(names, key=lambda name: (on_gpu(name), name.startswith("tensorrt"), name != REFERENCE))


def backend_of(order: Order) -> Backend:
    """The backend that `order` names as its piece. Raises UnavailableError, or InputError for an unknown one."""
    if order.on_double:
        from day_one.double import backend_on_double

        return backend_on_double(order)
    return create_backend(order.piece)


def doubled() -> Iterator[str]:
    """What the double can play."""
    from gensdk_runtime.backends.tensorrt.backend import KINDS

    yield from (f"tensorrt:{kind}" for kind in KINDS)
