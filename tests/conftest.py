"""Settings of the whole suite: property tests assert laws, never timings; CI always tries the same examples.

Nothing is measured where a test says ``backend="auto"`` (tests of tuning ask for it), and nothing is read from or
left in the user's cache; processes that tests start inherit both. ``GENSDK_TESTS_OS=windows`` or ``macos``: gensdk
runs as there (:mod:`support.another_os`).
"""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from functools import cache

import pytest
from hypothesis import HealthCheck, settings

from support import another_os

if (system := another_os.wanted()) is not None:
    another_os.install(system)

for name, usual in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    number = getattr(signal, name, None)  # a suite in the background, or under nohup, has children that inherit it
    if number is not None and signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

os.environ["GENSDK_TUNE"] = "off"
os.environ["GENSDK_CACHE"] = tempfile.mkdtemp(prefix="gensdk-tests-")
atexit.register(shutil.rmtree, os.environ["GENSDK_CACHE"], ignore_errors=True)

settings.register_profile(
    "gensdk",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("gensdk")


@pytest.fixture(scope="module", autouse=True)
def _what_stays_is_collected_no_more() -> Iterator[None]:
    """What a file of tests leaves behind, and all that was imported, is walked through by no later collection: a
    suite's heap makes each of them take seconds, and who measures collects often."""
    gc.freeze()
    yield
    gc.collect()
    gc.freeze()


def pytest_collection_finish() -> None:
    """PyTorch's exporter makes the table of all operators anew for each graph; one is enough for a suite."""
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:  # it is PyTorch's own matter, and may move
        return
    made = ONNXRegistry.from_torchlib
    if not hasattr(made, "cache_info"):
        ONNXRegistry.from_torchlib = staticmethod(cache(made))


@pytest.fixture(scope="session", autouse=True)
def _graphs_are_exported_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """In all processes of a run together; see :mod:`support.shared_exports`."""
    try:
        from support.shared_exports import share
    except ImportError:  # without PyTorch nothing is exported
        return
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "exports"
    folder.mkdir(exist_ok=True)
    share(folder)
