"""Settings of the whole suite: property tests assert laws, never timings; CI always tries the same examples.

Nothing is measured where a test says ``backend="auto"`` (tests of tuning ask for it), and nothing is read from or
left in the user's cache; processes that tests start inherit both.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile

from hypothesis import HealthCheck, settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a suite in the background, whose children would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

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
