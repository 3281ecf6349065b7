"""The first day on a GPU: what works there, how exactly, and how fast. One file a part; see ``gpu_day.py``.

Parts run in child processes, a piece of a part each (mostly a backend), and give rows as they find them: a crash
or a hang costs the rest of its piece, and is a row itself."""
