"""A graph at fixed sizes with buffers of its own, bound once and run many times.

What a sampling loop needs: inputs are written in place, nothing is allocated or checked between steps, and a
state that goes back in (``next_sample`` to ``sample``) changes places with its input instead of being copied.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gensdk_runtime import noise
from gensdk_runtime.errors import BackendError
from gensdk_runtime.noise import Distribution, SampleKey

if TYPE_CHECKING:
    from gensdk_runtime.backends.base import Session
    from gensdk_runtime.spec.signature import GraphSpec, TensorSpec

Array = NDArray[Any]
Sizes = Mapping[str, int]
"""The size of each named axis."""
Carry = Mapping[str, str]
"""Output name to input name: after a run, the output is that input of the next run."""


class Resident(Protocol):
    """An array where graphs compute: one of NumPy's on the host, or one in the memory of a device.

    It is cut by numbers and slices. On a device it is filled with zeros or from another resident array, and then
    nothing passes through the host.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """As NumPy's."""

    def __getitem__(self, where: Any) -> Any:
        """A part of it, in the same memory."""

    def __setitem__(self, where: Any, values: Any) -> None:
        """Copies another resident array of the same shape into a part of it."""

    def fill(self, value: Any) -> None:
        """Fills it, with 0 on a device."""


class HeldKeys(NamedTuple):
    """Keys of samples where noise is drawn from them: at `place` as uint64 [n, 2], or None on the host alone."""

    keys: tuple[SampleKey, ...]
    place: Resident | None = None


ALIGNMENT = 64
"""Bytes; what ONNX Runtime and OpenVINO want of memory that they use as it is."""


class Bound(ABC):
    """One graph at fixed sizes. Belongs to one caller at a time (:meth:`Session.bound` lends it out).

    Its buffers hold whatever the last caller left: write every input that no run carries over before the first
    run. A backend fills in `_run`, `input` and `output`.
    """

    nbytes = 0
    """Bytes that it holds; 0 where the backend does not say."""
    waited = 0.0
    """Seconds that :meth:`input`, :meth:`output` and what is like them waited for runs that :meth:`run` only
    began."""
    on_device = False
    """Whether graphs compute in another memory than the host's, so that each array that goes there counts."""

    def __init__(self, session: Session, sizes: Sizes, carry: Carry) -> None:
        self.session = session
        self.sizes = dict(sizes)
        self.carry = dict(carry)

    @abstractmethod
    def input(self, name: str) -> Array:
        """The array to write input `name` into.

        Ask for it again before each change: buffers change places, and a backend with memory of its own copies
        only the inputs that were asked for since the last run.
        """

    @abstractmethod
    def output(self, name: str) -> Array:
        """Output `name` of the last run, to be read before the next one."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Of input `name`, at these sizes."""
        spec = self.session.graph.input(name)
        if spec is None:
            raise BackendError(f"graph {self.session.graph.name!r} has no input {name!r}")
        return tensor_shape(self.session.graph, spec, self.sizes)

    def overwrite(self, name: str) -> Array:
        """As :meth:`input`, for an array that is written as a whole: what a device has of it is not brought."""
        return self.input(name)

    def outputs(self, *names: str) -> tuple[Array, ...]:
        """Several outputs as :meth:`output` gives them, brought from a device together."""
        return tuple(self.output(name) for name in names)

    def feed(self, name: str) -> Resident:
        """Where the next run reads input `name`, to be written there as a whole."""
        return self.overwrite(name)

    def made(self, name: str) -> Resident:
        """Where the last run wrote output `name`, to be read before the next one."""
        return self.output(name)

    def upload(self, arrays: Mapping[str, Array]) -> Mapping[str, Resident]:
        """Takes arrays to where the graph computes, all of them at once; they hold until the next upload here.

        On the host they are what was given.
        """
        return arrays

    def fetch(self, array: Resident) -> Array:
        """A resident array of this graph's device, as one of NumPy's; on the host the same.

        What came from :meth:`upload` is valid until the next one, as there.
        """
        return np.asarray(array)

    def fetch_all(self, *arrays: Resident) -> tuple[Array, ...]:
        """As :meth:`fetch`, several arrays of this device, whichever graph they belong to, brought together.

        They are valid until the next ones.
        """
        return tuple(np.asarray(array) for array in arrays)

    def hold_keys(self, keys: Sequence[SampleKey]) -> HeldKeys:
        """Takes keys to where the graph computes, for noise to be drawn there; they hold until the next ones."""
        return HeldKeys(tuple(keys))

    def draw(self, name: str, distribution: Distribution, keys: HeldKeys, stream: int) -> None:
        """Draws input `name` [n, ...] as a whole, for the next run; see :mod:`gensdk_runtime.noise`.

        `keys`: of n samples, held here or by another graph on the same device.
        """
        out = self.overwrite(name)
        noise.DRAWS[distribution](keys.keys, stream, out.shape[1:], out=out)

    def drawn(self, distribution: Distribution, keys: HeldKeys, stream: int, shape: Sequence[int]) -> Resident:
        """Noise [n, *shape] where the graph computes; it holds until it is asked for again here."""
        return noise.DRAWS[distribution](keys.keys, stream, shape)

    def rewind(self) -> None:  # noqa: B027 - not every backend has places that change
        """Before another loop that writes all of the inputs: buffers that change places begin anew."""

    def record(self, loop: Callable[[], None], beside: Sequence[Bound]) -> Callable[[], None] | None:
        """What `loop` has this graph do, and those `beside` it on the same device, as one piece of work; None
        where that can't be, and :meth:`rewind` then has all as it was.

        `loop` begins after :meth:`rewind`, and reads and writes nothing on the host. It is not done by being
        recorded, but each time when the result is called: again after :meth:`rewind`.
        """
        return None

    def run(self) -> None:
        """Runs the graph once on the present inputs; then carries outputs over to inputs.

        Raises :class:`BackendError` where the backend fails, gives something else than the graph promises, or
        was closed.
        """
        if self.session.closed:
            raise self.session.closed_error()
        self._run()

    def take_waited(self) -> float:
        """:attr:`waited`, which begins anew."""
        waited, self.waited = self.waited, 0.0
        return waited

    @abstractmethod
    def _run(self) -> None:
        """Runs and carries over."""

    def drain(self) -> None:  # noqa: B027 - where runs are over when they return
        """Waits for what runs began, failed or not: what is shared with other graphs may be freed afterwards."""

    def close(self) -> None:  # noqa: B027 - not every backend holds something
        """Frees what it holds."""


class CopyingBound(Bound):
    """For backends without buffers of their own: runs the session on plain arrays."""

    def __init__(self, session: Session, sizes: Sizes, carry: Carry) -> None:
        super().__init__(session, sizes, carry)
        check_carry(session.graph, carry)
        self._inputs = {spec.name: empty_tensor(session.graph, spec, sizes) for spec in session.graph.inputs}
        self._outputs: Mapping[str, Array] = {}

    def input(self, name: str) -> Array:
        """The array that the next run gets."""
        return self._inputs[name]

    def output(self, name: str) -> Array:
        """As the session gave it."""
        return self._outputs[name]

    def _run(self) -> None:
        self._outputs = self.session.run(self._inputs)
        for output, name in self.carry.items():
            np.copyto(self._inputs[name], self._outputs[output])


class SharedBound(Bound):
    """For backends that read inputs from, and write outputs into, memory that the caller gives them.

    Where states are carried there are two sets of buffers, an even and an odd turn: each reads what the other
    wrote, so nothing is copied. A backend fills in `_launch`.
    """

    def __init__(self, session: Session, sizes: Sizes, carry: Carry) -> None:
        super().__init__(session, sizes, carry)
        check_carry(session.graph, carry)
        inputs = {spec.name: empty_tensor(session.graph, spec, sizes) for spec in session.graph.inputs}
        outputs = {spec.name: empty_tensor(session.graph, spec, sizes) for spec in session.graph.outputs}
        carried = {name: outputs[output] for output, name in carry.items()}
        even = Turn(inputs, outputs)
        odd = Turn(inputs | carried, outputs | {output: inputs[name] for output, name in carry.items()})
        self.turns = (even, odd) if carry else (even,)
        self._next = 0
        self._last = 0

    def input(self, name: str) -> Array:
        """The array that the next run reads."""
        return self.turns[self._next].inputs[name]

    def overwrite(self, name: str) -> Array:
        """The same."""
        return self.turns[self._next].inputs[name]

    def output(self, name: str) -> Array:
        """The array that the last run wrote; a carried one is the input of the next."""
        return self.turns[self._last].outputs[name]

    def _run(self) -> None:
        self._launch(self._next)
        self._last, self._next = self._next, (self._next + 1) % len(self.turns)

    @abstractmethod
    def _launch(self, turn: int) -> None:
        """Runs the graph once over the arrays of ``self.turns[turn]``."""


@dataclass(frozen=True)
class Turn:
    """The arrays of one run, by name."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]


def check_carry(graph: GraphSpec, carry: Carry) -> None:
    """Raises :class:`BackendError` unless each output of `carry` is like the one input that it goes to."""
    for output, name in carry.items():
        source, target = graph.output(output), graph.input(name)
        if source is None or target is None or (source.dtype, source.shape) != (target.dtype, target.shape):
            raise BackendError(f"graph {graph.name!r} can't carry output {output!r} over to input {name!r}")
    if len(set(carry.values())) != len(carry):
        raise BackendError(f"graph {graph.name!r} can't carry two outputs over to one input: {dict(carry)}")


def tensor_shape(graph: GraphSpec, spec: TensorSpec, sizes: Sizes) -> tuple[int, ...]:
    """The shape of `spec` at these sizes; :class:`BackendError` for a named axis that has none."""
    try:
        return tuple(axis if isinstance(axis, int) else sizes[axis] for axis in spec.shape)
    except KeyError as axis:
        raise BackendError(f"{graph.name}.{spec.name}: axis {axis} needs a size; got {dict(sizes)}") from None


def empty_tensor(graph: GraphSpec, spec: TensorSpec, sizes: Sizes) -> Array:
    """An aligned, contiguous array for `spec` at these sizes, at zero."""
    shape = tensor_shape(graph, spec, sizes)
    dtype = np.dtype(spec.dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    offset = -memory.ctypes.data % ALIGNMENT
    return memory[offset : offset + size].view(dtype).reshape(shape)
