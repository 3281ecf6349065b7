"""``python -m gensdk``."""

import os  # and not pathlib: nothing is imported before the path is right
import sys

if not sys.flags.safe_path and sys.path and sys.path[0] in ("", os.getcwd()):  # noqa: PTH109
    # ``-m`` lets Python import from the working directory, where an onnxruntime.py of somebody else's may lie.
    here = sys.path.pop(0) or os.getcwd()  # noqa: PTH109
    if os.path.realpath(f"{__file__}/../..") == os.path.realpath(here):
        sys.path.append(here)  # gensdk itself runs from there

from gensdk.cli.main import main

if __name__ == "__main__":
    main()
