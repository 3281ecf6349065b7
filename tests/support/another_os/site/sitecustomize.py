"""Read by Python when a child of the suite starts: the child runs as on the system that the suite runs as."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
try:
    from support import another_os
finally:
    del sys.path[0]

if (system := another_os.wanted()) is not None:
    another_os.install(system)
