"""How far a run is: one live line at a terminal, plain lines otherwise."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from msnmo_bids.text import duration

logger = logging.getLogger(__name__)

ERASE_LINE = "\r\033[K"


class Progress:
    """Follow the nodes of a run and say which scans are done, running and failed.

    Parameters
    ----------
    names : mapping of str to str
        A scan's workflow (the part of a node's full name that stands for the scan) -> what to
        call the scan.
    last_node : str
        Name of the node whose end completes a scan.
    step_name : callable, optional
        Returns what a node does, in words, from its name.
    stream : TextIO, optional
        Where the live line goes; standard error when not given. Without a terminal there is none.
    clock : callable, optional
        Seconds; for tests.
    """

    def __init__(
        self,
        names: Mapping[str, str],
        *,
        last_node: str,
        step_name: Callable[[str], str] = str,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._names = dict(names)
        self._last_node = last_node
        self._step_name = step_name
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty()
        self._clock = clock
        self._begun = clock()
        self._started: dict[str, float] = {}
        self.done: list[str] = []
        self.failed: list[str] = []

    @property
    def running(self) -> int:
        """Number of scans that have begun and not ended."""
        return len(self._started) - len(self.done) - len(self.failed)

    def on_event(self, node: str, event: str, reason: str = "") -> None:
        """Take note of what a node (its full name) does: ``"start"``, ``"end"`` or ``"exception"``.

        `reason` is the problem of an exception.
        """
        parts = node.split(".")
        scan = next((part for part in parts if part in self._names), None)
        if scan is None or scan in self.done or scan in self.failed:
            return
        self._started.setdefault(scan, self._clock())
        if event == "exception":
            self.failed.append(scan)
            what = ": ".join(filter(None, (self._step_name(parts[-1]), reason)))
            self._say(scan, f"failed ({what})")
        elif event == "end" and parts[-1] == self._last_node:
            self.done.append(scan)
            self._say(scan, f"done in {duration(self._clock() - self._started[scan])}")
        self.draw()

    def time_left(self) -> float | None:
        """Estimate the seconds left from the scans that have ended, None before the first."""
        ended = len(self.done) + len(self.failed)
        if not ended:
            return None
        return (self._clock() - self._begun) / ended * (len(self._names) - ended)

    def line(self) -> str:
        """Return the state of the run in one line."""
        parts = [f"{len(self.done)} of {len(self._names)} scans done", f"{self.running} running"]
        if self.failed:
            parts.append(f"{len(self.failed)} failed")
        if left := self.time_left():
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)

    def draw(self) -> None:
        """Draw the live line, at a terminal."""
        if self._live:
            self._stream.write(f"{ERASE_LINE}{self.line()}")
            self._stream.flush()

    def clear(self) -> None:
        """Erase the live line, at a terminal."""
        if self._live:
            self._stream.write(ERASE_LINE)
            self._stream.flush()

    def _say(self, scan: str, what: str) -> None:
        ended = len(self.done) + len(self.failed)
        left = self.time_left()
        rest = f" (about {duration(left)} left)" if left and not self._live else ""
        logger.info("[%d/%d] %s: %s%s", ended, len(self._names), self._names[scan], what, rest)
