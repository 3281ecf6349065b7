"""What connects two stages: a queue of few slots, with back-pressure, or where the newest wins."""

from __future__ import annotations

from collections import deque
from threading import Condition
from time import monotonic
from typing import Generic, TypeVar

Item = TypeVar("Item")

_POLL = 0.25
"""Seconds between looks: on Windows a wait without a limit can't be interrupted with Ctrl-C."""


class EndedError(Exception):
    """The channel has ended and is empty."""


class Channel(Generic[Item]):
    """A queue between one thread that puts and one that gets.

    With `newest`, a full channel gives up its oldest item for the new one, counted in `dropped`, so that an item
    never waits for long. Otherwise the writer waits until there is room, and nothing is lost.
    """

    def __init__(self, slots: int, *, newest: bool = False) -> None:
        self.dropped = 0
        self._newest = newest
        self._slots = slots
        self._items: deque[Item] = deque()
        self._changed = Condition()
        self._ended = False
        self._failure: BaseException | None = None

    def put(self, item: Item) -> bool:
        """Adds `item`; False if the reader has left."""
        with self._changed:
            if self._newest:
                while not self._ended and len(self._items) >= self._slots:
                    self._items.popleft()
                    self.dropped += 1
            while not self._ended and len(self._items) >= self._slots:
                self._changed.wait(_POLL)
            if self._ended:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def get(self, timeout: float | None = None) -> Item | None:
        """The oldest item; None where none came for `timeout` seconds.

        Raises :class:`EndedError` after the last one, or the error that the other side failed with.
        """
        until = None if timeout is None else monotonic() + timeout
        with self._changed:
            while not self._items:
                if self._failure is not None:
                    raise self._failure
                if self._ended:
                    raise EndedError
                left = _POLL if until is None else min(_POLL, until - monotonic())
                if left <= 0:
                    return None
                self._changed.wait(left)
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def end(self, failure: BaseException | None = None) -> None:
        """Closes the channel for writing: queued items can still be read, then `failure` is raised."""
        with self._changed:
            if not self._ended:
                self._ended, self._failure = True, failure
            self._changed.notify_all()

    def abort(self) -> None:
        """Ends at once; queued items are lost."""
        with self._changed:
            self._ended = True
            self._items.clear()
            self._changed.notify_all()
