"""A graph's buffers at fixed sizes: page-locked arrays of the host, and the memory of the GPU behind them."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import numpy as np

from gensdk_runtime import noise
from gensdk_runtime.backends.base import Session
from gensdk_runtime.backends.bound import (
    Array,
    Bound,
    Carry,
    HeldKeys,
    Resident,
    Sizes,
    check_carry,
    tensor_shape,
)
from gensdk_runtime.backends.cuda.device import DeviceMemory, PinnedArray, Stream
from gensdk_runtime.backends.cuda.noise_kernels import NoiseKernels
from gensdk_runtime.backends.cuda.resident import GpuArray
from gensdk_runtime.backends.cuda.room import with_room
from gensdk_runtime.noise import Distribution, SampleKey
from gensdk_runtime.spec.signature import TensorSpec

ALIGNED = 256
"""Bytes between whose multiples the GPU's arrays begin, as memory of its own would."""


class GpuBound(Bound):
    """Arrays in page-locked memory, each with its memory on the GPU; what runs over them fills in `_launch`.

    A run returns when the work is in the stream: the CPU puts the next one there while the GPU computes, and waits
    where it asks for an output, or for an input that is still being copied. A carried state has two places on the
    GPU which take turns as input and output; it comes to the CPU only when it is asked for. What comes out for the
    CPU lies side by side, so that it comes in one copy.

    `kernels` draw noise there, unless this GPU's driver does not take them: then it is drawn here, and sent.
    `used`: called once these sizes have run to the end, when all that they need is compiled.
    """

    on_device = True

    def __init__(
        self,
        session: Session,
        sizes: Sizes,
        carry: Carry,
        *,
        kernels: NoiseKernels,
        used: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(session, sizes, carry)
        check_carry(session.graph, carry)
        graph = session.graph
        self._used, self._kernels = used, kernels
        self._stream = Stream()
        self._shapes = {spec.name: tensor_shape(graph, spec, sizes) for spec in (*graph.inputs, *graph.outputs)}
        self._dtypes = {spec.name: spec.dtype for spec in (*graph.inputs, *graph.outputs)}
        self._host = {spec.name: PinnedArray(self._shapes[spec.name], spec.dtype) for spec in graph.inputs}
        self._inputs = {spec.name: self._places_of(spec) for spec in graph.inputs}
        # The large ones first: a result in bytes then lies beside the sums that prove it.
        results = sorted((spec.name for spec in graph.outputs if spec.name not in self.carry), key=self._nbytes)
        self._results = Block({name: self._nbytes(name) for name in reversed(results)})
        self._uploads: Block | None = None
        self._keys: Block | None = None
        self._held: HeldKeys | None = None
        self._drawn: Block | None = None
        self._turn = 0
        self._changed: set[str] = set()  # inputs on the CPU that the GPU does not have yet
        self._behind: set[str] = set()  # inputs that only the GPU has as they are
        self._copied: set[str] = set()  # inputs that may still be on their way to the GPU
        self._ran = False

    @property
    def nbytes(self) -> int:  # type: ignore[override]
        """Bytes that it holds, on both sides."""
        blocks = sum(block.nbytes for block in self._blocks())
        places = sum(each.size for places in self._inputs.values() for each in places)
        return blocks + places + sum(each.array.nbytes for each in self._host.values())

    def input(self, name: str) -> Array:
        """The array to write into; waits until its last copy to the GPU is over."""
        if name in self._behind:
            with self._waiting():
                self._stream.download(self._place(name, self._turn), self._host[name])
            self._arrived()
        return self.overwrite(name)

    def overwrite(self, name: str) -> Array:
        """See :class:`Bound`."""
        if name in self._copied:
            with self._waiting():
                self._stream.wait_for_uploads()
            self._copied.clear()
        self._behind.discard(name)
        self._changed.add(name)
        return self._host[name].array

    def output(self, name: str) -> Array:
        """The output, copied from the GPU when it is first asked for after a run."""
        return self.outputs(name)[0]

    def outputs(self, *names: str) -> tuple[Array, ...]:
        """See :class:`Bound`. A state that is carried comes by itself."""
        if not self._ran:
            return tuple(self._array(name) for name in names)
        for name in names:
            if name in self.carry and self.carry[name] in self._behind:
                target = self.carry[name]
                with self._waiting():
                    self._stream.download(self._place(target, self._turn), self._host[target])
                self._behind.discard(target)
                self._arrived()
        results = [name for name in names if name not in self.carry]
        with self._waiting():
            came = self._results.bring(self._stream, results)
        if came:
            self._arrived()
        return tuple(self._array(name) for name in names)

    def feed(self, name: str) -> GpuArray:
        """See :class:`Bound`."""
        self._changed.discard(name)
        self._behind.add(name)
        return self._gpu(self._place(name, self._turn), 0, name)

    def made(self, name: str) -> Resident:
        """See :class:`Bound`."""
        if name in self.carry:
            return self._gpu(self._place(self.carry[name], self._turn), 0, name)
        return self._gpu(self._results.device, self._results.offsets[name], name)

    def upload(self, arrays: Mapping[str, Array]) -> Mapping[str, Resident]:
        """In one copy, into memory that is kept for the next ones. See :class:`Bound`."""
        block = self._uploads = self._emptied(
            self._uploads, {name: array.nbytes for name, array in arrays.items()}
        )
        for name, array in arrays.items():
            block.host_array(name, array.shape, array.dtype)[...] = array
        block.send(self._stream)
        return {name: block.gpu_array(name, each.shape, each.dtype, self._stream) for name, each in arrays.items()}

    def hold_keys(self, keys: Sequence[SampleKey]) -> HeldKeys:
        """Sends them, where they are not the last ones. See :class:`Bound`."""
        keys = tuple(keys)
        if not self._kernels.usable:
            return HeldKeys(keys)
        if self._held is None or self._held.keys != keys:
            self._held, words = None, np.array(keys, np.uint64).reshape(-1, 2)
            block = self._keys = self._emptied(self._keys, {"keys": words.nbytes})
            block.host_array("keys", words.shape, words.dtype)[...] = words
            block.send(self._stream)
            self._held = HeldKeys(keys, block.gpu_array("keys", words.shape, words.dtype, self._stream))
        return self._held

    def draw(self, name: str, distribution: Distribution, keys: HeldKeys, stream: int) -> None:
        """By a kernel, where the keys are here. See :class:`Bound`."""
        if isinstance(keys.place, GpuArray) and self._dtypes[name] == "float32":
            self._kernels.draw(self.feed(name), distribution, keys.place, stream)
        else:
            super().draw(name, distribution, keys, stream)

    def drawn(self, distribution: Distribution, keys: HeldKeys, stream: int, shape: Sequence[int]) -> Resident:
        """By a kernel, where the keys are here. See :class:`Bound`."""
        whole = (len(keys.keys), *shape)
        block = self._drawn = self._emptied(self._drawn, {"noise": 4 * math.prod(whole)})
        array = block.gpu_array("noise", whole, np.float32, self._stream)
        if isinstance(keys.place, GpuArray):
            self._kernels.draw(array, distribution, keys.place, stream)
        else:
            noise.draw(distribution, keys.keys, stream, shape, out=block.host_array("noise", whole, np.float32))
            block.send(self._stream)
        return array

    def fetch(self, array: Resident) -> Array:
        """See :class:`Bound`."""
        if not isinstance(array, GpuArray):
            return np.asarray(array)
        self._stream.after(array.stream)
        with self._waiting():
            here = None if self._uploads is None else self._uploads.bring_back(self._stream, array)
            if here is None:  # from elsewhere, or not in one piece
                target = PinnedArray(array.shape, str(array.dtype))
                self._stream.bring(array.plane(), target)
                here = target.array
        self._arrived()
        return here

    def _run(self) -> None:
        for name in self._changed:
            self._stream.upload(self._host[name], self._place(name, self._turn))
        if self._changed:
            self._stream.mark_uploads()
            self._copied |= self._changed
        with_room(lambda: self._launch(self._turn))
        self._turn = (self._turn + 1) % 2
        self._behind |= set(self.carry.values())
        self._changed.clear()
        self._results.changed()
        self._ran = True

    @abstractmethod
    def _launch(self, turn: int) -> None:
        """Puts one run over the addresses of this turn, 0 or 1, into the stream; raises :class:`BackendError`."""

    def close(self) -> None:
        """Waits for the GPU, then frees its memory."""
        self._stream.drain()
        for memory in (each for places in self._inputs.values() for each in places):
            memory.close()
        for block in self._blocks():
            block.device.close()
        self._stream.close()

    def _blocks(self) -> list[Block]:
        return [each for each in (self._results, self._uploads, self._keys, self._drawn) if each is not None]

    def _emptied(self, block: Block | None, sizes: Mapping[str, int]) -> Block:
        """For arrays of these sizes, which the host may write now: the same one where they have room."""
        if block is not None:
            with self._waiting():
                if block.fits(sizes):
                    self._stream.wait_for_uploads(block.sent)
                    block.lay_out(sizes)
                    return block
                self._stream.synchronize()  # since its memory is freed here
        return Block(sizes)

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        start = perf_counter()
        yield
        self.waited += perf_counter() - start

    def _arrived(self) -> None:
        """All of the stream's work is over."""
        self._copied.clear()
        if self._used is not None:
            used, self._used = self._used, None
            used()

    def _array(self, name: str) -> Array:
        if name in self.carry:
            return self._host[self.carry[name]].array
        return self._results.host_array(name, self._shapes[name], self._dtypes[name])

    def _gpu(self, memory: DeviceMemory, offset: int, name: str) -> GpuArray:
        return GpuArray(memory, memory.address + offset, self._shapes[name], self._dtypes[name], self._stream)

    def _places_of(self, spec: TensorSpec) -> list[DeviceMemory]:
        """Of an input, cleared: what multiplies its garbage by zero must not find NaN there."""
        turns = 2 if spec.name in self.carry.values() else 1
        places = [DeviceMemory(self._nbytes(spec.name)) for _ in range(turns)]
        for place in places:
            GpuArray(place, place.address, (place.size,), np.uint8, self._stream).fill(0)
        return places

    def _nbytes(self, name: str) -> int:
        return int(np.prod(self._shapes[name], dtype=np.int64)) * np.dtype(self._dtypes[name]).itemsize

    def _place(self, name: str, turn: int) -> DeviceMemory:
        """Where input `name` lies in this turn."""
        places = self._inputs[name]
        return places[turn % len(places)]

    def _addresses(self, turn: int) -> dict[str, int]:
        """Where each input and output lies in this turn."""
        graph = self.session.graph
        inputs = {spec.name: self._place(spec.name, turn).address for spec in graph.inputs}
        carried = {name: self._place(back, turn + 1).address for name, back in self.carry.items()}
        results = {name: self._results.device.address + at for name, at in self._results.offsets.items()}
        return inputs | carried | results


class Block:
    """Arrays side by side, on the host and on the GPU, so that some that are neighbours pass in one copy.

    Raises as :class:`DeviceMemory` and :class:`PinnedArray`.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.offsets: dict[str, int] = {}
        self._sizes: Mapping[str, int] = {}
        self.lay_out(sizes)
        size = max(1, self._end())
        self._host = PinnedArray((size,), "uint8")
        self.device = DeviceMemory(size)
        self._here: set[str] = set()
        self.sent = 0  # the stream's mark after the last time

    @property
    def nbytes(self) -> int:
        """Bytes on both sides."""
        return 2 * self.device.size

    def fits(self, sizes: Mapping[str, int]) -> bool:
        """True where arrays of these sizes have room."""
        return sum(_aligned(size) for size in sizes.values()) <= self.device.size

    def lay_out(self, sizes: Mapping[str, int]) -> None:
        """One after another, in their order."""
        self._sizes, end = dict(sizes), 0
        self.offsets = {}
        for name, size in sizes.items():
            self.offsets[name] = end
            end += _aligned(size)

    def host_array(self, name: str, shape: tuple[int, ...], dtype: object) -> Array:
        """The host's part of it."""
        first = self.offsets[name]
        part: Array = self._host.array[first : first + self._sizes[name]]
        return part.view(np.dtype(dtype)).reshape(shape)  # type: ignore[call-overload]

    def send(self, stream: Stream) -> None:
        """All of it to the GPU."""
        stream.upload_part(self._host, self.device, 0, self._end())
        self.sent = stream.mark_uploads()

    def gpu_array(self, name: str, shape: tuple[int, ...], dtype: Any, stream: Stream) -> GpuArray:
        """The GPU's part of it, used in the order of `stream`."""
        return GpuArray(self.device, self.device.address + self.offsets[name], shape, dtype, stream)

    def changed(self) -> None:
        """The GPU wrote anew."""
        self._here.clear()

    def bring(self, stream: Stream, names: list[str]) -> bool:
        """Copies these arrays, with what lies between them, and waits; False where all are here already."""
        if all(name in self._here for name in names):
            return False
        first = min(self.offsets[name] for name in names)
        last = max(self.offsets[name] + self._sizes[name] for name in names)
        stream.download_part(self.device, self._host, first, last - first)
        self._here |= {name for name, at in self.offsets.items() if first <= at and at + self._sizes[name] <= last}
        return True

    def bring_back(self, stream: Stream, array: GpuArray) -> Array | None:
        """Copies what lies in one piece in this block to the host's part of it, and waits; None for all else."""
        plane = array.plane()
        first = plane.address - self.device.address
        if plane.rows != 1 or not 0 <= first <= self.device.size - plane.width:
            return None
        stream.download_part(self.device, self._host, first, plane.width)
        part: Array = self._host.array[first : first + plane.width]
        return part.view(array.dtype).reshape(array.shape)

    def _end(self) -> int:
        return max((at + _aligned(self._sizes[name]) for name, at in self.offsets.items()), default=0)


def _aligned(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED
