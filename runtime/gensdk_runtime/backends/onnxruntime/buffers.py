"""Buffers that ONNX Runtime works in: the caller's arrays on the CPU, or tensors that stay on a device."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from gensdk_runtime.backends.base import Session
from gensdk_runtime.backends.bound import Array, Bound, Carry, SharedBound, Sizes, check_carry, empty_tensor
from gensdk_runtime.backends.onnxruntime.device_memory import Memory
from gensdk_runtime.errors import BackendError


class NativeSession(Session):
    """A session that holds an ``InferenceSession``: what buffers need of it."""

    run_options: Any

    @abstractmethod
    def native(self) -> Any:
        """The ``InferenceSession``, held until a run is over, whoever closes this session meanwhile."""

    @abstractmethod
    def failed(self, failure: Exception) -> BackendError:
        """What ONNX Runtime raised, in one line."""


class HostBound(SharedBound):
    """On the CPU: ONNX Runtime works in our arrays, and refuses outputs of another shape or type than theirs."""

    session: NativeSession

    def __init__(self, session: NativeSession, ort: Any, sizes: Sizes, carry: Carry) -> None:
        super().__init__(session, sizes, carry)
        native = session.native()
        of = ort.OrtValue.ortvalue_from_numpy  # shares memory with the array
        self._bindings = [
            _binding(native, _values(turn.inputs, of), _values(turn.outputs, of)) for turn in self.turns
        ]

    def _launch(self, turn: int) -> None:
        session = self.session.native()
        try:
            session.run_with_iobinding(self._bindings[turn], self.session.run_options)
        except Exception as failure:  # ONNX Runtime's share no base
            raise self.session.failed(failure) from None

    def close(self) -> None:
        """Lets go of the session's memory."""
        self._bindings = []


class DeviceBound(Bound):
    """Tensors stay on the device; inputs go up when they were asked for, outputs come down when they are."""

    session: NativeSession

    def __init__(self, session: NativeSession, ort: Any, sizes: Sizes, carry: Carry, memory: Memory) -> None:
        super().__init__(session, sizes, carry)
        graph = session.graph
        check_carry(graph, carry)
        self._ort, self._memory = ort, memory
        self._inputs = {spec.name: empty_tensor(graph, spec, sizes) for spec in graph.inputs}
        self._outputs = {spec.name: empty_tensor(graph, spec, sizes) for spec in graph.outputs}

        def allocate(array: Array) -> Any:
            return memory.allocate(ort, array.shape, array.dtype.type)

        native = session.native()
        try:
            above, below = _values(self._inputs, allocate), _values(self._outputs, allocate)
            turns = [(above, below)]
            if carry:
                carried = {name: below[output] for output, name in carry.items()}
                turns.append((above | carried, below | {output: above[name] for output, name in carry.items()}))
            self._bindings = [_binding(native, *turn) for turn in turns]
        except Exception as failure:  # ONNX Runtime's share no base
            raise session.failed(failure) from None
        self._turns = turns
        self._next = self._last = 0
        self._changed = set(self._inputs)
        self._carried: set[str] = set()  # inputs that are newer on the device
        self._fetched: set[str] = set()  # outputs of the last run that the CPU has
        self._ran = False

    def input(self, name: str) -> Array:
        """The array that goes up before the next run."""
        if name in self._carried:
            self._memory.download(self._ort, self._turns[self._next][0][name], self._inputs[name])
        return self.overwrite(name)

    def overwrite(self, name: str) -> Array:
        """See :class:`Bound`."""
        self._carried.discard(name)
        self._changed.add(name)
        return self._inputs[name]

    def output(self, name: str) -> Array:
        """What the last run gave, brought down once."""
        if name not in self._fetched and self._ran:
            self._memory.download(self._ort, self._turns[self._last][1][name], self._outputs[name])
            self._fetched.add(name)
        return self._outputs[name]

    def _run(self) -> None:
        session, values = self.session.native(), self._turns[self._next][0]
        try:
            for name in self._changed:
                self._memory.upload(self._ort, self._inputs[name], values[name])
            session.run_with_iobinding(self._bindings[self._next], self.session.run_options)
        except Exception as failure:  # ONNX Runtime's share no base
            raise self.session.failed(failure) from None
        self._changed.clear()
        self._fetched.clear()
        self._carried = set(self.carry.values())
        self._last, self._next = self._next, (self._next + 1) % len(self._turns)
        self._ran = True

    def close(self) -> None:
        """Frees the device memory."""
        self._bindings, self._turns = [], []


def _values(arrays: Mapping[str, Array], make: Any) -> dict[str, Any]:
    return {name: make(array) for name, array in arrays.items()}


def _binding(session: Any, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
    binding = session.io_binding()
    for name, value in inputs.items():
        binding.bind_ortvalue_input(name, value)
    for name, value in outputs.items():
        binding.bind_ortvalue_output(name, value)
    return binding
