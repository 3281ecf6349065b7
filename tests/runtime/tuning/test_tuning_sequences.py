"""What a sequence costs: a run that ends by itself what it took, one that was cut as many steps as are left."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gensdk_runtime.backends.fake import FakeSession
from gensdk_runtime.plan.runner import runner_of
from gensdk_runtime.programs import sequence
from gensdk_runtime.tuning import stopwatch
from support.chains import Chain

LENGTH = 400


@pytest.mark.parametrize(
    ("ends", "seconds", "expected"),
    [(1.0, 4 * LENGTH, sequence.LOOK_EVERY), (1.0, 10, LENGTH), (0.0, 4 * LENGTH, LENGTH), (0.0, 10, LENGTH)],
)
def test_a_run_that_ends_by_itself_takes_what_it_took(
    ends: float, seconds: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step takes a second of a clock that only steps move."""
    now, chain = [0.0], Chain(length=LENGTH, each=1, ends=ends)

    def step(feeds: Any) -> Any:
        now[0] += 1.0
        return chain._step(feeds)

    started = stopwatch._Stopwatch
    monkeypatch.setattr(stopwatch, "perf_counter", lambda: now[0])
    monkeypatch.setattr(stopwatch, "_Stopwatch", lambda limit: started(limit, start=now[0]))
    model = chain.model()
    functions = {"step": step, "likelihood": chain._likelihood, "decode": chain._decode}
    sessions = {
        graph.name: FakeSession(graph, functions[graph.name], backend="fake", precision="fp32")
        for graph in model.graphs
    }
    with ThreadPoolExecutor(1) as pool:
        reading = stopwatch.time_batches(
            model, runner_of(model, sessions), pool, batch=2, workers=1, seconds=seconds
        )
    assert reading.seconds == pytest.approx(expected)
    assert reading.step == pytest.approx(1.0)
