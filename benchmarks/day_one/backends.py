"""The backends of this machine by name: which open, and one of them, on the double where that was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from day_one.result import Order
from gensdk_runtime.backends import backend_names, chains, create_backend, get_backend
from gensdk_runtime.backends.base import Backend
from gensdk_runtime.backends.chain import Chain
from gensdk_runtime.backends.onnxruntime.backend import GRAPHS, TF32
from gensdk_runtime.backends.onnxruntime.providers import PROVIDERS
from gensdk_runtime.backends.tensorrt.backend import KINDS
from gensdk_runtime.errors import InputError, did_you_mean

OWN_GPU = ("tensorrt",)
"""Backends that need an NVIDIA GPU, whatever stands behind the colon."""
REFERENCE = "onnxruntime"
"""What all others are compared with: the same graphs on the processor."""


def known() -> Mapping[str, Chain]:
    """What each backend and provider needs here, by the name that ``create_backend`` takes."""
    return {name.removesuffix(":cpu"): chain for name, chain in chains().items() if name != "fake"}


def choosable() -> dict[str, str]:
    """Each name that can be asked for, with the one whose chain says whether it opens: a provider's modes, as
    in ``onnxruntime:cuda:graphs``, open where the provider does."""
    found = {name: name for name in backend_names() if name not in ("fake", *OWN_GPU)}
    found |= {f"{name}:{kind}": f"{name}:{kind}" for name in OWN_GPU for kind in KINDS}
    for key, provider in PROVIDERS.items():
        name = f"{REFERENCE}:{key}".removesuffix(":cpu")
        tf32, graphs = provider.tf32 is not None, provider.makes_graphs
        modes = [[], *([[TF32]] if tf32 else []), *([[GRAPHS]] if graphs else [])]
        modes += [[TF32, GRAPHS]] if tf32 and graphs else []
        found |= {":".join((name, *mode)): name for mode in modes}
    return found


def asked_for(text: str) -> tuple[str, ...]:
    """The backends in `text`, with commas between, each once; ``tensorrt`` stands for all its kinds. Raises
    InputError for one that there is not."""
    names, wanted = choosable(), []
    for name in (each.strip().removesuffix(":cpu") for each in text.split(",")):
        kinds = [each for each in names if each.startswith(f"{name}:")] if name in OWN_GPU else []
        if not kinds and name not in names:
            if ":" not in name and name != "fake":
                get_backend(name)  # of another package, or its words of what there is
                kinds = [name]
            else:
                raise InputError(f"no backend {name!r}{did_you_mean(name, names)}")
        wanted += kinds or [name]
    return tuple(dict.fromkeys(wanted))


def on_gpu(name: str) -> bool:
    """Whether the backend of this name works on an NVIDIA GPU."""
    backend, _, provider = name.partition(":")
    if backend in OWN_GPU:
        return True
    provider = provider.partition(":")[0]  # behind which its modes may stand
    return backend == REFERENCE and bool(provider) and PROVIDERS[provider].wants is not None


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
    yield from (f"tensorrt:{kind}" for kind in KINDS)
