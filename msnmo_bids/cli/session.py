"""What a run knows about itself: its log folder, its counts, and how it ended."""

from __future__ import annotations

import errno
import logging
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from logging.handlers import MemoryHandler
from pathlib import Path

from msnmo_bids.cli.logs import PACKAGE_LOGGER, ConsoleHandler, add_log_file, close_log_file
from msnmo_bids.errors import ExitCode, MsnmoError

CRASH_FILE = "crash-msnmo.txt"
KEEP_ALL = logging.CRITICAL + 1
DISK_ERRORS = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room within your quota",
    errno.EROFS: "choose folders that can be written",
    errno.EIO: "check the disk",
    errno.ESTALE: "check the network disk",
}


def exit_code_for(error: BaseException) -> ExitCode:
    """Return the exit code of a run that an exception ended.

    Parameters
    ----------
    error : BaseException
        What was raised.

    Returns
    -------
    ExitCode
        75 for an interrupt, 74 for a disk that is full or broken, 1 for what was not expected.
    """
    if isinstance(error, MsnmoError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.TEMPORARY_FAILURE
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return ExitCode.IO_ERROR
    return ExitCode.FAILURE


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Parameters
    ----------
    ok, failed : int
        Number of scans that have their derivatives, and that have not.
    exit_code : ExitCode
        Exit code of the program.
    """

    ok: int = 0
    failed: int = 0
    exit_code: ExitCode = ExitCode.OK

    @property
    def line(self) -> str:
        """The last line of every log; its word always agrees with the exit code."""
        unsuccessful = "PARTIAL" if self.ok else "FAILED"
        word = "SUCCESS" if self.exit_code == ExitCode.OK else unsuccessful
        return f"msnmo: {word} {self.ok} {self.failed}"


@dataclass
class Session:
    """One call of the program.

    Parameters
    ----------
    console : ConsoleHandler
        The terminal.
    command : sequence of str
        The command line, for the message on how to go on.
    """

    console: ConsoleHandler
    command: Sequence[str] = ()
    ok: int = 0
    failed: int = 0
    folder: Path | None = None
    _log_file: logging.Handler | None = None
    _early: MemoryHandler = field(default_factory=lambda: MemoryHandler(10**6, KEEP_ALL))

    def __post_init__(self) -> None:
        # What is said before the run has a folder belongs into its log file too.
        logging.getLogger(PACKAGE_LOGGER).addHandler(self._early)

    def open_log(self, folder: Path) -> None:
        """Begin the log file of the run in its folder."""
        self.folder = folder
        self._log_file = add_log_file(folder / "msnmo.log")
        logging.getLogger(PACKAGE_LOGGER).removeHandler(self._early)
        self._early.setTarget(self._log_file)
        self._early.close()

    def close(self) -> None:
        """Close the log file."""
        logging.getLogger(PACKAGE_LOGGER).removeHandler(self._early)
        if self._log_file is not None:
            close_log_file(self._log_file)

    def outcome(self, exit_code: ExitCode) -> Outcome:
        """Return the outcome with the counts so far."""
        return Outcome(self.ok, self.failed, exit_code)

    def write_crash_file(self) -> Path:
        """Write the trace of the exception that is being handled.

        Returns
        -------
        Path
            In the run's log folder, or a temporary file when there is none.
        """
        trace = f"{' '.join(sys.argv)}\n\n{traceback.format_exc()}"
        if self.folder is not None:
            target = self.folder / CRASH_FILE
            try:
                target.write_text(trace, encoding="utf-8", errors="replace")
            except OSError:
                pass
            else:
                return target
        with tempfile.NamedTemporaryFile(
            "w", prefix="crash-msnmo-", suffix=".txt", delete=False, errors="replace"
        ) as file:
            file.write(trace)
        return Path(file.name)
