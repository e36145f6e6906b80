"""One call of a program: where its messages go, its counts, and how it ends."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import TYPE_CHECKING

from msnmo_bids.errors import ExitCode, MsnmoError, disk_error

if TYPE_CHECKING:
    from msnmo_bids.run.progress import Progress

logger = logging.getLogger(__name__)

PACKAGE_LOGGER = "msnmo_bids"
NIPYPE_LOGGERS = (
    "nipype",
    "nipype.workflow",
    "nipype.interface",
    "nipype.utils",
    "nipype.filemanip",
)
FILE_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
KEEP_ALL = logging.CRITICAL + 1


def exit_code_for(error: BaseException) -> ExitCode:
    """Return the exit code of a run that an exception ended.

    Parameters
    ----------
    error : BaseException
        What was raised.

    Returns
    -------
    ExitCode
        75 for an interrupt, 74 for a place that cannot be used, 1 for what was not expected.
    """
    if isinstance(error, MsnmoError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.TEMPORARY_FAILURE
    problem = disk_error(error)
    return ExitCode.FAILURE if problem is None else problem.exit_code


class ConsoleHandler(logging.StreamHandler):
    """Write messages to standard output, without breaking a progress line."""

    progress: Progress | None = None

    def __init__(self) -> None:
        super().__init__(sys.stdout)
        self.setLevel(logging.INFO)

    def format(self, record: logging.LogRecord) -> str:
        """Return the message; warnings and errors say what they are."""
        prefix = f"{record.levelname}: " if record.levelno >= logging.WARNING else ""
        return prefix + record.getMessage()

    def emit(self, record: logging.LogRecord) -> None:
        """Clear the progress line, write the message, draw the line again."""
        progress = self.progress
        if progress is not None:
            progress.clear()
        super().emit(record)
        if progress is not None:
            progress.draw()


class Session:
    """One call of a program; a context in which its messages are shown.

    Parameters
    ----------
    program : str
        Its name.
    command : sequence of str
        The command line without it.

    Attributes
    ----------
    exit_code : ExitCode
        How the program ends.
    ok, failed : int or None
        Number of scans that have their derivatives, and that have not; None: it does not count.
    console : ConsoleHandler
        The terminal.
    folder : Path or None
        Folder of the log, when there is one.
    """

    def __init__(self, program: str, command: Sequence[str] = ()) -> None:
        self.program, self.command = program, command
        self.exit_code = ExitCode.OK
        self.ok: int | None = None
        self.failed: int | None = None
        self.console = ConsoleHandler()
        self.folder: Path | None = None
        self._log_file: logging.Handler | None = None
        # What is said before the log has a folder belongs into it too.
        self._early = MemoryHandler(10**6, KEEP_ALL)
        # Of the processes that torchrun starts, the first speaks for all.
        self._rank = int(os.environ.get("RANK", "0"))

    def __enter__(self) -> Session:
        package = logging.getLogger(PACKAGE_LOGGER)
        self._before = (package.level, package.propagate)
        package.setLevel(logging.DEBUG)
        package.propagate = False
        package.addHandler(self.console)
        package.addHandler(self._early)
        return self

    def __exit__(self, *_: object) -> None:
        package = logging.getLogger(PACKAGE_LOGGER)
        package.setLevel(self._before[0])
        package.propagate = self._before[1]
        for handler in filter(None, (self.console, self._early, self._log_file)):
            for name in (PACKAGE_LOGGER, *NIPYPE_LOGGERS):
                logging.getLogger(name).removeHandler(handler)
        if self._log_file is not None:
            self._log_file.close()

    def show(self, verbose: int) -> None:
        """Show as much as the user wants: 0, what matters; 2 and above, everything."""
        level = logging.DEBUG if verbose >= 2 else logging.INFO
        self.console.setLevel(logging.WARNING if self._rank else level)

    def open_log(self, folder: Path) -> None:
        """Begin the log file, ``<program>.log``, in a folder that is made when it is missing.

        Raises
        ------
        MsnmoError
            If it cannot be written (73).
        """
        name = f"{self.program}-{self._rank}.log" if self._rank else f"{self.program}.log"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handler = logging.FileHandler(folder / name, encoding="utf-8")
        except OSError as error:
            raise MsnmoError(
                f"cannot be written ({error.strerror})",
                file=folder,
                exit_code=ExitCode.CANNOT_CREATE_OUTPUT,
            ) from error
        handler.setFormatter(logging.Formatter(FILE_FORMAT))
        package = logging.getLogger(PACKAGE_LOGGER)
        package.addHandler(handler)
        package.removeHandler(self._early)
        self._early.setTarget(handler)
        self._early.close()
        self.folder, self._log_file = folder, handler

    @property
    def last_line(self) -> str:
        """The last line of every log; its word always agrees with the exit code."""
        word = "PARTIAL" if self.ok else "FAILED"
        word = "SUCCESS" if self.exit_code == ExitCode.OK else word
        counts = "" if self.ok is None else f" {self.ok} {self.failed or 0}"
        return f"{self.program}: {word}{counts}"

    def write_crash_file(self) -> str:
        """Write the trace of the exception that is being handled.

        Returns
        -------
        str
            Where it is: ``crash-<program>.txt`` in the log's folder, or in a temporary one where
            there is no log; where that cannot be written, the trace itself.
        """
        trace = f"{' '.join(sys.argv)}\n\n{traceback.format_exc()}"
        try:
            folder = self.folder or Path(tempfile.mkdtemp(prefix=f"{self.program}-"))
            target = folder / f"crash-{self.program}.txt"
            target.write_text(trace, encoding="utf-8", errors="replace")
        except OSError:
            return trace
        return str(target)


def route_nipype(verbose: int) -> None:
    """Send Nipype's messages where ours go, if the user wants them (``-v``)."""
    import nipype  # noqa: F401 - it sets its loggers up when it is imported

    handlers = logging.getLogger(PACKAGE_LOGGER).handlers
    level = nipype_level(verbose)
    for name in NIPYPE_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers[:] = handlers
        logger.propagate = False
        logger.setLevel(level)


def nipype_level(verbose: int) -> int:
    """Return the level of Nipype's loggers, here and in its worker processes.

    Parameters
    ----------
    verbose : int
        How often the user gave ``-v``.

    Returns
    -------
    int
        Without ``-v`` nothing: what fails is said by this program, in one line per scan.
    """
    return (logging.CRITICAL, logging.INFO, logging.DEBUG)[min(verbose, 2)]
