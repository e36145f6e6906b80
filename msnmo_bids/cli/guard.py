"""How every program ends: in words, with a last line and with the right exit code."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from msnmo_bids.errors import ExitCode, MsnmoError, disk_error
from msnmo_bids.run.session import Session, exit_code_for

logger = logging.getLogger(__name__)

RESUMES = "Run the same command again: what is complete is kept, it goes on from here"


class Terminated(KeyboardInterrupt):
    """The system asked the program to end (SIGTERM, SIGHUP)."""


@contextmanager
def guard(program: str, argv: Sequence[str] | None, *, remedy: str = RESUMES) -> Iterator[Session]:
    """Guard a program; every way in which it can end becomes an exit code and a last line.

    Parameters
    ----------
    program : str
        Its name, which begins the last line and names the log.
    argv : sequence of str or None
        Arguments without the program's name; those of the process when None.
    remedy : str, optional
        What to do after an interruption.

    Yields
    ------
    Session
        With the command line; its ``exit_code`` is right when the block has been left.
    """
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
