"""Settings of the whole suite: property tests assert laws, never timings; CI always tries the same examples.

Nothing is measured where a test says ``backend="auto"`` (tests of tuning ask for it), and nothing is read from or
left in the user's cache; processes that tests start inherit both. ``GENSDK_TESTS_OS=windows`` or ``macos``: gensdk
runs as there (:mod:`support.another_os`).
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile

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
