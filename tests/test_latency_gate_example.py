"""How a team gates a release on latency. Copy this file and name the two bundles:

    LATENCY_CANDIDATE=new.gsdk LATENCY_RELEASED=released.gsdk pytest test_latency_gate_example.py

Both bundles are measured in turn in one process, so that a slow hour of the machine meets both alike. The test
fails only where the candidate is slower beyond doubt: the whole 95 % interval of new / old lies beyond the limit.
"Can't tell" passes, but is shown as a warning; measure longer, or on a quieter machine, to get an answer.
"""

from __future__ import annotations

import os
import warnings

import pytest

from gensdk_runtime.bench.latency_report import BenchSettings
from gensdk_runtime.bench.suite import COMPARISON_RUNS, bench

CANDIDATE = os.environ.get("LATENCY_CANDIDATE", "")
RELEASED = os.environ.get("LATENCY_RELEASED", "")
LIMITS = os.environ.get("LATENCY_LIMITS", "p50:+5% throughput:-5%").split()
SECONDS = float(os.environ.get("LATENCY_SECONDS", "5"))


@pytest.mark.skipif(not (CANDIDATE and RELEASED), reason="set LATENCY_CANDIDATE and LATENCY_RELEASED")
@pytest.mark.parametrize("batch", [1, 8])
def test_the_candidate_is_not_slower_than_the_release(batch: int) -> None:
    report = bench(
        CANDIDATE,
        against=RELEASED,
        fail_on=LIMITS,
        batches=[batch],
        threads=1,
        settings=BenchSettings(runs=COMPARISON_RUNS, duration_s=SECONDS, iterations=50, warmup_ms=50),
    )
    for comparison in report.comparisons:
        if comparison.verdict == "can't tell":
            warnings.warn(f"{comparison.subject}, {comparison.limit}: {comparison.reason}", stacklevel=1)
    assert not report.slower, "\n".join(
        f"{broken.subject}: {broken.limit} allowed, new / old is {broken.ratio:.3f} "
        f"({broken.low:.3f} .. {broken.high:.3f})"
        for broken in report.slower
    )
