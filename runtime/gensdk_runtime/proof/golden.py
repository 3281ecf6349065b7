"""Golden trajectories: PyTorch's computations when the bundle was made, kept so that anyone can replay them.

A trajectory is one sampling run: its settings (seeds and all), some of the graph calls it made (feeds in,
outputs back) and its final samples. A golden file is one ``.npz``: plain arrays, each stored once, and an index
as JSON. No pickle.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from gensdk_runtime.backends.base import Feeds, Session
from gensdk_runtime.backends.bound import Array
from gensdk_runtime.bundles.arrays_file import read_npz
from gensdk_runtime.errors import IntegrityError
from gensdk_runtime.spec.fields import Name, Precision
from gensdk_runtime.spec.options import OptionValues
from gensdk_runtime.spec.strict import StrictModel

INDEX = "index"
MAX_BYTES = 2**30
"""A golden file that unpacks to more than this is refused."""
MAX_INDEX_BYTES = 16 * 2**20
"""About 60,000 calls; the index is parsed as a whole."""

MAX_STEPS = 10_000
"""Steps of a run; whoever verifies a bundle makes them all again."""

ArrayKey = Annotated[str, Field(pattern=r"^a[0-9]{1,6}$")]
Bound = Annotated[float, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**64)]


class TrajectorySettings(OptionValues):
    """The arguments of :meth:`Generator.sample` that make the samples: a seed for each, and options.

    `labels`: in golden files of older versions; newer ones have them among the conditions.
    """

    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=64)]
    labels: tuple[int, ...] | None = None

    @model_validator(mode="after")
    def _check_steps(self) -> Self:
        steps = self.options.get("num_inference_steps", 0)
        if steps > MAX_STEPS:
            raise ValueError(f"num_inference_steps: expected at most {MAX_STEPS}, got {steps}")
        return self

    def sample_arguments(self) -> dict[str, Any]:
        """The settings as keyword arguments of :meth:`Generator.sample`."""
        return {"n": len(self.seeds), "seed": list(self.seeds), **self.options}


class GoldenBounds(StrictModel):
    """How far a backend may be from PyTorch; see :mod:`gensdk_runtime.proof.drift` for the units.

    `graph`: largest scaled difference of a graph's outputs, call by call. `flipped`: largest share of pixels
    whose discrete value differs. `samples`: largest scaled difference of whole samples; None: reported only.
    `psnr`: the least PSNR in dB of either, where single values may differ much (quantized graphs).
    `jumps`: the same as `graph` for graphs that are allowed more: gradients jump where a feature lies on an edge,
    and rounding decides on which side.
    """

    graph: Bound
    flipped: Bound
    samples: Bound | None = None
    psnr: Annotated[float, Field(ge=0, le=200)] | None = None
    jumps: dict[str, Bound] = Field(default_factory=dict)

    def of(self, graph: str) -> GoldenBounds:
        """The bounds of the graph of this name."""
        return self.model_copy(update={"graph": max(self.graph, self.jumps.get(graph, 0.0)), "jumps": {}})


@dataclass(frozen=True)
class Call:
    """One run of a graph: what went in, what came out. `step` counts the graph's calls within the run."""

    graph: str
    step: int
    feeds: Mapping[str, Array]
    outputs: Mapping[str, Array]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays together."""
        return sum(array.nbytes for array in (*self.feeds.values(), *self.outputs.values()))


@dataclass(frozen=True)
class Trajectory:
    """One sampling run: `samples` [n, ...] of the model's kind; `calls` are all or some of its graph calls.

    `conditions`: what was asked for, by kind, [n, ...].
    """

    settings: TrajectorySettings
    samples: Array
    calls: tuple[Call, ...]
    conditions: Mapping[str, Array] = field(default_factory=dict)

    def sample_arguments(self) -> dict[str, Any]:
        """The keyword arguments of :meth:`Generator.sample` that make the samples."""
        return {**self.settings.sample_arguments(), **self.conditions}


@dataclass(frozen=True)
class Golden:
    """The proof of a bundle: trajectories from PyTorch, and the bounds that each precision keeps."""

    trajectories: tuple[Trajectory, ...]
    bounds: Mapping[Precision, GoldenBounds] = field(default_factory=dict)

    def calls(self, graph: str) -> tuple[Call, ...]:
        """All calls of `graph`, in order, over all trajectories."""
        return tuple(call for run in self.trajectories for call in run.calls if call.graph == graph)

    def to_bytes(self) -> bytes:
        """The golden file: a compressed ``.npz``; :meth:`from_bytes` gives the same golden back."""
        store = _ArrayStore()
        records = tuple(
            _TrajectoryRecord(
                settings=run.settings,
                samples=store.add(run.samples),
                conditions={kind: store.add(values) for kind, values in run.conditions.items()},
                calls=tuple(
                    _CallRecord(
                        graph=call.graph,
                        step=call.step,
                        feeds={name: store.add(array) for name, array in call.feeds.items()},
                        outputs={name: store.add(array) for name, array in call.outputs.items()},
                    )
                    for call in run.calls
                ),
            )
            for run in self.trajectories
        )
        index = _Index(trajectories=records, bounds=dict(self.bounds))
        text = np.frombuffer(json.dumps(index.model_dump(exclude_none=True)).encode(), dtype=np.uint8)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **{INDEX: text, **store.arrays})
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, *, what: str = "golden file") -> Self:
        """Reads a golden file. Raises :class:`IntegrityError` where it is damaged, too large, or not one."""
        arrays = read_npz(data, limit_bytes=MAX_BYTES, what=what, error=IntegrityError)
        if INDEX not in arrays:
            raise IntegrityError(f"{what}: no entry {INDEX!r}, so it is no golden file; export the bundle again")
        if arrays[INDEX].nbytes > MAX_INDEX_BYTES:
            raise IntegrityError(
                f"{what}: an index of {arrays[INDEX].nbytes} bytes, expected at most {MAX_INDEX_BYTES}; "
                "don't trust this file"
            )
        index = _Index.from_json(arrays[INDEX].tobytes(), what=what, error=IntegrityError)
        try:
            trajectories = tuple(
                Trajectory(
                    record.settings.model_copy(update={"labels": None}),
                    arrays[record.samples],
                    tuple(
                        Call(
                            call.graph,
                            call.step,
                            {name: arrays[key] for name, key in call.feeds.items()},
                            {name: arrays[key] for name, key in call.outputs.items()},
                        )
                        for call in record.calls
                    ),
                    record.conditions_of(arrays),
                )
                for record in index.trajectories
            )
        except KeyError as missing:
            raise IntegrityError(f"{what}: array {missing} is missing; export the bundle again") from None
        return cls(trajectories, index.bounds)


class Recorder:
    """Collects the calls of several sessions, in the order they were made."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._steps: dict[str, int] = {}

    def wrap(self, sessions: Mapping[str, Session]) -> dict[str, Session]:
        """The sessions, each recording into this recorder."""
        return {name: RecordingSession(session, self) for name, session in sessions.items()}

    def add(self, graph: str, feeds: Feeds, outputs: Feeds) -> None:
        """Keeps copies: backends and programs may reuse their buffers."""
        step = self._steps.get(graph, 0)
        self._steps[graph] = step + 1
        copies = ({name: np.array(array) for name, array in arrays.items()} for arrays in (feeds, outputs))
        self.calls.append(Call(graph, step, *copies))

    def take(self) -> tuple[Call, ...]:
        """The calls so far; the recorder starts afresh."""
        calls, self.calls, self._steps = tuple(self.calls), [], {}
        return calls


