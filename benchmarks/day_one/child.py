"""A piece of a part in a process of its own: ``python -m day_one.child ORDER``. Its rows are JSON lines on stdout.

What libraries print goes to standard error.
"""

from __future__ import annotations

import importlib
import json
import sys

from peers.serving import private_output

from day_one.parts import PARTS
from day_one.result import Order, told


def main(text: str) -> int:
    """Gives the rows as they come; the exit code."""
    out = private_output()
    order = Order.from_json(text)
    rows = importlib.import_module(PARTS[order.part].module).rows
    try:
        for found in rows(order):
            line = json.dumps({"doing": found}) if isinstance(found, str) else found.to_line()
            print(line, file=out, flush=True)
    except Exception as failure:
        print(json.dumps({"failure": told(failure)}), file=out, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
