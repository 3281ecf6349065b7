"""All peers of one case, side by side: each in its own process, asked in turn, in a new order each round."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from figures import Rounds
from numpy.typing import NDArray
from peers import SEED, PeerSpec, peer_spec
from peers.child import Child, PeerFailed, start_peer
from workloads import Case, Workload
from workloads.noise import draw_noise
from workloads.prepare import Prepared

from gensdk_runtime.spec.model import DiffusionSpec, ModelSpec

OPEN_SECONDS = 600.0
RUN_SECONDS = 300.0
BURST = 0.25
"""Seconds of the fastest peer's calls in one round; others make as many calls."""
MOST_CALLS = 12
LEAST_ROUNDS, MOST_ROUNDS = 5, 40
FIRST_ROUNDS = 3
"""All peers take part in so many rounds; after that only those that figures are made of."""
CONTENDER = 1.3
"""A peer this much slower than the fastest can't turn out to be the fastest."""
OPENING = 2
"""Peers that load at once; none is timed meanwhile."""
SETTLE = 0.03
"""Seconds between two peers, in which the threads of the one before stop waiting busily."""


@dataclass
class Timing:
    """One peer in one case: `rounds` of milliseconds for each call (of whole images, extrapolated by `scale`).

    A round that it took no part in is empty.
    """

    scale: float
    whole: bool
    open_ms: float
    first_ms: float
    detail: str = ""
    rounds: list[NDArray[np.float64]] = field(default_factory=list)

    @property
    def calls(self) -> NDArray[np.float64]:
        """All calls, in ms."""
        return np.concatenate(self.rounds) if self.rounds else np.zeros(0)

    @property
    def median(self) -> float:
        """Of all calls, in ms."""
        return float(np.median(self.calls))


@dataclass
class Result:
    """One case. `differences` and `rms`: from gensdk's images, largest and root mean square; `pixels`: what slow
    peers compared. `base`: the peer that stands for gensdk."""

    workload: str
    case: Case
    timings: dict[str, Timing] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    differences: dict[str, float] = field(default_factory=dict)
    rms: dict[str, float] = field(default_factory=dict)
    pixels: dict[str, Mapping[str, int]] = field(default_factory=dict)
    base: str = "gensdk"

    @property
    def best_peer(self) -> str | None:
        """The fastest that is not gensdk and makes whole images."""
        peers = [name for name, timing in self.timings.items() if timing.whole and not peer_spec(name).ours]
        return min(peers, key=self.relative, default=None)

    def relative(self, name: str) -> float:
        """Its time over gensdk's, the median of the rounds that both took part in; without gensdk plain ms."""
        own = self.rounds(name)
        base = self.rounds(self.base) if self.base in self.timings else [np.ones(1)] * len(own)
        ratios = [np.median(a) / np.median(b) for a, b in zip(own, base, strict=True) if len(a) and len(b)]
        return float(np.median(ratios)) if ratios else self.timings[name].median

    def rounds(self, name: str) -> Rounds:
        """The rounds of one peer."""
        return self.timings[name].rounds


