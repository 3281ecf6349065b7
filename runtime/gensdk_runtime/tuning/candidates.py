"""Which ways of running a model this machine has, to be measured against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gensdk_runtime.host.processor import cores_to_fill, threads_per_core
from gensdk_runtime.plan.batches import largest_batch
from gensdk_runtime.plan.costs import Choice
from gensdk_runtime.spec.model import ModelSpec

MEASURED_BACKENDS = ("onnxruntime", "openvino", "tensorrt")
"""What ``auto`` may choose; backends of other packages, and the fake one, are taken only by name."""

MAX_ROUND = 1024
"""Samples of the largest round that is measured; what is larger is made of several."""

SIZES = (1, 4, 8, 16, 64, 256)
"""Batch sizes; the cost of those between lies on a line."""

PREPARED_BYTES = 2**29
MAX_PREPARED = 3
"""Bytes of weights and number of batch sizes that one graph is prepared for, where each is prepared."""

_PROCESSOR = {"onnxruntime": "cpu", "openvino": "cpu", "tensorrt": None}
"""The provider that a backend takes where none is named, if that runs on the processor."""


@dataclass(frozen=True)
class Processor:
    """Threads that can run at once (`cores`), and how many logical cores share a physical one."""

    cores: int
    threads_per_core: int = 1

    @classmethod
    def here(cls, threads: int | None = None) -> Processor:
        """This machine, or as much of it as `threads` allows."""
        cores = cores_to_fill() if threads is None else threads
        return cls(cores, threads_per_core() if threads is None else 1)

    def thread_counts(self, *, thorough: bool) -> list[int]:
        """Sizes of a thread pool that may be the fastest, large ones first."""
        counts = {1, max(1, self.cores // self.threads_per_core), self.cores}
        if thorough:
            counts |= {2**power for power in range(1, 10) if 2**power < self.cores}
        return sorted(counts, reverse=True)


def candidates(
    devices: Mapping[str, Sequence[str] | None],
    processor: Processor,
    *,
    one_call: bool = False,
    threads_only: bool = False,
    thorough: bool = False,
) -> list[Choice]:
    """The choices of this machine; those with most threads first, and workers after what they are made of.

    `devices`: what each backend can run on here, None where it can't; `one_call`: the bundle has the whole sampler
    as one graph too; `threads_only`: no GPU, since the caller bounded the threads of the processor; `thorough`:
    more thread counts, and several workers for each.
    """
    found: list[Choice] = []
    for name in MEASURED_BACKENDS:
        here = devices.get(name)
        for device in () if here is None else here or ("",):
            if device.lower() == _PROCESSOR[name]:
                found += _on_processor(name, processor, thorough=thorough)
            elif not threads_only and _PROCESSOR[name] is None:
                found.append(Choice(backend=name))
                break  # its devices are GPUs, of which it takes the first
            elif not threads_only:
                found.append(Choice(backend=f"{name}:{device.lower()}"))
    if one_call:
        found += [choice.model_copy(update={"form": "one_call"}) for choice in found]
    return found


def _on_processor(name: str, processor: Processor, *, thorough: bool) -> list[Choice]:
    """Thread counts; spinning threads for ONNX Runtime; batches side by side on few threads each."""
    found = []
    for threads in processor.thread_counts(thorough=thorough):
        found.append(Choice(backend=name, threads=threads))
        if threads > 1 and name == "onnxruntime":
            found.append(Choice(backend=name, threads=threads, spinning=True))
        workers = min(processor.cores // threads, 256)
        if workers > 1 and (threads == 1 or thorough):
            found.append(Choice(backend=name, threads=threads, workers=workers))
    return found


def batch_sizes(model: ModelSpec, choice: Choice, *, weights: int = 0, padded: bool = False) -> list[int]:
    """The batch sizes to measure a choice at, rising.

    Never more than the model takes and memory holds for all workers together. `padded`: each size has to be
    prepared, which may take a second and a copy of the `weights` (in bytes).
    """
    largest = min(largest_batch(model, choice.workers), max(1, MAX_ROUND // choice.workers))
    largest = max(1, min(largest, -(-largest_batch(model) // choice.workers)))
    found = sorted({size for size in SIZES if size < largest} | {largest})
    if not padded:
        return found
    count = min(len(found), MAX_PREPARED, max(2, PREPARED_BYTES // max(1, weights)))
    return [found[round(i * (len(found) - 1) / max(1, count - 1))] for i in range(count)]
