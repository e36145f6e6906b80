"""Ctrl-C and SIGTERM: a training finishes its step and saves before it ends."""

from __future__ import annotations

import logging
import signal
from types import FrameType, TracebackType
from typing import Any

from msnmo_bids.errors import ExitCode, MsnmoError

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class TrainingInterrupted(MsnmoError):  # noqa: N818
    """The training was asked to stop; it has saved and can go on."""

    exit_code = ExitCode.TEMPORARY_FAILURE


class StopSignals:
    """Takes note of the first SIGINT, SIGTERM or SIGHUP; a second one ends the program at once.

    In another thread than the main one, whoever called handles signals.

    Attributes
    ----------
    received : str
        Name of the signal; empty before there is one.
    """

    def __init__(self) -> None:
        self.received = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        try:
            for number in _SIGNALS:
                # What is ignored stays so: SIGHUP under nohup.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        except ValueError:
            logger.debug("Not in the main thread: signals are not handled")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        self._restore()
        logger.warning(
            "%s: the training finishes this step, saves and ends; a second signal ends it at once",
            self.received,
        )

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)
