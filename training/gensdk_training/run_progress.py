"""The progress of a run: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gensdk_runtime.host.closable import Closable
from gensdk_runtime.printable import printable

log = logging.getLogger("gensdk.train")


class Reporter(Closable):
    """Shows steps, losses, speed and the time left on stderr; `progress` False shows nothing.

    On a terminal that is a live bar, elsewhere one line at each log interval. Messages go there as well.
    """

    def __init__(self, *, total: int, progress: bool | None, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._shown = progress is not False
        self._total = total
        self._bar = self._make_bar() if self._shown and self._console.is_terminal else None
        self._since = (time.monotonic(), 0)
        self.rate = 0.0

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.stop()

    def begin(self, step: int) -> None:
        """Starts measuring speed; `step` steps were done before."""
        self._since = (time.monotonic(), step)
        self.advance(step)

    def advance(self, step: int) -> None:
        """Reports that `step` steps are done."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step)

    def losses(self, step: int, means: Mapping[str, float]) -> None:
        """The mean losses since the last call; also measures the speed, in steps a second."""
        now = time.monotonic()
        elapsed = max(now - self._since[0], 1e-9)
        self.rate = (step - self._since[1]) / elapsed
        self._since = (now, step)
        text = "  ".join(f"{name} {value:.4g}" for name, value in means.items())
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step, text=f"{text}  {self.rate:.1f} it/s")
        elif self._shown:
            left = (self._total - step) / self.rate if self.rate else 0.0
            self._print(f"step {step}/{self._total}  {text}  {self.rate:.1f} it/s  {left:.0f} s left")

    def note(self, message: str) -> None:
        """A message about the run; always in the log ``gensdk.train`` too."""
        log.info("%s", message)
        if self._shown:
            self._print(message)

    def warn(self, message: str) -> None:
        """As :meth:`note`, for what goes wrong."""
        # Without a handler Python itself would print it on stderr: a second time, or where silence was asked for.
        log.log(logging.WARNING if log.hasHandlers() else logging.INFO, "%s", message)
        if self._shown:
            self._print(message, style="yellow")

    def _print(self, text: str, style: str | None = None) -> None:
        """Prints; a reader that left, or a log on a full disk, does not end the training."""
        try:
            shown = printable(text, lines=True)
            self._console.print(shown, style=style, highlight=False, markup=False, soft_wrap=True)
        except (OSError, SystemExit):  # the latter is rich's answer to a broken pipe
            self._shown = False

    def _make_bar(self) -> Progress:
        columns = (MofNCompleteColumn(), BarColumn(bar_width=24), TimeRemainingColumn())
        bar = Progress(*columns, TextColumn("{task.fields[text]}"), console=self._console)
        bar.add_task("train", total=self._total, text="")
        return bar
