"""Node.js with scripts of a folder as modules, asked over one line of JSON each."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NODE = shutil.which("node")
MISSING = "needs Node.js (Debian: apt-get install nodejs)"

DRIVER = """
import { createInterface } from "node:readline";
import { answer } from "./answer.js";

console.log(JSON.stringify(process.versions.unicode));
for await (const line of createInterface({ input: process.stdin })) {
  let made;
  try {
    made = { value: answer(JSON.parse(line)) };
  } catch (failure) {
    made = { error: failure.message, name: failure.name };
  }
  console.log(JSON.stringify(made));
}
"""


class Node:
    """A running Node.js; `unicode`: the version that it knows."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.unicode = tuple(map(int, self._read().split(".")))

    def ask(self, question: Any) -> Any:
        """What ``answer(question)`` gives: {"value": ...}, or {"error": ..., "name": ...} where it throws."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "Node.js ended"
        return json.loads(line)


@contextmanager
def node(folder: Path, scripts: dict[str, str]) -> Iterator[Node]:
    """Node.js over `scripts`, by name, written into the empty `folder`; ``answer.js`` exports ``answer``."""
    assert NODE is not None
    for name, text in {**scripts, "driver.js": DRIVER, "package.json": '{"type": "module"}'}.items():
        (folder / name).write_text(text, encoding="utf-8")
    with subprocess.Popen(
        [NODE, str(folder / "driver.js")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        try:
            yield Node(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(20)
