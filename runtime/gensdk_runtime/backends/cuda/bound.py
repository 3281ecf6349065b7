"""A graph's buffers at fixed sizes: page-locked arrays of the host, and the memory of the GPU behind them."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter

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
from gensdk_runtime.backends.cuda.block import Block
from gensdk_runtime.backends.cuda.device import DeviceMemory, PinnedArray, Stream
from gensdk_runtime.backends.cuda.loop import recorded_loop
from gensdk_runtime.backends.cuda.noise_kernels import NoiseKernels
from gensdk_runtime.backends.cuda.resident import GpuArray
from gensdk_runtime.backends.cuda.room import with_room
from gensdk_runtime.errors import BackendError
from gensdk_runtime.noise import Distribution, SampleKey
from gensdk_runtime.spec.signature import TensorSpec


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
    recording = False
    """Whether runs are being recorded, not done."""

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
        self._gathered: Block | None = None
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
        array = self._host[name].array
        self._behind.discard(name)
        self._changed.add(name)
        return array

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
            target, place = self.feed(name), keys.place
            with_room(lambda: self._kernels.draw(target, distribution, place, stream))
        else:
            super().draw(name, distribution, keys, stream)

    def drawn(self, distribution: Distribution, keys: HeldKeys, stream: int, shape: Sequence[int]) -> Resident:
        """By a kernel, where the keys are here. See :class:`Bound`."""
        whole = (len(keys.keys), *shape)
        block = self._drawn = self._emptied(self._drawn, {"noise": 4 * math.prod(whole)})
        array = block.gpu_array("noise", whole, np.float32, self._stream)
        if isinstance(keys.place, GpuArray):
            place = keys.place
            with_room(lambda: self._kernels.draw(array, distribution, place, stream))
        else:
            noise.DRAWS[distribution](keys.keys, stream, shape, out=block.host_array("noise", whole, np.float32))
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
                target = with_room(lambda: PinnedArray(array.shape, str(array.dtype)))
                self._stream.bring(array.plane(), target)
                here = target.array
        self._arrived()
        return here

    def fetch_all(self, *arrays: Resident) -> tuple[Array, ...]:
        """By way of one block on the GPU. See :class:`Bound`."""
        if len(arrays) == 1 or not all(isinstance(array, GpuArray) for array in arrays):
            return tuple(self.fetch(array) for array in arrays)
        own = {str(number): array for number, array in enumerate(arrays) if isinstance(array, GpuArray)}
        block = self._gathered = self._emptied(self._gathered, {name: each.nbytes for name, each in own.items()})
        for name, array in own.items():
            block.gpu_array(name, array.shape, array.dtype, self._stream)[...] = array
        block.changed()
        with self._waiting():
            block.bring(self._stream, list(own))
        self._arrived()
        return tuple(block.host_array(name, array.shape, array.dtype) for name, array in own.items())

    def drain(self) -> None:
        """See :class:`Bound`."""
        self._stream.drain()

    def rewind(self) -> None:
        """See :class:`Bound`."""
        self._turn = 0

    def record(self, loop: Callable[[], None], beside: Sequence[Bound]) -> Callable[[], None] | None:
        """As one CUDA graph. See :class:`Bound`."""
        bounds = [self, *(each for each in beside if isinstance(each, GpuBound))]
        if len(bounds) <= len(beside) or not all(each._records for each in bounds):
            return None
        return recorded_loop(loop, bounds)

    def _run(self) -> None:
        if self.recording and self._changed:
            raise BackendError("an input comes from the host in the middle of a loop")
        self.send_changed()
        with_room(lambda: self._launch(self._turn))
        self.has_run(self._turn + 1)

    def send_changed(self) -> None:
        """Sends the inputs that were written since the last run."""
        for name in self._changed:
            self._stream.upload(self._host[name], self._place(name, self._turn))
        if self._changed:
            self._stream.mark_uploads()
            self._copied |= self._changed
        self._changed.clear()

    def has_run(self, turn: int) -> None:
        """Runs are in the stream, and `turn` is next."""
        self._turn = turn % 2
        self._behind |= set(self.carry.values())
        self._results.changed()
        self._ran = True

    @property
    def stream(self) -> Stream:
        """What its work is put into."""
        return self._stream

    @property
    def turn(self) -> int:
        """Of the next run, 0 or 1."""
        return self._turn

    @property
    def _records(self) -> bool:
        """True if runs can be part of a CUDA graph of ours by now."""
        return False

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
        blocks = (self._results, self._uploads, self._keys, self._drawn, self._gathered)
        return [each for each in blocks if each is not None]

    def _emptied(self, block: Block | None, sizes: Mapping[str, int]) -> Block:
        """For arrays of these sizes, which the host may write now: the same one where they have room."""
        if self.recording:
            raise BackendError("something comes from the host in the middle of a loop")
        if block is not None:
            with self._waiting():
                if block.fits(sizes):
                    self._stream.wait_for_uploads(block.sent)
                    block.lay_out(sizes)
                    return block
                self._stream.synchronize()  # since its memory is freed here
        return with_room(lambda: Block(sizes))

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