class Comparison:
    """The processes of one workload; each case is measured by :meth:`measure`.

    `base`: whose images all others' are compared with; `every_round`: also what can't be the fastest takes part in
    all rounds; `patience`: seconds that a peer may take to open a case.
    """

    def __init__(
        self,
        workload: Workload,
        prepared: Prepared,
        names: Sequence[str],
        *,
        root: Path,
        say: Callable[[str], None],
        base: str = "gensdk",
        every_round: bool = False,
        patience: float = OPEN_SECONDS,
    ) -> None:
        self.base, self.every_round, self.patience = base, every_round, patience
        self.workload, self.prepared, self.root, self.say = workload, prepared, root, say
        self.model = prepared.describe()
        self.names = [name for name in names if applies(peer_spec(name), self.model)]
        self._rng = np.random.default_rng(0)

    def measure(self, case: Case, *, seconds: float, rounds: int | None = None) -> Result:
        """Opens all peers for `case`, compares their images, then times them for about `seconds`."""
        result = Result(self.workload.name, case, base=self.base)
        with ExitStack() as stack:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            noise = scratch / "noise.npy"
            np.save(noise, draw_noise(self.model, case.batch, seed=SEED), allow_pickle=False)
            children = {
                name: stack.enter_context(start_peer(name, self.prepared, root=self.root)) for name in self.names
            }
            opening = partial(self._open, result=result, noise=noise)
            with ThreadPoolExecutor(OPENING) as pool:
                list(pool.map(lambda name: self._attempt(children, result, name, opening), self.names))
            self._compare_images(children, result, scratch)
            self._time(children, result, seconds, rounds)
        return result

    def _attempt(
        self, children: dict[str, Child], result: Result, name: str, work: Callable[[Child, str], None]
    ) -> None:
        """Does `work`; a peer that fails is left out from then on."""
        try:
            work(children[name], name)
        except PeerFailed as failure:
            result.failures[name] = str(failure)
            result.timings.pop(name, None)
            children.pop(name).close()
            self.say(f"  {name}: {failure}")

    def _open(self, child: Child, name: str, *, result: Result, noise: Path) -> None:
        case = result.case
        answer = child.ask("open", timeout=self.patience, batch=case.batch, steps=case.steps, noise=str(noise))
        timing = Timing(answer["scale"], answer["whole"], answer["open_ns"] / 1e6, answer["first_ns"] / 1e6)
        timing.detail = answer["detail"]
        result.timings[name] = timing
        self.say(f"  {name}: ready after {(timing.open_ms + timing.first_ms) / 1e3:.1f} s {timing.detail}")

    def _compare_images(self, children: dict[str, Child], result: Result, scratch: Path) -> None:
        """Differences of all from gensdk's images, from the same noise."""

        def save(child: Child, name: str) -> None:
            child.ask("save", timeout=RUN_SECONDS, to=str(images_file(scratch, name)))

        def compare(child: Child, name: str) -> None:
            if not result.timings[name].whole:
                answer = child.ask("differing", timeout=OPEN_SECONDS, images=str(images_file(scratch, self.base)))
                result.pixels[name] = answer
                return
            save(child, name)
            theirs = np.load(images_file(scratch, name), allow_pickle=False)
            result.differences[name] = float(np.abs(ours - theirs).max())
            result.rms[name] = float(np.sqrt(np.square(ours - theirs).mean()))

        if self.base in children:
            self._attempt(children, result, self.base, save)
        if self.base in children:
            ours = np.load(images_file(scratch, self.base), allow_pickle=False)
            for name in [name for name in children if name != self.base]:
                self._attempt(children, result, name, compare)

    def _time(self, children: dict[str, Child], result: Result, seconds: float, rounds: int | None) -> None:
        once: dict[str, float] = {}

        def warm_up(child: Child, name: str) -> None:
            answer = child.ask("run", timeout=RUN_SECONDS, calls=1, discard=0)
            once[name] = min(answer["ns"]) / 1e9

        for name in list(children):
            self._attempt(children, result, name, warm_up)
        if not children:
            return
        calls = max(1, min(MOST_CALLS, round(BURST / min(once.values()))))
        start = time.monotonic()
        for number in range(rounds or MOST_ROUNDS):
            late = time.monotonic() - start > seconds
            if rounds is None and late and number >= LEAST_ROUNDS:
                break
            racing = list(children) if number < FIRST_ROUNDS else self._racing(children, result)
            for timing in result.timings.values():
                timing.rounds.append(np.zeros(0))
            for name in self._rng.permutation(racing).tolist():
                self._attempt(children, result, name, partial(_burst, timings=result.timings, calls=calls))

    def _racing(self, children: Mapping[str, Child], result: Result) -> list[str]:
        """Ours, diffusers, and whatever may be the fastest peer."""
        best = result.best_peer
        if self.every_round:
            return list(children)
        limit = CONTENDER * result.relative(best) if best else 0.0
        return [name for name in children if peer_spec(name).anchor or result.relative(name) <= limit]


def images_file(folder: Path, name: str) -> Path:
    """Where the images of the peer of this name lie; ``gensdk@onnxruntime:cuda`` is no file's name on Windows."""
    return folder / f"{name.replace(':', '-')}.npy"


def applies(spec: PeerSpec, model: ModelSpec) -> bool:
    """Whether the peer can run this model."""
    if "cache_interval" in spec.options:
        return isinstance(model.program, DiffusionSpec) and model.program.shallow_graph is not None
    return model.program.kind in spec.programs


def _burst(child: Child, name: str, *, timings: Mapping[str, Timing], calls: int) -> None:
    """Some calls one after another; where there are several, one more comes first, to fill the caches."""
    time.sleep(SETTLE)
    answer = child.ask("run", timeout=RUN_SECONDS, calls=calls, discard=1 if calls > 1 else 0)
    timings[name].rounds[-1] = np.array(answer["ns"], np.float64) / 1e6 * timings[name].scale
