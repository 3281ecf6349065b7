"""The benchmarks are programs, not a package: their folder goes on the path."""

from __future__ import annotations

import sys
from pathlib import Path

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")

if BENCHMARKS not in sys.path:
    sys.path.insert(0, BENCHMARKS)
