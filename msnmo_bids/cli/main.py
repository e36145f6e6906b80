"""The program: parse, check, run a level, and end with one line and the right exit code."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from msnmo_bids.cli.logs import console
from msnmo_bids.cli.parser import parse_args
from msnmo_bids.cli.resources import settle_user
from msnmo_bids.cli.session import DISK_ERRORS, Outcome, Session, exit_code_for
from msnmo_bids.errors import ExitCode, MsnmoError

logger = logging.getLogger(__name__)


class Terminated(KeyboardInterrupt):
    """The system asked the program to end (SIGTERM, SIGHUP)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process when not given.

    Returns
    -------
    int
        Exit code. The last line of the log says the same in words.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        options = parse_args(arguments)
    except SystemExit as end:
        code = ExitCode(int(end.code or 0))
        if code:
            _say_last(Outcome(exit_code=code).line)
        return int(code)
    with console(options.verbose) as handler, _signals():
        session = Session(handler, command=arguments)
        try:
            outcome = _run(options, session)
        finally:
            handler.progress = None
        logger.info("%s", outcome.line)
        session.close()
    return int(outcome.exit_code)


def _run(options: argparse.Namespace, session: Session) -> Outcome:
    """Run the level; every way in which it can end becomes an outcome."""
    try:
        settle_user(options.work_dir)
        return _level(options.analysis_level)(options, session)
    except MsnmoError as error:
        logger.error("%s", error)
        logger.debug("Trace of the error", exc_info=True)
        return session.outcome(exit_code_for(error))
    except KeyboardInterrupt as interrupt:
        how = "the system (SIGTERM)" if isinstance(interrupt, Terminated) else "Ctrl-C"
        logger.error(
            "Interrupted by %s. Run the same command again: complete scans are kept, "
            "it goes on from here",
            how,
        )
        return session.outcome(exit_code_for(interrupt))
    except Exception as error:
        return _unexpected(error, session)


def _unexpected(error: Exception, session: Session) -> Outcome:
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        where = f"{error.filename}: " if error.filename else ""
        logger.error("%s%s; %s and run again", where, error.strerror, DISK_ERRORS[error.errno])
        return session.outcome(exit_code_for(error))
    crash_file = session.write_crash_file()
    problem = " ".join(str(error).split()) or "no message"
    logger.error(
        "Unexpected error: %s: %s. Please report it with the trace in %s",
        type(error).__name__,
        problem,
        crash_file,
    )
    return session.outcome(exit_code_for(error))


def _level(name: str) -> Callable[[argparse.Namespace, Session], Outcome]:
    if name == "group":
        from msnmo_bids.cli.group import run_group

        return run_group
    from msnmo_bids.cli.participant import run_participant

    return run_participant


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


def _say_last(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