class RecordingSession(Session):
    """A session that runs another one and records each call. Closing it closes the other."""

    def __init__(self, session: Session, recorder: Recorder) -> None:
        super().__init__(session.graph, backend=session.backend, precision=session.precision)
        self._session = session
        self._recorder = recorder

    def _run(self, feeds: Feeds) -> dict[str, Array]:
        outputs = self._session.run(feeds)
        self._recorder.add(self.graph.name, feeds, outputs)
        return outputs

    def _close(self) -> None:
        self._session.close()


def thin_out(calls: Sequence[Call], budget: int) -> tuple[Call, ...]:
    """Some of `calls`: an even share of `budget` bytes for each graph, spread evenly, first and last kept.

    Each graph keeps at least one call, whatever its size.
    """
    graphs = list(dict.fromkeys(call.graph for call in calls))
    kept: list[Call] = []
    for graph in graphs:
        own = [call for call in calls if call.graph == graph]
        share = budget // len(graphs)
        count = max(1, min(len(own), share // max(1, *(call.nbytes for call in own))))
        positions = np.unique(np.linspace(0, len(own) - 1, count).round().astype(int))
        kept += [own[position] for position in positions]
    return tuple(kept)


class _CallRecord(StrictModel):
    graph: Name
    step: Annotated[int, Field(ge=0)]
    feeds: dict[Name, ArrayKey]
    outputs: dict[Name, ArrayKey]


class _TrajectoryRecord(StrictModel):
    settings: TrajectorySettings
    samples: ArrayKey
    sources: ArrayKey | None = None
    conditions: dict[Name, ArrayKey] = Field(default_factory=dict)
    calls: tuple[_CallRecord, ...]

    def conditions_of(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """The conditions by kind; files of older versions have labels and sources in their place."""
        found = {kind: arrays[key] for kind, key in self.conditions.items()}
        if self.settings.labels is not None:
            found["label"] = np.array(self.settings.labels, np.int64)
        if self.sources is not None:
            found["image"] = arrays[self.sources]
        return found


class _Index(StrictModel):
    format_version: Literal[1] = 1
    trajectories: Annotated[tuple[_TrajectoryRecord, ...], Field(min_length=1, max_length=16)]
    bounds: dict[Precision, GoldenBounds]


class _ArrayStore:
    """Arrays by key; equal arrays share one key (an output is often the next call's feed)."""

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}
        self._keys: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def add(self, array: Array) -> str:
        array = np.ascontiguousarray(array).reshape(array.shape)
        content = (array.dtype.str, array.shape, sha256(array.data if array.size else b"").digest())
        key = self._keys.setdefault(content, f"a{len(self._keys)}")
        self.arrays[key] = array
        return key
