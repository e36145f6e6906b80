"""One call of a program: where its messages go, its counts, its progress, and how it ends."""

from __future__ import annotations

import atexit
import gc
import io
import logging
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from logging.handlers import MemoryHandler
from pathlib import Path
from types import FrameType
from typing import TextIO

from msnmo_bids.errors import ExitCode, MsnmoError, disk_error
from msnmo_bids.text import duration, one_line
from msnmo_bids.workflows.step_names import LAST_NODE, NIPYPE_LOGGERS, step_name

logger = logging.getLogger(__name__)

PACKAGE_LOGGER = "msnmo_bids"
FILE_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
KEEP_ALL = logging.CRITICAL + 1
ERASE_LINE = "\r\033[K"
RESUMES = "Run the same command again: what is complete is kept, it goes on from here"


def exit_code_for(error: BaseException) -> ExitCode:
    """Return the exit code of a run that an exception ended: 75 for an interrupt, 74 for a disk."""
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.TEMPORARY_FAILURE
    problem = error if isinstance(error, MsnmoError) else disk_error(error)
    return ExitCode.FAILURE if problem is None else problem.exit_code


class Progress:
    """Follow the nodes of a run and say which scans are done, running and failed.

    `names` are what to call a scan by its workflow (a part of its nodes' full names). The live line
    goes to `stream`, if that is a terminal.
    """

    def __init__(
        self,
        names: Mapping[str, str],
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._names = dict(names)
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
            what = ": ".join(filter(None, (step_name(node), reason)))
            self._say(scan, f"failed ({what})")
        elif event == "end" and parts[-1] == LAST_NODE:
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
        name = one_line(self._names[scan])
        logger.info("[%d/%d] %s: %s%s", ended, len(self._names), name, what, rest)


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

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - of the base class
        """Say no more where nobody reads on (``| head``); the log file goes on."""
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            self.setLevel(KEEP_ALL)
            with suppress(OSError, ValueError):  # what is still in the buffer goes nowhere
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.stream.fileno())
                os.close(nowhere)
            return
        super().handleError(record)


class Session:
    """One call of a program with its command line; a context in which its messages are shown."""

    def __init__(self, program: str, command: Sequence[str] = ()) -> None:
        self.program, self.command = program, command
        self.exit_code = ExitCode.OK
        #: Number of scans that have their derivatives, and that have not; None: it does not count.
        self.ok: int | None = None
        self.failed: int | None = None
        self.console = ConsoleHandler()
        self.folder: Path | None = None  #: Of the log, when there is one.
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
            with suppress(OSError):  # of a full disk: the scans have said it
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
        """Write the trace of the exception that is being handled, and return where it is.

        It is beside the log, or in a temporary folder; if that cannot be, it returns the trace.
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
    """Return the level of Nipype's loggers, here and in its worker processes, by the ``-v`` given.

    Without ``-v`` nothing: what fails is said by this program, in one line per scan.
    """
    return (logging.CRITICAL, logging.INFO, logging.DEBUG)[min(verbose, 2)]


class Terminated(KeyboardInterrupt):
    """The system asked the program to end (SIGTERM, SIGHUP)."""


@contextmanager
def guard(program: str, argv: Sequence[str] | None, *, remedy: str = RESUMES) -> Iterator[Session]:
    """Guard a program; every way in which it can end becomes an exit code and a last line.

    The session's ``exit_code`` is right when the block has been left. `argv` are the arguments
    without the program's name (None: of the process); `remedy` is what to do after an interruption.
    """
    for stream in (sys.stdout, sys.stderr):  # a terminal may lack letters, such as ³
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if argv is None:  # the process ends with the program: nothing left is looked through
        atexit.register(gc.freeze)
    session = Session(program, tuple(sys.argv[1:] if argv is None else argv))
    with session, _signals():
        try:
            yield session
        except SystemExit as end:  # of argparse, which has said why
            session.exit_code = ExitCode(int(end.code or 0))
            if session.exit_code == ExitCode.OK:  # --help, --version
                return
        except KeyboardInterrupt as interrupt:
            how = "the system (SIGTERM)" if isinstance(interrupt, Terminated) else "Ctrl-C"
            logger.error("Interrupted by %s. %s", how, remedy)
            session.exit_code = exit_code_for(interrupt)
        except Exception as error:
            _say(error, session)
            session.exit_code = exit_code_for(error)
        logger.info("%s", session.last_line)


def _say(error: Exception, session: Session) -> None:
    problem = error if isinstance(error, MsnmoError) else disk_error(error)
    if problem is not None:
        logger.error("%s", problem)
        logger.debug("Trace of the error", exc_info=True)
        return
    logger.error(
        "Unexpected error: %s: %s. Please report it with the trace in %s",
        type(error).__name__,
        " ".join(str(error).split()) or "no message",
        session.write_crash_file(),
    )


@contextmanager
def _signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the program as Ctrl-C does; SIGHUP stays ignored under nohup."""

    def end(number: int, _frame: FrameType | None) -> None:
        # A second signal must not break what the first one started: the record of the run.
        signal.signal(number, signal.SIG_IGN)
        raise Terminated(number)

    before = {}
    try:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, end)
    except ValueError:  # not in the main thread: whoever called this handles signals
        pass
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
